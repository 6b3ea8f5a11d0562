"""Shared by the benchmarks: running Python in a fresh process, and printing a table of ratios."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def fresh_process(
    code: str, *arguments: str, environment: dict[str, str] | None = None, timeout: float = 500
) -> dict[str, Any]:
    """Run Python code in a new process and return the JSON object its last line of output holds.

    Byte code is cached in a folder of this user, as it is after a real installation.
    """
    cache = Path(tempfile.gettempdir()) / f"genaiops-benchmark-bytecode-{os.getuid()}"
    variables = {
        **os.environ,
        "PYTHONPYCACHEPREFIX": str(cache),
        "GX_ANALYTICS_ENABLED": "false",
        **(environment or {}),
    }
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; numbers with fractions get three significant places."""
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    print(f"\n\n{title}")
    for row in cells:
        print(
            "  "
            + "  ".join(
                cell.ljust(width) if not i else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
        )


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
