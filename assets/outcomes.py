"""Check outcomes: what a check expected and what it observed, before Dagster sees it.

Belongs here: the outcome type, and running Great Expectations over a frame.
Does not belong here: which checks a stage has (its checks.py), and anything that imports dagster.
"""

import functools
import os
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from psycopg.types.json import Jsonb

from resources.postgres import Connection

if TYPE_CHECKING:
    import pandas as pd

_GREAT_EXPECTATIONS_LOCK = threading.Lock()  # its contexts are process globals and not thread-safe


@dataclass(frozen=True)
class CheckOutcome:
    """One evaluated check.

    Attributes:
        name: check name as declared to Dagster.
        passed: whether observation met expectation.
        expected: in words or numbers, shown in the UI.
        observed: likewise; never raw document text.
        blocking: a failure keeps everything downstream from being built.
        severity: WARN informs, ERROR fails.
        details: further JSON-able facts.
    """

    name: str
    passed: bool
    expected: Any
    observed: Any
    blocking: bool = True
    severity: Literal["WARN", "ERROR"] = "ERROR"
    details: dict[str, Any] = field(default_factory=dict)


def blocked(outcomes: Sequence[CheckOutcome]) -> list[CheckOutcome]:
    """The outcomes that forbid going on."""
    return [outcome for outcome in outcomes if outcome.blocking and not outcome.passed and outcome.severity == "ERROR"]


def record_evidence(
    connection: Connection, kind: str, subject: str, fingerprint: str, outcomes: Sequence[CheckOutcome], run_id: str
) -> None:
    """Keep outcomes as evidence, in the transaction that publishes what they are about.

    Args:
        kind: what was checked, e.g. ``documents``.
        subject: which one, e.g. the source.
        fingerprint: exactly what was checked, e.g. a data version.
    """
    for outcome in outcomes:
        details = {"expected": outcome.expected, "observed": outcome.observed, **outcome.details}
        connection.execute(
            """INSERT INTO evidence (kind, subject, fingerprint, check_name, passed, blocking, details, run_id)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s)""",
            (
                kind,
                subject,
                fingerprint,
                outcome.name,
                outcome.passed,
                outcome.blocking and outcome.severity == "ERROR",
                Jsonb(details),
                run_id,
            ),
        )


def passed_checks(connection: Connection, kind: str, subject: str, fingerprint: str) -> set[str]:
    """Names of the checks whose newest evidence for exactly this fingerprint is a pass."""
    rows = connection.execute(
        """SELECT DISTINCT ON (check_name) check_name, passed FROM evidence
           WHERE kind = %s AND subject = %s AND fingerprint = %s ORDER BY check_name, evidence_id DESC""",
        (kind, subject, fingerprint),
    ).fetchall()
    return {name for name, passed in rows if passed}


def great_expectations_outcome(
    name: str, frame: "pd.DataFrame", expectations: Sequence[Any], *, blocking: bool = True
) -> CheckOutcome:
    """Validate ``frame`` against Great Expectations ``expectations`` as one check.

    Each expectation appears in the outcome with expected (its arguments) against observed (its statistics);
    raw values never do. An expectation that could not be evaluated counts as failed.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx

    with _GREAT_EXPECTATIONS_LOCK:
        for position, expectation in enumerate(expectations):
            expectation.meta = {"position": position}
        suite = gx.ExpectationSuite(name=name, expectations=list(expectations))
        report = (
            _frame_batches()
            .get_batch({"dataframe": frame})
            .validate(
                suite,
                result_format={
                    "result_format": "BASIC",
                    "partial_unexpected_count": 0,
                    "exclude_unexpected_values": True,
                },
            )
        )
    results = sorted(
        cast(dict[str, Any], report.to_json_dict())["results"],
        key=lambda item: item["expectation_config"]["meta"]["position"],
    )
    rows = [_row(item) for item in results]
    failed = [row for row in rows if not row["passed"]]
    return CheckOutcome(
        name=name,
        passed=not failed,
        expected=f"{len(rows)} expectations on {len(frame)} rows",
        observed="all met" if not failed else "; ".join(f"{row['expectation']}: {row['observed']}" for row in failed),
        blocking=blocking,
        details={"expectations": rows},
    )


@functools.cache
def _frame_batches() -> Any:
    """Where Great Expectations takes a frame from; made once, because setting up costs as much as a small check."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    for site in (context.variables.data_docs_sites or {}).values():  # it leaves an empty folder for each context
        shutil.rmtree(site["store_backend"]["base_directory"], ignore_errors=True)
    assets = context.data_sources.add_pandas("frame").add_dataframe_asset("frame")
    return assets.add_batch_definition_whole_dataframe("all")


def _row(item: dict[str, Any]) -> dict[str, Any]:
    configuration = item["expectation_config"]
    arguments = {key: value for key, value in configuration["kwargs"].items() if key != "batch_id"}
    result = item.get("result") or {}
    if "observed_value" in result:
        observed: Any = result["observed_value"]
    elif "unexpected_count" in result:
        observed = f"{result['unexpected_count']} of {result.get('element_count')} unexpected"
    else:
        observed = f"could not be evaluated: {_exception(item.get('exception_info') or {})}"
    column = arguments.pop("column", None)
    return {
        "expectation": configuration["type"] + (f"({column})" if column else ""),
        "expected": ", ".join(f"{key}={value}" for key, value in arguments.items()) or "holds",
        "observed": observed,
        "passed": bool(item["success"]),
    }


def _exception(info: dict[str, Any]) -> str:
    if info.get("exception_message"):
        return str(info["exception_message"])
    for value in info.values():
        if isinstance(value, dict) and value.get("exception_message"):
            return str(value["exception_message"])
    return "unknown"
