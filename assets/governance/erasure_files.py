"""Erasure in files: cleaned copies made beside the files, which take their place once the tables are done.

Belongs here: rewriting Parquet, JSON-lines and text files, and the journal that makes files follow the transaction.
Does not belong here: what must go (erasure.py decides about each row and text) and the tables.

Nothing a reader sees changes before the transaction committed: cleaned copies wait under names of their own, listed in a
journal under the erasure's number. After a crash the next erasure looks whether that number was committed, and then
finishes the work or throws the copies away.
"""

import contextlib
import html
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resources.postgres import Connection

#: Ending of a cleaned copy that waits.
WAITING = ".forget"
JOURNAL = ".forget.json"
_TAG = re.compile(r"<[^>]*>")
_ROWS = 200
_TEXT_FILES = {".html", ".htm", ".md", ".txt", ".csv", ".json"}
_LINE_FILES = {".jsonl", ".ndjson"}
_HALF_WRITTEN = {".tmp", ".partial"}
_SIDE_BY_SIDE = "compare"  # assets/experiments/report.py
_LEASED_FOLDERS = {"evaluation", "experiments", "review"}  # nothing writes there while the leases are held

#: For rows of a file: which of them must go. The name is the dataset whose questions the file holds, or None.
RowJudge = Callable[[Sequence[dict[str, Any]], str | None], list[bool]]
#: For a whole text, or a line: whether it must go.
TextJudge = Callable[[Sequence[str]], list[bool]]


@dataclass
class CleanedFiles:
    """What waits to be put in place.

    Attributes:
        removed: rows removed, by file, relative to the artifacts folder; a whole file counts as one.
        changes: (file, its cleaned copy or None: the file goes), absolute.
        folders: whole folders that go.
    """

    removed: dict[str, int] = field(default_factory=dict)
    changes: list[tuple[Path, Path | None]] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)


def clean_files(
    artifacts: Path, judge_rows: RowJudge, judge_texts: TextJudge, *, drift_pages: TextJudge | None = None
) -> CleanedFiles:
    """Make a cleaned copy of every file under ``artifacts`` that holds something that must go.

    Parquet and JSON-lines files lose the rows concerned; other text files (reports) go whole, like what a killed run
    left half written. Drift pages hold numbers and shared terms only; they go where ``drift_pages`` says so.
    """
    cleaned = CleanedFiles()
    for path in sorted(artifacts.rglob("*")):
        relative = path.relative_to(artifacts)
        if not path.is_file() or path.name == JOURNAL or path.suffix == WAITING:
            continue
        judge = judge_texts
        if relative.parts[0] == "drift":
            if drift_pages is None:
                continue
            judge = drift_pages
        if path.suffix == ".parquet":
            count, copy = _clean_parquet(path, relative, judge_rows)
        elif path.suffix in _LINE_FILES:
            count, copy = _clean_lines(path, judge_rows, judge)
        elif relative.parts[0] == "experiments" and path.parent.name == _SIDE_BY_SIDE:
            count, copy = 1, None  # made again at will, so not searched for every wording of every answer
        elif path.suffix in _TEXT_FILES:
            count, copy = int(judge([_plain(path)])[0]), None
        elif path.suffix in _HALF_WRITTEN and relative.parts[0] in _LEASED_FOLDERS:
            count, copy = 1, None
        else:
            continue
        if count:
            cleaned.removed[relative.as_posix()] = count
            cleaned.changes.append((path, copy))
    return cleaned


def write_journal(artifacts: Path, erasure: int, cleaned: CleanedFiles) -> None:
    """Remember what has to be put in place if the erasure of this number commits."""
    artifacts.mkdir(parents=True, exist_ok=True)
    journal = artifacts / JOURNAL
    content = {
        "erasure": erasure,
        "changes": [[str(path), None if copy is None else str(copy)] for path, copy in cleaned.changes],
        "folders": [str(folder) for folder in cleaned.folders],
    }
    temporary = journal.with_name(f"{JOURNAL}.{os.getpid()}{WAITING}")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(journal)


def settle_journal(artifacts: Path, connection: Connection) -> int | None:
    """Finish what an erasure left: put its files in place if it was committed, else throw its copies away.

    Returns:
        The number of an erasure whose files were still waiting and are done now.
    """
    journal = artifacts / JOURNAL
    done: int | None = None
    if journal.exists():
        content = json.loads(journal.read_text(encoding="utf-8"))
        number = int(content["erasure"])
        if connection.execute("SELECT 1 FROM erasure WHERE erasure_id = %s", (number,)).fetchone():
            changes = [(Path(path), None if copy is None else Path(copy)) for path, copy in content["changes"]]
            put_in_place(CleanedFiles({}, changes, [Path(folder) for folder in content["folders"]]))
            done = number
        journal.unlink()
    for left in artifacts.rglob(f"*{WAITING}") if artifacts.exists() else ():
        left.unlink(missing_ok=True)
    return done


def put_in_place(cleaned: CleanedFiles) -> None:
    """Let the cleaned copies take their files' places; may be repeated."""
    for path, copy in cleaned.changes:
        if copy is None:
            path.unlink(missing_ok=True)
        elif copy.exists():
            copy.replace(path)
    for folder in cleaned.folders:
        shutil.rmtree(folder, ignore_errors=True)


def _copy_of(path: Path) -> Path:
    return path.with_name(f".{path.name}{WAITING}")


def _clean_parquet(path: Path, relative: Path, judge: RowJudge) -> tuple[int, Path | None]:
    """A file under ``evaluation/DATASET`` holds that dataset's questions; other files say their dataset in a column."""
    from resources.parquet_io import read_table, write_table

    table = read_table(path)
    dataset = relative.parts[1] if relative.parts[0] == "evaluation" and len(relative.parts) > 2 else None
    keep: list[dict[str, Any]] = []
    for batch in table.to_batches(max_chunksize=_ROWS):
        rows = batch.to_pylist()
        keep += [row for row, gone in zip(rows, judge(rows, dataset), strict=True) if not gone]
    removed = table.num_rows - len(keep)
    if not removed:
        return 0, None
    copy = _copy_of(path)
    write_table(copy, keep, table.schema)
    return removed, copy


def _clean_lines(path: Path, judge_rows: RowJudge, judge_texts: TextJudge) -> tuple[int, Path | None]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    keep: list[str] = []
    for start in range(0, len(lines), _ROWS):
        some = lines[start : start + _ROWS]
        keep += [line for line, gone in zip(some, _judge_lines(some, judge_rows, judge_texts), strict=True) if not gone]
    removed = len(lines) - len(keep)
    if not removed:
        return 0, None
    copy = _copy_of(path)
    with copy.open("w", encoding="utf-8") as file:
        file.writelines(keep)
        file.flush()
        os.fsync(file.fileno())
    return removed, copy


def _judge_lines(lines: Sequence[str], judge_rows: RowJudge, judge_texts: TextJudge) -> list[bool]:
    parsed: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines):
        with contextlib.suppress(json.JSONDecodeError):
            row = json.loads(line)
            if isinstance(row, dict):
                parsed[number] = row
    other = [number for number in range(len(lines)) if number not in parsed]
    gone = dict(zip(parsed, judge_rows(list(parsed.values()), None), strict=True))
    gone |= dict(zip(other, judge_texts([lines[number] for number in other]), strict=True))
    return [gone[number] for number in range(len(lines))]


def _plain(path: Path) -> str:
    text = path.read_text(encoding="utf-8", errors="replace")
    return html.unescape(_TAG.sub(" ", text)) if path.suffix in (".html", ".htm") else text
