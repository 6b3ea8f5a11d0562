"""Checks on chunks: do they reproduce their texts, within their size, for every document?

Belongs here: the outcomes of the checks of chunks; all blocking. New chunks are judged before they are written.
Does not belong here: the measurements (chunking.py) and cutting (chunkers.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from assets.chunks import enrichment_checks
from assets.chunks.chunking import ChunkBatch, ChunkWork
from assets.chunks.problems import (
    coverage_problems,
    heading_problems,
    overlap_problems,
    parent_problems,
    size_problems,
)
from assets.outcomes import CheckOutcome, great_expectations_outcome
from resources.chunker_config import is_partial

if TYPE_CHECKING:
    import pandas as pd

CHECKS = {
    "chunks_suite": "Great Expectations on the new chunks: ranges, hashes, ordinals, tokens.",
    "coverage": "New chunks reproduce exactly the text they claim, and leave out nothing but white space.",
    "size_limits": "No new chunk is larger than its chunker allows.",
    "overlap": "New chunks follow one another, and share no more than their chunker allows.",
    "heading_paths": "Every new chunk carries the titles of a section it is in.",
    "parents": "Every new chunk of a chunker with parents is inside one that is not too large; no other chunk has one.",
    "chunk_sets_complete": "Every live document has its chunks, under every chunker its indexes use.",
    **enrichment_checks.CHECKS,
}

#: Problems named in the details of a check.
SHOWN = 20


@dataclass
class ChunkGate:
    """Judges batches of new chunks before they are written, and remembers what it saw.

    Attributes:
        suites: one outcome of the suite per batch.
        problems: what was found, by name of check.
        chunks: how many were judged; texts likewise.
    """

    suites: list[CheckOutcome] = field(default_factory=list)
    problems: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {name: [] for name in _MEASURED})
    texts: int = 0
    chunks: int = 0

    def __call__(self, batch: ChunkBatch) -> bool:
        """Whether the batch may be written."""
        good = True
        for item in batch.texts:
            for check, (measure, _) in _MEASURED.items():
                for problem in measure(item.text, item.chunks, batch.chunker):
                    self.problems[check].append({"text": item.text_hash.hex(), "problem": problem})
                    good = False
        self.texts += len(batch.texts)
        self.chunks += sum(len(item.chunks) for item in batch.texts)
        suite = validate_chunks(chunks_frame(batch), may_be_empty=is_partial(batch.chunker))
        self.suites.append(suite)
        return suite.passed and good


#: What is measured for each check, and what is expected.
_MEASURED = {
    "coverage": (coverage_problems, "every character that is not white space, unchanged"),
    "size_limits": (size_problems, "no chunk above the size of its chunker"),
    "overlap": (overlap_problems, "chunks in order, sharing no more than configured"),
    "heading_paths": (heading_problems, "the titles of a section the chunk is in"),
    "parents": (parent_problems, "each chunk inside its parent, if its chunker makes parents"),
}


def chunk_checks(work: ChunkWork, gate: ChunkGate) -> list[CheckOutcome]:
    """All declared checks, in order."""
    return [
        chunks_suite(work, gate.suites),
        *(_problems(name, expected, gate.problems[name], work, gate) for name, (_, expected) in _MEASURED.items()),
        chunk_sets_complete(work),
        *enrichment_checks.outcomes(work),
    ]


def chunks_suite(work: ChunkWork, suites: Sequence[CheckOutcome]) -> CheckOutcome:
    """The suite over all batches: the first failure, or the last pass."""
    if not suites:
        return _standing("chunks_suite", work)
    return next((suite for suite in suites if not suite.passed), suites[-1])


def chunks_frame(batch: ChunkBatch) -> "pd.DataFrame":
    """One row per new chunk: id (text and ordinal), ordinal, start, end, characters, tokens, chunk_hash."""
    import pandas as pd

    pairs = [(item, chunk) for item in batch.texts for chunk in item.chunks]
    return pd.DataFrame(
        {
            "id": pd.array([f"{item.text_hash.hex()}/{chunk.ordinal}" for item, chunk in pairs], dtype="object"),
            "ordinal": [chunk.ordinal for _, chunk in pairs],
            "start": [chunk.start for _, chunk in pairs],
            "end": [chunk.end for _, chunk in pairs],
            "characters": [chunk.end - chunk.start for _, chunk in pairs],
            "tokens": [chunk.tokens for _, chunk in pairs],
            "chunk_hash": pd.array([chunk.hash.hex() for _, chunk in pairs], dtype="object"),
        }
    )


def validate_chunks(frame: "pd.DataFrame", *, may_be_empty: bool = False) -> CheckOutcome:
    """The suite itself, on a frame as ``chunks_frame`` makes it.

    Args:
        may_be_empty: whether there may be no chunks at all, as after a chunker that leaves out what it likes.
    """
    from great_expectations import expectations

    gxe: Any = expectations  # its names are not declared as exported
    return great_expectations_outcome(
        "chunks_suite",
        frame,
        [
            # the other expectations hold on an empty frame
            gxe.ExpectTableRowCountToBeBetween(min_value=0 if may_be_empty else 1),
            gxe.ExpectColumnValuesToNotBeNull(column="id"),
            gxe.ExpectColumnValuesToBeUnique(column="id"),
            gxe.ExpectColumnValuesToBeBetween(column="ordinal", min_value=0),
            gxe.ExpectColumnValuesToBeBetween(column="start", min_value=0),
            gxe.ExpectColumnValuesToBeBetween(column="characters", min_value=1),
            gxe.ExpectColumnValuesToBeBetween(column="tokens", min_value=1),
            gxe.ExpectColumnValuesToMatchRegex(column="chunk_hash", regex="^[0-9a-f]{32}$"),
        ],
    )


def chunk_sets_complete(work: ChunkWork) -> CheckOutcome:
    """The source has committed documents, and no live text of it lacks a chunk set."""
    wanted = work.texts * len(work.chunkers)
    observed = f"{wanted - work.missing} chunk sets" + (f", {work.missing} are missing" if work.missing else "")
    return CheckOutcome(
        "chunk_sets_complete",
        work.missing == 0 and work.revision > 0,
        expected=f"{work.texts} texts under {len(work.chunkers)} chunkers",
        observed=observed if work.revision else "no documents were committed yet; materialize raw_documents first",
    )


def _problems(
    name: str, expected: str, problems: Sequence[dict[str, Any]], work: ChunkWork, gate: ChunkGate
) -> CheckOutcome:
    if not gate.suites:
        return _standing(name, work)
    return CheckOutcome(
        name,
        not problems,
        expected=expected,
        observed=f"{len(problems)} problems in {gate.chunks} new chunks of {gate.texts} texts"
        if problems
        else f"holds for {gate.chunks} new chunks of {gate.texts} texts",
        details={"problems": list(problems[:SHOWN])} if problems else {},
    )


def _standing(name: str, work: ChunkWork) -> CheckOutcome:
    return CheckOutcome(
        name,
        True,
        expected="passed when the chunks were written",
        observed=f"no new chunks; those of revision {work.revision} were judged before they were written",
    )
