"""What metrics cost on 10 000 trials over real questions, and how far the estimators agree with people.

Run with ``make bench``; prints, and asserts no time.
"""

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assets.evaluation.metrics import grounding
from assets.evaluation.metrics.base import METRICS, GoldSpan, TrialRecord, score
from assets.evaluation.metrics.catalogue import GROUPS
from assets.experiments import scores as scoring
from resources.platform import Platform
from tests.benchmarks import fit_grounding as fitting
from tests.benchmarks.measuring import show
from tests.hard_claims import KINDS, hard_claims
from tests.unit.metric_records import Hit, record
from tests.unit.test_metrics_grounding import plain_overlap

pytestmark = pytest.mark.benchmark
TRIALS = 10_000
K = 5


def squad_trials(data: Path, number: int = TRIALS) -> list[TrialRecord]:
    """Trials of four variants: paragraphs of the same article as hits, answers quoted, wrong, in a sentence, refused."""
    read = lambda name: [json.loads(line) for line in (data / "squad2" / name).read_text("utf-8").splitlines()]  # noqa: E731
    paragraphs = {one["paragraph_id"]: one for one in read("paragraphs.jsonl")}
    numbers = {key: place for place, key in enumerate(paragraphs)}
    of_article: dict[str, list[str]] = {}
    for key, one in paragraphs.items():
        of_article.setdefault(one["article"], []).append(key)
    chance = random.Random(1)
    trials: list[TrialRecord] = []
    questions = read("questions.jsonl")
    while len(trials) < number:
        for asked in questions[: number // 4]:
            home = asked["paragraph_id"]
            others = [key for key in of_article[paragraphs[home]["article"]] if key != home]
            found = [home, *chance.sample(others, min(K - 1, len(others)))]
            chance.shuffle(found)
            text = paragraphs[home]["text"]
            answers = [] if asked["is_impossible"] else [one["text"] for one in asked["answers"]]
            start = text.find(answers[0]) if answers else 0
            sentence = chance.choice(grounding_sentences(text))
            said = chance.choice([answers[0] if answers else sentence, sentence, f"{sentence} {sentence[:60]}"])
            trials.append(
                TrialRecord(
                    question_id=f"{asked['id']}-{len(trials)}",
                    question=asked["question"],
                    answerable=bool(answers),
                    reference=answers[0] if answers else None,
                    references=tuple(answers[1:]),
                    gold=(GoldSpan(numbers[home], start, start + len(answers[0])),) if answers else (),
                    hits=tuple(
                        Hit(
                            numbers[key],
                            0,
                            len(paragraphs[key]["text"]),
                            paragraphs[key]["text"],
                            paragraphs[key]["article"],
                        )
                        for key in found
                    ),
                    answer=said,
                    refused=chance.random() < 0.2,
                )
            )
    return trials[:number]


def grounding_sentences(text: str) -> list[str]:
    """The sentences of a paragraph."""
    from assets.evaluation.metrics.words import sentences

    return sentences(text)


def test_scoring_ten_thousand_trials(shared_data: Path) -> None:
    trials = squad_trials(shared_data)
    score(trials[:50])  # imports
    rows = []
    total = 0.0
    for group in GROUPS:
        ids = [definition.id for definition in group.definitions]
        began = time.process_time()
        score(trials, ids)
        seconds = time.process_time() - began
        total += seconds
        rows.append([ids[0], len(ids), seconds, seconds / total])
    rows.append(["all", len(METRICS), total, 1.0])
    show(
        f"{TRIALS} trials of squad2, {K} paragraphs each",
        ["metrics", "number", "CPU seconds", "share"],
        [[name, number, seconds, seconds / total] for name, number, seconds, _ in rows],
    )


def test_storing_and_reading_ten_thousand_trials(make_platform: Callable[..., Platform]) -> None:
    from tests.unit.experiment_world import World, files, variant

    world = World(make_platform(**files()))
    one = variant("plain")
    keys = [f"{place:032x}" for place in range(TRIALS)]
    random.Random(2).shuffle(keys)
    with world.database.connect() as connection:
        connection.execute("INSERT INTO variant (fingerprint, name, config) VALUES (%s, 'v', '{}')", (one.fingerprint,))
        connection.execute(
            """INSERT INTO trial (fingerprint, experiment, variant, index_name, snapshot, dataset, dataset_version, question_id,
                   status, retrieved, run_id)
               SELECT key, 'e', %s, 'i', 1, 'd', 1, key, 'ok', '[]', 'r' FROM unnest(%s::text[]) key""",
            (one.fingerprint, keys),
        )
    metrics = list(METRICS)
    values: dict[str, dict[str, float | None]] = {key: dict.fromkeys(metrics, 0.25) for key in keys}
    began = time.perf_counter()
    for start in range(0, TRIALS, scoring.BATCH_SIZE):
        batch = keys[start : start + scoring.BATCH_SIZE]
        with world.database.connect() as connection:
            scoring._write(connection, metrics, {key: values[key] for key in batch})
    stored = time.perf_counter() - began
    began = time.perf_counter()
    with world.database.connect() as connection:
        read = scoring._read(connection, keys, metrics)
    fetched = time.perf_counter() - began
    assert read == values
    rows = [["store", stored, TRIALS * len(metrics) / stored], ["read", fetched, TRIALS * len(metrics) / fetched]]
    show(f"{TRIALS} trials x {len(metrics)} metrics", ["", "seconds", "scores/s"], rows)


def test_agreement_of_groundedness_with_people(shared_data: Path) -> None:
    import numpy as np
    from sklearn.metrics import roc_auc_score

    examples = fitting.read(shared_data)
    labels = np.array([row["grounded"] for row in examples])
    groups = [row["group"] for row in examples]
    records = [record(row["answer"], "x", retrieved=(Hit(1, 0, 9, row["context"]),)) for row in examples]
    delivered = score(records, ["genaiops.groundedness_lexical/2", "genaiops.support_lexical/1"])
    looks = [fitting.looks(row) for row in examples]
    columns: dict[str, Any] = {
        "plain overlap": [plain_overlap(row["answer"], row["context"]) for row in examples],
        **{metric: [value or 0.0 for value in column] for metric, column in delivered.items()},
        "groundedness, out of fold": fitting.out_of_fold(looks, labels, groups, grounding.FEATURES, seed=0),
    }
    rows = []
    for name, column in columns.items():
        low, high = fitting.interval(np.array(column), labels, groups)
        rows.append([name, float(roc_auc_score(labels, column)), float(low), float(high)])
    show(f"BEGIN, {len(labels)} answers: AUC, 95 % by group", ["", "AUC", "low", "high"], rows)


def test_changed_facts(shared_data: Path) -> None:
    from sklearn.metrics import roc_auc_score

    made = hard_claims(shared_data)
    rows = []
    for kind in (*KINDS, "all"):
        some = [one for one in made if kind in ("all", one.kind) or one.grounded]
        labels = [one.grounded for one in some]
        ours = [grounding.groundedness(one.claim, [one.context]) or 0.0 for one in some]
        overlap = [plain_overlap(one.claim, one.context) for one in some]
        false = [value for value, one in zip(ours, some, strict=True) if not one.grounded]
        caught = sum(value < grounding.ENTAILED for value in false) / len(false)
        rows.append(
            [kind, len(false), float(roc_auc_score(labels, overlap)), float(roc_auc_score(labels, ours)), caught]
        )
    show("squad2 claims with one fact changed", ["changed", "claims", "AUC overlap", "AUC ours", "below half"], rows)


def test_agreement_of_correctness_with_people(shared_data: Path) -> None:
    import numpy as np
    from scipy.stats import pearsonr, spearmanr

    lines = (shared_data / "ragchecker-human-pref" / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = [json.loads(line) for line in lines]
    people = np.array([[label["overall"] for label in pair["labels"]] for pair in pairs], dtype=float)
    records = [record(pair[name], pair["reference_answer"]) for pair in pairs for name in ("answer1", "answer2")]
    metrics = [
        "genaiops.correctness_lexical/1", "squad.f1/1", "rouge.rougeL/1", "sacrebleu.chrf/1", "nltk.meteor_exact_stem/1",
    ]  # fmt: skip
    chance = np.random.default_rng(1)
    draws = chance.integers(0, len(pairs), (1000, len(pairs)))
    rows = []
    for metric, column in score(records, metrics).items():
        numbers = np.array(column, dtype=float).reshape(-1, 2)
        difference, mean = numbers[:, 1] - numbers[:, 0], people.mean(1)
        found = [_correlation(spearmanr, difference[draw], mean[draw]) for draw in draws]
        low, high = np.percentile(found, [2.5, 97.5])
        row = [_correlation(spearmanr, difference, mean), low, high, _correlation(pearsonr, difference, mean)]
        rows.append([metric, *map(float, row)])
    one, other = people[:, 0], people[:, 1]
    between = [_correlation(spearmanr, one, other), 0.0, 0.0, _correlation(pearsonr, one, other)]
    rows.append(["one person with the other", *between])
    show(f"ragchecker-human-pref, {len(pairs)} pairs", ["", "Spearman", "low", "high", "Pearson"], rows)


def _correlation(measure: Callable[..., Any], one: Any, other: Any) -> float:
    return float(measure(one, other)[0])


def test_negatives(shared_data: Path) -> None:
    """Completeness on answerable questions should approach 1, false retrieval on unanswerable ones 0."""
    from sklearn.metrics import roc_auc_score

    trials = squad_trials(shared_data, 4000)
    names = ["msft.completeness_lexical/1", "genaiops.false_retrieval_lexical/1"]
    columns = score(trials, names)
    positive = [value for value in columns[names[0]] if value is not None]
    negative = [value for value in columns[names[1]] if value is not None]
    auc = roc_auc_score([1] * len(positive) + [0] * len(negative), [*positive, *negative])
    show(
        "squad2, with the paragraph the question was written for among five",
        ["completeness on answerable", "false retrieval on unanswerable", "AUC"],
        [[sum(positive) / len(positive), sum(negative) / len(negative), float(auc)]],
    )
