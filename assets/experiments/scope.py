"""Scope: which questions every variant of one run is asked, and on which snapshots.

Belongs here: leaving out what cannot be scored on the snapshots. Does not belong here: the trials (planning.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from assets.evaluation.dataset import Question, read_dataset
from resources.config import ProjectConfig
from resources.errors import PermanentError
from resources.experiment_config import ExperimentConfig
from resources.postgres import Connection


@dataclass(frozen=True)
class Scope:
    """The questions and snapshots every variant of one run is measured on.

    Attributes:
        questions: active questions of the split whose gold spans fit the snapshots.
        stale: ids of active questions left out, because a snapshot shows another text of their evidence.
        snapshots: the snapshot of each index, the same for all trials of the run.
    """

    dataset: str
    version: int
    split: str
    questions: tuple[Question, ...]
    stale: tuple[str, ...]
    snapshots: Mapping[str, int]

    @property
    def stale_share(self) -> float:
        """Share of the split's active questions that had to be left out."""
        return len(self.stale) / max(1, len(self.stale) + len(self.questions))


def resolve_scope(
    connection: Connection,
    config: ProjectConfig,
    experiment: ExperimentConfig,
    snapshots: Mapping[str, int],
    *,
    split: str | None = None,
) -> Scope:
    """Choose the questions of an experiment's split that can be scored on the given snapshots.

    A gold span is a range of one text. Where a snapshot shows the evidence document with another text, or no longer
    shows it, the range means nothing there, and the question is left out of all variants, so that they stay paired.
    Evidence in a source that an index does not cover stays in: not finding it is that index's own choice.

    Raises:
        PermanentError: the split is kept for few-shot examples, or the dataset was never built, or before its header asked
            for another task, other labels or other fields.
    """
    split = split or experiment.split
    if split == "train":
        raise PermanentError(
            f"experiment {experiment.name}: the train split is for few-shot examples and is never scored; set split to dev"
        )
    dataset = read_dataset(connection, experiment.dataset)
    header = config.datasets.get(experiment.dataset)
    if header is not None and header.task_spec != dataset.task:  # else prompts would ask for other labels than are read
        raise PermanentError(
            f"experiment {experiment.name}: the header of dataset {dataset.dataset} asks for something else than its version "
            f"{dataset.version}; materialize evaluation_dataset for partition {dataset.dataset!r} first"
        )
    active = dataset.split(split)
    stale: set[str] = set()
    for index, snapshot in sorted(snapshots.items()):
        rows = connection.execute(
            """SELECT DISTINCT evidence.question_id
               FROM evaluation_evidence evidence
               JOIN document USING (document_id)
               LEFT JOIN (SELECT shown.document_id, version.text_hash
                          FROM index_snapshot published
                          JOIN index_document shown ON shown.build_id = published.build_id
                               AND shown.valid_from <= published.snapshot AND shown.valid_to > published.snapshot
                          JOIN document_version version USING (version_id)
                          WHERE published.index_name = %s AND published.snapshot = %s) shown USING (document_id)
               WHERE evidence.dataset = %s AND evidence.version = %s AND document.source = ANY(%s)
                 AND shown.text_hash IS DISTINCT FROM evidence.text_hash""",
            (index, snapshot, dataset.dataset, dataset.version, config.index_sources(index)),
        ).fetchall()
        stale.update(row[0] for row in rows)
    questions = tuple(question for question in active if question.question_id not in stale)
    return Scope(
        dataset=dataset.dataset,
        version=dataset.version,
        split=split,
        questions=questions,
        stale=tuple(sorted(question.question_id for question in active if question.question_id in stale)),
        snapshots=dict(snapshots),
    )
