"""Jobs: what can be started as one run, and in which processes its steps run.

Belongs here: selections of assets, executors and run tags.
Does not belong here: when a job starts (schedules.py, sensors.py, automation.py) and the ops of maintenance (maintenance.py).

| job | partition | makes |
| --- | --- | --- |
| refresh_source | a source | raw_documents, chunks, embeddings, search_index |
| build_dataset | an evaluation dataset | evaluation_dataset |
| generate_questions | a dataset with `synthetic` | synthetic_questions |
| calibrate_judge | a judge with labels | judge_calibration |
| run_experiment | an experiment | scored_variants |
| watch_drift | a day | drift_report |
| shadow_traffic | an experiment | shadow_comparison |

One partition per run: partitioned checks say nothing in a run over several.
"""

from collections.abc import Sequence

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from resources.config import ProjectConfig
from resources.judge_config import calibrated_judges

REFRESH_ASSETS = ("raw_documents", "chunks", "embeddings", "search_index")
DATASET_ASSET = "evaluation_dataset"
SYNTHESIS_ASSET = "synthetic_questions"
JUDGE_ASSET = "judge_calibration"
EXPERIMENT_ASSET = "scored_variants"
DRIFT_ASSET = "drift_report"
SHADOW_ASSET = "shadow_comparison"

REFRESH_JOB = "refresh_source"
DATASET_JOB = "build_dataset"
SYNTHESIS_JOB = "generate_questions"
JUDGE_JOB = "calibrate_judge"
EXPERIMENT_JOB = "run_experiment"
DRIFT_JOB = "watch_drift"
SHADOW_JOB = "shadow_traffic"

#: Run tag the queue limits by: one run per source at a time (dagster.yaml).
SOURCE_TAG = "genaiops/source"
#: Run tag: what of the source a refresh was requested for.
FINGERPRINT_TAG = "genaiops/fingerprint"
#: Run tag: which sensor or schedule asked for the run.
ORIGIN_TAG = "genaiops/origin"


def default_executor() -> dg.ExecutorDefinition:
    """Each step in a process of its own, forked from one that has the heavy libraries loaded.

    A crash in native code then ends one step, not the run's bookkeeping. Forking costs 0.42 s a step with
    everything imported; spawning costs 1.25 s, and up to 4.7 s with the imports.
    """
    return _forked(["pipelines.preload", "pipelines.definitions"])


def single_step_executor() -> dg.ExecutorDefinition:
    """Like ``default_executor`` for jobs of one step, where loading libraries ahead saves nothing."""
    return _forked(["pipelines.definitions"])


def _forked(preload: Sequence[str]) -> dg.ExecutorDefinition:
    return dg.multiprocess_executor.configured(
        {"max_concurrent": 2, "start_method": {"forkserver": {"preload_modules": list(preload)}}},
        name="forked",
    )


def build_jobs(config: ProjectConfig) -> list[UnresolvedAssetJobDefinition]:
    """The jobs that make assets; ``build_maintenance`` adds the ones that keep house."""
    jobs = [
        dg.define_asset_job(
            REFRESH_JOB,
            selection=dg.AssetSelection.assets(*REFRESH_ASSETS),
            description="Bring one source up to date: list, parse, chunk, embed, check and publish what changed.",
            executor_def=default_executor(),
        )
    ]
    single = [
        (
            bool(config.datasets),
            DATASET_JOB,
            DATASET_ASSET,
            "Resolve the questions of one dataset to character spans of the current documents.",
        ),
        (
            any(dataset.synthetic for dataset in config.datasets.values()),
            SYNTHESIS_JOB,
            SYNTHESIS_ASSET,
            "Make drafts of questions for one dataset; people review them.",
        ),
        (
            bool(calibrated_judges(config.judges)),
            JUDGE_JOB,
            JUDGE_ASSET,
            "Compare one judge with what people said; what it was asked before is not asked again.",
        ),
        (
            bool(config.experiments),
            EXPERIMENT_JOB,
            EXPERIMENT_ASSET,
            "Score the variants of one experiment; trials already made are not repeated.",
        ),
        (
            any(experiment.index_names for experiment in config.experiments.values()),
            SHADOW_JOB,
            SHADOW_ASSET,
            "Ask the newest live questions again, of the champion and of the variant that might replace it.",
        ),
        (True, DRIFT_JOB, DRIFT_ASSET, "Compare one day's documents and questions with the reference."),
    ]
    jobs += [
        dg.define_asset_job(
            job,
            selection=dg.AssetSelection.assets(asset),
            description=description,
            executor_def=single_step_executor(),
        )
        for wanted, job, asset, description in single
        if wanted
    ]
    return jobs


def refresh_request(source: str, *, run_key: str, origin: str, fingerprint: str | None = None) -> dg.RunRequest:
    """Ask for one refresh of a source, tagged so that the queue and the sensors recognise it."""
    tags = {SOURCE_TAG: source, ORIGIN_TAG: origin}
    if fingerprint:
        tags[FINGERPRINT_TAG] = fingerprint
    return dg.RunRequest(run_key=run_key, job_name=REFRESH_JOB, partition_key=source, tags=tags)
