"""Calibration: agreement with people as others compute it, thresholds out of fold, intervals by group."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from assets.evaluation.judging import calibration
from assets.evaluation.judging.calibration import calibrate
from assets.evaluation.judging.labels import import_labels, read_labels
from resources.errors import PermanentError


def sample(
    number: int = 300, noise: float = 0.6, seed: int = 1
) -> tuple[list[float], list[tuple[float, ...]], list[int]]:
    """Scores that agree with labels as far as the noise lets them, two items a group."""
    chance = np.random.default_rng(seed)
    labels = chance.random(number) < 0.4
    scores = 1 / (1 + np.exp(-(labels * 2.0 - 1 + chance.normal(0, noise, number))))
    return scores.tolist(), [(float(one),) for one in labels], [place // 2 for place in range(number)]


def test_measures_equal_those_of_sklearn_and_scipy() -> None:
    from scipy.stats import spearmanr
    from sklearn.metrics import cohen_kappa_score, roc_auc_score

    scores, labels, groups = sample()
    scores = [round(score, 1) for score in scores]  # with ties
    found = calibrate(scores, labels, groups, 7, resamples=200)
    truth = [one[0] for one in labels]
    assert found.auc
    assert found.spearman
    assert found.kappa
    assert found.bias
    assert found.accuracy
    assert found.auc.estimate == pytest.approx(roc_auc_score(truth, scores))
    assert found.spearman.estimate == pytest.approx(spearmanr(scores, truth)[0])
    assert found.bias.estimate == pytest.approx(np.mean(scores) - np.mean(truth))
    thresholds, _ = calibration._thresholds(
        np.array(scores), np.array(truth) >= 0.5, np.array(groups), len(set(groups)), 7
    )
    said = np.array(scores) >= thresholds
    assert found.kappa.estimate == pytest.approx(cohen_kappa_score(truth, said))
    assert found.accuracy.estimate == pytest.approx(np.mean(said == (np.array(truth) > 0)))
    assert found.by_class["good"]["n"] == sum(truth)


def test_weights_count_items_as_often_as_they_are_drawn() -> None:
    scores, labels, _ = sample(60)
    values, good = np.array(scores), np.array([one[0] > 0 for one in labels])
    weights = np.random.default_rng(3).integers(0, 4, 60)
    repeated = np.repeat(np.arange(60), weights)
    ones = np.ones(len(repeated), dtype=np.int64)
    assert calibration._auc(values, good, weights) == pytest.approx(
        calibration._auc(values[repeated], good[repeated], ones)
    )
    assert calibration._spearman(values, good.astype(float), weights) == pytest.approx(
        calibration._spearman(values[repeated], good[repeated].astype(float), ones)
    )
    said = values > 0.5
    assert calibration._kappa(said, good, weights, None) == pytest.approx(
        calibration._kappa(said[repeated], good[repeated], ones, None)
    )


def test_best_threshold_is_that_of_a_search() -> None:
    from sklearn.metrics import cohen_kappa_score

    scores, labels, _ = sample(80)
    values, good = np.array(scores), np.array([one[0] > 0 for one in labels])
    best = max(cohen_kappa_score(good, values >= cut) for cut in values)
    found = calibration._best_threshold(values, good)
    assert cohen_kappa_score(good, values >= found) == pytest.approx(best)


def test_the_threshold_of_an_item_is_chosen_without_its_group() -> None:
    """Scores that say nothing look good where the threshold may be fitted to them, and not out of fold."""
    chance = np.random.default_rng(5)
    labels = chance.random(40) < 0.5
    scores = chance.random(40)
    fitted = calibration._best_threshold(scores, labels)
    inside = calibration._kappa(scores >= fitted, labels, np.ones(40, dtype=np.int64), None)
    found = calibrate(scores.tolist(), [(float(one),) for one in labels], list(range(40)), 7, resamples=200)
    assert found.kappa is not None
    assert inside is not None
    assert inside > 0.2 > found.kappa.estimate
    values, groups = np.array([0.1, 0.9, 0.2, 0.8]), np.array([0, 0, 1, 1])
    thresholds, _ = calibration._thresholds(values, values > 0.5, groups, 2, 7)
    assert thresholds.tolist() == [0.5, 0.5, 0.5, 0.5]
    moved = np.array([0.1, 0.9, 0.6, 0.8])  # an item of group 1 moves the threshold of group 0 alone
    thresholds, _ = calibration._thresholds(moved, np.array([False, True, False, True]), groups, 2, 7)
    assert thresholds.tolist() == pytest.approx([0.7, 0.7, 0.5, 0.5])


def test_intervals_cover_the_truth_and_widen_with_groups() -> None:
    """95 % intervals of AUC and bias over 120 samples; items that repeat one another count once."""
    truth = calibrate(*sample(20_000, seed=99)[:2], list(range(20_000)), 1, resamples=2)
    assert truth.auc
    assert truth.bias
    covered = {"auc": 0, "bias": 0}
    for seed in range(120):
        scores, labels, _ = sample(120, seed=seed)
        found = calibrate(scores, labels, list(range(120)), seed, resamples=300)
        for name in covered:
            one, value = getattr(found, name), getattr(truth, name).estimate
            covered[name] += one.low <= value <= one.high
    assert all(0.88 <= count / 120 <= 0.99 for count in covered.values()), covered
    scores, labels, _ = sample(60)
    alone = calibrate(scores, labels, list(range(60)), 1, resamples=500).auc
    tripled = calibrate(scores * 3, labels * 3, [*range(60)] * 3, 1, resamples=500).auc
    assert alone
    assert tripled
    assert tripled.estimate == pytest.approx(alone.estimate)
    assert tripled.high - tripled.low == pytest.approx(alone.high - alone.low, rel=0.1)  # type: ignore[operator]


def test_pairs_have_no_threshold_and_ties_are_right_for_nobody() -> None:
    scores = [0.4, -0.2, 0.0, 0.3, -0.1]
    labels = [(1.0, 0.5), (-0.5, -0.5), (0.5, 0.5), (-1.0, 0.5), (0.0, 0.0)]
    found = calibrate(scores, labels, list("abcde"), 7, pairs=True, resamples=200)
    assert (found.threshold, found.n) == (0.0, 5)
    assert found.by_class == {
        "second better": {"n": 2, "right": 0.5},
        "first better": {"n": 2, "right": 0.5},
    }
    assert found.ceiling is not None
    assert (found.ceiling.items, found.ceiling.same) == (5, 0.8)


def test_what_cannot_be_computed_is_none_never_nan() -> None:
    one_class = calibrate([0.1, 0.5, 0.9], [(1.0,)] * 3, [1, 2, 3], 7, resamples=200)
    assert (one_class.kappa, one_class.auc, one_class.spearman) == (None, None, None)
    constant = calibrate([0.5] * 6, [(0.0,), (1.0,)] * 3, list(range(6)), 7, resamples=200)
    assert constant.auc
    assert constant.auc.estimate == 0.5
    assert constant.kappa
    assert constant.kappa.estimate == 0.0
    nothing = calibrate([None, None], [(0.0,), (1.0,)], [1, 2], 7)
    assert (nothing.n, nothing.undefined, nothing.bias) == (0, 2, None)
    assert "NaN" not in json.dumps([one.to_json() for one in (one_class, constant, nothing)])
    with pytest.raises(ValueError, match="not finite"):
        calibrate([math.nan], [(1.0,)], [1], 7)
    with pytest.raises(ValueError, match="1 scores, 2 labels"):
        calibrate([1.0], [(1.0,), (0.0,)], [1], 7)


def test_equal_seeds_give_equal_figures() -> None:
    scores, labels, groups = sample(80)
    first, again, other = (calibrate(scores, labels, groups, seed, resamples=200) for seed in (7, 7, 8))
    assert first == again
    assert first != other


# --- label files -----------------------------------------------------------------------------------------------


def test_imported_data_sets_are_read_back(shared_data: Path, tmp_path: Path) -> None:
    done = import_labels("begin", shared_data / "begin-dev", tmp_path / "deep" / "begin.jsonl")
    assert (done.items, done.skipped) == (767, 79)
    begin = read_labels(tmp_path / "deep" / "begin.jsonl")
    assert not begin.pairs
    assert {one for item in begin.items for one in item.labels} == {0.0, 1.0}
    import_labels("ragchecker", shared_data / "ragchecker-human-pref" / "examples.jsonl", tmp_path / "rag.jsonl")
    pairs = read_labels(tmp_path / "rag.jsonl")
    assert pairs.pairs
    assert all(len(item.labels) == 2 and item.reference for item in pairs.items)
    assert {one for item in pairs.items for one in item.labels} == {-1.0, -0.5, 0.0, 0.5, 1.0}
    with pytest.raises(PermanentError, match=r"line 1: not of kind ragchecker \(no key"):
        import_labels("ragchecker", shared_data / "begin-dev", tmp_path / "wrong.jsonl")
    assert not (tmp_path / "wrong.jsonl").exists()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "no JSON"),
        ("[1]", "expected an object, found list"),
        ('{"id": "a", "answer": "x", "labels": [1], "secret": 1}', r"1 unknown key\(s\); allowed: answer"),
        ('{"answer": "x", "labels": [1]}', "id: a text"),
        ('{"id": "a", "labels": [1]}', "answer: a text is required"),
        ('{"id": "a", "answer": "x"}', "labels: expected a list of numbers from 0 to 1"),
        ('{"id": "a", "answer": "x", "labels": [2]}', "labels: expected a list of numbers from 0 to 1"),
        (
            '{"id": "a", "answer": "x", "answer2": "y", "labels": [-2]}',
            "labels: expected a list of numbers from -1 to 1",
        ),
        ('{"id": "a", "answer": "x", "labels": [NaN]}', "labels: expected"),
        ('{"id": "a", "answer": "x", "context": [1], "labels": [1]}', "context: expected a list of texts"),
        ('{"id": "first", "answer": "x", "labels": [1]}', "id: used twice"),
        ('{"id": "a", "answer": "x", "answer2": "y", "labels": [1]}', "answer2: either every item is a pair or none"),
    ],
)
def test_wrong_label_files_name_line_and_key(tmp_path: Path, line: str, problem: str) -> None:
    file = tmp_path / "labels.jsonl"
    good = '{"id": "first", "answer": "x", "context": "p", "labels": [true, false]}\n'
    file.write_text(good + line + "\n", encoding="utf-8")
    if "or none" in problem or "twice" in problem or line != good:
        with pytest.raises(PermanentError, match=rf"labels\.jsonl: line 2: {problem}") as caught:
            read_labels(file)
        assert "secret" not in str(caught.value)


def test_missing_and_empty_label_files_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="genaiops judges import"):
        read_labels(tmp_path / "nowhere.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(PermanentError, match="it holds no label"):
        read_labels(tmp_path / "empty.jsonl")
