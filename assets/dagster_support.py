"""What the assets.py files share about Dagster.

Belongs here: partitions, check specs and results, the judgement whether a run is over.
Does not belong here: any stage's logic. Beside assets.py and checks.py this is the only module here that imports dagster.
"""

import base64
import contextlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
import psycopg

from assets.outcomes import CheckOutcome
from resources.config import ProjectConfig
from resources.disk import disk_full, is_full
from resources.errors import PermanentError, TransientError
from resources.judge_config import calibrated_judges
from resources.postgres import describe_error, may_pass

# Partitioned check specs are marked as preview; without them one partition's result would speak for all.
warnings.filterwarnings("ignore", message=".*partitions_def.*", category=dg.PreviewWarning)

OWNERS = ["team:genaiops"]


def source_partitions(config: ProjectConfig) -> dg.StaticPartitionsDefinition:
    """One partition per source."""
    return dg.StaticPartitionsDefinition(list(config.sources))


def datasets_of_sources(config: ProjectConfig) -> dg.StaticPartitionMapping:
    """Which datasets a source feeds, so that a source only wakes, and only holds, the datasets built on it."""
    return _partition_mapping({name: dataset.sources for name, dataset in config.datasets.items()})


def synthetic_datasets_of_sources(config: ProjectConfig) -> dg.StaticPartitionMapping:
    """Which datasets make questions from a source."""
    return _partition_mapping(
        {name: dataset.sources for name, dataset in config.datasets.items() if dataset.synthetic is not None}
    )


def experiments_of_datasets(config: ProjectConfig) -> dg.StaticPartitionMapping:
    """Which experiments run on a dataset."""
    return _partition_mapping({name: [experiment.dataset] for name, experiment in config.experiments.items()})


def experiments_of_sources(config: ProjectConfig) -> dg.StaticPartitionMapping:
    """Which experiments search an index that covers a source."""
    return _partition_mapping(
        {
            name: [source for index in experiment.index_names for source in config.index_sources(index)]
            for name, experiment in config.experiments.items()
        }
    )


def experiments_of_judges(config: ProjectConfig) -> dg.StaticPartitionMapping | None:
    """Which experiments the calibration of a judge matters to; None when it matters to none."""
    calibrated = calibrated_judges(config.judges)
    used = {
        name: [judge for judge in experiment.judges if judge in calibrated]
        for name, experiment in config.experiments.items()
    }
    return _partition_mapping(used) if any(used.values()) else None


def _partition_mapping(upstream_of: Mapping[str, Sequence[str]]) -> dg.StaticPartitionMapping:
    downstream_of: dict[str, list[str]] = {}
    for downstream, upstreams in upstream_of.items():
        for upstream in dict.fromkeys(upstreams):
            downstream_of.setdefault(upstream, []).append(downstream)
    return dg.StaticPartitionMapping(downstream_of)


@contextlib.contextmanager
def errors_by_kind(*, max_retries: int = 2, wait_seconds: float = 30.0) -> Iterator[None]:
    """Retry a step only where trying again may help.

    Three retries exist, each for its own kind of trouble: a request is retried by resources/models.py, a step that
    met a ``TransientError`` by this, a run whose process died by ``run_retries`` in dagster.yaml. A
    ``PermanentError`` fails at once, so that nothing is paid twice for the same answer. A lost database counts as
    transient, a full disk does not: each try would write the same again. What a database error quotes of a row does
    not travel along.
    """
    try:
        yield
    except TransientError as error:
        raise dg.RetryRequested(max_retries=max_retries, seconds_to_wait=wait_seconds) from error
    except PermanentError as error:
        raise dg.Failure(description=f"{type(error).__name__}: {error}", allow_retries=False) from error
    except psycopg.Error as error:
        if not may_pass(error):
            raise dg.Failure(description=describe_error(error), allow_retries=False) from None
        lost = TransientError(describe_error(error))
        raise dg.RetryRequested(max_retries=max_retries, seconds_to_wait=wait_seconds) from lost
    except OSError as error:
        if not is_full(error):
            raise
        raise dg.Failure(description=str(disk_full(error)), allow_retries=False) from error


def check_specs(
    asset: str,
    names: Mapping[str, str],
    *,
    partitions_def: dg.PartitionsDefinition | None,
    not_blocking: Sequence[str] = (),
) -> list[dg.AssetCheckSpec]:
    """Declare the checks an asset reports itself: ``{name: description}``; blocking unless named otherwise."""
    return [
        dg.AssetCheckSpec(
            name, asset=asset, description=description, blocking=name not in not_blocking, partitions_def=partitions_def
        )
        for name, description in names.items()
    ]


def check_results(outcomes: Sequence[CheckOutcome]) -> Iterator[dg.AssetCheckResult]:
    """Turn outcomes into Dagster check results, showing expected against observed."""
    for outcome in outcomes:
        metadata: dict[str, Any] = {"expected": _show(outcome.expected), "observed": _show(outcome.observed)}
        for key, value in outcome.details.items():
            if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
                metadata[key] = table(value)
            elif isinstance(value, int | float | str | bool) and value is not None:
                metadata[key] = value
            else:
                metadata[key] = dg.MetadataValue.json(value)
        yield dg.AssetCheckResult(
            check_name=outcome.name,
            passed=outcome.passed,
            severity=dg.AssetCheckSeverity[outcome.severity],
            description=f"expected {_show(outcome.expected)}; observed {_show(outcome.observed)}",
            metadata=metadata,
        )


def not_evaluated(names: Sequence[str], done: Sequence[CheckOutcome], why: str) -> list[CheckOutcome]:
    """Failed outcomes for the declared checks that could not be reached, so that none is silently missing."""
    reached = {outcome.name for outcome in done}
    return [
        CheckOutcome(name, False, "to be evaluated", f"not evaluated: {why}", blocking=False)
        for name in names
        if name not in reached
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """A metadata table; cells that are no scalar are shown as JSON."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return dg.MetadataValue.table(
        records=[dg.TableRecord({key: _cell(row.get(key)) for key in columns}) for row in rows],
        schema=dg.TableSchema(
            columns=[dg.TableColumn(key, type=_column_type([row.get(key) for row in rows])) for key in columns]
        ),
    )


def image(png: bytes, caption: str = "figure") -> dg.MarkdownMetadataValue:
    """A PNG shown in the UI."""
    return dg.MetadataValue.md(f"![{caption}](data:image/png;base64,{base64.b64encode(png).decode()})")


def run_is_over(instance: dg.DagsterInstance) -> Callable[[str], bool]:
    """Tell whether the run that holds a lease is over, so that an orphaned process of it can be cut off."""

    def over(holder: str) -> bool:
        run = instance.get_run_by_id(holder) if len(holder) == 36 else None
        return bool(run and run.is_finished)

    return over


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _cell(value: Any) -> Any:
    return (
        value
        if isinstance(value, str | int | float | bool)
        else ("" if value is None else json.dumps(value, ensure_ascii=False, default=str))
    )


def _column_type(values: Sequence[Any]) -> str:
    present = [value for value in values if value is not None]
    for kind, name in ((bool, "bool"), (int, "int"), (float, "float")):
        if present and all(isinstance(value, kind) for value in present):
            return name
    return "string"
