"""Variants: the grid spans every combination, and each is on record with its prompt version."""

from collections.abc import Callable

import pytest

from assets.experiments.variants import baseline, expand, register_variants
from resources.errors import ConfigError
from resources.platform import Platform
from tests.unit.experiment_world import EXPERIMENT, PROMPT, files


def test_grid_spans_every_combination(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(**files())
    variants = expand(platform.config, platform.models, platform.config.experiments["trial-run"])
    assert [(variant.prompt.name, variant.k) for variant in variants] == [
        ("plain", 1),
        ("plain", 2),
        ("strict", 1),
        ("strict", 2),
    ]
    assert len({variant.fingerprint for variant in variants}) == len({variant.name for variant in variants}) == 4


def test_value_named_twice_counts_once(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(**files(grid={**EXPERIMENT["grid"], "k": [1, 1]}))
    assert len(platform.config.experiments["trial-run"].choices()) == 2


def test_only_named_points_are_compared(make_platform: Callable[..., Platform]) -> None:
    baseline = EXPERIMENT["baseline"]
    other = {**baseline, "k": 2}
    platform = make_platform(**files(variants=[other, baseline, other]))
    experiment = platform.config.experiments["trial-run"]
    names = [variant.name for variant in expand(platform.config, platform.models, experiment)]
    assert names == ["main/plain/vector/k2/extractive", "main/plain/vector/k1/extractive"]
    with pytest.raises(ConfigError, match=r"the baseline .* is not among them"):
        make_platform(**files(variants=[other]))
    with pytest.raises(ConfigError, match=r"variants\[1\]\.k is 50, which is not in grid\.k"):
        make_platform(**files(variants=[baseline, {**baseline, "k": 50}]))


def test_baseline_is_one_of_the_variants(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(**files())
    experiment = platform.config.experiments["trial-run"]
    assert baseline(platform.config, platform.models, experiment) in expand(
        platform.config, platform.models, experiment
    )


def test_edited_prompt_changes_only_its_variants(make_platform: Callable[..., Platform]) -> None:
    def fingerprints(**changed: object) -> dict[str, str]:
        platform = make_platform(**{**files(), **changed})
        variants = expand(platform.config, platform.models, platform.config.experiments["trial-run"])
        return {variant.name: variant.fingerprint for variant in variants}

    before = fingerprints()
    after = fingerprints(**{"prompts/strict.yaml": {"name": "strict", **PROMPT, "system": "Be very strict."}})
    assert {name for name in before if before[name] != after[name]} == {name for name in before if "/strict/" in name}


def test_variants_and_prompts_are_registered_once(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(**files())
    variants = expand(platform.config, platform.models, platform.config.experiments["trial-run"])
    for run in ("first", "second"):
        with platform.database.connect() as connection:
            assert register_variants(connection, variants, run) == {"plain": 1, "strict": 1}
    with platform.database.connect() as connection:
        names = connection.execute("SELECT name, config->>'k' FROM variant ORDER BY name").fetchall()
    assert [name for name, _ in names] == sorted(variant.name for variant in variants)


def test_edited_prompt_is_a_new_version(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(**files())
    with platform.database.connect() as connection:
        register_variants(
            connection, expand(platform.config, platform.models, platform.config.experiments["trial-run"]), "a"
        )
    platform = make_platform(**{**files(), "prompts/strict.yaml": {"name": "strict", **PROMPT, "system": "Stricter."}})
    with platform.database.connect() as connection:
        versions = register_variants(
            connection, expand(platform.config, platform.models, platform.config.experiments["trial-run"]), "b"
        )
    assert versions == {"plain": 1, "strict": 2}
