"""Review: people decide about drafts, and what they accepted becomes questions of the dataset.

Belongs here: decisions with who, when and why; files to review in other tools; acceptance by generator and type; writing
accepted drafts to the dataset's file. Does not belong here: generating and filters; commands (pipelines/commands).

Nothing becomes a question by itself: only ``accept_into_file`` writes, and only when somebody calls it.
"""

import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ValidationError

from assets.evaluation.metrics.words import words
from assets.evaluation.question_files import read_question_file
from assets.evaluation.question_writing import append_lines
from assets.evaluation.questions import QuestionSpec
from assets.evaluation.synthesis import store
from assets.evaluation.synthesis.generating import recipe_of, synthesis_of
from assets.evaluation.synthesis.store import StoredDraft
from resources.config import ProjectConfig
from resources.errors import ConfigError, PermanentError
from resources.faults import crash_point
from resources.platform import Platform
from resources.postgres import FOREVER, Connection
from resources.sharding import source_of

Decision = Literal["accept", "edit", "reject"]
_STATES = {"accept": "accepted", "edit": "edited", "reject": "rejected"}
#: Of the 95 % interval.
_Z = 1.959963984540054
#: Characters of the documents around the evidence that a reviewer is shown.
_CONTEXT = 300
_SHOWN_MISTAKES = 20


# --- deciding -----------------------------------------------------------------------------------------------


def to_review(connection: Connection, dataset: str, *, everything: bool = False) -> list[StoredDraft]:
    """Drafts that wait for a person; with ``everything`` also those that were not drawn for review."""
    states: Sequence[store.State] = ("queued", "filtered") if everything else ("queued",)
    return store.read(connection, dataset, states=states)


def decide(
    platform: Platform,
    dataset: str,
    draft_id: int,
    decision: Decision,
    *,
    by: str,
    reason: str | None = None,
    question: str | None = None,
    answer: str | None = None,
) -> StoredDraft:
    """Record what a person decided about a draft; returns it as it is now.

    Args:
        question, answer: for ``edit``, what replaces those of the draft; None leaves one as it is.

    Raises:
        PermanentError: there is no such draft, it was decided about, or the edited question is not sound.
    """
    with _writing(platform, dataset) as connection:
        found = store.read(connection, dataset, ids=[draft_id], lock=True)
        if not found:
            raise PermanentError(f"{dataset} has no draft {draft_id} (any more)")
        problem = _refusal(found[0], decision, reason, question, answer)
        if problem:
            raise PermanentError(f"draft {draft_id}: {problem}")
        _record(connection, found[0], decision, by, reason, question, answer)
        return store.read(connection, dataset, ids=[draft_id])[0]


@contextmanager
def _writing(platform: Platform, dataset: str) -> Iterator[Connection]:
    """A transaction while nobody generates, builds or erases."""
    with (
        platform.database.lease(f"dataset:{dataset}", f"cli:{os.getpid()}", wait_seconds=30) as lease,
        platform.database.connect() as connection,
    ):
        lease.check(connection)
        yield connection


def _refusal(
    draft: StoredDraft, decision: str, reason: str | None, question: str | None, answer: str | None
) -> str | None:
    """Why a decision cannot be taken, or None."""
    if draft.state not in ("queued", "filtered"):
        by = f" by {draft.decided_by}" if draft.decided_by else ""
        return f"it is {draft.state}{by} already; only drafts that passed the filters and wait are decided about"
    if decision not in get_args(Decision):
        return f"decision: must be one of {', '.join(get_args(Decision))}"
    if any("\0" in (text or "") for text in (reason, question, answer)):
        return "a text holds a NUL character; remove it"
    if decision != "edit":
        return None
    line = _edited(draft, question, answer)
    if (line["question"], line["answer"]) == (draft.line["question"], draft.line["answer"]):
        return "nothing was edited; accept it as it is, or change question or answer"
    try:
        QuestionSpec.model_validate(line)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the question'}: {first['msg'].removeprefix('Value error, ')}"
    if line["answer"] is not None and not any(line["answer"] in piece["quote"] for piece in line["evidence"]):
        return "answer: no piece of the evidence holds it word for word"
    said = f" {' '.join(words(line['question']))} "
    needed = [*draft.checked_by.get("absent", ())]
    if apart := draft.checked_by.get("apart"):
        needed.append(" ".join(words(apart["name"])))
    if any(f" {word} " not in said for word in needed):
        return f"question: {', '.join(needed)} makes it unanswerable and has to stay"
    return None


def _edited(draft: StoredDraft, question: str | None, answer: str | None) -> dict[str, Any]:
    line = dict(draft.line)
    if question is not None:
        line["question"] = " ".join(question.split())
    if answer is not None and line["answer"] is not None:
        line["answer"] = answer.strip()
    return line


def _record(
    connection: Connection,
    draft: StoredDraft,
    decision: str,
    by: str,
    reason: str | None,
    question: str | None,
    answer: str | None,
) -> None:
    line = _edited(draft, question, answer) if decision == "edit" else draft.line
    connection.execute(
        """UPDATE question_draft SET state = %s, decided_by = %s, decided_at = now(), reason = %s,
               question = jsonb_set(question, '{line}', %s::jsonb) WHERE draft_id = %s""",
        (_STATES[decision], by, (reason or "").strip() or None, json.dumps(line), draft.draft_id),
    )


# --- review files -------------------------------------------------------------------------------------------


def review_file(artifacts: Path, dataset: str) -> Path:
    """Where drafts are put for review; an erasure cleans it."""
    return artifacts / "review" / f"{dataset}.jsonl"


def export_review(
    platform: Platform, dataset: str, path: Path | None = None, *, everything: bool = False
) -> tuple[Path, int]:
    """Write the drafts that wait as JSON lines, each with its evidence and room for a decision.

    Returns:
        The file, and how many drafts are in it.
    """
    path = path or review_file(platform.artifacts, dataset)
    with _writing(platform, dataset) as connection:
        drafts = to_review(connection, dataset, everything=everything)
        rows = [_row(connection, dataset, draft) for draft in drafts]
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        os.replace(temporary, path)
    return path, len(rows)


def _row(connection: Connection, dataset: str, draft: StoredDraft) -> dict[str, Any]:
    """A draft for a reviewer. ``dataset``, ``question_id`` and ``document_id`` let an erasure find it."""
    line = draft.line
    places = draft.checked_by["passages"]
    spans = draft.checked_by["spans"] or [[place["start"], place["end"]] for place in places]
    documents = [next(p for p in places if p["document"] == piece["document"]) for piece in line["evidence"]] or places
    return {
        "draft": draft.draft_id,
        "dataset": dataset,
        "question_id": draft.question_id,
        "type": draft.kind,
        "generator": draft.generator,
        "question": line["question"],
        "answer": line["answer"],
        "evidence": [
            {
                "document_id": place["document_id"],
                "document": place["document"],
                "quote": line["evidence"][number]["quote"] if line["evidence"] else None,
                "context": _around(connection, place["document_id"], *span),
            }
            for number, (place, span) in enumerate(zip(documents, spans, strict=False))
        ],
        "scores": draft.scores,
        "decision": "",
        "reason": "",
        "reviewer": "",
    }


def _around(connection: Connection, document: int, start: int, end: int) -> str | None:
    begin = max(0, start - _CONTEXT)
    row = connection.execute(
        """SELECT substr(text, %s, %s) FROM document_version JOIN document_text USING (text_hash)
           WHERE document_id = %s AND rev_to = %s""",
        (begin + 1, end + _CONTEXT - begin, document, FOREVER),
    ).fetchone()
    return row[0] if row else None


@dataclass(frozen=True)
class ImportedReview:
    """What ``import_review`` recorded: decisions, and lines without one."""

    accepted: int
    edited: int
    rejected: int
    undecided: int


def import_review(platform: Platform, dataset: str, path: Path, *, by: str) -> ImportedReview:
    """Record the decisions of a review file, all of them or none.

    ``decision`` is accept, edit (``question`` or ``answer`` were changed) or reject; empty: not decided yet. A decision that
    is on record already, as it is, is passed over, so that a file may be imported again.

    Raises:
        ConfigError: naming each line that is wrong, what is wrong and how to mend it.
    """
    mistakes: list[str] = []
    decided: dict[int, tuple[Any, dict[str, Any]]] = {}
    undecided = 0
    for raw in read_question_file(path, mistakes):
        row = raw.fields
        if not isinstance(row, dict) or not isinstance(row.get("draft"), int):
            mistakes.append(
                f"{raw.where}: draft: the number of a draft is missing; keep the lines as they were exported"
            )
        elif row.get("dataset") != dataset:
            mistakes.append(f"{raw.where}: dataset: this line is of {row.get('dataset')!r}, not of {dataset!r}")
        elif wrong := [
            key for key in ("decision", "reason", "reviewer", "question", "answer") if not _is_text(row, key)
        ]:
            mistakes.append(f"{raw.where}: {wrong[0]}: must be a text")
        elif not (row.get("decision") or "").strip():
            undecided += 1
        elif row["draft"] in decided:
            mistakes.append(f"{raw.where}: draft {row['draft']} is decided about twice")
        else:
            decided[row["draft"]] = (raw.where, row)
    done: dict[str, int] = dict.fromkeys(get_args(Decision), 0)
    with _writing(platform, dataset) as connection:
        drafts = {one.draft_id: one for one in store.read(connection, dataset, ids=list(decided), lock=True)}
        for draft_id, (where, row) in decided.items():
            decision = row["decision"].strip().lower()
            draft = drafts.get(draft_id)
            if draft is None or draft.question_id != row.get("question_id"):
                mistakes.append(f"{where}: there is no draft {draft_id} with this question_id (any more); export again")
                continue
            if draft.reviewed and draft.state == _STATES.get(decision):
                continue
            question, answer = (row.get(key) if decision == "edit" else None for key in ("question", "answer"))
            if problem := _refusal(draft, decision, row.get("reason"), question, answer):
                mistakes.append(f"{where}: {problem}")
                continue
            _record(connection, draft, decision, row.get("reviewer") or by, row.get("reason"), question, answer)
            done[decision] += 1
        if mistakes:
            more = f"\nand {len(mistakes) - _SHOWN_MISTAKES} more" if len(mistakes) > _SHOWN_MISTAKES else ""
            raise ConfigError("\n".join(mistakes[:_SHOWN_MISTAKES]) + more + "\nNothing was recorded.")
    own = review_file(platform.artifacts, dataset)
    if own.exists():
        export_review(platform, dataset)  # what was decided need not lie there any longer
    return ImportedReview(done["accept"], done["edit"], done["reject"], undecided)


def _is_text(row: dict[str, Any], key: str) -> bool:
    return row.get(key) is None or isinstance(row[key], str)


# --- acceptance ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Acceptance:
    """How people judged the drafts of one generator and type.

    Attributes:
        share: accepted as they were made, of those reviewed; an edited draft was not good enough as it was made.
        low, high: 95 % interval of the share (Wilson).
    """

    kind: str
    generator: str
    accepted: int
    edited: int
    rejected: int

    @property
    def reviewed(self) -> int:
        """How many a person decided about."""
        return self.accepted + self.edited + self.rejected

    @property
    def share(self) -> float | None:
        """Accepted as made; None before the first review."""
        return self.accepted / self.reviewed if self.reviewed else None

    @property
    def interval(self) -> tuple[float, float]:
        """Of the share."""
        return wilson(self.accepted, self.reviewed)

    def to_json(self) -> dict[str, Any]:
        """For reports."""
        low, high = self.interval
        return {
            "type": self.kind,
            "generator": self.generator,
            "reviewed": self.reviewed,
            "accepted": self.accepted,
            "edited": self.edited,
            "rejected": self.rejected,
            "acceptance": None if self.share is None else round(self.share, 4),
            "low": round(low, 4),
            "high": round(high, 4),
        }


@dataclass(frozen=True)
class AcceptanceReport:
    """Acceptance of everything a recipe made, and by generator and type; ``waiting`` are still to be reviewed."""

    recipe: str
    total: Acceptance
    rows: list[Acceptance] = field(default_factory=list)
    waiting: int = 0


def acceptance(connection: Connection, dataset: str, recipe: str) -> AcceptanceReport:
    """How people judged the drafts of a recipe."""
    rows = connection.execute(
        """SELECT type, generator, count(*) FILTER (WHERE state = 'accepted'), count(*) FILTER (WHERE state = 'edited'),
                  count(*) FILTER (WHERE state = 'rejected')
           FROM question_draft WHERE dataset = %s AND generator_fingerprint = %s
               AND decided_by IS NOT NULL AND NOT starts_with(decided_by, 'filter:')
           GROUP BY 1, 2 ORDER BY 1, 2""",
        (dataset, recipe),
    ).fetchall()
    waiting = connection.execute(
        "SELECT count(*) FROM question_draft WHERE dataset = %s AND generator_fingerprint = %s AND state = 'queued'",
        (dataset, recipe),
    ).fetchone()
    found = [Acceptance(*row) for row in rows]
    sums = [sum(values) for values in zip(*((one.accepted, one.edited, one.rejected) for one in found), strict=True)]
    return AcceptanceReport(recipe, Acceptance("all", "all", *(sums or [0, 0, 0])), found, waiting[0] if waiting else 0)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a share by Wilson's score method; (0, 1) without trials.

    E. B. Wilson (1927): (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n).
    """
    if not trials:
        return 0.0, 1.0
    share, square = successes / trials, _Z * _Z / trials
    middle = share + square / 2
    reach = _Z * math.sqrt(share * (1 - share) / trials + square / (4 * trials))
    return max(0.0, (middle - reach) / (1 + square)), min(1.0, (middle + reach) / (1 + square))


def too_few_accepted(config: ProjectConfig, dataset: str, report: AcceptanceReport) -> str | None:
    """In words why a recipe is not good enough to go on with, or None."""
    synthesis = synthesis_of(config, dataset)
    total = report.total
    if (
        total.share is None
        or total.reviewed < synthesis.minimum_reviewed
        or total.share >= synthesis.minimum_acceptance
    ):
        return None
    return (
        f"of {total.reviewed} drafts reviewed {total.accepted} were accepted as made ({total.share:.0%}); "
        f"minimum_acceptance is {synthesis.minimum_acceptance:.0%}"
    )


# --- into the dataset ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Accepted:
    """What ``accept_into_file`` wrote.

    Attributes:
        added: questions added; ``unreviewed`` of them were looked at by nobody.
        present: accepted drafts that are in the file already.
        stale: accepted drafts whose evidence does not stand in the documents any more; not written.
        held_back: passed the filters, but wait until their like was reviewed.
    """

    path: Path
    added: int
    unreviewed: int
    present: int
    stale: tuple[str, ...]
    held_back: int


def accept_into_file(platform: Platform, dataset: str, *, dry_run: bool = False) -> Accepted:
    """Write accepted drafts to the dataset's synthetic file, as lines that say where they come from and who accepted them.

    With ``include: unreviewed`` also drafts that passed the filters and were not drawn for review, once the drawn ones were
    reviewed (or ``minimum_reviewed`` of them).

    Raises:
        PermanentError: too few of those reviewed were accepted, or the file cannot be written.
    """
    config = platform.config
    synthesis = synthesis_of(config, dataset)
    path = config.synthetic_path(dataset)
    with _writing(platform, dataset) as connection:
        recipe = recipe_of(config, dataset, platform.models)
        report = acceptance(connection, dataset, recipe)
        if problem := too_few_accepted(config, dataset, report):
            raise PermanentError(
                f"dataset {dataset}: {problem}. Nothing was written: change how questions are made (kinds, writer, chunker), "
                "or review more"
            )
        drafts = store.read(connection, dataset, states=store.ACCEPTED)
        held_back = 0
        if synthesis.include == "unreviewed":
            others = store.read(connection, dataset, states=("filtered",), recipe=recipe)
            vouched = report.total.reviewed > 0 and (
                not report.waiting or report.total.reviewed >= synthesis.minimum_reviewed
            )
            drafts, held_back = ([*drafts, *others], 0) if vouched else (drafts, len(others))
        mistakes: list[str] = []
        there = {raw.fields.get("id") for raw in read_question_file(path, mistakes)} if path.exists() else set()
        if mistakes:
            raise ConfigError("\n".join(mistakes))
        new = [draft for draft in drafts if draft.question_id not in there]
        stale = {draft.question_id for draft in new if not _stands(connection, config, draft)}
        lines = [_line(draft) for draft in new if draft.question_id not in stale]
        if lines and not dry_run:
            append_lines(path, lines)
            crash_point("evaluation.synthetic_file")
    return Accepted(
        path,
        len(lines),
        sum(not draft.reviewed and draft.question_id not in stale for draft in new),
        len(drafts) - len(new),
        tuple(sorted(stale)),
        held_back,
    )


def _stands(connection: Connection, config: ProjectConfig, draft: StoredDraft) -> bool:
    """Whether the evidence still stands in the live documents; of unanswerable ones, whether their documents are the same."""
    if not draft.line["evidence"]:
        live = connection.execute(
            "SELECT document_id, text_hash FROM document_version WHERE document_id = ANY(%s) AND rev_to = %s",
            (list(draft.document_ids), FOREVER),
        ).fetchall()
        known = {document: bytes(text) for document, text in live}
        return all(known.get(one) == text for one, text in zip(draft.document_ids, draft.text_hashes, strict=True))
    for piece in draft.line["evidence"]:
        source, _, name = piece["document"].partition("/")
        row = connection.execute(
            """SELECT position(%s IN text) > 0 FROM document_version JOIN document_text USING (text_hash)
               WHERE source = %s AND path = %s AND rev_to = %s""",
            (piece["quote"], config.partition_of(source_of(source), name), name, FOREVER),
        ).fetchone()
        if row is None or not row[0]:
            return False
    return True


def _line(draft: StoredDraft) -> dict[str, Any]:
    """The line of an accepted draft, with who accepted it; keys in the order people read them."""
    review: dict[str, Any] = {"reviewed": False}
    if draft.reviewed:
        review = {
            "reviewed_by": draft.decided_by,
            "reviewed_at": draft.decided_at.isoformat(timespec="seconds"),
            **({"edited": True} if draft.state == "edited" else {}),
        }
    line = {**draft.line, "provenance": {**draft.line["provenance"], **review}}
    line["evidence"] = [{"document": piece["document"], "quote": piece["quote"]} for piece in line["evidence"]]
    return {key: line[key] for key in QuestionSpec.model_fields if key in line}
