"""Export: the newest result of an experiment, with its prompts and its dataset, as an MLflow server takes it.

Belongs here: reading what is on record and naming it, and the check ``exported``.
Does not belong here: talking to the server (resources/mlflow_export.py), and the result itself (running.py).

What leaves holds names, numbers, places in documents and templates of prompts. Questions, answers, worked examples and document
text leave only when somebody asks for them: no erasure reaches a server that is not ours.
"""

import contextlib
import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from assets.experiments import report
from assets.experiments.leaderboard import Leaderboard, Row, upgraded
from assets.experiments.recommendation import Recommendation
from assets.outcomes import CheckOutcome
from resources.errors import GenaiopsError, PermanentError
from resources.fingerprint import fingerprint
from resources.mlflow_export import (
    SECONDS,
    Exported,
    MlflowUnavailableError,
    PromptExport,
    ResultExport,
    RunExport,
    Tracking,
    send,
)
from resources.platform import Platform
from resources.postgres import Connection
from resources.prompt_labels import current_labels

CHECKS: dict[str, str] = {
    "exported": "The newest result on record is on the MLflow server, where one is set. It never stops anything.",
}
#: Entries of a leaderboard's row that name what a variant is; of its words, only these leave.
_PARAMETERS = (
    "index", "snapshot", "prompt", "prompt_version", "search_mode", "k", "retrieval", "filters", "context", "model", "label",
    "offline", "task", "champion", "dominated_by",
)  # fmt: skip
#: Columns of the table of trials that hold text and are ids, names or places.
_TRIAL_WORDS = frozenset(
    ("trial", "variant", "variant_fingerprint", "label", "index", "dataset", "question_id", "status", "generation",
     "retrieved_paths")
)  # fmt: skip
_RESULT = (
    "dataset", "dataset_version", "split", "decision_metric", "confidence", "resamples", "seed", "comparisons", "champion",
    "cluster", "settings",
)  # fmt: skip


@dataclass(frozen=True)
class StoredResult:
    """The newest result of an experiment, as it is on record."""

    experiment: str
    result_id: int
    fingerprint: str
    board: Leaderboard
    recommendation: Recommendation
    run_id: str
    time: int  # milliseconds since 1970

    @property
    def export_fingerprint(self) -> str:
        """Hash of all the result says; results that say the same are one run."""
        return fingerprint([self.experiment, self.fingerprint, self.board, self.recommendation])


def exported(platform: Platform, experiment: str, *, seconds: float = SECONDS) -> CheckOutcome:
    """Export the newest result on record, if a server is set and it is not there yet.

    Never raises: that a server is down is no reason to lose a run. The next run tries again.
    """
    name, tracking = "exported", platform.tracking
    if tracking is None:
        return CheckOutcome(name, True, "no MLflow server is set", "nothing to export", blocking=False, severity="WARN")
    expected = f"the newest result is on {tracking.shown}"
    try:
        done = export_newest(platform, experiment, tracking, seconds=seconds, again=False)
    except GenaiopsError as error:
        return CheckOutcome(name, False, expected, str(error), blocking=False, severity="WARN")
    except Exception as error:
        told = f"the export failed with {type(error).__name__}"
        return CheckOutcome(name, False, expected, told, blocking=False, severity="WARN")
    if done is None:
        return CheckOutcome(name, True, expected, "no result is on record yet", blocking=False, severity="WARN")
    details = {"run": done.run_id, "runs_made": done.runs, "prompt_versions_made": done.prompts}
    observed = f"run {done.run_id}, " + (f"{done.runs} runs made" if done.new else "there already")
    return CheckOutcome(name, True, expected, observed, blocking=False, severity="WARN", details=details)


def export_newest(
    platform: Platform,
    experiment: str,
    tracking: Tracking,
    *,
    with_answers: bool = False,
    seconds: float = SECONDS,
    again: bool = True,
) -> Exported | None:
    """Put the newest result of an experiment on the server; None when there is no result.

    Args:
        with_answers: also questions, answers, reference answers, worked examples and the dataset.
        again: ask the server even when a note beside the report says that exactly this was sent to it.

    Raises:
        ConfigError: the client is not installed.
        MlflowUnavailableError: the server is down, slow or refuses, or another export of the same experiment is under way.
    """
    folder = platform.artifacts / "experiments" / experiment
    with _alone(platform, f"export:{experiment}", seconds), tempfile.TemporaryDirectory() as temporary:
        with platform.database.connect() as connection:
            result = _newest(connection, experiment)
            if result is None:
                return None
            export = build(connection, result, tracking.namespace)
            note = folder / f"{result.result_id}.mlflow.json"
            sent = fingerprint([tracking.shown, _content(export)])
            if not again and (known := _read_note(note)).get("sent") == sent:
                return Exported(**known["exported"])
            answers = _answers(connection, result, Path(temporary)) if with_answers else []
        page = folder / f"{result.result_id}.html"
        if not page.exists():
            page = report.write_page(Path(temporary) / "report", result.result_id, result.board, result.recommendation)
        files = [(page, "report"), *_trials(folder / f"{result.result_id}.parquet", Path(temporary))]
        done = send(replace(export, files=_named(files), answers=_named(answers)), tracking, seconds=seconds)
        _write_note(
            note,
            {"server": tracking.shown, "sent": sent, "exported": vars(replace(done, runs=0, prompts=0, answers=False))},
        )
    return done


@contextlib.contextmanager
def _alone(platform: Platform, name: str, seconds: float) -> Iterator[None]:
    """One export of an experiment at a time, so that none is made twice."""
    import psycopg

    with platform.database.dedicated() as connection:
        connection.execute("SELECT set_config('lock_timeout', %s, false)", (f"{int(seconds * 1000)}ms",))
        try:
            connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (name,))
        except psycopg.errors.LockNotAvailable:
            raise MlflowUnavailableError("another export of the same experiment is still under way") from None
        yield


def _newest(connection: Connection, experiment: str) -> StoredResult | None:
    row = connection.execute(
        """SELECT result_id, fingerprint, leaderboard, recommendation, run_id,
                  (extract(epoch FROM created_at) * 1000)::bigint
           FROM experiment_result WHERE experiment = %s ORDER BY result_id DESC LIMIT 1""",
        (experiment,),
    ).fetchone()
    return None if row is None else StoredResult(experiment, *row)


# --- what is sent -------------------------------------------------------------------------------------------


def build(connection: Connection, result: StoredResult, namespace: str) -> ResultExport:
    """All of a result but its files; without a word of a question, an answer or a document."""
    board, recommendation = upgraded(result.board), result.recommendation
    whole = result.export_fingerprint
    prompts = _prompts(connection, board, namespace)
    sent = {(one.name, one.tags["genaiops.version"]): one.fingerprint for one in prompts}
    row = connection.execute(
        "SELECT content_hash, counts FROM evaluation_dataset WHERE dataset = %s AND version = %s",
        (board["dataset"], board["dataset_version"]),
    ).fetchone()
    content_hash, counts = row or (fingerprint([board["dataset"], board["dataset_version"]]), {})
    lineage = _lineage(result, board, content_hash)
    return ResultExport(
        experiment=f"{namespace}/{result.experiment}",
        time=result.time,
        result=RunExport(
            name=f"result-{result.result_id}",
            fingerprint=whole,
            tags={
                **lineage,
                "genaiops.kind": "result",
                "genaiops.verdict": str(recommendation["verdict"]),
                "genaiops.recommended": str(recommendation.get("recommended") or ""),
            },
            params={key: str(board[key]) for key in _RESULT if board.get(key) is not None},
            metrics=_result_metrics(board, recommendation),
            note=str(recommendation["text"]),
        ),
        variants=tuple(_variant(one, whole, lineage, recommendation, sent, namespace) for one in board["rows"]),
        prompts=tuple(prompts),
        dataset={
            "name": str(board["dataset"]),
            "digest": str(content_hash)[:36],
            "source_type": "genaiops",
            "source": json.dumps({"dataset": board["dataset"], "version": board["dataset_version"]}),
            "profile": json.dumps({**counts, "asked": board["questions"]}),
        },
        texts={
            "leaderboard.json": json.dumps(board, indent=1, ensure_ascii=False),
            "recommendation.json": json.dumps(recommendation, indent=1, ensure_ascii=False),
        },
    )


def _lineage(result: StoredResult, board: Leaderboard, content_hash: str) -> dict[str, str]:
    return {
        "genaiops.experiment": result.experiment,
        "genaiops.result": str(result.result_id),
        "genaiops.result_fingerprint": result.fingerprint,
        "genaiops.dataset": str(board["dataset"]),
        "genaiops.dataset_version": str(board["dataset_version"]),
        "genaiops.dataset_hash": str(content_hash),
        "genaiops.snapshots": json.dumps(board["snapshots"], sort_keys=True),
        "genaiops.settings": str(board.get("settings", "")),
        "genaiops.dagster_run": result.run_id,
    }


def _variant(
    row: Row,
    whole: str,
    lineage: Mapping[str, str],
    recommendation: Recommendation,
    sent: Mapping[tuple[str, str], str],
    namespace: str,
) -> RunExport:
    prompt = prompt_name(namespace, str(row.get("prompt")))
    version = sent.get((prompt, str(row.get("prompt_version"))))
    return RunExport(
        name=row["variant"],
        fingerprint=fingerprint([whole, row["fingerprint"], row["variant"]]),
        tags={
            **lineage,
            "genaiops.kind": "variant",
            "genaiops.variant": row["variant"],
            "genaiops.variant_fingerprint": row["fingerprint"],
            "genaiops.champion": str(bool(row["champion"])).lower(),
            "genaiops.recommended": str(row["variant"] == recommendation.get("recommended")).lower(),
        },
        params=_parameters(row),
        metrics=_variant_metrics(row),
        prompt=(prompt, version) if version else None,
    )


def _parameters(row: Row) -> dict[str, str]:
    """What a variant is; without a search setting where nothing is searched."""
    searching = () if row.get("index") else ("index", "snapshot", "search_mode", "k")
    return {
        key: str(row[key])
        for key in _PARAMETERS
        if key not in searching and isinstance(row.get(key), str | int | float) and row[key] != ""
    }


def _variant_metrics(row: Row) -> dict[str, float]:
    """Every number of a row under a name of its own; what is undefined is left out."""
    found = dict(_numbers({key: value for key, value in row.items() if key not in (*_PARAMETERS, "metrics", "guards")}))
    for metric, halves in row["metrics"].items():
        found |= _numbers(halves, f"{metric}/")
    for guard in row.get("guards") or ():
        where = f"{guard.get('metric')} {guard.get('tag') or ''}".strip().replace("=", " ")
        found[f"guard/{where}/held"] = float(guard.get("state") == "held")
    return found


def _result_metrics(board: Leaderboard, recommendation: Recommendation) -> dict[str, float]:
    best = board["rows"][0]
    return {
        **dict(_numbers(board["questions"], "questions.")),
        **dict(_numbers({"best": best["decision"], "variants": len(board["rows"])})),
        **dict(_numbers({"confirmation": recommendation.get("confirmation")})),
        "failed_trials": float(sum(row["failed"] for row in board["rows"])),
        "cost": float(sum(row["cost"] for row in board["rows"])),
    }


def _numbers(value: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """The finite numbers of nested mappings, named by the keys that lead to them."""
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _numbers(item, f"{prefix}{key}.")
        elif isinstance(item, int | float) and not isinstance(item, bool) and math.isfinite(item):
            yield f"{prefix}{key}", float(item)


def prompt_name(namespace: str, name: str) -> str:
    """What a prompt is called in the registry."""
    return f"{namespace}-{name}"


def _prompts(connection: Connection, board: Leaderboard, namespace: str) -> list[PromptExport]:
    """The versions that were compared, and those of the same prompts that a label names, oldest first."""
    compared = {(row["prompt"], row["prompt_version"]) for row in board["rows"] if row.get("prompt_version")}
    found = []
    for name in sorted({name for name, _ in compared}):
        labels = current_labels(connection, name)
        rows = connection.execute(
            """SELECT version, fingerprint, config, rationale, author FROM prompt_version
               WHERE name = %s ORDER BY version""",
            (name,),
        ).fetchall()
        for version, key, config, rationale, author in rows:
            aliases = tuple(sorted(label for label, labelled in labels.items() if labelled == version))
            if (name, version) not in compared and not aliases:
                continue
            tags = {
                "genaiops.prompt": name,
                "genaiops.version": str(version),
                "genaiops.examples_left_out": str(len(config.get("examples") or ())),
                "genaiops.messages": " ".join(title for title, _ in _messages(config)),
                **({"genaiops.author": author} if author else {}),
            }
            for part in ("persona", "instructions", "refusal"):
                if config.get(part):
                    tags[f"genaiops.{part}"] = str(config[part])
            if config.get("constraints"):
                tags["genaiops.constraints"] = "\n".join(config["constraints"])
            if config.get("parameters"):
                tags["genaiops.parameters"] = json.dumps(config["parameters"], sort_keys=True)
            messages = tuple(message for _, message in _messages(config))
            found.append(
                PromptExport(prompt_name(namespace, name), key, messages, tags, rationale or "", aliases),
            )
    return found


def _messages(config: Mapping[str, Any]) -> list[tuple[str, dict[str, str]]]:
    """The templates as chat messages, each with its title: those of the steps of a chain first."""
    parts = [(f"{step['name']}.", step) for step in config.get("chain") or ()] + [("", config)]
    return [
        (f"{title}{role}", {"role": role, "content": str(part[role])})
        for title, part in parts
        for role in ("system", "user")
        if part.get(role)
    ]


def _trials(path: Path, folder: Path) -> list[tuple[Path, str]]:
    """The table of trials without every column that might hold words; nothing when it was lost."""
    import pyarrow as pa

    from resources.parquet_io import read_table, write_table

    if not path.exists():
        return []
    table = read_table(path)
    kept = [one.name for one in table.schema if one.name in _TRIAL_WORDS or not _holds_words(one.type, pa.types)]
    table = table.select(kept)
    folder = folder / "trials"
    write_table(folder / path.name, table.to_pylist(), table.schema)
    return [(folder / path.name, "trials")]


def _holds_words(kind: Any, types: Any) -> bool:
    if types.is_list(kind) or types.is_large_list(kind):
        return _holds_words(kind.value_type, types)
    return not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def _named(files: list[tuple[Path, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((str(path), where) for path, where in files)


# --- with answers -------------------------------------------------------------------------------------------


def _answers(connection: Connection, result: StoredResult, folder: Path) -> list[tuple[Path, str]]:
    """Files with words, written into ``folder``: trials, prompts with their worked examples, the dataset."""
    import pyarrow as pa

    from resources.parquet_io import write_table

    board = result.board
    dataset = {"dataset": board["dataset"], "version": board["dataset_version"]}
    rows = connection.execute(
        """SELECT trial.fingerprint, variant.name, trial.question_id, question.question, question.answer, trial.answer,
                  trial.refused
           FROM result_trial
           JOIN trial ON trial.fingerprint = result_trial.trial
           JOIN variant ON variant.fingerprint = trial.variant
           LEFT JOIN evaluation_question question
             ON question.dataset = %(dataset)s AND question.version = %(version)s
                AND question.question_id = trial.question_id
           WHERE result_trial.result_id = %(result)s
           ORDER BY variant.name, trial.question_id""",
        {**dataset, "result": result.result_id},
    ).fetchall()
    words = ("trial", "variant", "question_id", "question", "reference", "answer")
    schema = pa.schema([*((name, pa.string()) for name in words), ("refused", pa.bool_())])
    files = [(folder / "answers.parquet", "answers")]
    write_table(files[0][0], [dict(zip(schema.names, row, strict=True)) for row in rows], schema)
    compared = sorted({(row["prompt"], row["prompt_version"]) for row in board["rows"]})
    for name, version, config in connection.execute(
        """SELECT name, version, config FROM prompt_version
           WHERE (name, version) IN (SELECT * FROM unnest(%s::text[], %s::integer[])) ORDER BY name, version""",
        ([name for name, _ in compared], [version for _, version in compared]),
    ).fetchall():
        files.append((folder / f"{name}-{version}.yaml", "prompts"))
        files[-1][0].write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    row = connection.execute(
        "SELECT file FROM evaluation_dataset WHERE dataset = %(dataset)s AND version = %(version)s", dataset
    ).fetchone()
    if row and Path(row[0]).exists():
        files.append((Path(row[0]), "dataset"))
    return files


# --- what was sent ------------------------------------------------------------------------------------------


def _content(export: ResultExport) -> Any:
    """All that decides what a server would hold after it was sent."""
    return [export.experiment, export.result.fingerprint] + [
        [prompt.name, prompt.fingerprint, prompt.aliases] for prompt in export.prompts
    ]


def _read_note(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _write_note(path: Path, note: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(note, indent=1), encoding="utf-8")
    partial.replace(path)


def tracking_of(platform: Platform) -> Tracking:
    """The server that is set.

    Raises:
        PermanentError: none is.
    """
    if platform.tracking is None:
        raise PermanentError(
            "no MLflow server is set: export MLFLOW_TRACKING_URI=http://HOST:PORT (user and password may stand in it), and "
            "see docs/mlflow.md"
        )
    return platform.tracking
