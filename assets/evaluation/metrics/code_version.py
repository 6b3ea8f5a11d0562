"""Code version: one hash over everything of this project that a function computes with.

Belongs here: finding the functions, classes and constants a function uses, directly or not, and hashing their syntax.
Does not belong here: what the hash is a key of (catalogue.py).

Comments, docstrings, formatting and whatever the function does not use leave the hash as it is; any edit of what it
uses changes it, without a number that somebody has to remember to raise. Other packages count by their version.
"""

import ast
import hashlib
import re
import sys
from collections.abc import Mapping
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

#: The packages whose code is read; everything else is a library.
_OWN = ("assets", "resources")


def code_version(*used: Any, libraries: tuple[str, ...] = ()) -> str:
    """Hash of the syntax of functions and of all they use of this project, and of the versions of libraries."""
    parts: dict[str, str] = {name: version(name) for name in libraries}
    for number, one in enumerate(used):
        _visit(f"used {number}", one, parts)
    text = "\n".join(f"{key}\t{part}" for key, part in sorted(parts.items()))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _visit(place: str, value: Any, parts: dict[str, str]) -> None:
    """Add a value that is reached under ``place``, and what it uses in turn."""
    value = getattr(value, "__wrapped__", value)  # a cached function
    if isinstance(value, partial):
        _visit(f"{place} of", value.func, parts)
        for number, item in enumerate((*value.args, *(item for _, item in sorted(value.keywords.items())))):
            _visit(f"{place}({number})", item, parts)
    elif isinstance(value, FunctionType | type):
        if value.__module__.split(".")[0] in _OWN:
            _visit_code(value, parts)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _visit(f"{place}[{key!r}]", item, parts)
    elif isinstance(value, list | tuple) and any(callable(item) for item in value):
        for number, item in enumerate(value):
            _visit(f"{place}[{number}]", item, parts)
    elif value is None or isinstance(value, bool | int | float | str | bytes | list | tuple):
        parts[place] = repr(value)
    elif isinstance(value, set | frozenset):
        parts[place] = repr(sorted(map(repr, value)))
    elif isinstance(value, re.Pattern):
        parts[place] = repr((value.pattern, value.flags))


def _visit_code(value: Any, parts: dict[str, str]) -> None:
    key = f"{value.__module__}:{value.__qualname__}"
    if key in parts:
        return
    parts[key] = _syntax(value.__module__).get(value.__qualname__, "")
    members = [value] if isinstance(value, FunctionType) else [*vars(value).values()]
    for member in members:
        for inside in ("__func__", "fget", "func", "__wrapped__"):  # class methods, properties, cached ones
            member = getattr(member, inside, member)
        code = getattr(member, "__code__", None)
        if code is None or not hasattr(member, "__globals__"):
            continue
        names = _names(code)
        for name in sorted(names):
            found = member.__globals__.get(name)
            if isinstance(found, ModuleType):
                if found.__name__.split(".")[0] in _OWN:
                    for attribute in sorted(names & set(vars(found))):
                        _visit(f"{found.__name__}:{attribute}", getattr(found, attribute), parts)
            elif found is not None:
                _visit(f"{member.__module__}:{name}", found, parts)


def _names(code: CodeType) -> set[str]:
    """Names a function looks up, in functions inside it as well."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*(_names(one) for one in inner))


@cache
def _syntax(module: str) -> dict[str, str]:
    """The functions and classes of a module by qualified name, as syntax without docstrings."""
    file = getattr(sys.modules[module], "__file__", None)
    if not file or not Path(file).is_file():
        return {}
    found: dict[str, str] = {}

    def walk(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                name = f"{prefix}{child.name}"
                if ast.get_docstring(child, clean=False) is not None:
                    child.body = child.body[1:]
                inside = ".<locals>." if isinstance(child, ast.FunctionDef) else "."
                walk(child, name + inside)
                found[name] = ast.dump(child, annotate_fields=False)
            else:
                walk(child, prefix)

    walk(ast.parse(Path(file).read_text(encoding="utf-8")), "")
    return found
