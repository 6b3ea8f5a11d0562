"""What the assets.py files share about Dagster.

Belongs here: partitions, check specs and results, the judgement whether a run is over.
Does not belong here: any stage's logic. Beside assets.py and checks.py this is the only module here that imports dagster.
"""

import base64
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from assets.outcomes import CheckOutcome
from resources.config import ProjectConfig

# Partitioned check specs are marked as preview; without them one partition's result would speak for all.
warnings.filterwarnings("ignore", message=".*partitions_def.*", category=dg.PreviewWarning)

OWNERS = ["team:genaiops"]


def source_partitions(config: ProjectConfig) -> dg.StaticPartitionsDefinition:
    """One partition per source."""
    return dg.StaticPartitionsDefinition(list(config.sources))


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
