"""What of live traffic is compared, and how."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from assets.evaluation.dataset import Question
from assets.experiments.planning import Plan, Trial
from assets.experiments.records import TrialOutcome
from assets.experiments.trials import TrialWork
from assets.monitoring.shadow.checks import shadow_checks
from assets.monitoring.shadow.comparing import (
    ANSWERED,
    DECIDING,
    Shadow,
    Traffic,
    compare,
    metrics_without_reference,
)
from resources.experiment_config import ExperimentConfig
from resources.interaction_log import caller_filter, conditions
from resources.models import Usage
from resources.vector_index import SearchFilter, SearchHit, SearchResult
from tests.experiment_support import files

GROUNDED, RELEVANT = DECIDING


@pytest.mark.parametrize(
    "filters",
    [
        SearchFilter(),
        SearchFilter(labels=()),
        SearchFilter(labels=("staff", "legal"), sources=("docs",), languages=("en", "de")),
        SearchFilter(path_prefix="a/", title="x", media_types=("text/html",), licences=("MIT",)),
        SearchFilter(
            origin_from=datetime(2026, 1, 2, tzinfo=UTC), origin_before=datetime(2026, 2, 2, 3, 4, tzinfo=UTC)
        ),
        SearchFilter(metadata=(("team", "sales"), ("year", 2026), ("tags", ["a", 1]))),
    ],
)
def test_the_conditions_of_a_caller_survive_the_log(filters: SearchFilter) -> None:
    import json

    stored = json.loads(json.dumps(conditions(filters)))
    read = caller_filter(stored)
    assert read == filters
    assert (read.labels is None) == (filters.labels is None), "no restriction and no label are not the same"


def test_conditions_of_another_version_are_refused_instead_of_ignored() -> None:
    with pytest.raises(TypeError):
        caller_filter({"clearance": "secret"})


def test_only_metrics_that_need_no_right_answer_are_read() -> None:
    found = metrics_without_reference()
    assert {GROUNDED, RELEVANT} <= set(found)
    for metric in found:
        assert not metric.startswith(("squad.", "genaiops.recall", "genaiops.refusal", "genaiops.correctness"))


def experiment(**changes: Any) -> ExperimentConfig:
    return ExperimentConfig.model_validate({**files()["experiments/catalogue.yaml"], **changes})


def compared(
    champion: Sequence[float | None],
    candidate: Sequence[float | None],
    refused: tuple[int, int] = (0, 0),
    **changes: Any,
) -> dict[str, Any]:
    """Compare two variants whose groundedness is given; the first ``refused`` questions of each are refused."""
    count = len(champion)
    trials, outcomes, values = [], {}, {}
    hit = SearchHit(
        rank=1, score=1.0, document_id=1, version_id=1, source="docs", path="a.md", title="Anvil", ordinal=0, start=0, end=30,
        text="The anvil weighs 10 kilograms.", heading_path=(), vector_rank=1, text_rank=1,
    )  # fmt: skip
    for side, scores in enumerate((champion, candidate)):
        for at, score in enumerate(scores):
            key = f"{side}-{at}"
            question = Question(
                str(at), "How many kilograms does the anvil weigh?", None, True, "live", {}, "active", None, "f", ()
            )
            trials.append(Trial(key, None, question, SearchResult("main", 1, "hybrid", (hit,), 0.1), ""))  # type: ignore[arg-type]
            outcomes[key] = TrialOutcome("ok", None, 1, "x", at < refused[side], (), {}, 0.1, None)
            values[key] = dict.fromkeys(metrics_without_reference()) | {
                GROUNDED: None if at < refused[side] else score,
                RELEVANT: None if at < refused[side] else 0.8,
            }
    report = compare(experiment(**changes), Plan(tuple(trials), 0, 0.0), outcomes, values)
    assert report["questions"] == count
    return report


def by_metric(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["metric"]: row for row in report["metrics"]}


def test_a_candidate_that_invents_more_is_worse() -> None:
    report = compared([0.9] * 40, [0.9] * 20 + [0.3] * 20)
    assert report["verdict"] == "worse"
    assert GROUNDED in report["reason"]
    assert by_metric(report)[GROUNDED]["difference"]["estimate"] == pytest.approx(-0.3)


def test_equal_answers_are_not_worse_and_the_smallest_loss_shown_is_told() -> None:
    generator = np.random.default_rng(3)
    same = [float(value) for value in generator.uniform(size=60)]
    report = compared(list(same), [value + 0.01 * (-1) ** at for at, value in enumerate(same)])
    assert report["verdict"] == "no worse shown"
    assert "would show one of 0.0" in report["reason"]


def test_a_refusal_is_undefined_for_quality_and_counts_where_the_documents_seem_to_answer() -> None:
    report = compared([0.9] * 60, [0.9] * 60, refused=(0, 30))
    rows = by_metric(report)
    assert rows[GROUNDED]["questions"] == 30
    assert (rows[ANSWERED]["champion"], rows[ANSWERED]["candidate"]) == (1.0, 0.5)
    assert report["verdict"] == "worse"
    assert report["reason"].endswith(f"worse in {ANSWERED}")


def test_too_few_questions_decide_nothing() -> None:
    report = compared([0.9] * 19, [0.1] * 19)
    assert report["verdict"] == "too little traffic"
    assert "p_worse" not in by_metric(report)[GROUNDED]


def test_the_margin_of_the_experiment_is_used() -> None:
    loss: tuple[list[float | None], list[float | None]] = ([0.9] * 200, [0.86] * 200)
    assert compared(*loss)["verdict"] == "worse"
    assert compared(*loss, margins={"non_inferiority": 0.2})["verdict"] == "no worse shown"


def test_an_incomplete_comparison_passes_no_check() -> None:
    shadow = Shadow("incomplete", "the budget", "a", "b", Traffic((), 0, 0), None, TrialWork(), Usage())
    checks = {one.name: one for one in shadow_checks(shadow)}
    assert not checks["shadow_no_regression"].passed
    assert checks["shadow_no_regression"].severity == "WARN"
    assert not checks["shadow_no_regression"].blocking
