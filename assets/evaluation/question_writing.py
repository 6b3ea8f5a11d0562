"""Adding lines to question files that are configuration: the user's, under version control.

Belongs here: the atomic write. Does not belong here: what is written (feedback.py, synthesis/review.py), reading
(question_files.py).
"""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resources.errors import PermanentError


def append_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Add questions to a JSON-lines file; a reader sees the old file or the new one.

    Raises:
        PermanentError: the folder cannot be written.
    """
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    if before and not before.endswith("\n"):
        before += "\n"
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(before)
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except PermissionError as error:
        raise PermanentError(f"{path.parent} cannot be written; run this where the configuration is edited") from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)  # renamed, unless something went wrong
