"""Enriching a source: every live chunk has the values of every step its indexes ask for.

Belongs here: which values are missing, making them in batches, what it took.
Does not belong here: how one value is made (enrichment_steps.py, enrichment_models.py), the table (enrichment_cache.py).

Values of offline steps are stored a batch of texts at a time, those of models after every window of calls, so that a
kill costs one batch, or one window of paid calls. Two runs at once make some values twice; the first one stored stays.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from assets.chunks.enrichment_cache import (
    Outcome,
    StepCoverage,
    StepRow,
    Subject,
    known_values,
    languages_of,
    step_coverage,
    store_values,
    subject_key,
)
from assets.chunks.enrichment_models import ask, window_size
from assets.chunks.enrichment_steps import offline_value, value_problem
from resources.faults import crash_point
from resources.index_config import EnrichmentStep
from resources.models import Models, Usage
from resources.platform import Platform
from resources.postgres import Connection

#: Cuts texts, given as hash and length, into batches of bounded size.
Batches = Callable[[Sequence[tuple[bytes, int]]], Iterable[list[bytes]]]


@dataclass
class StepWork:
    """What was done for one step.

    Attributes:
        indexes: names of the indexes that have it.
        computed: values made and stored now; given_up: chunks given up now.
        problems: values that were refused for their shape or length, with the chunk's hash.
        coverage: of the live chunks, at the end.
        languages: of the step ``language``: live chunks by language.
    """

    step: EnrichmentStep
    indexes: list[str] = field(default_factory=list)
    chunker_ids: list[int] = field(default_factory=list)
    computed: int = 0
    given_up: int = 0
    usage: Usage = field(default_factory=Usage)
    problems: list[dict[str, Any]] = field(default_factory=list)
    coverage: StepCoverage = field(default_factory=StepCoverage)
    languages: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """How the step is shown: what it is, and by what; offline questions are made from templates."""
        if self.step.method == "model":
            return f"{self.step.kind} ({self.step.model})"
        return f"{self.step.kind} ({'templates' if self.step.kind == 'questions' else 'offline'})"

    @property
    def reused(self) -> int:
        """Live chunks whose value was there already."""
        return max(0, self.coverage.chunks - self.coverage.missing - self.coverage.given_up - self.computed)


def make_missing_values(
    platform: Platform, source: str, row: StepRow, work: StepWork, models: Models, run_id: str, batches: Batches
) -> None:
    """Make the values of a step that live chunks of a source lack, under the chunkers of ``work``.

    Raises:
        BudgetExceededError: the next window of calls would pass the budget; what was paid for is stored.
        TransientError: the provider did not answer; likewise.
        PermanentError: the key is refused, or a model gives nothing usable for any chunk.
    """
    started = time.perf_counter()
    with platform.database.connect() as connection:
        work.coverage = step_coverage(connection, row, source, work.chunker_ids)
        lacking = _lacking(connection, row, source, work.chunker_ids) if work.coverage.missing else []
    for hashes in batches(lacking):
        with platform.database.connect() as connection:
            subjects = missing_subjects(connection, row, hashes, work.chunker_ids)
        if row.step.method == "model":
            _ask_model(platform, row, subjects, work, models, run_id)
        else:
            _make_offline(platform, row, subjects, work, run_id)
    with platform.database.connect() as connection:
        if lacking:
            work.coverage = step_coverage(connection, row, source, work.chunker_ids)
        if row.step.kind == "language":
            work.languages = languages_of(connection, row, source, work.chunker_ids)
    work.seconds += time.perf_counter() - started


def missing_subjects(
    connection: Connection, row: StepRow, hashes: Sequence[bytes], chunker_ids: Sequence[int]
) -> list[Subject]:
    """The distinct chunks of some texts that have no value of a step, in order of text and position."""
    texts = dict(
        connection.execute(
            "SELECT text_hash, text FROM document_text WHERE text_hash = ANY(%s)", (list(hashes),)
        ).fetchall()
    )
    chunks = connection.execute(
        """SELECT text_hash, start_char, end_char, chunk_hash, heading_path FROM chunk
           WHERE chunker_id = ANY(%s) AND text_hash = ANY(%s) ORDER BY text_hash, chunker_id, ordinal""",
        (list(chunker_ids), list(hashes)),
    ).fetchall()
    subjects = {}
    for key, start, end, chunk_hash, path in chunks:
        subject = Subject(bytes(chunk_hash), texts[key][start:end], tuple(path))
        subjects.setdefault(subject_key(row.step, subject), subject)
    known = known_values(connection, row, subjects)
    return [subject for key, subject in subjects.items() if key not in known]


def _lacking(connection: Connection, row: StepRow, source: str, chunker_ids: Sequence[int]) -> list[tuple[bytes, int]]:
    """Live texts with a chunk that has no value of a step, with their lengths, in order of hash."""
    return connection.execute(
        """SELECT text_hash, characters FROM document_text t
           WHERE text_hash IN (SELECT text_hash FROM document_version WHERE source = %(source)s AND rev_to = 2147483647)
             AND EXISTS (SELECT FROM chunk c WHERE c.chunker_id = ANY(%(chunkers)s) AND c.text_hash = t.text_hash
                         AND NOT EXISTS (SELECT FROM enrichment_value v
                                         WHERE v.step_id = %(step)s AND v.chunk_hash = c.chunk_hash AND v.context_hash
                                         = CASE WHEN %(context)s THEN heading_context(c.heading_path) ELSE '\\x'::bytea END))
           ORDER BY text_hash""",
        {"source": source, "chunkers": list(chunker_ids), "step": row.key, "context": row.step.sees_headings},
    ).fetchall()


def _make_offline(platform: Platform, row: StepRow, subjects: Iterable[Subject], work: StepWork, run_id: str) -> None:
    outcomes = []
    for subject in subjects:
        value = offline_value(row.step, subject.text, subject.heading_path)
        if problem := value_problem(row.step, value):
            work.problems.append({"chunk": subject.chunk_hash.hex(), "step": row.step.kind, "problem": problem})
        else:
            outcomes.append(Outcome(subject, value))
    with platform.database.connect() as connection:
        store_values(connection, row, outcomes, run_id)
        crash_point("chunks.in_values")
    work.computed += len(outcomes)
    crash_point("chunks.stored_values")


def _ask_model(
    platform: Platform, row: StepRow, subjects: Sequence[Subject], work: StepWork, models: Models, run_id: str
) -> None:
    chat = models.chat(row.step.model or "")
    size = window_size(chat)
    for first in range(0, len(subjects), size):
        window = ask(chat, row.step, subjects[first : first + size])
        with platform.database.connect() as connection:
            store_values(connection, row, window.outcomes, run_id)
            crash_point("chunks.in_values")
        work.computed += sum(item.failure is None for item in window.outcomes)
        work.given_up += sum(item.failure is not None for item in window.outcomes)
        work.usage = sum((item.usage for item in window.outcomes if item.usage), work.usage)
        crash_point("chunks.stored_values")
        if window.error:
            raise window.error
