"""Variants: the complete answerer configurations an experiment compares.

Belongs here: expanding the grid of an experiment file, and recording variants and prompt versions.
Does not belong here: what a variant is and what its fingerprint covers (resources/variants.py), drawing examples
(examples.py), and running a variant (trials.py).
"""

from collections.abc import Sequence
from functools import cache

from assets.experiments.examples import draw
from resources.config import ProjectConfig
from resources.errors import PermanentError
from resources.experiment_config import ExperimentConfig
from resources.grid_config import ContextConfig, VariantChoice
from resources.models import Models
from resources.postgres import Connection
from resources.prompt_config import FewShot, PromptConfig, split_reference
from resources.prompt_labels import find_prompt
from resources.prompt_store import register
from resources.variants import Variant, build_variant, record_variant


def expand(
    config: ProjectConfig, models: Models, experiment: ExperimentConfig, connection: Connection | None = None
) -> list[Variant]:
    """The variants of an experiment; the baseline is one of them, as the configuration guarantees.

    Args:
        connection: where versions of prompts and train questions are found; not needed by a grid that uses neither.

    Raises:
        PermanentError: the grid names a version of a prompt that does not exist, or draws examples from a dataset that
            was never built or has too few train questions.
    """
    build = _Builder(config, models, experiment, connection)
    return [build(choice) for choice in experiment.choices()]


def baseline(
    config: ProjectConfig, models: Models, experiment: ExperimentConfig, connection: Connection | None = None
) -> Variant:
    """The variant that is champion until another one is promoted.

    Raises:
        PermanentError: as ``expand``.
    """
    return _Builder(config, models, experiment, connection)(experiment.baseline)


class _Builder:
    """Makes variants; looks every version of a prompt and every set of examples up once."""

    def __init__(
        self, config: ProjectConfig, models: Models, experiment: ExperimentConfig, connection: Connection | None
    ) -> None:
        self._config, self._models, self._experiment, self._connection = config, models, experiment, connection
        self._task = config.datasets[experiment.dataset].task_spec if experiment.dataset in config.datasets else None
        self._prompt = cache(self._find_prompt)
        self._drawn: dict[tuple[int, str], tuple[FewShot, ...]] = {}

    def __call__(self, choice: VariantChoice) -> Variant:
        grid = self._experiment.grid
        return build_variant(
            self._config, self._models, choice, grid, prompts=self._prompt, examples=self._examples, task=self._task
        )

    def _find_prompt(self, reference: str) -> PromptConfig:
        if split_reference(reference)[1] is None:
            return self._config.prompts[reference]
        if self._connection is None:
            raise PermanentError(f"prompt {reference}: versions of prompts are on record in the database")
        return find_prompt(self._connection, self._config.prompts, reference)

    def _examples(self, context: ContextConfig) -> tuple[FewShot, ...]:
        if self._connection is None:
            raise PermanentError(f"context {context.name}: train questions are on record in the database")
        key = (context.examples, context.select)
        if key not in self._drawn:
            self._drawn[key] = draw(self._connection, self._experiment.dataset, context)
        return self._drawn[key]


def register_variants(connection: Connection, variants: Sequence[Variant], run_id: str) -> dict[str, int]:
    """Record variants and their prompts, so that a fingerprint can be traced back to a configuration.

    Returns:
        The version number of each prompt: {how the grid names it: version}.
    """
    prompts = {variant.prompt_reference: variant.prompt for variant in variants}
    versions = {reference: register(connection, prompts[reference], run_id) for reference in sorted(prompts)}
    for _, variant in sorted({variant.fingerprint: variant for variant in variants}.items()):
        record_variant(connection, variant)
    return versions


def shown_prompts(variants: Sequence[Variant]) -> dict[str, PromptConfig]:
    """The prompts of the variants with every example a model may be shown: what must not give a question away."""
    shown: dict[str, PromptConfig] = {}
    for variant in variants:
        reference, prompt = variant.prompt_reference, variant.prompt
        known = shown.setdefault(reference, prompt)
        new = [example for example in variant.examples if example not in known.examples]
        if new:
            shown[reference] = known.model_copy(update={"examples": [*known.examples, *new]})
    return shown
