"""Chunkers written by users: functions found among the entry points of installed packages.

Belongs here: finding a function by its name, and the identity of its code.
Does not belong here: calling it and judging what it returns (assets/chunks/custom.py).
"""

import difflib
import hashlib
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from resources.errors import ConfigError

GROUP = "genaiops.chunkers"

#: What a plugin is: ``function(text, parameters)`` returns the (start, end) of its chunks, in order.
ChunkerFunction = Callable[[str, dict[str, Any]], Iterable[tuple[int, int]]]


def find_function(name: str) -> ChunkerFunction:
    """The function an installed package offers under ``name``.

    Raises:
        ConfigError: no package offers it, two packages do, or it cannot be imported.
    """
    point = _entry_point(name)
    try:
        function = point.load()
    except Exception as error:
        raise ConfigError(
            f"chunker function {name!r} ({point.value}, {_package(point)}) cannot be imported: {type(error).__name__}"
        ) from error
    if not callable(function):
        raise ConfigError(f"chunker function {name!r} ({point.value}, {_package(point)}) is not a function")
    return cast(ChunkerFunction, function)


def function_identity(name: str) -> dict[str, str]:
    """What makes the code of a function the same: package, its version, place, and the hash of the file it stands in.

    The hash finds an edit that left the version alone. What that file imports from elsewhere is covered by the version
    only.

    Raises:
        ConfigError: no package offers the function, or two do.
    """
    point = _entry_point(name)
    try:
        spec = find_spec(point.module)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise ConfigError(f"chunker function {name!r} ({point.value}, {_package(point)}): there is no such module")
    source = Path(spec.origin) if spec.origin else None
    content = source.read_bytes() if source is not None and source.is_file() else b""
    return {
        "value": point.value,
        "package": _package(point),
        "file": hashlib.blake2b(content, digest_size=16).hexdigest(),
    }


def _entry_point(name: str) -> EntryPoint:
    known = entry_points(group=GROUP)
    found = {(point.value, _package(point)): point for point in known if point.name == name}
    if not found:
        names = sorted({point.name for point in known})
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        raise ConfigError(
            f"no installed package offers a chunker function {name!r} (entry points of group {GROUP!r}); "
            f"installed: {', '.join(names) or 'none'}.{f' Did you mean {near[0]!r}?' if near else ''}"
        )
    if len(found) > 1:
        where = ", ".join(sorted(f"{value} of {package}" for value, package in found))
        raise ConfigError(f"chunker function {name!r} is offered more than once: {where}; uninstall or rename one")
    return next(iter(found.values()))


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "no package"
