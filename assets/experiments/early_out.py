"""The early way out: an experiment whose every input is that of its newest result has nothing to compute.

Belongs here: the hash of all a result is computed from, and finding the result that still stands.
Does not belong here: computing one (running.py), and how it is shown (assets.py).

A run on which nothing changed would plan, look up and score every trial only to find the result it started from. So the
inputs are hashed and compared first. The hash errs on one side: whatever might matter is in it, the source files of this
project among them, and one that differs only costs the ordinary run, which finds its trials, searches and scores on
record. A result is also not taken when a trial it rests on is gone or would be tried again, when its confirmation is
pending, or when a file of it is missing.
"""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from assets.evaluation.judging.labels import file_hash
from assets.evaluation.metrics.semantic_metrics import semantic_fingerprints
from assets.experiments import report
from assets.experiments.champion import current_champion, experiment_config, settings_fingerprint
from assets.experiments.leaderboard import Leaderboard
from assets.experiments.recommendation import Recommendation, is_pending
from assets.experiments.variants import expand
from assets.outcomes import CheckOutcome
from resources.errors import PermanentError
from resources.experiment_config import ExperimentConfig
from resources.fingerprint import fingerprint
from resources.judge_config import calibrated_judges
from resources.platform import Platform
from resources.postgres import Connection
from resources.variants import Variant

#: Packages whose source files may change a result.
_CODE = ("assets/experiments", "assets/evaluation", "resources")
_LIBRARIES = ("numpy", "scipy", "optuna")


@dataclass(frozen=True)
class StoredResult:
    """A result on record that a run would find again.

    Attributes:
        outcomes: its checks as they were reported.
        trials: of its plan; ``rests_on`` counts those of the confirmation as well.
        files: report (HTML) and trial records (Parquet).
    """

    result_id: int
    fingerprint: str
    leaderboard: Leaderboard
    recommendation: Recommendation
    outcomes: tuple[CheckOutcome, ...]
    trials: int
    rests_on: int
    files: Mapping[str, Path]


def find(platform: Platform, name: str) -> StoredResult | None:
    """The newest result of an experiment if a run would find exactly it again; nothing is written, sent or spent.

    None also when the experiment cannot run at all: the run then says why.

    Raises:
        PermanentError: there is no such experiment.
    """
    experiment = experiment_config(platform.config, name)
    with platform.database.connect() as connection:
        row = connection.execute(
            """SELECT result_id, fingerprint, inputs, leaderboard, recommendation, outcomes,
                      dataset_version = (SELECT max(version) FROM evaluation_dataset WHERE dataset = %s)
               FROM experiment_result WHERE experiment = %s ORDER BY result_id DESC LIMIT 1""",
            (experiment.dataset, name),
        ).fetchone()
        if row is None:
            return None
        result_id, key, inputs, board, recommendation, stored, newest = row
        if not newest or inputs is None or stored is None or is_pending(recommendation):
            return None
        files = report.files(folder_of(platform, name), result_id)
        if not all(path.exists() for path in files.values()):
            return None
        try:
            variants = expand(platform.config, platform.models, experiment, connection)
            champion = current_champion(connection, platform.config, platform.models, experiment).variant
        except PermanentError:
            return None
        if inputs != inputs_fingerprint(
            connection, platform, experiment, variants, champion, _serving(connection, experiment)
        ):
            return None
        if not _stands(connection, result_id, stored):
            return None
    return StoredResult(
        result_id=result_id,
        fingerprint=key,
        leaderboard=board,
        recommendation=recommendation,
        outcomes=tuple(CheckOutcome(**outcome) for outcome in stored["checks"]),
        trials=stored["trials"],
        rests_on=stored["rests_on"],
        files=files,
    )


def folder_of(platform: Platform, name: str) -> Path:
    """Where the files of an experiment's results are."""
    return platform.artifacts / "experiments" / name


def described(outcomes: Sequence[CheckOutcome], *, trials: int, rests_on: int, failed: int) -> dict[str, Any]:
    """Column ``outcomes`` of table experiment_result.

    Args:
        failed: of ``rests_on``, how many ended without an answer.
    """
    return {
        "checks": [asdict(outcome) for outcome in outcomes],
        "trials": trials,
        "rests_on": rests_on,
        "failed": failed,
    }


def inputs_fingerprint(
    connection: Connection,
    platform: Platform,
    experiment: ExperimentConfig,
    variants: Sequence[Variant],
    champion: Variant,
    snapshots: Mapping[str, int],
) -> str:
    """Hash of all that a result of these variants, on these snapshots and the newest dataset version, is computed from."""
    config = platform.config
    labels = {
        name: file_hash(config.judges[name].labels_path(config.data_dir)) for name in calibrated_judges(config.judges)
    }
    return fingerprint(
        {
            "code": _code(),
            "settings": settings_fingerprint(experiment),
            "dataset": config.datasets[experiment.dataset].fingerprint(),
            "variants": [[variant.name, variant.fingerprint] for variant in variants],
            "champion": champion.fingerprint,
            "prompts": {name: prompt.fingerprint() for name, prompt in config.prompts.items()},
            "judges": {name: [judge.fingerprint(), labels.get(name)] for name, judge in config.judges.items()},
            "models": config.models.fingerprint(),
            "semantic": semantic_fingerprints(platform.models),
            "indexes": {name: config.indexes[name].fingerprint() for name in sorted(snapshots)},
            "sources": {name: sorted(config.index_sources(name)) for name in sorted(snapshots)},
            "snapshots": dict(sorted(snapshots.items())),
            "record": _record(connection, experiment, list(snapshots)),
        }
    )


def _serving(connection: Connection, experiment: ExperimentConfig) -> dict[str, int]:
    rows = connection.execute(
        "SELECT index_name, serving FROM index_state WHERE index_name = ANY(%s) AND serving IS NOT NULL",
        (list(experiment.index_names),),
    ).fetchall()
    return dict(rows)


def _record(connection: Connection, experiment: ExperimentConfig, indexes: Sequence[str]) -> list[Any]:
    """What the database holds of it: the newest dataset, the builds that are served, judges' agreement, erasures."""
    row = connection.execute(
        """WITH newest AS (SELECT dataset, max(version) AS version FROM evaluation_dataset WHERE dataset = %(dataset)s
                           GROUP BY dataset)
           SELECT (SELECT version FROM newest),
                  (SELECT md5(string_agg(to_jsonb(q)::text, ' ' ORDER BY question_id))
                   FROM evaluation_question q JOIN newest USING (dataset, version)),
                  (SELECT md5(string_agg(to_jsonb(e)::text, ' ' ORDER BY question_id, ordinal))
                   FROM evaluation_evidence e JOIN newest USING (dataset, version)),
                  (SELECT string_agg(concat_ws(' ', s.index_name, s.snapshot, b.build_id, b.fingerprint, md5(s.counts::text)),
                                     ', ' ORDER BY s.index_name)
                   FROM index_state i JOIN index_snapshot s ON s.index_name = i.index_name AND s.snapshot = i.serving
                        JOIN index_build b USING (build_id) WHERE i.index_name = ANY(%(indexes)s)),
                  (SELECT string_agg(concat_ws(' ', judge, fingerprint, labels, passed), ', '
                                     ORDER BY judge, fingerprint, labels) FROM judge_calibration),
                  (SELECT count(*) FROM erasure),
                  current_setting('server_version_num'),
                  (SELECT extversion FROM pg_extension WHERE extname = 'vector')""",
        {"dataset": experiment.dataset, "indexes": list(indexes)},
    ).fetchone()
    return list(row) if row else []


def _stands(connection: Connection, result_id: int, stored: Mapping[str, Any]) -> bool:
    """Whether all trials the result rests on are on record as they were, and none would be tried again.

    A search of which a step was skipped because of trouble is made again by the next run.
    """
    row = connection.execute(
        """SELECT count(*), count(*) FILTER (WHERE status = 'failed'),
                  count(*) FILTER (WHERE status = 'failed' AND given_up_at IS NULL),
                  EXISTS (SELECT FROM result_trial JOIN trial_verdict USING (trial)
                          WHERE result_id = %(result)s AND error IS NOT NULL),
                  count(*) FILTER (WHERE retrieval @? '$.steps[*] ? (exists(@.skipped))')
           FROM result_trial JOIN trial ON trial.fingerprint = result_trial.trial WHERE result_id = %(result)s""",
        {"result": result_id},
    ).fetchone()
    return row is not None and (row[0], row[1]) == (stored["rests_on"], stored["failed"]) and not any(row[2:])


@cache
def _code() -> list[Any]:
    """Hash of the source files that may change a result, and the versions of what they calculate with.

    Raises:
        PermanentError: there is no source to read.
    """
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.blake2b(digest_size=16)
    files = sorted(path for folder in _CODE for path in (root / folder).rglob("*.py"))
    if not files:
        raise PermanentError(f"the source files of this project are not in {root.name}: reinstall it with its sources")
    for path in files:
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return [digest.hexdigest(), list(sys.version_info[:3]), [_version(name) for name in _LIBRARIES]]


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
