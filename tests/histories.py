"""Replaying the real edit histories of ../shared/data as changes of a folder."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Step:
    """One commit: its number and its changes."""

    number: int
    changes: list[dict[str, Any]]
    files: Path


def start(history: Path, folder: Path) -> list[Step]:
    """Copy the base tree into ``folder`` and return the steps in order."""
    shutil.copytree(history / "base", folder, dirs_exist_ok=True)
    steps = []
    for path in sorted((history / "steps").iterdir()):
        entry = json.loads((path / "changes.json").read_text(encoding="utf-8"))
        steps.append(Step(entry["step"], entry["changes"], path / "files"))
    return steps


def apply(step: Step, folder: Path) -> None:
    """Apply one step to ``folder``: deletions and old names first, then the new contents."""
    for change in step.changes:
        gone = (
            change["path"] if change["op"] == "delete" else change.get("old_path") if change["op"] == "rename" else None
        )
        if gone:
            (folder / gone).unlink(missing_ok=True)
    for change in step.changes:
        if change["op"] != "delete":
            target = folder / change["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(step.files / change["path"], target)
