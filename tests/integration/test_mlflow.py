"""Export to a real MLflow server: everything once, nothing with words in it, and never in anybody's way."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from assets.experiments.champion import promote
from assets.experiments.export import _newest as newest_result
from assets.experiments.export import build, export_newest, exported
from resources import mlflow_export
from resources.errors import PermanentError
from resources.mlflow_export import MlflowUnavailableError, ResultExport, RunExport, Tracking, send
from resources.platform import Platform
from tests.experiment_support import GUARDED, USER, files, load, questions, write_documents
from tests.lifecycle import run_experiment
from tests.mlflow_server import MlflowServer, mlflow_server

pytestmark = pytest.mark.slow

BEST = "main/guarded/hybrid/k1/extractive"
#: Words that stand in a document, a question, an answer and a worked example, and nowhere else.
CANARY = "quicksilver marmalade ledger"
SECRETS = {
    "document": "is painted in shade livna",
    "question": "How many kilograms does the anvil weigh",
    "answer": "10 kilograms",
    "canary": CANARY,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as running:
        yield running


@pytest.fixture
def instance() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


@pytest.fixture
def tracking(server: MlflowServer, request: pytest.FixtureRequest) -> Tracking:
    """The server, under names that are this test's own."""
    return Tracking(server.uri, f"t{abs(hash(request.node.name))}")


def catalogue(tmp_path: Path, make_platform: Callable[..., Platform]) -> Platform:
    """The catalogue with the canary in a document, in a question that is answered from it, and in a worked example."""
    write_documents(tmp_path / "docs")
    (tmp_path / "docs" / "zinc.md").write_text(f"# Zinc\n\nThe {CANARY} weighs 77 kilograms.\n", encoding="utf-8")
    line = {
        "id": "canary",
        "question": f"How many kilograms does the {CANARY} weigh?",
        "answer": "77 kilograms",
        "evidence": [{"document": "docs/zinc.md", "quote": f"The {CANARY} weighs 77 kilograms."}],
        "split": "dev",
    }
    examples = [{"question": "What is it?", "context": f"It is the {CANARY}.", "answer": CANARY}]
    user = "{% for one in examples %}{{ one.question }}\n{{ one.context }}\n{{ one.answer }}\n{% endfor %}" + USER
    return make_platform(
        **{
            **files(),
            "evaluation/products.jsonl": questions() + json.dumps(line) + "\n",
            "prompts/guarded.yaml": {"name": "guarded", "system": GUARDED, "user": user, "examples": examples},
        }
    )


@pytest.fixture
def platform(
    make_platform: Callable[..., Platform], tmp_path: Path, instance: dg.DagsterInstance, tracking: Tracking
) -> Platform:
    platform = replace(catalogue(tmp_path, make_platform), tracking=tracking)
    load(platform, instance)
    return platform


def check(instance: dg.DagsterInstance) -> Any:
    """The newest evaluation of the check ``exported``."""
    key = dg.AssetCheckKey(dg.AssetKey("scored_variants"), "exported")
    (record,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
    assert record.event is not None
    assert record.event.dagster_event is not None
    return record.event.dagster_event.event_specific_data


def test_evaluation_exports_once_and_changed_results_are_added(
    platform: Platform, instance: dg.DagsterInstance, server: MlflowServer, tracking: Tracking, tmp_path: Path
) -> None:
    experiment = f"{tracking.namespace}/catalogue"
    told = run_experiment(platform, "catalogue", instance)["scored_variants"]
    evaluation = check(instance)
    assert evaluation.passed
    assert evaluation.severity == dg.AssetCheckSeverity.WARN
    (result,) = server.runs(experiment, "result")
    variants = server.runs(experiment, "variant")
    assert {run.data.tags["mlflow.parentRunId"] for run in variants} == {result.info.run_id}
    assert {run.info.status for run in [result, *variants]} == {"FINISHED"}
    assert len(variants) == 4

    with platform.database.connect() as connection:
        stored = newest_result(connection, "catalogue")
    assert stored is not None
    row = next(row for row in stored.board["rows"] if row["variant"] == BEST)
    best = next(run for run in variants if run.info.run_name == BEST)
    assert best.data.metrics["decision.estimate"] == row["decision"]["estimate"]
    assert (best.data.metrics["decision.low"], best.data.metrics["decision.high"]) == (
        row["decision"]["low"], row["decision"]["high"],
    )  # fmt: skip
    assert best.data.metrics["p_adjusted"] == row["p_adjusted"]
    assert best.data.metrics["squad.f1/1/answerable"] == row["metrics"]["squad.f1/1"]["answerable"]
    assert best.data.metrics["refusal.f1"] == row["refusal"]["f1"]
    assert {key: best.data.params[key] for key in ("index", "prompt", "k", "model", "prompt_version")} == {
        "index": "main", "prompt": "guarded", "k": "1", "model": "extractive", "prompt_version": "1",
    }  # fmt: skip
    assert best.data.tags["genaiops.variant_fingerprint"] == row["fingerprint"]
    assert result.data.tags["genaiops.verdict"] == told["verdict"] == "promote"
    assert result.data.tags["mlflow.note.content"] == told["recommendation"]
    assert json.loads(result.data.tags["genaiops.snapshots"]) == {"main": 1}
    (given,) = result.inputs.dataset_inputs
    assert given.dataset.name == "products"
    assert json.loads(given.dataset.profile)["splits"] == {"dev": 21, "test": 12}

    client = server.client()
    names = {
        file.path for folder in ("report", "trials", "") for file in client.list_artifacts(result.info.run_id, folder)
    }
    assert {f"report/{told['result']}.html", f"trials/{told['result']}.parquet", "leaderboard.json"} <= names
    version = client.get_prompt_version_by_alias(f"{tracking.namespace}-guarded", "candidate")
    assert version.tags["genaiops.version"] == "1"
    assert version.template[0] == {"role": "system", "content": GUARDED}

    again = run_experiment(platform, "catalogue", instance)["scored_variants"]
    assert not again["new_result"]
    assert "there already" in check(instance).description
    done = export_newest(platform, "catalogue", tracking)  # asks the server, whatever the note says
    assert done is not None
    assert not done.new
    assert len(server.runs(experiment, "result")) == 1
    assert len(server.runs(experiment, "variant")) == 4

    # a promotion moves a label, and nothing else: the alias follows, no run is added
    promote(platform, "catalogue", BEST, "test", "proven")
    assert exported(platform, "catalogue").passed
    assert client.get_prompt_version_by_alias(f"{tracking.namespace}-guarded", "production").version == version.version
    assert len(server.runs(experiment, "result")) == 1

    # other questions give another result, which is added beside the first
    config = tmp_path / "data" / "evaluation" / "products.jsonl"
    config.write_text("".join(config.read_text(encoding="utf-8").splitlines(keepends=True)[1:]), encoding="utf-8")
    load(platform, instance)
    run_experiment(platform, "catalogue", instance)
    assert check(instance).passed
    results = server.runs(experiment, "result")
    assert len(results) == 2
    assert len({run.data.tags["genaiops.fingerprint"] for run in results}) == 2
    assert len(server.runs(experiment, "variant")) == 8


def test_no_words_leave_unless_somebody_asks(
    platform: Platform, instance: dg.DagsterInstance, server: MlflowServer, tracking: Tracking
) -> None:
    run_experiment(platform, "catalogue", instance)
    (result,) = server.runs(f"{tracking.namespace}/catalogue", "result")
    assert {what: server.holds(words) for what, words in SECRETS.items()} == {what: [] for what in SECRETS}
    assert server.holds("Answer with the exact words")  # the search finds what is there: prompts are exported

    first = export_newest(platform, "catalogue", tracking, with_answers=True)
    assert first is not None
    assert (first.run_id, first.runs, first.answers) == (result.info.run_id, 0, True)
    for what, words in SECRETS.items():
        assert server.holds(words), what
    assert all("artifacts/" in place for words in SECRETS.values() for place in server.holds(words))
    second = export_newest(platform, "catalogue", tracking, with_answers=True)
    assert second is not None
    assert not second.new


def test_server_that_is_down_warns_and_the_next_run_makes_good(
    platform: Platform, instance: dg.DagsterInstance, server: MlflowServer, tracking: Tracking
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://someone:hunter2@127.0.0.1:{probe.getsockname()[1]}"
    down = replace(platform, tracking=Tracking(nobody, tracking.namespace))
    began = time.monotonic()
    told = run_experiment(down, "catalogue", instance)["scored_variants"]
    assert told["new_result"]  # the run itself succeeded
    evaluation = check(instance)
    assert not evaluation.passed
    assert not evaluation.blocking
    assert evaluation.severity == dg.AssetCheckSeverity.WARN
    assert "cannot be reached" in evaluation.description
    assert time.monotonic() - began < 120
    events = "\n".join(
        str(record)
        for record in instance.get_event_records(
            dg.EventRecordsFilter(event_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        )
    )
    assert "hunter2" not in events
    assert not server.runs(f"{tracking.namespace}/catalogue", "result")

    again = run_experiment(platform, "catalogue", instance)["scored_variants"]
    assert not again["new_result"]
    assert check(instance).passed
    assert len(server.runs(f"{tracking.namespace}/catalogue", "result")) == 1


def small(namespace: str, variants: int = 3) -> ResultExport:
    run = RunExport("result-1", f"{namespace}-whole", {"genaiops.kind": "result"}, {"split": "dev"}, {"best": 0.5})
    return ResultExport(
        experiment=f"{namespace}/small",
        time=1_700_000_000_000,
        result=run,
        variants=tuple(
            RunExport(
                f"v{number}", f"{namespace}-v{number}", {"genaiops.kind": "variant"}, {"k": str(number)}, {"best": 0.1}
            )
            for number in range(variants)
        ),
        prompts=(),
        dataset={"name": "d", "digest": "x", "source_type": "genaiops", "source": "{}", "profile": "{}"},
    )


def test_export_cut_short_is_completed_without_doubles(server: MlflowServer, tracking: Tracking) -> None:
    export = small(tracking.namespace)
    client = server.client()
    experiment = client.create_experiment(export.experiment)
    tags = {"genaiops.kind": "result", mlflow_export.FINGERPRINT: export.result.fingerprint}
    parent = client.create_run(experiment, tags=tags).info.run_id  # what a process that was killed had done
    half = {
        "genaiops.kind": "variant",
        mlflow_export.FINGERPRINT: export.variants[1].fingerprint,
        "mlflow.parentRunId": parent,
    }
    client.log_metric(client.create_run(experiment, tags=half).info.run_id, "best", 0.1, export.time, 0)
    done = send(export, tracking)
    assert (done.run_id, done.runs) == (parent, 2)
    variants = server.runs(export.experiment, "variant")
    assert len(variants) == 3
    assert {run.info.status for run in variants} == {"FINISHED"}
    for run in variants:
        assert len(client.get_metric_history(run.info.run_id, "best")) == 1
    assert not send(export, tracking).new


def test_slow_server_costs_no_more_than_was_allowed() -> None:
    stop = threading.Event()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        threading.Thread(target=lambda: stop.wait(30), daemon=True).start()  # accepts, and never answers
        slow = Tracking(f"http://127.0.0.1:{listener.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(
            MlflowUnavailableError, match=r"took longer than 4 s|did not answer in time|cannot be reached"
        ):
            send(small("slow"), slow, seconds=4)
        assert time.monotonic() - began < 8
    stop.set()


def test_server_that_refuses_says_so_without_quoting_anything(server: MlflowServer, tracking: Tracking) -> None:
    refused = replace(small(tracking.namespace), experiment=f"{tracking.namespace}/" + CANARY * 40)
    with pytest.raises(MlflowUnavailableError) as caught:
        send(refused, replace(tracking, uri=tracking.uri.replace("//", "//user:hunter2@")))
    assert "INVALID_PARAMETER_VALUE" in str(caught.value)
    assert CANARY not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_command_exports_and_says_what_is_missing(
    platform: Platform,
    instance: dg.DagsterInstance,
    server: MlflowServer,
    tracking: Tracking,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pipelines.commands import exporting

    monkeypatch.setattr(exporting, "open_platform", lambda: platform)
    runner = CliRunner()
    nothing = runner.invoke(exporting.export, ["mlflow", "catalogue"])
    assert nothing.exit_code == 1
    assert "genaiops evaluate catalogue" in nothing.output
    run_experiment(replace(platform, tracking=None), "catalogue", instance)
    done = runner.invoke(exporting.export, ["mlflow", "catalogue"])
    assert done.exit_code == 0, done.output
    assert "5 runs and 2 versions of prompts made" in done.output
    assert "everything was there" in runner.invoke(exporting.export, ["mlflow", "catalogue"]).output
    unset = replace(platform, tracking=None)
    monkeypatch.setattr(exporting, "open_platform", lambda: unset)
    refused = runner.invoke(exporting.export, ["mlflow", "catalogue"])
    assert isinstance(refused.exception, PermanentError)
    assert "MLFLOW_TRACKING_URI" in str(refused.exception)


def test_results_without_retrieval_and_of_older_schemas_can_be_exported(
    platform: Platform, instance: dg.DagsterInstance
) -> None:
    run_experiment(replace(platform, tracking=None), "catalogue", instance)
    with platform.database.connect() as connection:
        stored = newest_result(connection, "catalogue")
        assert stored is not None
        row = {key: value for key, value in stored.board["rows"][0].items() if key not in ("guards", "to_best")}
        row |= {"index": None, "snapshot": None, "search_mode": None, "k": None}
        board = {**stored.board, "rows": [row], "snapshots": {}}
        board.pop("schema")
        built = build(connection, replace(stored, board=board), "old")
    assert not {"index", "snapshot", "search_mode", "k"} & set(built.variants[0].params)
    assert built.variants[0].metrics["decision.estimate"] == row["decision"]["estimate"]


def test_as_typed_with_a_task_without_documents(server: MlflowServer, tmp_path: Path, database_url: str) -> None:
    from tests.integration.test_blueprints import printed_commands, shell

    commands = printed_commands(shell("genaiops new triage queues --into .", tmp_path))
    environment = {
        "GENAIOPS_DATABASE_URL": database_url, "MLFLOW_TRACKING_URI": server.uri, "GENAIOPS_MLFLOW_NAMESPACE": "typed",
    }  # fmt: skip
    shell("\n".join(commands), tmp_path, **environment)
    (result,) = server.runs("typed/queues", "result")
    variants = {run.info.run_name: run for run in server.runs("typed/queues", "variant")}
    assert len(variants) == 4
    best = variants["queues-labels/classifier+examples"]
    assert not {"index", "snapshot", "search_mode", "k"} & set(best.data.params)
    assert best.data.metrics["sklearn.accuracy/1/answerable"] == best.data.metrics["decision.estimate"] > 0.5
    assert result.data.tags["genaiops.verdict"] == "promote"
    assert server.holds("I was charged twice") == []  # a worked example that the variant was shown
    assert server.holds("The courier says nobody was at home") == []
    said = shell(f"{commands[0]}\ngenaiops export mlflow queues", tmp_path, **environment)
    assert "everything was there" in said
