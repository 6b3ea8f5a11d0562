"""Config reader: YAML files into models, and errors that say which key of which file to change, and how.

Belongs here: reading and explaining. Does not belong here: the shape of any file (*_config.py).
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from resources.errors import ConfigError
from resources.source_config import SourceConfig
from resources.sources.registry import settings_model


def read_file(model: Any, path: Path) -> Any:
    """A YAML file as a model.

    Raises:
        ConfigError: it is missing, no YAML, or does not fit the model; naming file, key and value.
    """
    try:
        raw = _parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: the file is missing") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}: not valid YAML{where}: {getattr(error, 'problem', error)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text at byte {error.start}; save the file as UTF-8") from error
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{path}: expected keys and values at the top, found {type(raw).__name__}")
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(path, model, raw, detail) for detail in error.errors())) from error


def read_folder(
    model: Any, folder: Path, *, skip: Callable[[Path], bool] = lambda path: False
) -> list[tuple[Path, Any]]:
    """Every YAML file of a folder as a model with a ``name``, in the order of the file names.

    Args:
        skip: files that are something else.

    Raises:
        ConfigError: as ``read_file``; or a name is used twice.
    """
    items: list[tuple[Path, Any]] = []
    for path in sorted(folder.glob("*.yaml")):
        if skip(path):
            continue
        item = read_file(model, path)
        for earlier, other in items:
            if other.name == item.name:
                raise ConfigError(f"{path}: name: {item.name!r} is already used by {earlier}; names must be unique")
        items.append((path, item))
    return items


def holds_list(path: Path) -> bool:
    """Whether a YAML file holds a list at its top, told by its first line with content, without reading on."""
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        for line in lines:
            if line.strip() and not line.lstrip().startswith(("#", "---", "%")):
                return line.startswith("-")
    return False


def check_reference(path: Path, key: str, value: str, allowed: Iterable[str], what: str) -> None:
    """Make sure that a name is one of those allowed.

    Raises:
        ConfigError: naming the file, the key, what is allowed and the nearest valid name.
    """
    names = sorted(allowed)
    if value not in names:
        raise ConfigError(
            f"{path}: {key}: there is no {what} named {value!r}; allowed: {', '.join(names)}.{_nearest(value, names)}"
        )


def _nearest(value: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(value, list(names), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def _parse_yaml(text: str) -> Any:
    """Parse with the C parser where PyYAML has it, since every Dagster process reads all files when it starts."""
    try:
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        return yaml.safe_load(text)  # its errors name the place more exactly


def _explain(path: Path, model: type[BaseModel], raw: Any, detail: Any) -> str:
    location = detail["loc"]
    key = ".".join(_keys(raw, location, detail["type"])) or "(top)"
    if detail["type"] == "extra_forbidden":
        allowed = _fields_at(model, location[:-1], raw)
        nearest = _nearest(str(location[-1]), allowed)
        return f"{path}: {key}: unknown key; allowed: {', '.join(allowed)}.{nearest}"
    if detail["type"] == "missing":
        return f"{path}: {key}: this key is required"
    if detail["type"] == "union_tag_invalid":
        tag, tags = detail["ctx"]["tag"], detail["ctx"]["expected_tags"].replace("'", "")
        return f"{path}: {key}.kind: there is no kind {tag!r}; allowed: {tags}.{_nearest(tag, tags.split(', '))}"
    value = detail.get("input")
    allowed_values = str(detail.get("ctx", {}).get("expected", ""))
    nearest = (
        _nearest(str(value), [part.strip(" '") for part in allowed_values.replace(" or ", ",").split(",")])
        if allowed_values
        else ""
    )
    message = detail["msg"].removeprefix("Value error, ")
    shown = f" (value {value!r})" if isinstance(value, str | int | float | bool) or value is None else ""
    return f"{path}: {key}: {message}{shown}.{nearest}"


def _keys(raw: Any, location: tuple[Any, ...], kind: str) -> list[str]:
    """The keys of the file that lead to ``location``, which also names the member of a union that was chosen."""
    keys = []
    for number, part in enumerate(location):
        inside = (isinstance(raw, Mapping) and part in raw) or (isinstance(raw, list) and isinstance(part, int))
        if inside or (kind == "missing" and number == len(location) - 1):
            keys.append(str(part))
            raw = raw[part] if inside else None
    return keys


def _fields_at(model: Any, location: tuple[Any, ...], raw: Any) -> list[str]:
    """Field names of the model that stands at ``location`` inside ``model``; a source's model depends on its kind."""
    annotation: Any = None
    for part in location:
        if isinstance(part, str) and hasattr(model, "model_fields") and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            model = _inner_model(annotation) or model
        elif isinstance(part, str) and annotation is not None:
            model = _member(annotation, part) or model
        if isinstance(raw, Mapping):
            raw = raw.get(part)
        else:
            raw = raw[part] if isinstance(raw, list) and isinstance(part, int) else None
        if model is SourceConfig and isinstance(raw, Mapping):
            model = settings_model(raw)
    return sorted(model.model_fields) if hasattr(model, "model_fields") else []


def _member(annotation: Any, tag: str) -> Any:
    """The model of a union whose ``kind`` is ``tag``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get("kind")
        return annotation if field is not None and field.default == tag else None
    return next((found for item in getattr(annotation, "__args__", ()) if (found := _member(item, tag))), None)


def _inner_model(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if found := _inner_model(argument):
            return found
    return None
