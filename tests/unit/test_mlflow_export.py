"""What is decided about an export before a server is asked: the address, the settings, what is left out."""

from collections.abc import Callable
from pathlib import Path

import pytest

from assets.experiments.export import _trials, exported
from pipelines.settings import load_settings
from resources import mlflow_export
from resources.errors import ConfigError
from resources.mlflow_export import ResultExport, RunExport, Tracking, send
from resources.parquet_io import read_table, write_table
from resources.platform import Platform

EXPORT = ResultExport("any/small", 1, RunExport("r", "f", {}, {}, {}), (), (), {})


def test_without_a_server_nothing_is_asked(
    make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_export.subprocess, "run", lambda *a, **k: pytest.fail("a process was started"))
    outcome = exported(make_platform(), "any")
    assert outcome.passed
    assert outcome.expected == "no MLflow server is set"


def test_missing_extra_is_a_warning_that_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"genaiops\[mlflow\]"):
        send(EXPORT, Tracking("http://127.0.0.1:1"))


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://me:secret@mlflow.example:8443/base?token=secret#secret", "https://mlflow.example:8443/base"),
        ("postgresql://me:secret@db.example/mlflow?password=secret", "postgresql://db.example"),
        ("http://me:sec%40ret@[::1]:5000", "http://[::1]:5000"),
        ("databricks", "a local folder"),
        ("http://me:secret@host:notaport", "the tracking server"),
    ],
)
def test_address_is_shown_without_secrets(uri: str, shown: str) -> None:
    tracking = Tracking(uri)
    assert "sec" not in repr(tracking)
    assert tracking.shown == shown


def test_password_travels_apart_from_the_address() -> None:
    environment = mlflow_export._environment(Tracking("https://me:p%40ss@mlflow.example:8443/base"), 60)
    assert environment["MLFLOW_TRACKING_URI"] == "https://mlflow.example:8443/base"
    assert (environment["MLFLOW_TRACKING_USERNAME"], environment["MLFLOW_TRACKING_PASSWORD"]) == ("me", "p@ss")
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_settings_read_the_server_and_refuse_a_bad_namespace() -> None:
    uri = "http://me:secret@127.0.0.1:5000"
    settings = load_settings({"MLFLOW_TRACKING_URI": uri, "GENAIOPS_MLFLOW_NAMESPACE": "team-a"})
    assert settings.tracking == Tracking(uri, "team-a")
    assert "secret" not in repr(settings)
    assert load_settings({}).tracking is None
    with pytest.raises(ConfigError, match="GENAIOPS_MLFLOW_NAMESPACE"):
        load_settings({"MLFLOW_TRACKING_URI": uri, "GENAIOPS_MLFLOW_NAMESPACE": "a/b"})


def test_columns_that_could_hold_words_do_not_leave_with_the_trials(tmp_path: Path) -> None:
    import pyarrow as pa

    row = {
        "trial": "t1", "question_id": "q1", "cited": [1], "squad.f1/1": 0.5, "refused": False, "retrieved_paths": ["docs/a.md"],
        "answer": "secret", "messages": ["secret"], "claims": [{"text": "secret"}], "error": "secret",
    }  # fmt: skip
    path = tmp_path / "7.parquet"
    write_table(path, [row], pa.Table.from_pylist([row]).schema, {"result": 7})
    ((copy, folder),) = _trials(path, tmp_path / "out")
    assert (copy.name, folder) == ("7.parquet", "trials")
    table = read_table(copy)
    assert table.column_names == ["trial", "question_id", "cited", "squad.f1/1", "refused", "retrieved_paths"]
    assert b"secret" not in copy.read_bytes()
    assert _trials(tmp_path / "lost.parquet", tmp_path) == []


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ConnectionRefusedError("http://me:secret@host"), "cannot be reached"),
        (TimeoutError("secret"), "did not answer in time"),
        (ValueError("secret document text"), "failed with ValueError"),
    ],
)
def test_errors_are_told_without_quoting_anything(error: Exception, says: str) -> None:
    told = mlflow_export._explain(error)
    assert says in told
    assert "secret" not in told
