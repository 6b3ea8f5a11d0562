"""Measures: what a judge is shown of a trial, and the value that follows from its verdicts.

Belongs here: which trials a measure applies to, the parts that are judged, formulas; pure.
Does not belong here: words of the task (prompts.py), the form of a reply (schemas.py), asking (judges.py).

The formulas are those of the metrics without a judge: only who says whether a claim is entailed differs.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from assets.evaluation.judging.claims import Claim, claims_or_whole, located_claims
from assets.evaluation.judging.prompts import Section, framed, framed_passage
from assets.evaluation.judging.schemas import Item, Reply
from assets.evaluation.metrics.records import RetrievedChunk, TrialRecord
from resources.judge_config import RATINGS, JudgeConfig

#: Measures of the answer alone or with what was supplied: a refusal has none, answerability scores it.
OF_ANSWERS = frozenset({"groundedness", "utilization", "relevance", "coherence", "fluency"})
#: Measures of an answer against a reference: a refusal is the empty answer.
OF_REFERENCES = frozenset({"correctness"})
#: Measures of what was retrieved.
OF_CONTEXT = frozenset({"context_precision", "context_recall"})
#: Measures of passages, which only a question that is answered from documents has.
OF_PASSAGES = OF_CONTEXT | {"groundedness", "utilization", "completeness"}
#: Verdicts from the worst to the best: of as many votes for two of them the worse counts.
_SEVERITY = (
    "contradicted", "wrong", "unsupported", "extra", "missing", "unused", "irrelevant", "useless", "open",
    "entailed", "correct", "covered", "used", "relevant", "useful", "attributable", "answerable",
)  # fmt: skip
_GOOD = frozenset(_SEVERITY[9:])


@dataclass(frozen=True)
class Sheet:
    """What is put before a judge.

    Attributes:
        claims: of the answer; ``reference``: of the reference answer.
        alternatives: further accepted answers.
        candidates: two answers to choose between.
    """

    question: str | None = None
    passages: tuple[RetrievedChunk, ...] = ()
    answer: str | None = None
    claims: tuple[Claim, ...] = ()
    reference: tuple[Claim, ...] = ()
    alternatives: tuple[str, ...] = ()
    candidates: tuple[str, str] | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many parts of each kind there are."""
        return {"claims": len(self.claims), "reference": len(self.reference), "passages": len(self.passages)}

    def swapped(self) -> "Sheet":
        """The same with every list in reverse order."""
        return replace(
            self,
            passages=self.passages[::-1],
            claims=self.claims[::-1],
            reference=self.reference[::-1],
            candidates=self.candidates and (self.candidates[1], self.candidates[0]),
        )

    def sections(self) -> list[Section]:
        """As it is shown."""
        found = []
        if self.question is not None:
            found.append(Section("Question:", ((None, framed(self.question)),)))
        if self.passages:
            texts = [framed_passage(one.text, one.title, one.heading_path) for one in self.passages]
            found.append(Section("Passages:", tuple(enumerate(texts, 1))))
        if self.reference:
            parts = [framed(one.text) for one in self.reference]
            found.append(Section("Claims of the reference answer:", tuple(enumerate(parts, 1))))
        if self.alternatives:
            parts = tuple((None, framed(one)) for one in self.alternatives)
            found.append(Section("Right as well as the reference:", parts))
        if self.answer is not None:
            found.append(Section("Answer:", ((None, framed(self.answer)),)))
        if self.claims:
            parts = [framed(one.text) for one in self.claims]
            found.append(Section("Claims of the answer:", tuple(enumerate(parts, 1))))
        if self.candidates:
            first, second = map(framed, self.candidates)
            found += [Section("First answer:", ((None, first),)), Section("Second answer:", ((None, second),))]
        return found


@dataclass(frozen=True)
class Decided:
    """A value that needs no judge; None where the measure is undefined."""

    value: float | None


_WORST, _UNDEFINED = Decided(0.0), Decided(None)


def applies_to(judge: JudgeConfig) -> str:
    """The trials a measure is defined for, in the words of the catalogue."""
    if judge.measures == "completeness":
        return "answerable questions"
    if judge.measures in OF_CONTEXT | OF_REFERENCES or _sees_reference(judge):
        return "answerable questions with a reference answer"
    return "answers that are no refusal"


def _sees_reference(judge: JudgeConfig) -> bool:
    return judge.measures == "custom" and "reference" in judge.sees


def prepare(judge: JudgeConfig, record: TrialRecord) -> Sheet | Decided:
    """What to ask about a trial, or its value where there is nothing to ask."""
    where = applies_to(judge)
    if record.task != "rag" and judge.measures in OF_PASSAGES:
        return _UNDEFINED
    if where == "answerable questions":
        if not record.answerable or not any(span.stance == "supports" for span in record.gold):
            return _UNDEFINED
    elif where == "answerable questions with a reference answer":
        if not record.answerable or not record.accepted:
            return _UNDEFINED
        if (record.refused or not record.answer.strip()) and judge.measures not in OF_CONTEXT:
            return _WORST
    elif (record.refused or not record.answer.strip()) and not record.failed:
        return _UNDEFINED
    if record.failed:
        return _WORST
    return _SHEETS.get(judge.measures, _rated)(judge, record)


def _groundedness(judge: JudgeConfig, record: TrialRecord) -> Sheet | Decided:
    claims = located_claims(record.answer)
    if not claims:
        return _UNDEFINED
    return Sheet(passages=record.read, claims=tuple(claims)) if record.read else _WORST


def _utilization(judge: JudgeConfig, record: TrialRecord) -> Sheet | Decided:
    return Sheet(passages=record.read, answer=record.answer) if record.read else _UNDEFINED


def _relevance(judge: JudgeConfig, record: TrialRecord) -> Sheet | Decided:
    claims = located_claims(record.answer)
    return Sheet(question=record.question, claims=tuple(claims)) if claims else _UNDEFINED


def _completeness(judge: JudgeConfig, record: TrialRecord) -> Sheet | Decided:
    return Sheet(question=record.question, passages=record.hits) if record.hits else _WORST


def _correctness(judge: JudgeConfig, record: TrialRecord) -> Sheet | Decided:
    first, *others = record.accepted
    return Sheet(
        question=record.question,
        reference=tuple(claims_or_whole(first)),
        alternatives=tuple(others),
        claims=tuple(claims_or_whole(record.answer)),
    )


def _context_precision(judge: JudgeConfig, record: TrialRecord) -> Sheet | Decided:
    reference = (Claim(0, len(record.accepted[0]), record.accepted[0]),)
    return Sheet(question=record.question, passages=record.hits, reference=reference) if record.hits else _WORST


def _context_recall(judge: JudgeConfig, record: TrialRecord) -> Sheet | Decided:
    reference = tuple(claims_or_whole(record.accepted[0]))
    return Sheet(question=record.question, passages=record.hits, reference=reference) if record.hits else _WORST


def _rated(judge: JudgeConfig, record: TrialRecord) -> Sheet | Decided:
    custom = judge.measures == "custom"
    reference = record.accepted[0] if _sees_reference(judge) else None
    return Sheet(
        question=record.question if custom and "question" in judge.sees else None,
        passages=record.read if custom and "passages" in judge.sees else (),
        reference=(Claim(0, len(reference), reference),) if reference else (),
        answer=record.answer,
    )


_SHEETS = {
    "groundedness": _groundedness,
    "utilization": _utilization,
    "relevance": _relevance,
    "completeness": _completeness,
    "correctness": _correctness,
    "context_precision": _context_precision,
    "context_recall": _context_recall,
}


# --- from verdicts to a value ----------------------------------------------------------------------------------


def value_of(judge: JudgeConfig, reply: Reply) -> float:
    """The value that follows from one reply, or from the majority of several; 0 to 1."""
    if judge.measures in RATINGS:
        assert reply.rating is not None
        return (reply.rating - 1) / (judge.scale - 1)
    good = {kind: _share(reply.items, kind) for kind in {item.of for item in reply.items}}
    match judge.measures:
        case "completeness":
            return good["intents"] ** 2
        case "correctness":
            precision, recall = good.get("claims", 0.0), good.get("reference", 0.0)
            return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        case "context_precision":
            useful = [item.verdict in _GOOD for item in sorted(reply.items, key=lambda item: item.number)]
            found = [sum(useful[:place]) / place for place, hit in enumerate(useful, 1) if hit]
            return sum(found) / len(found) if found else 0.0
        case _:
            (share,) = good.values()
            return share


def _share(items: Sequence[Item], kind: str) -> float:
    verdicts = [item.verdict for item in items if item.of == kind]
    return sum(verdict in _GOOD for verdict in verdicts) / len(verdicts)


def in_order(reply: Reply, counts: Mapping[str, int], passages: int) -> Reply:
    """A reply to a swapped sheet with the numbers that its parts have in the other order."""
    turned = tuple(
        replace(
            item,
            number=item.number if item.of == "intents" else counts[item.of] + 1 - item.number,
            passages=tuple(sorted(passages + 1 - number for number in item.passages)),
        )
        for item in reply.items
    )
    better = {"first": "second", "second": "first"}.get(reply.better or "", reply.better)
    return replace(reply, items=turned, better=better)


@dataclass(frozen=True)
class Vote:
    """What several replies say together.

    Attributes:
        spread: largest value less smallest, of replies to the same sheet in the same order; the larger of both orders.
        unsteady: share of the parts on which such replies differ.
        swapped: share of the parts whose verdict changes with the order; None when the order was not tried.
    """

    value: float
    items: tuple[Item, ...]
    spread: float
    unsteady: float
    swapped: float | None


def vote(judge: JudgeConfig, plain: Sequence[Reply], swapped: Sequence[Reply]) -> Vote:
    """The majority of the replies, part by part; of ratings and of lists that the judge made itself, the median.

    Args:
        swapped: replies to the swapped sheet, with the numbers of the plain one.
    """
    replies = [*plain, *swapped]
    values = [value_of(judge, reply) for reply in replies]
    orders = [order for order in (plain, swapped) if order]
    spread = max(_spread([value_of(judge, reply) for reply in order]) for order in orders)
    if judge.measures in RATINGS or judge.measures == "completeness":
        value = median(values)
        nearest = min(range(len(values)), key=lambda at: (abs(values[at] - value), at))
        halves = [median(value_of(judge, reply) for reply in order) for order in orders]
        changed = abs(halves[0] - halves[1]) if swapped else None
        return Vote(value, replies[nearest].items, spread, spread, changed)
    items = _majority(replies)
    unsteady = max(_changed([_by_part(reply) for reply in order]) for order in orders)
    changed = _changed([_by_part(Reply(_majority(order))) for order in orders]) if swapped else None
    return Vote(value_of(judge, Reply(items)), items, spread, unsteady, changed)


def _spread(values: Sequence[float]) -> float:
    return max(values) - min(values)


def _by_part(reply: Reply) -> dict[tuple[str, int], str]:
    return {(item.of, item.number): item.verdict for item in reply.items}


def _changed(verdicts: Sequence[Mapping[tuple[str, int], str]]) -> float:
    """Share of the parts on which not all agree."""
    parts = verdicts[0].keys()
    return sum(len({one[part] for one in verdicts}) > 1 for part in parts) / len(parts)


def _majority(replies: Sequence[Reply]) -> tuple[Item, ...]:
    parts = sorted({(item.of, item.number) for item in replies[0].items})
    found = []
    for of, number in parts:
        votes = [item for reply in replies for item in reply.items if (item.of, item.number) == (of, number)]
        counts = Counter(item.verdict for item in votes)
        verdict = min(counts, key=lambda one: (-counts[one], _SEVERITY.index(one)))
        mine = [item.passages for item in votes if item.verdict == verdict]
        named = Counter(passage for passages in mine for passage in passages)
        rests_on = tuple(sorted(passage for passage, times in named.items() if 2 * times >= len(mine)))
        found.append(Item(of, number, verdict, rests_on))
    return tuple(found)
