"""Task output: what a model said, read as a label with probabilities or as the fields of an object.

Belongs here: the forms that are understood. Does not belong here: asking for them (prompts), and scoring (assets/evaluation).

An output in no known form is unreadable, and that is a result: it is counted and scored as the worst answer, never guessed
at and never left out. So nothing is searched for inside sentences: "this is not a refund" must not be read as ``refund``.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

#: Covers what is read of which text.
CODE_VERSION = "1"
#: How far probabilities may be from adding up to 1, by rounding; they are then scaled.
_ROUNDING = 0.02

_FENCE = re.compile(r"^```[\w-]*\s*\n(.*?)\n?\s*```$", re.DOTALL)
_CUE = re.compile(r"^[\w ]{1,30}:\s+")
_QUOTES = " \t\"'`“”‘’.*_"


def read_label(text: str, labels: Sequence[str]) -> tuple[str, dict[str, float] | None] | None:
    """The label an output names, as ``labels`` spells it, and its probabilities by label; None: unreadable.

    Understood are the label alone, also in quotes, with a full stop, in other case, after a cue such as ``Label:``, and with
    further lines below it; and a JSON object, alone or in a code block, with ``label``, ``probabilities`` or both. The
    probabilities are left out when one is negative, is of no known label, or when they do not add up to 1.
    """
    known = {label.casefold(): label for label in labels}
    said = _unfenced(text)
    value = _json(said)
    if isinstance(value, Mapping):
        return _labelled(value, known)
    if isinstance(value, str):
        said = value
    first = next((line.strip() for line in said.splitlines() if line.strip()), "")
    for candidate in (said, first):
        for plain in (candidate, _CUE.sub("", candidate, count=1)):
            found = known.get(plain.strip().casefold()) or known.get(plain.strip(_QUOTES).casefold())
            if found is not None:
                return found, None
    return None


def _labelled(value: Mapping[str, Any], known: Mapping[str, str]) -> tuple[str, dict[str, float] | None] | None:
    keys = {str(key).casefold(): item for key, item in value.items()}
    probabilities = _probabilities(keys.get("probabilities"), known)
    named = keys.get("label")
    if isinstance(named, str):
        label = known.get(named.strip(_QUOTES).casefold())
        return None if label is None else (label, probabilities)
    if named is not None or probabilities is None:
        return None
    return max(probabilities, key=lambda label: probabilities[label]), probabilities


def _probabilities(value: Any, known: Mapping[str, str]) -> dict[str, float] | None:
    """One for every label, in their order, adding up to 1; a label that is not named has 0."""
    if not isinstance(value, Mapping) or not value:
        return None
    found = dict.fromkeys(known.values(), 0.0)
    for name, number in value.items():
        label = known.get(str(name).strip().casefold())
        if label is None or isinstance(number, bool) or not isinstance(number, int | float):
            return None
        if not math.isfinite(number) or number < 0:
            return None
        found[label] = float(number)
    total = math.fsum(found.values())
    if abs(total - 1) > _ROUNDING:
        return None
    return {label: number / total for label, number in found.items()}


def read_fields(text: str, fields: Sequence[str]) -> dict[str, Any] | None:
    """The object an output holds, by the names of ``fields``; None: unreadable.

    Understood is a JSON object, alone, in a code block, or with words before and after it. A field it does not have is None;
    a key that is no field is left out. An object without any of the fields is unreadable.
    """
    said = _unfenced(text)
    value = _json(said)
    if not isinstance(value, Mapping):
        begin, end = said.find("{"), said.rfind("}")
        value = _json(said[begin : end + 1]) if 0 <= begin < end else None
    if not isinstance(value, Mapping):
        return None
    keys = {str(key).casefold(): item for key, item in value.items()}
    if not any(field.casefold() in keys for field in fields):
        return None
    return {field: keys.get(field.casefold()) for field in fields}


def field_values(value: Any) -> tuple[str, ...]:
    """What a field holds, to be compared: each value as text, without regard to case and spacing; empty for none.

    A number equals the text of it; ``12.0`` and ``12`` are the same. An object inside a field counts as one value.
    """
    if value is None:
        return ()
    if isinstance(value, list | tuple):
        return tuple(one for item in value for one in field_values(item))
    if isinstance(value, bool):
        return (str(value).lower(),)
    if isinstance(value, int | float):
        return (f"{value:.12g}",) if math.isfinite(value) else ()
    if isinstance(value, Mapping):
        return (json.dumps(value, sort_keys=True, ensure_ascii=False).casefold(),)
    plain = " ".join(str(value).split()).casefold()
    if re.fullmatch(r"[+-]?\d+(?:\.\d+)?", plain) and not re.match(r"[+-]?0\d", plain):
        return (f"{float(plain):.12g}",) if len(plain) < 16 else (plain,)
    return (plain,) if plain else ()


def _unfenced(text: str) -> str:
    said = text.strip()
    fence = _FENCE.match(said)
    return fence[1].strip() if fence else said


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
