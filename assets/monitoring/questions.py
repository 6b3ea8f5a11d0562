"""Question drift: what people ask against the questions an evaluation dataset tests with.

Belongs here: reading both samples, and choosing which trials the live answers are compared with.
Does not belong here: measuring them (measuring.py), verdicts (signals.py), documents (documents.py).

When these differ, the scores of the evaluation no longer speak for what people experience.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from assets.monitoring.drift_statistics import term_counts
from assets.monitoring.interactions import trailing_window
from assets.monitoring.measuring import Measuring
from assets.monitoring.signals import Comparison, rng_seed
from resources.config import ProjectConfig
from resources.fingerprint import fingerprint
from resources.platform import Platform
from resources.postgres import Connection

if TYPE_CHECKING:
    import numpy as np

CODE_VERSION = "1"

#: The trailing window grows at most to this many days to reach policies.drift.minimum_questions.
MAXIMUM_WINDOW_DAYS = 28


def indexes_of_dataset(config: ProjectConfig, dataset: str) -> list[str]:
    """Indexes that cover a source of the dataset: their interactions are compared with its questions.

    None for a task without documents, whose inputs are known by the variants that were measured on it.
    """
    sources = set(config.datasets[dataset].sources)
    return [index for index in config.indexes if sources & set(config.index_sources(index))]


def _embedder(config: ProjectConfig, index: str) -> str:
    """That of the index; the first one configured for inputs of a task, which has no index."""
    return config.indexes[index].embedder if index else config.models.embedding[0].name


def compare_questions(platform: Platform, dataset: str, day: date, permutations: int) -> Comparison:
    """Compare the questions of ``day`` with those of the newest version of ``dataset``.

    Where a day has fewer than ``policies.drift.minimum_questions``, preceding days are taken in as well.
    Refusals and retrieval scores are compared with the trials of the variant that answered most of the questions.
    """

    import numpy as np

    policy = platform.config.policies.drift
    subject = f"questions:{dataset}"
    with platform.database.connect() as connection:
        # one state of all tables, whatever is published meanwhile
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        window = trailing_window(
            connection,
            day,
            indexes_of_dataset(platform.config, dataset),
            minimum=policy.minimum_questions,
            maximum_days=MAXIMUM_WINDOW_DAYS,
            dataset=dataset if platform.config.datasets[dataset].task_spec is not None else None,
        )
        version, questions = _questions(connection, dataset)
        variant = _most_common([interaction.variant for interaction in window.interactions])
        trials = _trials(connection, dataset, variant) if variant else []
    inputs = {
        "version": version,
        "interactions": len(window.interactions),
        "window": [window.first.isoformat(), window.last.isoformat()],
        "ids": fingerprint([interaction.interaction_id for interaction in window.interactions]),
        "variant": variant,
        "trials": fingerprint([list(trial) for trial in trials]),
        "code": CODE_VERSION,
    }
    days = (window.last - window.first).days + 1
    reference = f"version {version} of the dataset, {len(questions)} questions" if version else ""
    current = f"{len(window.interactions)} questions of {days} day{'s' if days > 1 else ''} to {day}"
    reason = ""
    if version is None:
        reason = f"Evaluation dataset '{dataset}' has no version yet."
    elif len(window.interactions) < policy.minimum_questions:
        reason = (
            f"{len(window.interactions)} questions were asked in the {MAXIMUM_WINDOW_DAYS} days to {day}; "
            f"{policy.minimum_questions} are needed (policies/drift.yaml, minimum_questions)."
        )
    if reason:
        return Comparison(subject, reference, current, inputs, reason=reason)

    rng = np.random.default_rng(rng_seed(day.isoformat(), subject))
    asked = _sample(window.interactions, policy.sample_size, rng)
    tested = _sample(questions, policy.sample_size, rng)
    questioned = [interaction.question for interaction in asked]
    measuring = Measuring(permutations, rng)
    lengths = [[float(len(text)) for text in texts] for texts in (tested, questioned)]
    measuring.scalar("length", "question length", "characters", lengths[0], lengths[1])
    measuring.vocabulary([term_counts(text) for text in tested], [term_counts(text) for text in questioned])
    embedder = platform.models.embedder(
        _embedder(platform.config, _most_common([interaction.index for interaction in asked]))
    )
    vectors = [embedder.embed(texts).vectors for texts in (tested, questioned)]
    measuring.vectors("embedding", "question embeddings", vectors[0], vectors[1])
    answered = [interaction for interaction in asked if interaction.variant == variant]
    no_trials = "" if trials else "the variant that answered has no trials on this dataset"
    measuring.shares(
        "refusals",
        "refusals",
        [_refusal(refused) for refused, _ in trials],
        [_refusal(interaction.refused) for interaction in answered],
        why_not=no_trials,
    )
    measuring.scalar(
        "retrieval_score",
        "retrieval score of the first hit",
        "",
        [score for _, score in trials if score is not None],
        [interaction.score for interaction in answered if interaction.score is not None],
        why_not=no_trials,
    )
    return Comparison(
        subject,
        reference,
        current,
        inputs,
        signals=tuple(measuring.signals),
        risen=measuring.risen,
        fallen=measuring.fallen,
        figure=measuring.figure,
    )


def _questions(connection: Connection, dataset: str) -> tuple[int | None, list[str]]:
    row = connection.execute("SELECT max(version) FROM evaluation_dataset WHERE dataset = %s", (dataset,)).fetchone()
    version = row[0] if row else None
    rows = connection.execute(
        """SELECT question FROM evaluation_question
           WHERE dataset = %s AND version = %s AND status = 'active' ORDER BY question_id""",
        (dataset, version),
    ).fetchall()
    return version, [row[0] for row in rows]


def _trials(connection: Connection, dataset: str, variant: str) -> list[tuple[bool, float | None]]:
    """Refused, and score of the first hit, of the variant's newest trial on each question of the dataset."""
    return [
        (refused, score)
        for refused, score in connection.execute(
            """SELECT DISTINCT ON (question_id) coalesce(refused, false), (retrieved -> 0 ->> 'score')::double precision
               FROM trial WHERE dataset = %s AND variant = %s AND status = 'ok'
               ORDER BY question_id, created_at DESC, fingerprint""",
            (dataset, variant),
        ).fetchall()
    ]


def _most_common(values: Sequence[str]) -> str:
    """The most frequent value, the first in order among equals; empty when there is none."""
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value), default="")


def _sample(items: Sequence[Any], size: int, rng: np.random.Generator) -> list[Any]:
    import numpy as np

    if len(items) <= size:
        return list(items)
    return [items[i] for i in np.sort(rng.choice(len(items), size, replace=False))]


def _refusal(refused: bool) -> str:
    return "refused" if refused else "answered"
