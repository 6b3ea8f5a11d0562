"""MLflow: results, prompts and datasets on a tracking server, each once, within bounded time.

Belongs here: what is sent, the address without its password, and the process of its own that talks to the server.
Does not belong here: reading a result from the database (assets/experiments/export.py).

The client runs in a process of its own: it can be stopped at a deadline wherever it hangs, its import costs seconds, and
its settings (tracing, telemetry, retries for minutes) are nobody else's. What it is to send comes in as JSON, what it did goes
out as JSON; the password travels in the environment, and nothing the server or the library says is passed on.

Everything that is made carries the tag ``genaiops.fingerprint``. What is there with the same one is not made again; a run that
was not finished is completed. All values of a run are logged with the time of the result, so that repeating them changes nothing.
"""

import contextlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from resources.errors import ConfigError, TransientError

#: Tag of everything that is made here.
FINGERPRINT = "genaiops.fingerprint"
#: Tag of a run that also has the answers.
ANSWERS = "genaiops.with_answers"
EXTRA = "install the extra: pip install 'genaiops[mlflow]'"
SECONDS = 60
_PARENT, _NOTE, _USER = "mlflow.parentRunId", "mlflow.note.content", "mlflow.user"
_BATCH = {"params": 100, "metrics": 1000}
_LONGEST = {"params": 6000, "tags": 8000}
_KEY = re.compile(r"[^/\w.\- :]")
#: Aliases the server keeps for itself.
_RESERVED = re.compile(r"latest|v\d+", re.IGNORECASE)
_ERROR_CODE = re.compile(r"[A-Z][A-Z_]{2,60}")


class MlflowUnavailableError(TransientError):
    """The tracking server could not be reached, was too slow, or refused; nothing of the project depends on it."""


@dataclass(frozen=True)
class Tracking:
    """Where results go.

    Attributes:
        uri: as the user wrote it; may hold a password, so it is never shown.
        namespace: beginning of the names of experiments and prompts, to keep several deployments on one server apart.
    """

    uri: str = field(repr=False)
    namespace: str = "genaiops"

    @property
    def shown(self) -> str:
        """The address without user, password, query and fragment."""
        try:
            parts = urlsplit(self.uri)
            host = parts.hostname or ""
            host = f"[{host}]" if ":" in host else host
            port = f":{parts.port}" if parts.port else ""
        except ValueError:
            return "the tracking server"
        if not parts.scheme:
            return "a local folder"
        return urlunsplit(
            (parts.scheme, f"{host}{port}", parts.path if parts.scheme.startswith("http") else "", "", "")
        )


@dataclass(frozen=True)
class RunExport:
    """A run: ``fingerprint`` decides whether it is there; ``prompt`` is (name, fingerprint) of the version it used."""

    name: str
    fingerprint: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    note: str = ""
    prompt: tuple[str, str] | None = None


@dataclass(frozen=True)
class PromptExport:
    """A version of a prompt: its messages as written, and the labels that name it now."""

    name: str
    fingerprint: str
    messages: tuple[Mapping[str, str], ...]
    tags: Mapping[str, str]
    message: str = ""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class ResultExport:
    """A result with all that belongs to it.

    Attributes:
        time: when the result was recorded, in milliseconds since 1970.
        dataset: {name, digest, source_type, source, profile} of the logged input.
        files: (path on this machine, folder among the artifacts).
        texts: {path among the artifacts: content}.
        answers: as ``files``, what holds words of questions and documents; sent when asked for, also to a run that is there.
    """

    experiment: str
    time: int
    result: RunExport
    variants: tuple[RunExport, ...]
    prompts: tuple[PromptExport, ...]
    dataset: Mapping[str, str]
    files: tuple[tuple[str, str], ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    answers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Exported:
    """What was done: the run of the result, and how many runs and versions of prompts were made for it."""

    run_id: str
    experiment_id: str
    runs: int
    prompts: int
    answers: bool = False

    @property
    def new(self) -> bool:
        """Whether anything was made."""
        return bool(self.runs or self.prompts or self.answers)


def check_installed() -> None:
    """Make sure that the client is there.

    Raises:
        ConfigError: it is not; says how to install it.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise ConfigError(f"MLFLOW_TRACKING_URI is set, and mlflow-skinny is not installed; {EXTRA}")


def send(export: ResultExport, tracking: Tracking, *, seconds: float = SECONDS) -> Exported:
    """Put a result on the server, unless it is there.

    Raises:
        ConfigError: the client is not installed.
        MlflowUnavailableError: the server is down, slow or refuses. What was sent stays, and the next call goes on from there.
    """
    check_installed()
    environment, job = _environment(tracking, seconds), json.dumps(asdict(export))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "resources.mlflow_export"],
            input=job.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=Path(__file__).resolve().parents[1],
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MlflowUnavailableError(
            f"{tracking.shown} took longer than {seconds:g} s; what was sent stays, the next run goes on from there"
        ) from None
    try:
        told: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        told = {"error": f"the client ended with code {done.returncode}"}
    if "error" in told:
        raise MlflowUnavailableError(f"{tracking.shown}: {told['error']}; the next run tries again")
    return Exported(**told)


def _environment(tracking: Tracking, seconds: float) -> dict[str, str]:
    """The environment of the client: no telemetry, short waits, and the password apart from the address."""
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": tracking.uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(max(1, min(10, int(seconds / 3)))),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "GIT_PYTHON_REFRESH": "quiet",
        "GENAIOPS_MLFLOW_SECONDS": str(int(seconds) + 1),
    }
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        environment.pop(name, None)
    with contextlib.suppress(ValueError):
        parts = urlsplit(tracking.uri)
        if parts.scheme in ("http", "https") and "@" in parts.netloc:
            environment["MLFLOW_TRACKING_URI"] = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
            environment["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username or "")
            environment["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password or "")
    return environment


# --- the client's process -----------------------------------------------------------------------------------


class _Client:
    """Sends one result; every step looks first whether it was done."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        import mlflow
        from mlflow import MlflowClient

        self._job, self._client, self._mlflow = job, MlflowClient(), mlflow
        self._runs = self._prompts = 0

    def send(self) -> dict[str, Any]:
        """Do it; returns the fields of ``Exported``."""
        job = self._job
        experiment = self._experiment(job["experiment"])
        self._mlflow.set_experiment(experiment_id=experiment)  # prompts are shown with the experiment that is set
        parent = self._find(experiment, job["result"]["fingerprint"])
        complete = parent is not None and parent.info.status == "FINISHED"
        versions = {(one["name"], one["fingerprint"]): self._prompt(one) for one in job["prompts"]}
        if parent is None:
            parent = self._create(experiment, job["result"], {})
        run_id = parent.info.run_id
        if not complete:
            for variant in job["variants"]:
                self._variant(experiment, run_id, variant, versions)
            self._log(run_id, job["result"])
            self._input(run_id)
            for path, folder in job["files"]:
                self._client.log_artifact(run_id, path, folder)
            for path, text in job["texts"].items():
                self._client.log_text(run_id, text, path)
            self._client.set_terminated(run_id, "FINISHED", job["time"])
        answers = bool(job["answers"]) and parent.data.tags.get(ANSWERS) != "true"
        if answers:
            for path, folder in job["answers"]:
                self._client.log_artifact(run_id, path, folder)
            self._client.set_tag(run_id, ANSWERS, "true")
        return {
            "run_id": run_id,
            "experiment_id": experiment,
            "runs": self._runs,
            "prompts": self._prompts,
            "answers": answers,
        }

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return self._client.create_experiment(name)
            except MlflowException:  # another process was faster
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return found.experiment_id

    def _find(self, experiment: str, fingerprint: str) -> Any:
        found = self._client.search_runs(
            [experiment],
            f"tags.`{FINGERPRINT}` = '{fingerprint}'",
            max_results=1,
            order_by=["attributes.start_time ASC"],
        )
        return found[0] if found else None

    def _create(self, experiment: str, run: Mapping[str, Any], tags: Mapping[str, str]) -> Any:
        self._runs += 1
        own = {FINGERPRINT: run["fingerprint"], _USER: "genaiops", **tags}
        return self._client.create_run(experiment, start_time=self._job["time"], tags=own, run_name=run["name"])

    def _variant(
        self, experiment: str, parent: str, variant: Mapping[str, Any], versions: Mapping[tuple[str, str], Any]
    ) -> None:
        run = self._find(experiment, variant["fingerprint"])
        if run is not None and run.info.status == "FINISHED":
            return
        run = run or self._create(experiment, variant, {_PARENT: parent})
        self._log(run.info.run_id, variant)
        version = versions.get(tuple(variant["prompt"] or ()))  # type: ignore[arg-type]
        if version is not None:
            self._client.link_prompt_version_to_run(run.info.run_id, version)
        self._client.set_terminated(run.info.run_id, "FINISHED", self._job["time"])

    def _log(self, run_id: str, run: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        time = self._job["time"]
        tags = {**run["tags"], **({_NOTE: run["note"]} if run["note"] else {})}
        params = [Param(_KEY.sub("-", key), value[: _LONGEST["params"]]) for key, value in run["params"].items()]
        metrics = [Metric(_KEY.sub("-", key), value, time, 0) for key, value in run["metrics"].items()]
        labels = [RunTag(key, value[: _LONGEST["tags"]]) for key, value in tags.items()]
        for part in _parts(params, _BATCH["params"]):
            self._client.log_batch(run_id, params=part)
        for part in _parts(labels, _BATCH["params"]):
            self._client.log_batch(run_id, tags=part)
        for part in _parts(metrics, _BATCH["metrics"]):
            self._client.log_batch(run_id, metrics=part)

    def _input(self, run_id: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        context = [InputTag("mlflow.data.context", "evaluation")]
        self._client.log_inputs(run_id, [DatasetInput(dataset=Dataset(**self._job["dataset"]), tags=context)])

    def _prompt(self, prompt: Mapping[str, Any]) -> Any:
        """The version of the registry that holds these messages; made when there is none. Its aliases follow the labels."""
        known = self._versions(prompt["name"])
        version = known.get(prompt["fingerprint"])
        if version is None:
            self._prompts += 1
            version = self._client.register_prompt(
                prompt["name"],
                [dict(message) for message in prompt["messages"]],
                commit_message=prompt["message"] or None,
                tags={**prompt["tags"], FINGERPRINT: prompt["fingerprint"]},
            )
        for label in prompt["aliases"]:
            alias = f"label-{label}" if _RESERVED.fullmatch(label) else label
            if alias not in (version.aliases or ()):
                self._client.set_prompt_alias(prompt["name"], alias, int(version.version))
        return version

    def _versions(self, name: str) -> dict[str, Any]:
        from mlflow.exceptions import MlflowException

        found: dict[str, Any] = {}
        token = None
        while True:
            try:
                page = self._client.search_prompt_versions(name, page_token=token)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return found
                raise
            for version in page:
                found.setdefault(version.tags.get(FINGERPRINT, ""), version)
            token = getattr(page, "token", None)
            if not token:
                return found


def _parts(items: list[Any], size: int) -> Iterable[list[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _explain(error: BaseException) -> str:
    """An error in words of our own: what the library says may quote the address or what was sent."""
    chain, one = [], error
    while one is not None and len(chain) < 8:
        chain.append(type(one).__name__)
        one = one.__cause__ or one.__context__  # type: ignore[assignment]
    if any(
        name in ("ConnectTimeout", "ReadTimeout", "ReadTimeoutError", "ConnectTimeoutError", "TimeoutError")
        for name in chain
    ):
        return "it did not answer in time"
    if any("Connection" in name or name in ("MaxRetryError", "NameResolutionError", "gaierror") for name in chain):
        return "it cannot be reached"
    code = str(getattr(error, "error_code", ""))
    status = getattr(error, "get_http_status_code", lambda: None)()
    if _ERROR_CODE.fullmatch(code):
        return f"it refused with {code}" + (f" (HTTP {status})" if status else "")
    return f"the client failed with {type(error).__name__}"


def main() -> None:
    """Read a job from standard input, do it, and tell on standard output what was done."""
    import signal

    if hasattr(signal, "alarm"):  # outlive nobody who started this
        signal.alarm(int(os.environ.get("GENAIOPS_MLFLOW_SECONDS", SECONDS)))
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the library prints where it likes
    try:
        told = _Client(json.load(sys.stdin)).send()
    except Exception as error:
        told = {"error": _explain(error)}
    out.write(json.dumps(told))
    out.flush()


if __name__ == "__main__":
    main()
