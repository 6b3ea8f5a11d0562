"""Grids: every combination once, names people can read, and mistakes that are named."""

from collections.abc import Callable
from typing import Any

import pytest

from resources.errors import ConfigError
from resources.grid_config import ModelChoice, VariantGrid
from resources.index_config import MmrConfig, RerankConfig, RetrievalConfig
from resources.platform import Platform
from tests.unit.experiment_world import EXPERIMENT, files

AXES: dict[str, Any] = {
    "index": ["main"], "prompt": ["plain"], "search_mode": ["hybrid"], "k": [3], "model": ["extractive"],
}  # fmt: skip


def grid(**axes: Any) -> VariantGrid:
    return VariantGrid.model_validate({**AXES, **axes})


def test_a_name_says_what_differs_and_nothing_else() -> None:
    found = grid(
        retrieval=[{"name": "plain"}, {"name": "reranked", "rerank": {"kind": "lexical"}}],
        context=[{"name": "all"}, {"name": "short", "max_tokens": 100}],
        model=["extractive", {"name": "extractive", "parameters": {"temperature": 0.7, "seed": 1}}],
    )
    names = [choice.name for choice in found.choices()]
    base = "main/plain/hybrid/k3/extractive"
    assert names[:4] == [base, f"{base}+t0.7-seed1", f"{base}+short", f"{base}+short+t0.7-seed1"]
    assert names[4] == f"{base}+reranked"
    assert len(names) == len(set(names)) == 8


@pytest.mark.parametrize(
    ("parameters", "label", "short"),
    [
        ({"temperature": 0}, None, "t0"),
        ({"top_p": 0.9, "max_tokens": 50}, None, "p0.9-max50"),
        ({"reasoning_effort": "low"}, None, "reasoning_effort=low"),
        ({"logprobs": True}, None, "logprobs=true"),
        ({"temperature": 1}, "warm", "warm"),
    ],
)
def test_parameters_in_few_characters(parameters: dict[str, Any], label: str | None, short: str) -> None:
    assert ModelChoice(name="m", parameters=parameters, label=label).short == short


def test_long_parameters_are_told_apart() -> None:
    shorts = {ModelChoice(name="m", parameters={"stop": [end]}).short for end in ("a", "b")}
    assert len(shorts) == 2
    assert all(short.startswith("stop~") for short in shorts)


def test_a_patch_replaces_what_it_names_and_keeps_the_rest() -> None:
    index = RetrievalConfig(
        candidates=9, mmr=MmrConfig(relevance=0.5), rerank=RerankConfig(kind="lexical", candidates=7)
    )
    (patch,) = grid(retrieval=[{"name": "p", "deduplicate": True, "mmr": "none"}]).retrieval
    assert patch.apply(index) == index.model_copy(update={"deduplicate": True, "mmr": None})
    assert grid(retrieval=[{"name": "p"}]).retrieval[0].apply(index) == index


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"retrieval": [{"name": "a", "candidates": 5}, {"name": "a", "candidates": 6}]}, "would be called a"),
        ({"retrieval": [{"name": "a", "candidates": 5}], "context": [{"name": "a", "order": "edges"}]}, "called a"),
        ({"context": [{"name": "a"}, {"name": "b"}]}, "a, b all change nothing"),
        (
            {"model": [{"name": "m", "parameters": {"stop": "x"}}, {"name": "m", "parameters": {"stop": "X"}}]},
            "a label",
        ),
        ({"model": [{"name": "m", "parameters": {"stream": True}}]}, "must not contain 'stream'"),
        ({"context": [{"name": "a", "compression": "sentences"}]}, "needs max_tokens"),
        ({"context": [{"name": "a", "select": "similar"}]}, "needs examples"),
        ({"retrieval": [{"name": "a", "k": 5}]}, "Extra inputs"),
        ({"filters": [{"name": "a", "labels": ["x"]}]}, "Extra inputs"),
        ({"prompt": ["plain@0"]}, "should match pattern"),
    ],
)
def test_a_grid_that_cannot_be_meant_is_refused(axes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        grid(**axes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"retrieval": [{"name": "a", "rerank": {"kind": "model", "model": "extractiv"}}]},
            "Did you mean 'extractive'",
        ),
        ({"retrieval": [{"name": "a", "rerank": {"kind": "cross_encoder", "model": "x"}}]}, "rerank model"),
        ({"filters": [{"name": "a", "sources": ["dogs"]}]}, "grid.filters.a.sources: there is no source"),
        ({"context": [{"name": "a", "examples": 2}]}, "never use 'examples'"),
        ({"prompt": ["plain", "plan"]}, "Did you mean 'plain'"),
        ({"model": ["extractive", {"name": "x", "parameters": {"seed": 1}}]}, "grid.model: there is no chat model"),
    ],
)
def test_references_are_checked_with_the_file_that_holds_them(
    make_platform: Callable[..., Platform], changes: dict[str, Any], words: str
) -> None:
    baseline = EXPERIMENT["baseline"] | {axis: "a" for axis in ("retrieval", "filters", "context") if axis in changes}
    with pytest.raises(ConfigError, match=words) as caught:
        make_platform(**files(grid={**EXPERIMENT["grid"], **changes}, baseline=baseline))
    assert "trial-run.yaml: grid." in str(caught.value)


def test_the_baseline_names_points_of_the_grid(make_platform: Callable[..., Platform]) -> None:
    context = [{"name": "all"}, {"name": "short", "max_tokens": 100}]
    axes = {**EXPERIMENT["grid"], "context": context}
    for named in ({}, {"context": "all"}, {"context": "short"}):
        make_platform(**files(grid=axes, baseline={**EXPERIMENT["baseline"], **named}))
    with pytest.raises(
        ConfigError, match=r"baseline.context is 'long', which is not in grid.context; it has all, short"
    ):
        make_platform(**files(grid=axes, baseline={**EXPERIMENT["baseline"], "context": "long"}))
    with pytest.raises(ConfigError, match=r"baseline.context is None"):
        make_platform(**files(grid={**axes, "context": context[1:]}))
