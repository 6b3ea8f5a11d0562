"""Worked examples: train questions of a dataset with the passage that answers them and the answer.

Belongs here: drawing them from a dataset version, the same ones every time. Does not belong here: choosing among them for
one question (resources/context.py), and whether they give a scored question away (checks.py).
"""

from collections import defaultdict
from collections.abc import Iterable

from assets.evaluation.dataset import EvaluationDataset, Question, read_dataset
from resources.errors import PermanentError
from resources.fingerprint import fingerprint
from resources.grid_config import ContextConfig
from resources.postgres import Connection
from resources.prompt_config import FewShot

#: Most examples the ones for a question are chosen from; they are on record with every variant.
POOL = 64
#: Most characters of a piece of evidence, and how far the passage may go beyond it, within its paragraph.
MAXIMUM_CHARACTERS, AROUND = 1_200, 400


def draw(connection: Connection, dataset: str, context: ContextConfig) -> tuple[FewShot, ...]:
    """The worked examples of a context, from the newest version of the dataset.

    Answerable active train questions whose evidence is a passage, in an order that follows from the questions alone, so
    that one question more does not change which others are drawn. ``fixed`` takes the first ``examples`` of them,
    ``similar`` up to ``POOL`` to choose from.

    Of a task without documents every train input is suited; those of a classification are taken label by label in turn.

    Raises:
        PermanentError: the dataset was never built, or has not enough such train questions.
    """
    wanted = context.examples if context.select == "fixed" else POOL
    read = read_dataset(connection, dataset)
    if read.task is not None:
        return _draw_inputs(read, context, wanted)
    suited = [question for question in read.split("train") if _suits(question)]
    suited.sort(key=lambda question: fingerprint(question.question))
    chosen = suited[:wanted]
    if len(chosen) < context.examples:
        raise PermanentError(
            f"context {context.name} wants {context.examples} worked examples, but dataset {dataset} has "
            f"{len(chosen)} answerable train questions with a passage as evidence; add some with split: train"
        )
    passages = _passages(connection, dataset, chosen)
    return tuple(
        FewShot(
            question=question.question,
            context="\n".join(passages[question.question_id]),
            answer=str(question.answer),
            documents=tuple(sorted({span.document_id for span in question.gold})),
        )
        for question in chosen
    )


def _draw_inputs(read: EvaluationDataset, context: ContextConfig, wanted: int) -> tuple[FewShot, ...]:
    """Train inputs with their answers; they are from the dataset's own file, and from no document."""
    suited = sorted(read.split("train"), key=lambda question: fingerprint(question.question))
    place = {label: number for number, label in enumerate(read.task.labels)} if read.task is not None else {}
    turns = dict.fromkeys(place, 0)
    order: list[tuple[int, int, int]] = []
    for at, question in enumerate(suited):
        label = str(question.answer)
        order.append((turns.get(label, at), place.get(label, 0), at))  # without labels one after the other
        if label in turns:
            turns[label] += 1
    chosen = [suited[at] for _, _, at in sorted(order)][:wanted]
    if len(chosen) < context.examples:
        raise PermanentError(
            f"context {context.name} wants {context.examples} worked examples, but dataset {read.dataset} has "
            f"{len(chosen)} train inputs; add some with split: train"
        )
    return tuple(FewShot(question=one.question, context="", answer=str(one.answer)) for one in chosen)


def _suits(question: Question) -> bool:
    return (
        question.answer is not None
        and bool(question.gold)
        and all(
            span.kind == "span" and span.stance == "supports" and span.end - span.start <= MAXIMUM_CHARACTERS
            for span in question.gold
        )
    )


def _passages(connection: Connection, dataset: str, questions: Iterable[Question]) -> dict[str, list[str]]:
    """The passages of the questions in the order of their evidence."""
    version = connection.execute(
        "SELECT max(version) FROM evaluation_dataset WHERE dataset = %s", (dataset,)
    ).fetchone()
    rows = connection.execute(
        """SELECT question_id, start_char, end_char, text FROM evaluation_evidence JOIN document_text USING (text_hash)
           WHERE dataset = %s AND version = %s AND question_id = ANY(%s) ORDER BY question_id, ordinal""",
        (dataset, version[0] if version else None, [question.question_id for question in questions]),
    ).fetchall()
    passages: dict[str, list[str]] = defaultdict(list)
    for question_id, start, end, text in rows:
        passage = passage_around(text, start, end)
        if passage not in passages[question_id]:
            passages[question_id].append(passage)
    return passages


def passage_around(text: str, start: int, end: int) -> str:
    """The paragraph of a piece of evidence, at most ``AROUND`` characters before and after it, in whole words."""
    begin = max(text.rfind("\n\n", 0, start) + 2 if "\n\n" in text[:start] else 0, start - AROUND)
    stop = text.find("\n\n", end)
    stop = min(len(text) if stop < 0 else stop, end + AROUND)
    # whole words: a cut in the middle of one is moved inwards, but never into the evidence
    while begin < start and begin > 0 and not text[begin - 1].isspace():
        begin += 1
    while stop > end and stop < len(text) and not text[stop].isspace():
        stop -= 1
    return text[begin:stop].strip()
