"""The handbook of data/corpus in the tables of a test database, and a dataset that makes questions from it."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from assets.corpus.headings import scan
from assets.corpus.text import normalise
from assets.evaluation.synthesis import store
from assets.evaluation.synthesis.generating import Generated, generate
from assets.evaluation.synthesis.store import StoredDraft
from resources.platform import Platform
from tests.evaluation_support import dataset_files, put_document

HANDBOOK = Path(__file__).resolve().parents[1] / "data" / "corpus" / "handbook"
KINDS = {"fact": 12, "multi_hop": 2, "comparison": 2, "unanswerable": 8, "paraphrase": 4, "noisy": 4}
MakePlatform = Callable[..., Platform]


def synthesis_files(*lines: dict[str, Any], header: dict[str, Any] | None = None, **synthetic: Any) -> dict[str, Any]:
    """Files for ``make_platform``: dataset ``qa`` over source ``docs``, which makes questions."""
    return dataset_files(*lines, synthetic={"kinds": KINDS, **synthetic}, **(header or {}))


def load_handbook(platform: Platform, folders: tuple[str, ...] = ("",)) -> dict[str, int]:
    """Put the Markdown documents of the handbook into the corpus; returns their ids by path."""
    found: dict[str, int] = {}
    with platform.database.connect() as connection:
        for path in sorted(HANDBOOK.rglob("*.md")):
            name = path.relative_to(HANDBOOK).as_posix()
            if name.startswith(folders):
                text = normalise(path.read_text(encoding="utf-8"))
                headings = [asdict(heading) for heading in scan(text).headings]
                found[name] = put_document(connection, name, text, headings=headings)
    return found


def run(platform: Platform, *, run_id: str = "run") -> Generated:
    """Generate for ``qa``."""
    with platform.database.lease("dataset:qa", run_id) as lease:
        return generate(platform, "qa", run_id=run_id, lease=lease)


def drafts(platform: Platform, *states: store.State) -> list[StoredDraft]:
    """The drafts of ``qa`` in some states, all by default."""
    with platform.database.connect() as connection:
        return store.read(connection, "qa", states=states or None)


def as_bytes(platform: Platform) -> bytes:
    """What was made of it, without ids and times of the database: lines, states and reasons in the order of their making."""
    rows = [[one.line, one.state, one.reason, one.scores] for one in drafts(platform)]
    return json.dumps(rows, ensure_ascii=False, sort_keys=True).encode()
