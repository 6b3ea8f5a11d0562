"""Recognisers: text out of pictures, by plug-ins that a source switches on.

Belongs here: the interface of a recogniser, and finding the installed ones.
Does not belong here: any recogniser. What they are asked to read is decided in parsing.py.

A package offers one in the entry-point group ``genaiops.recognisers``; the name of the entry point is what a source
writes under ``recognise``. It runs in the parser process, under the same limits as any parser.
"""

from collections.abc import Collection, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import Protocol, runtime_checkable

from resources.errors import ConfigError

GROUP = "genaiops.recognisers"
MODALITIES = ("ocr", "caption")


@runtime_checkable
class Recogniser(Protocol):
    """What a plug-in offers.

    Attributes:
        name: for people.
        version: of everything that can change its output; it is part of the parser fingerprint.
        modalities: what it makes of a picture: ``ocr`` (the words in it), ``caption`` (words about it).
    """

    name: str
    version: str
    modalities: Collection[str]

    def recognise(self, data: bytes, media_type: str) -> Sequence[tuple[int, str]]:
        """Page number, from 1, and text for each page of a picture or a PDF; an empty list: it can do nothing with it."""
        ...


@cache
def recogniser(name: str) -> Recogniser:
    """An installed recogniser by the name of its entry point; a class is called once, without arguments.

    Raises:
        ConfigError: it is not installed, or is not one.
    """
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name not in found:
        installed = ", ".join(sorted(found)) or "none"
        raise ConfigError(f"recogniser {name!r} is not installed (installed: {installed})")
    loaded = found[name].load()
    made = loaded() if isinstance(loaded, type) else loaded
    if not isinstance(made, Recogniser) or not set(made.modalities) <= set(MODALITIES) or not made.modalities:
        raise ConfigError(
            f"recogniser {name!r} must have name, version, modalities (of {', '.join(MODALITIES)}) and recognise()"
        )
    return made


def describe(names: Sequence[str]) -> list[list[object]]:
    """What of the recognisers goes into a fingerprint.

    Raises:
        ConfigError: one is not installed.
    """
    return [
        [name, made.name, str(made.version), sorted(made.modalities)] for name in names for made in [recogniser(name)]
    ]
