"""Labels: what people said of answers, in the form every judge is compared with.

Belongs here: the shape of a label file, reading it, and bringing public data sets to it.
Does not belong here: comparing (calibration.py), scoring the labelled answers (calibrating.py).

One JSON object a line: ``id``; ``group`` (what is not independent, such as all answers to one question; the id by
default); ``question``; ``context`` (passages); ``answer``; ``reference``; ``labels``, one number for each person.
A label is 0 to 1 (true and false count as 1 and 0), or, with ``answer2``, -1 (the first is better) to 1 (the second).
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resources.errors import PermanentError

_KEYS = frozenset({"id", "group", "question", "context", "answer", "answer2", "reference", "labels"})


@dataclass(frozen=True)
class Label:
    """One answer, or a pair of them, with what people said.

    Attributes:
        group: of items that are no independent observations.
        labels: one for each person, 0 to 1; -1 to 1 for a pair.
    """

    item_id: str
    group: str
    question: str
    context: tuple[str, ...]
    answer: str
    labels: tuple[float, ...]
    reference: str | None = None
    answer2: str | None = None

    @property
    def mean(self) -> float:
        """What people say together."""
        return math.fsum(self.labels) / len(self.labels)


@dataclass(frozen=True)
class Labels:
    """A label file in its order."""

    items: tuple[Label, ...]

    @property
    def pairs(self) -> bool:
        """Whether two answers are compared in each item."""
        return self.items[0].answer2 is not None


def read_labels(path: Path) -> Labels:
    """Read a label file.

    Raises:
        PermanentError: it is missing or wrong; naming file, line, key and remedy, quoting no text of it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise PermanentError(
            f"{path}: there is no such label file; write one (docs/judges.md), or make it with genaiops judges import"
        ) from None
    except UnicodeDecodeError as error:
        raise PermanentError(f"{path}: not UTF-8 text at byte {error.start}; save the file as UTF-8") from None
    items: list[Label] = []
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        item = _read(f"{path}: line {number}", line)
        if item.item_id in seen:
            raise PermanentError(f"{path}: line {number}: id: used twice; ids must be unique")
        if items and (item.answer2 is None) != (items[0].answer2 is None):
            raise PermanentError(f"{path}: line {number}: answer2: either every item is a pair or none")
        seen.add(item.item_id)
        items.append(item)
    if not items:
        raise PermanentError(f"{path}: it holds no label; write one JSON object a line")
    return Labels(tuple(items))


def _read(where: str, line: str) -> Label:
    try:
        raw = json.loads(line)
    except json.JSONDecodeError as error:
        raise PermanentError(f"{where}: no JSON (character {error.pos}); write one object a line") from None
    if not isinstance(raw, dict):
        raise PermanentError(f"{where}: expected an object, found {type(raw).__name__}")
    if unknown := set(raw) - _KEYS:
        raise PermanentError(f"{where}: {len(unknown)} unknown key(s); allowed: {', '.join(sorted(_KEYS))}")
    if not isinstance(raw.get("id"), str) or not raw["id"].strip():
        raise PermanentError(f"{where}: id: a text that is not empty is required")
    if not isinstance(raw.get("answer"), str):
        raise PermanentError(f"{where}: answer: a text is required; the empty one is an answer too")
    for key in ("group", "question", "answer2", "reference"):
        if raw.get(key) is not None and not isinstance(raw[key], str):
            raise PermanentError(f"{where}: {key}: expected a text, found {type(raw[key]).__name__}")
    context = raw.get("context") or []
    context = [context] if isinstance(context, str) else context
    if not isinstance(context, list) or not all(isinstance(one, str) for one in context):
        raise PermanentError(f"{where}: context: expected a list of texts")
    lowest = -1.0 if raw.get("answer2") is not None else 0.0
    labels = raw.get("labels")
    if not isinstance(labels, list) or not labels or not all(_is_label(one, lowest) for one in labels):
        raise PermanentError(f"{where}: labels: expected a list of numbers from {lowest:g} to 1, one for each person")
    return Label(
        item_id=raw["id"],
        group=raw.get("group") or raw["id"],
        question=raw.get("question") or "",
        context=tuple(context),
        answer=raw["answer"],
        labels=tuple(map(float, labels)),
        reference=raw.get("reference"),
        answer2=raw.get("answer2"),
    )


def _is_label(value: Any, lowest: float) -> bool:
    return isinstance(value, bool | int | float) and math.isfinite(value) and lowest <= value <= 1


# --- importers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Imported:
    """What an import wrote.

    Attributes:
        skipped: items that nobody labelled.
    """

    items: int
    skipped: int


def _begin(row: Mapping[str, Any]) -> dict[str, Any] | None:
    if row["grounded"] is None:  # generic answers, which say nothing that could be grounded
        return None
    return {
        "id": row["id"], "group": row["group"], "question": row["question"], "context": [row["context"]],
        "answer": row["answer"], "labels": [float(row["grounded"])],
    }  # fmt: skip


def _ragchecker(row: Mapping[str, Any]) -> dict[str, Any] | None:
    return {
        "id": row["id"], "group": f"{row['dataset']}-{row['query_id']}", "question": row["question"], "context": [],
        "answer": row["answer1"], "answer2": row["answer2"], "reference": row["reference_answer"],
        "labels": [label["overall"] / 2 for label in row["labels"]],
    }  # fmt: skip


#: Public data sets, by the name the command takes.
IMPORTERS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any] | None]] = {
    "begin": _begin,
    "ragchecker": _ragchecker,
}


def import_labels(kind: str, source: Path, target: Path) -> Imported:
    """Write a public data set (``examples.jsonl``, or the folder it is in) as a label file, whole or not at all.

    Raises:
        PermanentError: there is no such kind or file, or it is not of that kind; naming line and key.
    """
    if kind not in IMPORTERS:
        raise PermanentError(f"there is no importer {kind!r}; allowed: {', '.join(IMPORTERS)}")
    file = source / "examples.jsonl" if source.is_dir() else source
    skipped = 0

    def converted() -> Iterator[str]:
        nonlocal skipped
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            try:
                item = IMPORTERS[kind](json.loads(line))
            except (KeyError, TypeError, ValueError) as error:
                what = f"no key {error}" if isinstance(error, KeyError) else type(error).__name__
                raise PermanentError(f"{file}: line {number}: not of kind {kind} ({what})") from None
            if item is None:
                skipped += 1
            else:
                yield json.dumps(item, ensure_ascii=False)

    try:
        lines = list(converted())
    except FileNotFoundError:
        raise PermanentError(f"{file}: there is no such file") from None
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    partial.replace(target)
    return Imported(len(lines), skipped)


def file_hash(path: Path) -> str:
    """Hash of a label file as it is; empty when there is none."""
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() if path.is_file() else ""
