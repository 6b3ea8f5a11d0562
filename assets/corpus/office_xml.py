"""Office XML: the parts of an Office Open XML package and how they refer to each other.

Belongs here: reading a part as a tree, relationships, and the core properties.
Does not belong here: what the parts mean (word.py, workbook.py).
"""

import posixpath
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from assets.corpus.archives import read_entry
from assets.corpus.failures import ParseFailure

_PROPERTIES = {
    "title": "title", "creator": "author", "language": "language", "created": "created_at", "modified": "modified_at",
    "subject": "subject",
}  # fmt: skip


@lru_cache(maxsize=10_000)
def _local(tag: object) -> str:
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def local(element: Element) -> str:
    """The name of an element without its namespace: strict and transitional files differ in that alone."""
    return _local(element.tag)


def attribute(element: Element | None, name: str) -> str | None:
    """An attribute by its name without namespace."""
    if element is None:
        return None
    for key, value in element.attrib.items():
        if _local(key) == name:
            return value
    return None


def child(element: Element | None, *names: str) -> Element | None:
    """The element that a path of names leads to, or None."""
    for name in names:
        if element is None:
            return None
        for item in element:
            if _local(item.tag) == name:
                element = item
                break
        else:
            return None
    return element


def children(element: Element | None, name: str) -> Iterator[Element]:
    """All direct children of a name."""
    return (item for item in (element if element is not None else ()) if local(item) == name)


def read_part(archive: zipfile.ZipFile, name: str) -> Element | None:
    """A part as a tree, or None where there is none.

    Raises:
        ParseFailure: ``damaged``: it is no well-formed XML, or has a document type.
    """
    data = read_entry(archive, name)
    if data is None:
        return None
    if b"<!DOCTYPE" in data[:2_048] or b"<!ENTITY" in data[:65_536]:
        raise ParseFailure("damaged", f"{posixpath.basename(name)} declares entities, which office files do not")
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ParseFailure("damaged", f"{posixpath.basename(name)} inside is no readable XML") from error


def related(archive: zipfile.ZipFile, part: str) -> dict[str, tuple[str, str]]:
    """Relationship id to kind (the last word of its type) and path of its target; external targets are left out."""
    folder, name = posixpath.split(part)
    tree = read_part(archive, posixpath.join(folder, "_rels", f"{name}.rels"))
    found = {}
    for item in tree if tree is not None else ():
        identity, kind, target = (attribute(item, key) for key in ("Id", "Type", "Target"))
        if identity and kind and target and attribute(item, "TargetMode") != "External":
            path = posixpath.normpath(target.lstrip("/") if target.startswith("/") else posixpath.join(folder, target))
            found[identity] = (kind.rpartition("/")[2], path)
    return found


def part_of_kind(relations: dict[str, tuple[str, str]], kind: str) -> str | None:
    """The first related part of a kind."""
    return next((path for found, path in relations.values() if found == kind), None)


def core_properties(archive: zipfile.ZipFile) -> dict[str, Any]:
    """Title, author, language, times of creation and change, as the package states them."""
    try:
        path = part_of_kind(related(archive, ""), "core-properties") or "docProps/core.xml"
        tree = read_part(archive, path)
    except ParseFailure:
        return {}  # the text can be read without
    facts = {}
    for item in tree if tree is not None else ():
        name = _PROPERTIES.get(local(item))
        if name and item.text and item.text.strip():
            facts[name] = item.text.strip()
    return facts
