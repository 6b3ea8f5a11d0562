"""The offline writer: makes questions by rules, without any model; the same documents and seed give the same questions.

Belongs here: which tasks there are, and carrying one out. Does not belong here: the rules themselves (cloze.py,
templates.py), and judging (filters.py).

Its generators are shown by name wherever its questions are: ``offline-cloze/1`` and so on. Raise the number with the rules.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations, pairwise

from assets.evaluation.heading_questions import GENERATOR as HEADING
from assets.evaluation.heading_questions import OFF_TOPIC, question_about
from assets.evaluation.metrics.words import words
from assets.evaluation.synthesis import templates
from assets.evaluation.synthesis.cloze import Blank, ask, blanks, names, statements
from assets.evaluation.synthesis.drafts import Apart, Draft, Made, Quote, Task
from assets.evaluation.synthesis.passages import Material, Passage, seeded
from assets.evaluation.synthesis.search import term_set, terms
from resources.fingerprint import fingerprint
from resources.synthesis_config import KINDS, QuestionKind

CLOZE, BRIDGE = "offline-cloze/1", "offline-bridge/1"
COMPARISON, SWAP, PARAPHRASE, NOISY = (
    "offline-comparison/1",
    "offline-swap/1",
    "offline-paraphrase/1",
    "offline-noisy/1",
)
GENERATORS = (CLOZE, HEADING, BRIDGE, COMPARISON, SWAP, PARAPHRASE, NOISY)
#: Share of facts asked by a heading where the passage has one.
_HEADING_SHARE = 0.5
#: A name that binds two passages stands in no more than so many.
_RARE = 5
#: Statements of a question of two are shorter.
_MOST_WORDS = 26
_MOST_PAIRS = 50_000


class OfflineWriter:
    """Makes questions of every kind from passages.

    Args:
        seed: the one source of chance.
    """

    window: int = 20
    patience: int | None = None

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.fingerprint = fingerprint(["offline", *GENERATORS, seed])

    def tasks(self, kind: QuestionKind, material: Material) -> Iterator[Task]:
        """What could be asked, the best order first: passages as the seed has them."""
        match kind:
            case "fact":
                for passage in material.passages_for(kind):
                    heading = bool(passage.sections) and self._chance(kind, passage).random() < _HEADING_SHARE
                    yield Task(kind, HEADING if heading else CLOZE, (passage,))
            case "multi_hop":
                yield from self._bridges(material)
            case "comparison":
                yield from self._comparisons(material)
            case "unanswerable":
                yield from self._swaps(material)
            case "paraphrase" | "noisy":
                generator = PARAPHRASE if kind == "paraphrase" else NOISY
                yield from (Task(kind, generator, (passage,)) for passage in material.passages_for(kind))

    def write(self, tasks: Sequence[Task], run_id: str) -> Iterator[Made]:
        """Carry out tasks, in their order; None where a passage yields no such question."""
        for task in tasks:
            yield task, self._make(task)

    def _make(self, task: Task) -> Draft | None:
        match task.kind:
            case "fact":
                return self._heading(task) if task.generator == HEADING else self._fact(task)
            case "multi_hop":
                return self._bridge(task)
            case "comparison":
                return self._comparison(task)
            case "unanswerable":
                return self._swap(task)
            case "paraphrase":
                return self._paraphrase(task)
            case "noisy":
                return self._noisy(task)

    def _chance(self, kind: str, *passages: Passage, detail: str = "") -> random.Random:
        return random.Random(seeded(self._seed, [kind, detail, *(passage.place for passage in passages)]))

    def _statement(self, task: Task) -> tuple[Quote, Blank] | None:
        """A statement of the passage and what is asked of it; kinds take different statements where there are several."""
        passage = task.passages[0]
        found = [(one, blanks(one)) for one in statements(passage)]
        ranked = sorted(
            ((one, own) for one, own in found if own),
            key=lambda item: seeded(self._seed, [passage.place, item[0].start]),
        )
        if not ranked:
            return None
        statement, own = ranked[KINDS.index(task.kind) % len(ranked)]
        strong = [blank for blank in own if blank.asks != "term"]
        return statement, self._chance(task.kind, passage, detail=task.detail).choice(strong or own)

    # --- one statement

    def _fact(self, task: Task) -> Draft | None:
        chosen = self._statement(task)
        if chosen is None:
            return None
        statement, blank = chosen
        return Draft(task, ask(statement.text, blank, task.passages[0].language), blank.answer, (statement,))

    def _heading(self, task: Task) -> Draft | None:
        passage = task.passages[0]
        name, start, end = self._chance("heading", passage).choice(passage.sections)
        answer = passage.part(start, end)
        return Draft(task, question_about(passage.title, name), answer, (Quote(passage, start, end),), section=name)

    def _paraphrase(self, task: Task) -> Draft | None:
        draft = self._fact(task)
        if draft is None:
            return None
        chance = self._chance("reword", task.passages[0])
        plain = draft.question
        reworded = templates.reword(plain, chance) or templates.keywords(plain)
        return None if reworded == plain else replace(draft, question=reworded)

    def _noisy(self, task: Task) -> Draft | None:
        draft = self._fact(task)
        if draft is None:
            return None
        return replace(draft, question=templates.misspell(draft.question, self._chance("misspell", task.passages[0])))

    # --- two statements

    def _bridges(self, material: Material) -> Iterator[Task]:
        """Pairs of passages that share a rare name, those of different documents first."""
        holders: dict[str, list[Passage]] = {}
        for passage in material.passages:
            own = {name for one in statements(passage) for name in names(one.text, passage.language)}
            for name in sorted(own):
                holders.setdefault(name, []).append(passage)
        pairs = [
            Task("multi_hop", BRIDGE, (second, first), name)
            for name, found in holders.items()
            if 2 <= len(found) <= _RARE and len(name) > 3
            for first, second in combinations(found, 2)
        ]
        yield from sorted(pairs, key=lambda task: (_same_document(task), self._order(task)))[:_MOST_PAIRS]

    def _bridge(self, task: Task) -> Draft | None:
        second, first = task.passages
        name = task.detail
        chance = self._chance("bridge", first, second, detail=name)
        says = [one for one in statements(first) if name in names(one.text, first.language) and _short(one)]
        asks = [
            (one, blank)
            for one in statements(second)
            if name in names(one.text, second.language) and _short(one)
            for blank in blanks(one)
            if set(words(blank.answer)).isdisjoint(words(name))
        ]
        if not says or not asks:
            return None
        described = chance.choice(says)
        statement, blank = chance.choice([item for item in asks if item[1].asks != "term"] or asks)
        if described.text == statement.text or blank.answer in described.text:
            return None
        question = templates.bridge(described, statement, name, blank)
        return question and Draft(task, question, blank.answer, (statement, described))  # type: ignore[return-value]

    def _comparisons(self, material: Material) -> Iterator[Task]:
        """Pairs of passages with a year each, or with a number of the same thing each."""
        groups: dict[str, list[Passage]] = {}
        for passage in material.passages:
            for group in sorted({group for _, _, group in _measures(passage)}):
                groups.setdefault(group, []).append(passage)
        pairs: list[Task] = []
        for group, found in groups.items():
            near = combinations(found, 2) if group != "year" else pairwise(found)
            pairs += [Task("comparison", COMPARISON, (one, other), group) for one, other in near]
        # numbers of one thing are the better comparison; years are everywhere
        yield from sorted(pairs, key=lambda task: (task.detail == "year", _same_document(task), self._order(task)))[
            :_MOST_PAIRS
        ]

    def _comparison(self, task: Task) -> Draft | None:
        chance = self._chance("comparison", *task.passages, detail=task.detail)
        chosen = []
        for passage in task.passages:
            own = [(one, blank) for one, blank, group in _measures(passage) if group == task.detail and _short(one)]
            if not own:
                return None
            chosen.append(chance.choice(own))
        (first, one), (second, other) = chosen
        made = templates.compare(first, second, one, other)
        if made is None or one.answer in second.text or other.answer in first.text:
            return None
        question, answer = made
        evidence = (first, second)
        return Draft(task, question, answer, evidence if answer == one.answer else evidence[::-1])

    # --- nothing to answer with

    def _swaps(self, material: Material) -> Iterator[Task]:
        """Each passage twice: with a name of other documents, and with one that nobody knows."""
        for passage in material.passages_for("unanswerable"):
            yield Task(
                "unanswerable",
                SWAP,
                (passage,),
                "known" if self._chance("swap", passage).random() < 0.5 else "invented",
            )
        for passage in material.passages_for("unanswerable"):
            yield Task("unanswerable", HEADING, (passage,), "topic")

    def prepare(self, material: Material) -> None:
        """Collect the names of all passages questions are made from: what may be swapped in."""
        found: dict[str, Passage] = {}
        for passage in material.passages:
            for one in statements(passage):
                for name in names(one.text, passage.language):
                    found.setdefault(name, passage)
        self._names = sorted(found)

    def _swap(self, task: Task) -> Draft | None:
        passage = task.passages[0]
        chance = self._chance("unanswerable", passage, detail=task.detail)
        if task.generator == HEADING:
            topic = chance.choice(OFF_TOPIC)
            return Draft(task, question_about(passage.title, topic), None, absent=templates.telling(topic))
        found = [
            (one, blank, name)
            for one in statements(passage)
            for blank in blanks(one)
            for name in templates.swappable(one, blank)
        ]
        if not found:
            return None
        statement, blank, name = chance.choice(found)
        if task.detail == "invented":
            other = chance.choice(templates.INVENTED)
            question = templates.swap(statement, blank, name, other)
            return None if question is None else Draft(task, question, None, absent=templates.telling(other))
        near = term_set(passage.text)
        same = [
            one
            for one in self._names
            if len(one.split()) == len(name.split()) and near.isdisjoint(terms(one)) and len(one) > 3
        ]
        if not same:
            return None
        other = chance.choice(same)
        question = templates.swap(statement, blank, name, other)
        if question is None:
            return None
        return Draft(task, question, None, apart=Apart(other, templates.content(question, [other])))

    def _order(self, task: Task) -> bytes:
        return seeded(self._seed, [task.kind, task.detail, *(passage.place for passage in task.passages)])


def _same_document(task: Task) -> bool:
    return len({passage.document for passage in task.passages}) == 1


def _short(statement: Quote) -> bool:
    return len(words(statement.text)) <= _MOST_WORDS


def _measures(passage: Passage) -> list[tuple[Quote, Blank, str]]:
    """Years and numbers in the statements of a passage, with what can be compared with them."""
    found: list[tuple[Quote, Blank, str]] = []
    for one in statements(passage):
        for blank in blanks(one):
            if blank.asks == "year":
                found.append((one, blank, "year"))
            elif blank.asks == "number" and (thing := templates.counted_thing(one.text, blank)):
                found.append((one, blank, f"number of {thing}"))
    return found
