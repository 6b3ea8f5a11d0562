"""Derived indexes: readable, stable names, one index for equal settings, and mistakes that are named."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resources.chunker_config import SentenceChunker
from resources.config import load_config
from resources.errors import ConfigError
from resources.index_patches import MAXIMUM_NAME, index_file
from resources.platform import Platform
from tests.conftest import MODELS
from tests.unit.experiment_world import EXPERIMENT, files

Make = Callable[..., Platform]
FINE = {"kind": "sentence", "size": 40}
COARSE = {"kind": "sentence", "size": 400}
MAIN = {"name": "main", "embedder": "lexical", "chunker": {"kind": "markdown", "unit": "characters", "size": 400}}


def experiment(name: str = "trial-run", **grid: Any) -> dict[str, Any]:
    merged = {**EXPERIMENT["grid"], **grid}
    return {f"experiments/{name}.yaml": {**EXPERIMENT, "name": name, "grid": merged}}


def build(make_platform: Make, **written: Any) -> Platform:
    return make_platform(**{**files(), **written})


def patch(**keys: Any) -> dict[str, Any]:
    return {"base": "main", **keys}


def derived(platform: Platform) -> list[str]:
    return list(platform.config.derived)


def test_a_labelled_patch_is_an_index_like_any_other(make_platform: Make) -> None:
    config = build(make_platform, **experiment(index=["main", patch(label="fine", chunker=FINE)])).config
    assert list(config.indexes) == ["main", "main--fine"]
    assert config.derived == {"main--fine": "main"}
    made, base = config.indexes["main--fine"], config.indexes["main"]
    assert made.chunker == SentenceChunker(size=40)
    assert made.model_copy(update={"name": "main", "description": "", "chunker": base.chunker}) == base
    assert "sentence" in made.description
    assert config.experiments["trial-run"].index_names == ["main", "main--fine"]
    assert [index.name for index in config.indexes_of("docs")] == ["main", "main--fine"]
    assert len(config.experiments["trial-run"].choices()) == 2 * 4


def test_axes_are_every_combination_and_what_the_base_is_already_stays_the_base(make_platform: Make) -> None:
    axes = {"base": "main", "chunker": [MAIN["chunker"], FINE], "hnsw": [{"m": 16}, {"m": 32}], "embedder": ["lexical"]}
    config = build(make_platform, **experiment(index=[], index_axes=axes)).config
    names = config.experiments["trial-run"].index_names
    assert names[0] == "main"
    assert names[1:] == [name for name in names if name in config.derived]
    assert {(config.indexes[name].chunker.size, config.indexes[name].hnsw.m) for name in names} == {
        (400, 16), (400, 32), (40, 16), (40, 32),
    }  # fmt: skip
    assert all(name.startswith("main--") and len(name) == len("main--") + 8 for name in names[1:])


def test_names_do_not_change_with_the_base_or_with_what_else_is_compared(make_platform: Make) -> None:
    before = derived(build(make_platform, **experiment(index=["main", patch(chunker=FINE)])))
    edited = {**MAIN, "enrichment": {"context": "none"}, "hnsw": {"ef_search": 50}, "description": "other"}
    after = build(
        make_platform,
        **experiment(index=["main", patch(chunker=COARSE), patch(chunker=FINE)]),
        **{"indexes/main.yaml": edited},
    )
    assert before == [name for name in derived(after) if name in before]
    assert after.config.indexes[before[0]].enrichment.context == "none"
    graph = patch(hnsw={"m": 32})
    names = [
        derived(build(make_platform, **experiment(index=["main", graph]), **{"indexes/main.yaml": base}))
        for base in (MAIN, edited)
    ]
    assert names[0] == names[1]


def test_equal_settings_are_one_index_whoever_asks_for_them(make_platform: Make) -> None:
    both = {
        **experiment(index=["main", patch(chunker=FINE)]),
        **experiment("second", index=["main"], index_axes={"base": "main", "chunker": [FINE, COARSE]}),
        **experiment("third", index=["main", patch(label="fine", chunker={**FINE, "overlap_sentences": 0})]),
    }
    config = build(make_platform, **both).config
    assert len(config.derived) == 2
    assert "main--fine" in config.derived  # the one that has a name gives it
    for name in ("trial-run", "second", "third"):
        assert "main--fine" in config.experiments[name].index_names


def test_settings_of_an_index_file_are_that_index(make_platform: Make) -> None:
    coarse = {**MAIN, "name": "coarse", "chunker": COARSE}
    config = build(
        make_platform, **{"indexes/coarse.yaml": coarse}, **experiment(index=["main", patch(chunker=COARSE)])
    ).config
    assert config.derived == {}
    assert config.experiments["trial-run"].index_names == ["main", "coarse"]


def test_baseline_and_named_points_may_be_on_a_derived_index(make_platform: Make) -> None:
    point = {"index": "main--fine", "prompt": "plain", "search_mode": "vector", "k": 1, "model": "extractive"}
    written = experiment(index=["main", patch(label="fine", chunker=FINE)])
    written["experiments/trial-run.yaml"] |= {"baseline": point, "variants": [point, {**point, "index": "main"}]}
    config = build(make_platform, **written).config
    assert config.experiments["trial-run"].baseline.index == "main--fine"
    assert [choice.index for choice in config.experiments["trial-run"].choices()] == ["main--fine", "main"]
    written["experiments/trial-run.yaml"] |= {"variants": [], "baseline": {**point, "index": "main--coarse"}}
    with pytest.raises(
        ConfigError, match=r"trial-run.yaml: baseline.index is 'main--coarse', which is not in grid.index"
    ):
        build(make_platform, **written)


def test_long_names_stay_within_the_limit(make_platform: Make) -> None:
    base = "a" * MAXIMUM_NAME
    written = experiment(
        index=[
            "main",
            {"base": base, "label": "x" * 40, "chunker": FINE},
            {"base": base, "chunker": FINE, "hnsw": {"m": 8}},
        ]
    )
    config = build(make_platform, **{"indexes/long.yaml": {**MAIN, "name": base}}, **written).config
    assert [len(name) for name in config.derived] == [MAXIMUM_NAME, MAXIMUM_NAME]
    assert any(name.endswith(f"--{'x' * 40}") for name in config.derived)


def test_a_file_without_patches_has_the_fingerprint_it_had(make_platform: Make) -> None:
    plain = make_platform(**files()).config.experiments["trial-run"]
    dumped = plain.model_dump(mode="json")
    assert "search" not in dumped
    assert "index_axes" not in dumped["grid"]
    assert dumped["grid"]["index"] == ["main"]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"base": "mian", "chunker": FINE}, r"grid.index.1.base: there is no index of indexes/ named 'mian'.*'main'"),
        ({"chunker": FINE}, r"grid.index.1.base: this key is required"),
        (patch(chunker={"kind": "sentense"}), r"grid.index.1.chunker.kind: there is no kind 'sentense'"),
        (patch(chunkr=FINE), r"grid.index.1.chunkr: unknown key; allowed: base, chunker, .*Did you mean 'chunker'"),
        (patch(), r"grid.index.1: changes nothing of index 'main'; write main itself"),
        (patch(label="Fine", chunker=FINE), r"grid.index.1.label"),
        (patch(embedder="lexicla"), r"grid.index.1.embedder: there is no embedding model .*'lexical'"),
        (patch(chunker={"kind": "semantic", "embedder": "x"}), r"grid.index.1.chunker.embedder: there is no embedding"),
        (patch(hnsw={"ef_search": 100}), r"grid.index.1.hnsw: ef_search changes no row .* vary it in grid.retrieval"),
        (
            patch(hnsw={"m": 64}),
            r"grid.index.1.hnsw: with the rest of index 'main': ef_construction 64 must be at least",
        ),
        (patch(hnsw={"exact_below": 0}), r"grid.index.1.hnsw.exact_below: alone it changes no row"),
        (
            patch(enrichment={"steps": [{"kind": "summary", "method": "model", "model": "gpt"}]}),
            r"grid.index.1.enrichment.steps.summary.model: there is no chat model",
        ),
        ("mian", r"grid.index: there is no index named 'mian'"),
    ],
)
def test_a_patch_that_cannot_be_meant_is_refused(make_platform: Make, entry: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as told:
        build(make_platform, **experiment(index=["main", entry]))
    assert "experiments/trial-run.yaml" in str(told.value)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (
            patch(label="a", chunker=FINE),
            patch(label="b", chunker=FINE),
            r"the same settings are called 'b' .* and 'a' here.* use one label",
        ),
        (
            patch(label="a", chunker=FINE),
            patch(label="a", chunker=COARSE),
            r"would be called 'main--a', as other settings",
        ),
        (patch(label="taken", chunker=FINE), patch(chunker=COARSE), r"'main--taken', as an index of indexes/ is"),
        (
            patch(label="a", chunker={"kind": "fixed", "size": 99}),
            patch(chunker=FINE),
            r"settings of index 'main--taken'",
        ),
    ],
)
def test_names_that_would_stand_for_two_things_are_refused(
    make_platform: Make, first: Any, second: Any, words: str
) -> None:
    taken = {**MAIN, "name": "main--taken", "chunker": {"kind": "fixed", "size": 99}}
    written = {**experiment(index=["main", first]), **experiment("second", index=["main", second])}
    with pytest.raises(ConfigError, match=words):
        build(make_platform, **{"indexes/taken.yaml": taken}, **written)


@pytest.mark.parametrize("label", ["fine", None])
def test_a_derived_index_can_be_given_a_file_and_stays_the_same_index(make_platform: Make, label: str | None) -> None:
    entry = {**patch(chunker=FINE, hnsw={"m": 8}), **({"label": label} if label else {})}
    before = build(make_platform, **experiment(index=["main", entry])).config
    (name,) = before.derived
    written = {f"indexes/{name}.yaml": index_file(before.indexes[name])}
    after = build(make_platform, **experiment(index=["main", entry]), **written).config
    assert after.derived == {}
    assert after.experiments == before.experiments
    assert after.indexes[name] == before.indexes[name]


def test_axes_without_an_axis_are_refused(make_platform: Make) -> None:
    with pytest.raises(ConfigError, match=r"grid.index_axes: name at least one of chunker, enrichment, embedder"):
        build(make_platform, **experiment(index_axes={"base": "main"}))


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({"strategy": "halvin"}, "search.strategy"),
        ({"strategy": "halving", "trials": 10}, "strategy halving has no trials: trials is for strategy bayes"),
        ({"strategy": "bayes", "eta": 2}, "strategy bayes has no eta: eta is for strategy halving"),
        ({"trials": 10}, "strategy grid has no trials"),
        ({"strategy": "halving", "eta": 1}, "search.eta"),
    ],
)
def test_a_strategy_that_cannot_be_meant_is_refused(make_platform: Make, search: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_platform(**files(search=search))


def test_the_example_of_the_documentation_can_be_used(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    shutil.copytree(root / "data", tmp_path / "data")
    example = (root / "docs" / "experiments.md").read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    (tmp_path / "data" / "experiments" / "example.yaml").write_text(example, encoding="utf-8")
    config = load_config(tmp_path / "data")
    experiment = config.experiments["handbook-search"]
    assert "handbook-small--fine" in experiment.index_names
    assert len(experiment.index_names) == 2 + 2 * 2 * 2
    assert experiment.search.strategy == "halving"


def test_models_of_a_second_embedder_are_derived_too(make_platform: Make) -> None:
    models = {
        **MODELS,
        "embedding": [*MODELS["embedding"], {**MODELS["embedding"][0], "name": "short", "dimensions": 64}],
    }
    config = build(
        make_platform,
        **{"models.yaml": models},
        **experiment(index=["main"], index_axes={"base": "main", "embedder": ["short"]}),
    ).config
    (name,) = config.derived
    assert config.indexes[name].embedder == "short"
