"""Variants: the complete answerer configurations an experiment compares.

Belongs here: expanding the grid of an experiment file, and recording variants and prompt versions.
Does not belong here: what a variant's fingerprint covers (resources/answerer.py), and running it (trials.py).
"""

from collections.abc import Iterator, Sequence
from itertools import product

from psycopg.types.json import Jsonb

from resources.answerer import Variant, build_variant
from resources.config import ProjectConfig
from resources.experiment_config import ExperimentConfig, VariantChoice
from resources.models import Models
from resources.postgres import Connection
from resources.prompt_store import register


def choices(experiment: ExperimentConfig) -> Iterator[VariantChoice]:
    """Every combination of the grid, in the order of the file; a value named twice counts once."""
    grid = experiment.grid
    for index in dict.fromkeys(grid.index):
        for prompt, mode, k, model in product(
            dict.fromkeys(grid.prompt),
            dict.fromkeys(grid.search_mode),
            dict.fromkeys(grid.k),
            dict.fromkeys(grid.model),
        ):
            yield VariantChoice(index=index, prompt=prompt, search_mode=mode, k=k, model=model)


def expand(config: ProjectConfig, models: Models, experiment: ExperimentConfig) -> list[Variant]:
    """The variants of an experiment; the baseline is one of them, as the configuration guarantees."""
    return [build_variant(config, models, choice) for choice in choices(experiment)]


def baseline(config: ProjectConfig, models: Models, experiment: ExperimentConfig) -> Variant:
    """The variant that is champion until another one is promoted."""
    return build_variant(config, models, experiment.baseline)


def register_variants(connection: Connection, variants: Sequence[Variant], run_id: str) -> dict[str, int]:
    """Record variants and their prompts, so that a fingerprint can be traced back to a configuration.

    Returns:
        The version number of each prompt: {prompt name: version}.
    """
    prompts = {variant.prompt.name: variant.prompt for variant in variants}
    versions = {name: register(connection, prompts[name], run_id) for name in sorted(prompts)}
    rows = sorted({variant.fingerprint: variant for variant in variants}.items())
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO variant (fingerprint, name, config) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            [(fingerprint, variant.name, Jsonb(variant.to_json())) for fingerprint, variant in rows],
        )
    return versions
