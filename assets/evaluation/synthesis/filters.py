"""Filters: which drafts are fit to be put before people, and why the others are not.

Belongs here: each filter, their order. Does not belong here: making drafts, storing verdicts (store.py, generating.py).

A draft is judged by one filter after the other and rejected by the first it fails, so that of each filter it is known
how many reached it and how many it refused. Reasons name filters and questions by id; they quote nothing.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from assets.evaluation.leakage import Item, KnownQuestions, leaks
from assets.evaluation.metrics.words import words
from assets.evaluation.questions import QuestionSpec
from assets.evaluation.synthesis.cloze import GAP
from assets.evaluation.synthesis.passages import Material
from assets.evaluation.synthesis.readers import Reader, Shown, agrees
from assets.evaluation.synthesis.search import term_set, terms
from assets.evaluation.synthesis.store import StoredDraft

FILTERS: dict[str, str] = {
    "form": "One clear question that can be understood alone, with an answer of reasonable length.",
    "span": "The evidence stands in its document exactly once and as quoted, and holds the answer word for word.",
    "leak": "The question does not hold its answer, and no prompt, worked example or train question gives it away.",
    "duplicate": "Neither a question of the dataset nor another draft asks nearly the same.",
    "answerable": "A reader finds the answer in the evidence alone; what is unanswerable stands nowhere in the documents.",
    "round_trip": "A search of its own finds the evidence by the question, and a reader the answer in what was found.",
}
#: Kinds whose evidence is in two places.
_TWO_PLACES = frozenset({"multi_hop", "comparison"})
_QUESTION_CHARACTERS = (12, 900)
_ANSWER_CHARACTERS = 500
_LEAST_CONTENT = 3
#: From this share of a question's other words near a name on, the documents may well say what is asked of it.
NEAR = 0.5
_POINTS_NOWHERE = re.compile(
    r"\b(?:the|this|that|these|above|given|following|provided)\s+(?:passage|text|excerpt|context|paragraph|snippet|extract)s?\b"
    r"|\baccording to (?:it|this|them)\b",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"[\x00-\x1f\x7f]|\]\(|^\s*[#>|]|\||```|https?://")


@dataclass(frozen=True)
class Verdict:
    """What the filters say of a draft.

    Attributes:
        failed: the filter that refused it, or None.
        scores: what was measured: numbers and names of filters, no words.
    """

    failed: str | None
    reason: str | None
    scores: dict[str, Any] = field(default_factory=dict)


@dataclass
class Bench:
    """What drafts are judged against.

    Attributes:
        text: the live text of a document by its id; None: it is gone.
        known: questions of the dataset and drafts that passed; those that pass now are added.
        shown: worked examples, prompts and train questions; ``contexts`` as in ``leaks``.
        k: the evidence has to be among so many passages, twice as many where there are two.
    """

    material: Material
    text: Callable[[int], str | None]
    known: KnownQuestions
    shown: Sequence[Item]
    contexts: Mapping[str, str]
    reader: Reader
    k: int
    run_id: str = ""

    def judge(self, drafts: Sequence[StoredDraft]) -> list[Verdict]:
        """Send drafts through all filters, as if one after the other.

        Readers that are asked over a network read several at once; what would be refused anyway is not put before them.
        """
        first = [self._form_to_duplicate(draft) for draft in drafts]
        open_ones = [draft for draft, verdict in zip(drafts, first, strict=True) if verdict.failed is None]
        with ThreadPoolExecutor(max(1, min(self.reader.concurrency, len(open_ones))), "reading") as pool:
            found = dict(zip((draft.draft_id for draft in open_ones), pool.map(self._readings, open_ones), strict=True))
        verdicts: list[Verdict] = []
        for draft, verdict in zip(drafts, first, strict=True):
            if verdict.failed is None and (reason := self.duplicate(draft, {})) is not None:  # of one just before it
                verdict = Verdict("duplicate", reason, {"filter": "duplicate"})
            elif verdict.failed is None:
                verdict = found[draft.draft_id]
            if verdict.failed is None:
                self.known.add(item_of(draft))
            verdicts.append(verdict)
        return verdicts

    def _form_to_duplicate(self, draft: StoredDraft) -> Verdict:
        return _first_failed(draft, {"form": form, "span": self.span, "leak": self.leak, "duplicate": self.duplicate})

    def _readings(self, draft: StoredDraft) -> Verdict:
        return _first_failed(draft, {"answerable": self.answerable, "round_trip": self.round_trip})

    def span(self, draft: StoredDraft, scores: dict[str, Any]) -> str | None:
        """Whether the evidence stands where it was taken from, and holds the answer."""
        line, places = draft.line, draft.checked_by.get("passages", [])
        documents = {place["document"]: place["document_id"] for place in places}
        spans = draft.checked_by.get("spans", [])
        if len(spans) != len(line["evidence"]):
            return "a piece of evidence has no place"
        for piece, (start, end) in zip(line["evidence"], spans, strict=True):
            text = self.text(documents.get(piece["document"], -1))
            if text is None:
                return "a document of its evidence is gone"
            if text[start:end] != piece["quote"]:
                return "its evidence does not stand where it was taken from"
            if text.count(piece["quote"]) != 1:
                return "its evidence stands in the document more than once"
        answer = line["answer"]
        if answer is not None and not any(answer in piece["quote"] for piece in line["evidence"]):
            return "no piece of its evidence holds the answer word for word"
        return None

    def leak(self, draft: StoredDraft, scores: dict[str, Any]) -> str | None:
        """Whether the question, or anything shown to a model, gives the answer away."""
        line = draft.line
        plain = f" {' '.join(words(line['question']))} "
        if line["answer"] is not None and f" {' '.join(words(line['answer']))} " in plain:
            return "the question holds its answer"
        if any(f" {' '.join(words(piece['quote']))} " in plain for piece in line["evidence"]):
            return "the question holds its evidence word for word"
        found = leaks([item_of(draft)], self.shown, self.contexts)
        return f"given away by {found[0].leaked_by}: {found[0].how}" if found else None

    def answerable(self, draft: StoredDraft, scores: dict[str, Any]) -> str | None:
        """Whether the answer can be found in the evidence; or stands, as it should, nowhere."""
        line = draft.line
        if line["answer"] is None:
            return self._absent(draft, scores)
        said = self.reader.read(
            line["question"], self._evidence(draft), sentences=_sentences(draft), run_id=self.run_id
        )
        if said is None:
            return "a reader finds no answer in the evidence"
        return None if agrees(line["answer"], said) else "a reader finds another answer in the evidence"

    def round_trip(self, draft: StoredDraft, scores: dict[str, Any]) -> str | None:
        """Whether the question leads back to its evidence, and from there to its answer."""
        line, material = draft.line, self.material
        two = draft.kind in _TWO_PLACES
        found = [material.everything[number] for number in material.index.search(line["question"], self.k * (1 + two))]
        shown = [Shown.of(passage) for passage in found]
        if line["answer"] is None:
            said = self.reader.read(line["question"], shown, sentences=2, run_id=self.run_id) if shown else None
            scores["refused"] = said is None
            if said is not None and not self.reader.quotes:
                return "a reader answers it from what a search finds"
            return None
        ids = {place["document"]: place["document_id"] for place in draft.checked_by["passages"]}
        for piece, (start, end) in zip(line["evidence"], draft.checked_by["spans"], strict=True):
            ranks = [
                rank
                for rank, passage in enumerate(found, start=1)
                if passage.document_id == ids[piece["document"]] and passage.start <= start and end <= passage.end
            ]
            if not ranks:
                return "a search by the question does not find its evidence"
            scores["rank"] = max(scores.get("rank", 0), ranks[0])
        said = self.reader.read(line["question"], shown, sentences=_sentences(draft) + 1, run_id=self.run_id)
        if said is None:
            return "a reader finds no answer in what a search finds"
        return None if agrees(line["answer"], said) else "a reader finds another answer in what a search finds"

    def duplicate(self, draft: StoredDraft, scores: dict[str, Any]) -> str | None:
        """Whether nearly the same is asked already."""
        found = self.known.like(item_of(draft))
        return None if found is None else f"{found[1]}: {found[0]}"

    def is_answerable_now(self, draft: StoredDraft) -> bool:
        """Whether the documents may answer by now what they could not when it was made."""
        return bool(draft.line) and draft.line["answer"] is None and self._absent(draft, {}) is not None

    def _absent(self, draft: StoredDraft, scores: dict[str, Any]) -> str | None:
        """Verify that the documents cannot answer: a word of the question stands nowhere, or a name not near the rest."""
        absent, apart = draft.checked_by.get("absent"), draft.checked_by.get("apart")
        if absent:
            asked = term_set(draft.line["question"])
            needed = [term for word in absent for term in terms(word)]
            if not needed or not asked.issuperset(needed):
                return "the words that make it unanswerable are not in the question"
            if any(self.material.knows(term) for term in needed):
                return "the documents hold the words that should make it unanswerable"
            scores["absent"] = "word"
            return None
        if not apart:
            return "nothing says what makes it unanswerable"
        if not self.material.complete:
            return "too many documents to verify that its name stands apart"
        name, rest = apart["name"], frozenset(apart["words"])
        phrase = f" {' '.join(words(name))} "
        if not rest or phrase not in f" {' '.join(words(draft.line['question']))} ":
            return "the words that make it unanswerable are not in the question"
        nearest = 0.0
        for number in self.material.index.holding(name):
            near = self.material.around(number)
            if phrase in f" {' '.join(words(near))} ":
                nearest = max(nearest, len(rest & term_set(near)) / len(rest))
        scores |= {"absent": "combination", "nearest": round(nearest, 3)}
        return "the documents may answer it: they speak of all of it in one place" if nearest >= NEAR else None

    def _evidence(self, draft: StoredDraft) -> list[Shown]:
        """The evidence alone, each piece under the title and headings of its passage."""
        by_place = {(one["document"], one["start"]): one for one in draft.checked_by["passages"]}
        shown = []
        for piece, (start, end) in zip(draft.line["evidence"], draft.checked_by["spans"], strict=True):
            place = next(
                one
                for one in by_place.values()
                if one["document"] == piece["document"] and one["start"] <= start and end <= one["end"]
            )
            shown.append(Shown(place["heading"], piece["quote"], place["document_id"]))
        return shown


def _first_failed(
    draft: StoredDraft, steps: Mapping[str, Callable[[StoredDraft, dict[str, Any]], str | None]]
) -> Verdict:
    scores: dict[str, Any] = {}
    for name, step in steps.items():
        reason = step(draft, scores)
        if reason is not None:
            return Verdict(name, reason, {**scores, "filter": name})
    return Verdict(None, None, scores)


def form(draft: StoredDraft, scores: dict[str, Any]) -> str | None:
    """Whether a draft is a well-formed question."""
    line = draft.line
    question, answer = line["question"], line["answer"]
    try:
        QuestionSpec.model_validate(line)
    except ValidationError as error:
        return f"{'.'.join(map(str, error.errors()[0]['loc'])) or 'the line'} is not valid"
    low, high = _QUESTION_CHARACTERS
    if not low <= len(question) <= high:
        return "the question is too short or too long"
    if _MARKUP.search(question) or (answer is not None and re.search(r"[\x00-\x1f\x7f]", answer)):
        return "the question or the answer holds markup or control characters"
    if _POINTS_NOWHERE.search(question):
        return "the question speaks of a passage its reader does not see"
    if question.count("“") != question.count("”") or question.count("(") != question.count(")"):
        return "quotation marks or brackets are not closed"
    if draft.kind != "noisy" and "?" not in question[-2:]:
        return "it does not end as a question"
    gaps = question.count(GAP)
    if gaps > (2 if draft.kind == "comparison" else 1):
        return "it has more gaps than one"
    if len(set(terms(question.replace(GAP, " ")))) < _LEAST_CONTENT:
        return "it has too few words that say what is asked"
    if answer is not None and len(answer) > _ANSWER_CHARACTERS:
        return "the answer is too long"
    if answer is None and draft.kind != "unanswerable":
        return "there is no answer"
    if answer is not None and (draft.kind == "unanswerable" or not line["evidence"]):
        return "answer and evidence do not fit the kind"
    if draft.kind in _TWO_PLACES and len(line["evidence"]) < 2:
        return "a question of two places has evidence of one"
    return None


def item_of(draft: StoredDraft) -> Item:
    """The draft as texts are compared."""
    return Item(draft.question_id, draft.line["question"], draft.line["answer"])


def _sentences(draft: StoredDraft) -> int:
    return 3 if draft.kind in _TWO_PLACES else 2
