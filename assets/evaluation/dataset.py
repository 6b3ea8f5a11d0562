"""Evaluation datasets: questions resolved to character spans of the current documents, in versions.

Belongs here: following evidence through edits and renames, the version rule, tables and Parquet file, reading back.
Does not belong here: searching one text for one quote (anchoring.py), and whether a version may be published (checks.py).
"""

import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from psycopg.types.json import Jsonb

from assets.evaluation.anchoring import Anchor, find_edited, find_exact, find_normalised, fold
from assets.evaluation.metrics.base import GoldSpan
from assets.evaluation.questions import EvidenceKind, EvidenceSpec, QuestionSpec, Stance, load_questions
from resources.config import ProjectConfig
from resources.errors import PermanentError
from resources.faults import crash_point
from resources.fingerprint import fingerprint
from resources.parquet_io import write_table
from resources.postgres import FOREVER, Connection, Lease
from resources.task_config import TaskSpec

CODE_VERSION = "1"
_KEPT_TEXTS = 8
#: Shorter passages may stand in several documents by chance.
_MINIMUM_MOVED_WORDS = 6
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")

Status = Literal["active", "stale"]


@dataclass(frozen=True)
class Evidence:
    """A quote and where it stands; of a stale question, where it stood last.

    Attributes:
        declared: fingerprint of the evidence as the question file has it.
        text_hash: content address of the document text the range refers to.
        quote: that text's characters ``[start, end)``; empty for a whole document.
        kind, grade, stance: as declared, see ``EvidenceSpec``.
    """

    declared: str
    document_id: int
    text_hash: bytes
    start: int
    end: int
    quote: str
    kind: EvidenceKind = "span"
    grade: int = 1
    stance: Stance = "supports"

    @property
    def place(self) -> tuple[Any, ...]:
        """What a question's fingerprint holds of it. A whole document is the same evidence however long it is."""
        place: tuple[Any, ...] = (
            (self.document_id, self.kind)
            if self.kind == "document"
            else (self.document_id, self.start, self.end, self.quote)
        )
        return place if (self.grade, self.stance) == (1, "supports") else (*place, self.grade, self.stance)


@dataclass(frozen=True)
class ResolvedQuestion:
    """A question with its evidence found, or the reason why not."""

    spec: QuestionSpec
    status: Status
    reason: str | None
    evidence: tuple[Evidence, ...]

    @property
    def fingerprint(self) -> str:
        """Hash of question, answers and evidence (documents, positions, quotes, grades)."""
        spec = self.spec
        further: list[Any] = [list(spec.references[1:])] if len(spec.references) > 1 else []
        if spec.is_answerable != (spec.answer is not None):
            further.append(spec.is_answerable)
        return fingerprint([spec.question, spec.answer, self.status, [item.place for item in self.evidence], *further])


@dataclass(frozen=True)
class ResolvedDataset:
    """All questions of a dataset against one state of the documents; nothing is stored yet.

    Attributes:
        corpus: revision of each source the evidence was resolved against.
        found: pieces of evidence by how they were found: see ``anchoring.How``, ``moved`` to another document, ``lost``.
        task: of a dataset without documents.
    """

    dataset: str
    questions: tuple[ResolvedQuestion, ...]
    corpus: dict[str, int]
    found: dict[str, int] = field(default_factory=dict)
    task: TaskSpec | None = None

    @property
    def active(self) -> list[ResolvedQuestion]:
        """Questions that are scored."""
        return [question for question in self.questions if question.status == "active"]

    @property
    def stale(self) -> list[ResolvedQuestion]:
        """Questions whose evidence vanished; excluded from scoring."""
        return [question for question in self.questions if question.status == "stale"]

    @property
    def content_hash(self) -> str:
        """Hash of everything resolved; equal hashes are the same version."""
        return fingerprint(
            {
                "code": CODE_VERSION,
                "questions": [
                    [item.spec.id, item.spec.split, item.spec.tags, item.reason, item.fingerprint]
                    + [[evidence.declared, evidence.text_hash.hex()] for evidence in item.evidence]
                    + ([{"group": spec.group, "provenance": spec.provenance}] if spec.group or spec.provenance else [])
                    for item in self.questions
                    for spec in [item.spec]
                ],
                **({"task": self.task.model_dump(mode="json")} if self.task is not None else {}),
            }
        )

    def counts(self) -> dict[str, Any]:
        """Questions by status, split and answerability, evidence by how it was found, and the task without documents."""
        active = self.active
        return {
            "questions": len(self.questions),
            "active": len(active),
            "stale": len(self.stale),
            "unanswerable": sum(not item.spec.is_answerable for item in active),
            "splits": dict(sorted(Counter(item.spec.split for item in active).items())),
            "evidence": dict(sorted(self.found.items())),
            **({"task": self.task.model_dump(mode="json")} if self.task is not None else {}),
        }


@dataclass(frozen=True)
class Question:
    """A question of a stored version.

    Attributes:
        gold: its evidence; empty for unanswerable and for stale questions.
        references: every accepted answer, ``answer`` first; empty where there is none.
        group: of questions that are no independent observations; None: it stands for itself.
        task: the question is an input of such a task; None: it is asked of documents.
    """

    question_id: str
    question: str
    answer: str | None
    answerable: bool
    split: str
    tags: dict[str, Any]
    status: Status
    reason: str | None
    fingerprint: str
    gold: tuple[GoldSpan, ...]
    references: tuple[str, ...] = ()
    group: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    task: TaskSpec | None = None


@dataclass(frozen=True)
class EvaluationDataset:
    """A stored version of a dataset; ``corpus`` is the revision of each source it was resolved against."""

    dataset: str
    version: int
    content_hash: str
    questions: list[Question]
    corpus: dict[str, int]
    task: TaskSpec | None = None

    def split(self, name: str) -> list[Question]:
        """The active questions of one split."""
        return [item for item in self.questions if item.split == name and item.status == "active"]


@dataclass(frozen=True)
class WrittenDataset:
    """What ``write_dataset`` did: the version, whether it is new, its file and the rows written."""

    version: int
    created: bool
    file: Path
    rows: int


# --- resolving ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Document:
    document_id: int
    text_hash: bytes


@dataclass(frozen=True)
class _Lost:
    """Evidence that was not found; ``movable`` when its passage may stand in another document now."""

    reason: str
    movable: bool = False


class _Corpus:
    """The live documents of the dataset's sources; the texts read last are kept for the next quote."""

    def __init__(self, connection: Connection, sources: Sequence[str]) -> None:
        self._connection = connection
        self._sources = list(sources)
        rows = connection.execute(
            "SELECT source, path, document_id, text_hash FROM document_version WHERE source = ANY(%s) AND rev_to = %s",
            (list(sources), FOREVER),
        ).fetchall()
        self.by_path = {(source, path): _Document(document_id, digest) for source, path, document_id, digest in rows}
        self.by_id = {document.document_id: document for document in self.by_path.values()}
        self._texts: OrderedDict[bytes, str] = OrderedDict()
        self.revisions: dict[str, int] = dict(
            connection.execute(
                "SELECT source, max(revision) FROM source_revision WHERE source = ANY(%s) GROUP BY source ORDER BY source",
                (list(sources),),
            ).fetchall()
        )

    @cached_property
    def _lengths(self) -> dict[bytes, int]:
        """Characters of every text, read without the texts; asked for where evidence is whole documents."""
        rows = self._connection.execute(
            """SELECT text_hash, characters FROM document_version JOIN document_text USING (text_hash)
               WHERE source = ANY(%s) AND rev_to = %s""",
            (self._sources, FOREVER),
        ).fetchall()
        return {bytes(digest): characters for digest, characters in rows}

    def length(self, document: _Document) -> int:
        """Characters of a document's text."""
        return self._lengths[bytes(document.text_hash)]

    def text(self, document: _Document) -> str:
        text = self._texts.pop(document.text_hash, None)
        if text is None:
            row = self._connection.execute(
                "SELECT text FROM document_text WHERE text_hash = %s", (document.text_hash,)
            ).fetchone()
            assert row is not None  # a foreign key holds the text
            text = str(row[0])
        self._texts[document.text_hash] = text
        if len(self._texts) > _KEPT_TEXTS:
            self._texts.popitem(last=False)
        return text

    def holders(self, quotes: Collection[str]) -> dict[str, list[_Document]]:
        """The documents that hold each quote up to whitespace; every text is read once."""
        found: dict[str, list[_Document]] = {}
        wanted = {quote: " ".join(quote.split()) for quote in quotes}
        for document in sorted(self.by_id.values(), key=lambda item: item.document_id) if wanted else ():
            text = " ".join(self.text(document).split())
            for quote, collapsed in wanted.items():
                if collapsed in text:
                    found.setdefault(quote, []).append(document)
        return found


def resolve(
    connection: Connection, config: ProjectConfig, dataset: str, previous_version: int | None
) -> ResolvedDataset:
    """Anchor every question of a dataset to the live documents of its sources.

    Evidence that a file declares as before is followed from where ``previous_version`` had it: its document by id
    (so through a rename), its quote by position; a passage that left its document is looked for in the others. One
    piece of evidence that cannot be found makes its question stale.

    Raises:
        ConfigError: a question file is wrong.
        PermanentError: a source of the dataset has no committed revision yet.
    """
    questions = load_questions(config.question_files(dataset), config.datasets[dataset])
    sources = config.datasets[dataset].sources
    corpus = _Corpus(connection, sources)
    if missing := sorted(set(sources) - set(corpus.revisions)):
        raise PermanentError(
            f"dataset {dataset}: source {', '.join(missing)} was never loaded; materialize raw_documents for it first"
        )
    earlier = _evidence_of(connection, dataset, previous_version) if previous_version else {}
    found: dict[tuple[str, int], _Found | _Lost] = {}
    pieces = [(item, number) for item in questions for number in range(len(item.evidence))]
    for item, number in sorted(pieces, key=lambda piece: piece[0].evidence[piece[1]].document):  # each text once
        spec = item.evidence[number]
        before = earlier.get((item.id, spec.fingerprint()))
        source = config.partition_of(spec.source, spec.path)
        found[item.id, number] = (
            _find(item, spec, before, corpus.by_path.get((source, spec.path)), corpus)
            if source in sources
            else _Lost(f"{spec.document}: the dataset does not list source {spec.source!r}")
        )
    _find_elsewhere(questions, earlier, corpus, found)
    resolved = tuple(_assemble(item, earlier, found) for item in questions)
    how = Counter(one.how if isinstance(one, _Found) else "lost" for one in found.values())
    return ResolvedDataset(dataset, resolved, corpus.revisions, dict(how), config.datasets[dataset].task_spec)


def _evidence_of(connection: Connection, dataset: str, version: int) -> dict[tuple[str, str], Evidence]:
    rows = connection.execute(
        """SELECT question_id, declared, document_id, text_hash, start_char, end_char, quote, kind, grade, stance
           FROM evaluation_evidence WHERE dataset = %s AND version = %s""",
        (dataset, version),
    ).fetchall()
    return {(question_id, declared): Evidence(declared, *rest) for question_id, declared, *rest in rows}


def _assemble(
    question: QuestionSpec,
    earlier: Mapping[tuple[str, str], Evidence],
    found: Mapping[tuple[str, int], "_Found | _Lost"],
) -> ResolvedQuestion:
    evidence: list[Evidence] = []
    reasons: list[str] = []
    for number, spec in enumerate(question.evidence):
        place = found[question.id, number]
        if isinstance(place, _Found):
            evidence.append(place.evidence)
            continue
        reasons.append(place.reason)
        if before := earlier.get((question.id, spec.fingerprint())):
            # remembered, so that it is found again when its document comes back
            evidence.append(replace(before, grade=spec.grade, stance=spec.stance))
    reason = "; ".join(dict.fromkeys(reasons)) or None
    return ResolvedQuestion(question, "stale" if reason else "active", reason, tuple(evidence))


@dataclass(frozen=True)
class _Found:
    evidence: Evidence
    how: str


def _find(
    question: QuestionSpec, spec: EvidenceSpec, before: Evidence | None, named: "_Document | None", corpus: _Corpus
) -> _Found | _Lost:
    """Look for a piece of evidence in its document: followed by id first, then by its name."""
    followed = corpus.by_id.get(before.document_id) if before else None
    documents = list(dict.fromkeys(document for document in (followed, named) if document is not None))
    if not documents:
        return _Lost(f"{spec.document}: no such document (any more)", movable=spec.kind == "span")
    if spec.kind == "document":
        whole = Anchor(0, corpus.length(documents[0]), "exact")
        return _Found(_evidence(spec, documents[0], "", whole), "exact")
    if spec.quote is None and before is None:
        return _by_range(spec, documents[0], corpus)
    for step, search in _SEARCHES:
        for document in documents:
            text = corpus.text(document)
            near = before.start if before and before.document_id == document.document_id else None
            for quote in _quotes(spec, before):
                anchor = search(text, quote, near)
                if anchor is None:
                    continue
                evidence = _evidence(spec, document, text, anchor)
                if step == "edited" and _lost_answer(question.references, quote, evidence.quote):
                    return _Lost(f"{spec.document}: the quoted passage was edited and no longer holds the answer")
                as_written = quote == spec.quote or spec.quote is None
                return _Found(evidence, anchor.how if as_written else "re-anchored")
    return _Lost(f"{spec.document}: the quoted passage is gone", movable=True)


def _find_elsewhere(
    questions: Sequence[QuestionSpec],
    earlier: Mapping[tuple[str, str], Evidence],
    corpus: _Corpus,
    found: dict[tuple[str, int], _Found | _Lost],
) -> None:
    """Look for lost passages in all documents; one that stands, word for word, in exactly one of them was moved there."""
    lost: dict[tuple[str, int], tuple[EvidenceSpec, str]] = {}
    for question in questions:
        for number, spec in enumerate(question.evidence):
            place = found[question.id, number]
            if isinstance(place, _Lost) and place.movable:
                quotes = _quotes(spec, earlier.get((question.id, spec.fingerprint())))
                if quotes and len(quotes[-1].split()) >= _MINIMUM_MOVED_WORDS:
                    lost[question.id, number] = (spec, quotes[-1])
    holders = corpus.holders({quote for _, quote in lost.values()})
    for key, (spec, quote) in lost.items():
        documents = holders.get(quote, [])
        if len(documents) == 1:
            text = corpus.text(documents[0])
            anchor = find_exact(text, quote) or find_normalised(text, quote)
            if anchor is not None:
                found[key] = _Found(_evidence(spec, documents[0], text, anchor), "moved")


def _quotes(spec: EvidenceSpec, before: Evidence | None) -> list[str]:
    """The texts to look for: as declared, and as last found."""
    return list(dict.fromkeys(quote for quote in (spec.quote, before and before.quote) if quote))


def _evidence(spec: EvidenceSpec, document: _Document, text: str, anchor: Anchor) -> Evidence:
    """The evidence at ``anchor``; of a whole document no text is kept a second time."""
    quote = text[anchor.start : anchor.end]
    return Evidence(
        spec.fingerprint(), document.document_id, document.text_hash, anchor.start, anchor.end, quote,
        spec.kind, spec.grade, spec.stance,
    )  # fmt: skip


def _by_range(spec: EvidenceSpec, document: _Document, corpus: _Corpus) -> _Found | _Lost:
    text = corpus.text(document)
    start, end = spec.start or 0, spec.end or 0
    if end > len(text) or not text[start:end].strip():
        return _Lost(
            f"{spec.document}: characters {start} to {end} are outside its text or blank ({len(text)} characters)"
        )
    return _Found(_evidence(spec, document, text, Anchor(start, end, "exact")), "exact")


def _lost_answer(answers: Sequence[str], old: str, new: str) -> bool:
    """Whether an edit took every accepted answer out of the quote that held it.

    An answer is still there word for word, or, if it is long, with small edits that leave all of its numbers.
    """
    before, after = (fold(text).text.lower() for text in (old, new))
    wanted = [folded for answer in answers if (folded := fold(answer).text.lower()) and folded in before]
    return bool(wanted) and not any(_still_there(answer, after) for answer in wanted)


def _still_there(answer: str, text: str) -> bool:
    if answer in text:
        return True
    return find_edited(text, answer) is not None and set(_NUMBER.findall(answer)) <= set(_NUMBER.findall(text))


_SEARCHES: tuple[tuple[str, Callable[[str, str, int | None], Anchor | None]], ...] = (
    ("exact", find_exact),
    ("normalised", find_normalised),
    ("edited", find_edited),
)


# --- storing --------------------------------------------------------------------------------------------


def newest_version(connection: Connection, dataset: str) -> int | None:
    """Number of the newest stored version; ``None`` before the first."""
    row = connection.execute("SELECT max(version) FROM evaluation_dataset WHERE dataset = %s", (dataset,)).fetchone()
    return row[0] if row else None


def dataset_file(artifacts: Path, dataset: str, version: int) -> Path:
    """Where the Parquet file of a version lies."""
    return artifacts / "evaluation" / dataset / f"v{version}.parquet"


def write_dataset(
    connection: Connection, resolved: ResolvedDataset, *, artifacts: Path, run_id: str, lease: Lease
) -> WrittenDataset:
    """Store a resolved dataset as the next version, or keep the newest one when its content is the same.

    The Parquet file is in place before the transaction commits, so that a version never lacks its file; a file whose
    transaction was lost is overwritten by the next version of that number.

    Raises:
        StaleLeaseError: another run took the dataset over.
    """
    lease.check(connection)
    content_hash = resolved.content_hash
    newest = connection.execute(
        "SELECT version, content_hash, corpus FROM evaluation_dataset WHERE dataset = %s ORDER BY version DESC LIMIT 1",
        (resolved.dataset,),
    ).fetchone()
    if newest and newest[1] == content_hash:
        path = dataset_file(artifacts, resolved.dataset, newest[0])
        if not path.exists():
            _write_file(path, replace(resolved, corpus=newest[2]), newest[0])
        return WrittenDataset(newest[0], False, path, 0)
    version = newest[0] + 1 if newest else 1
    path = dataset_file(artifacts, resolved.dataset, version)
    rows = _insert(connection, resolved, version, content_hash, path, run_id)
    _write_file(path, resolved, version)
    crash_point("evaluation.written_file")
    return WrittenDataset(version, True, path, rows)


def _insert(
    connection: Connection, resolved: ResolvedDataset, version: int, content_hash: str, path: Path, run_id: str
) -> int:
    dataset = resolved.dataset
    connection.execute(
        """INSERT INTO evaluation_dataset (dataset, version, content_hash, corpus, counts, file, run_id)
           VALUES (%s, %s, %s, %s, %s, %s, %s)""",
        (dataset, version, content_hash, Jsonb(resolved.corpus), Jsonb(resolved.counts()), str(path), run_id),
    )
    questions = [
        (
            dataset, version, item.spec.id, item.spec.question, item.spec.answer, item.spec.split, Jsonb(item.spec.tags),
            item.status, item.reason, item.fingerprint, Jsonb(list(item.spec.references)), item.spec.is_answerable,
            item.spec.group, Jsonb(item.spec.provenance),
        )
        for item in resolved.questions
    ]  # fmt: skip
    evidence = [
        (
            dataset, version, item.spec.id, ordinal, piece.declared, piece.document_id, piece.text_hash, piece.start,
            piece.end, piece.quote, piece.kind, piece.grade, piece.stance,
        )
        for item in resolved.questions
        for ordinal, piece in enumerate(item.evidence)
    ]  # fmt: skip
    _copy(
        connection,
        """COPY evaluation_question (dataset, version, question_id, question, answer, split, tags, status, reason,
           fingerprint, answers, answerable, group_name, provenance) FROM STDIN""",
        questions,
    )
    _copy(
        connection,
        """COPY evaluation_evidence (dataset, version, question_id, ordinal, declared, document_id, text_hash, start_char,
           end_char, quote, kind, grade, stance) FROM STDIN""",
        evidence,
    )
    return 1 + len(questions) + len(evidence)


def _copy(connection: Connection, statement: Any, rows: Iterable[Sequence[Any]]) -> None:
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)


def _write_file(path: Path, resolved: ResolvedDataset, version: int) -> None:
    import pyarrow as pa

    from resources.fingerprint import canonical_json

    evidence = pa.struct(
        [
            ("document_id", pa.int64()), ("text_hash", pa.string()), ("start", pa.int32()), ("end", pa.int32()),
            ("quote", pa.string()), ("kind", pa.string()), ("grade", pa.int32()), ("stance", pa.string()),
        ]
    )  # fmt: skip
    text_columns = ("question_id", "question", "answer", "split", "status", "reason", "tags", "fingerprint")
    schema = pa.schema(
        [
            *((name, pa.string()) for name in text_columns),
            ("evidence", pa.list_(evidence)),
            ("answers", pa.list_(pa.string())),
            ("answerable", pa.bool_()),
            ("group", pa.string()),
            ("provenance", pa.string()),
        ]
    )
    records = (
        {
            "question_id": item.spec.id,
            "question": item.spec.question,
            "answer": item.spec.answer,
            "split": item.spec.split,
            "status": item.status,
            "reason": item.reason,
            "tags": canonical_json(item.spec.tags),
            "fingerprint": item.fingerprint,
            "evidence": [
                {
                    "document_id": piece.document_id,
                    "text_hash": piece.text_hash.hex(),
                    "start": piece.start,
                    "end": piece.end,
                    "quote": piece.quote,
                    "kind": piece.kind,
                    "grade": piece.grade,
                    "stance": piece.stance,
                }
                for piece in item.evidence
            ],
            "answers": list(item.spec.references),
            "answerable": item.spec.is_answerable,
            "group": item.spec.group,
            "provenance": canonical_json(item.spec.provenance),
        }
        for item in resolved.questions
    )
    provenance = {
        "dataset": resolved.dataset,
        "version": version,
        "content_hash": resolved.content_hash,
        "corpus": resolved.corpus,
    }
    write_table(path, records, schema, provenance)


def read_dataset(connection: Connection, dataset: str, version: int | None = None) -> EvaluationDataset:
    """Read a stored version, by default the newest; questions come in the order of their ids.

    Raises:
        PermanentError: there is no such version.
    """
    row = connection.execute(
        """SELECT version, content_hash, corpus, counts -> 'task' FROM evaluation_dataset
           WHERE dataset = %s AND (%s::integer IS NULL OR version = %s) ORDER BY version DESC LIMIT 1""",
        (dataset, version, version),
    ).fetchone()
    if row is None:
        which = f"version {version}" if version else "version yet"
        raise PermanentError(
            f"evaluation dataset {dataset!r} has no {which}; materialize evaluation_dataset for partition {dataset!r} first"
        )
    task = None if row[3] is None else TaskSpec.model_validate(row[3])
    gold: dict[str, list[GoldSpan]] = {}
    for question_id, *place in connection.execute(
        """SELECT question_id, document_id, start_char, end_char, kind, grade, stance FROM evaluation_evidence
           WHERE dataset = %s AND version = %s ORDER BY question_id, ordinal""",
        (dataset, row[0]),
    ):
        gold.setdefault(question_id, []).append(_gold(*place))
    questions = [
        Question(
            question_id=question_id,
            question=question,
            answer=answer,
            answerable=answer is not None if answerable is None else answerable,
            split=split,
            tags=tags,
            status=status,
            reason=reason,
            fingerprint=digest,
            gold=tuple(gold.get(question_id, ())) if status == "active" else (),
            references=tuple(([] if answer is None else [answer]) if answers is None else answers),
            group=group,
            provenance=provenance,
            task=task,
        )
        for (
            question_id,
            question,
            answer,
            split,
            tags,
            status,
            reason,
            digest,
            answers,
            answerable,
            group,
            provenance,
        ) in connection.execute(
            """SELECT question_id, question, answer, split, tags, status, reason, fingerprint, answers, answerable,
                      group_name, provenance
               FROM evaluation_question
               WHERE dataset = %s AND version = %s ORDER BY question_id COLLATE "C" """,
            (dataset, row[0]),
        )
    ]
    return EvaluationDataset(dataset, row[0], row[1], questions, row[2], task)


def _gold(document_id: int, start: int, end: int, kind: EvidenceKind, grade: int, stance: Stance) -> GoldSpan:
    """Gold as metrics see it. The range of a whole document says nothing, and must not tell one edit from the next."""
    if kind == "document":
        start = end = 0
    return GoldSpan(document_id, start, end, kind, grade, stance)
