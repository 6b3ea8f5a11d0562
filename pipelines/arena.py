"""The arena: a change of prompts, indexes or models against what the base branch answers with, before it is merged.

Belongs here: reading both states, running the comparison on a state of its own, and the report.
Does not belong here: which variants are paired (assets/experiments/arena.py), the tests (arena_verdict.py), Markdown
(arena_report.py), git (git_state.py), and any step of an evaluation: the ordinary jobs run.

Production is only read, for who was promoted. Everything the arena makes is in its own database and folder.
"""

import fcntl
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.json import Jsonb

from pipelines.git_state import Repository, find_repository
from pipelines.settings import Settings, prepare_home
from resources.config import ProjectConfig, load_config
from resources.errors import ConfigError, GenaiopsError, PermanentError
from resources.platform import Platform
from resources.postgres import Connection, Database, start_embedded, stop_embedded

if TYPE_CHECKING:
    from assets.experiments.arena import Contest, Merged, Side
    from pipelines.runner import Task, TaskResult

#: Added to the name of a configured database; the arena never writes into the configured one.
DATABASE_SUFFIX = "_arena"
#: Checks that say that a comparison could not be made, not that the change is bad.
_NOT_EVALUATED = frozenset(
    f"scored_variants/{name}"
    for name in (
        "judges_answered",
        "baseline_present",
        "dataset_matches_snapshot",
        "decision_possible",
        "trials_complete",
        "scores_defined",
    )
)

#: Columns of table judge_calibration that the arena copies.
_CALIBRATION = ("judge", "fingerprint", "labels", "items", "scores", "measures", "passed", "run_id")
#: Session lock of the one arena that runs on a database.
_LOCK = 7_263_414_881_015
#: A connection URI of libpq: user and hosts, path (the database), parameters.
_POSTGRES_URL = re.compile(
    r"(?P<server>postgres(?:ql)?://(?:[^@/]*@)?[^/?]*)(?:/(?P<path>[^?]*))?(?:\?(?P<query>.*))?", re.DOTALL
)

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What came of it: the verdict, the exit status, the report as JSON and as Markdown."""

    verdict: str
    exit_code: int
    report: dict[str, Any]
    markdown: str


def run_arena(
    settings: Settings,
    reference: str,
    *,
    experiments: Sequence[str] = (),
    margin: float = 0.02,
    strict: bool = False,
    progress: Progress = lambda line: None,
) -> Outcome:
    """Compare the work tree's configuration with that of a commit.

    Args:
        experiments: names; all that either state has by default.
        margin: the largest loss of the decision metric that is taken for none.
        strict: whether what was not shown to stay within the margin fails too.

    Returns:
        The outcome, also when nothing could be evaluated: ``not evaluated`` with the reason.
    """
    from assets.experiments import arena_report

    began = time.monotonic()
    report: dict[str, Any] = {
        "schema": 1, "base": {"reference": reference, "commit": None}, "head": {"commit": None, "uncommitted": 0},
        "margin": margin, "strict": strict, "experiments": [], "notes": [], "error": None,
    }  # fmt: skip
    try:
        _compare(settings, report, tuple(experiments), progress)
    except GenaiopsError as error:
        report["error"] = str(error)
    except psycopg.Error as error:
        from resources.postgres import describe_error

        report["error"] = describe_error(error)
    _conclude(report, strict)
    report["seconds"] = round(time.monotonic() - began, 1)
    return Outcome(report["verdict"], report["exit_code"], report, arena_report.render(report))


def _conclude(report: dict[str, Any], strict: bool) -> None:
    from assets.experiments.arena_verdict import overall

    verdicts = [one["verdict"] for one in report["experiments"]]
    report["verdict"], report["exit_code"] = overall(
        ["not evaluated", *verdicts] if report["error"] else verdicts, strict=strict
    )


def _compare(settings: Settings, report: dict[str, Any], wanted: tuple[str, ...], progress: Progress) -> None:
    from assets.experiments import arena

    repository = find_repository(settings.data_dir)
    commit = repository.commit(report["base"]["reference"])
    report["base"]["commit"] = commit
    report["head"] |= {"commit": repository.head(), "uncommitted": repository.uncommitted()}
    head = _load(settings.data_dir, "the head")
    with tempfile.TemporaryDirectory(prefix="genaiops-arena-") as folder:
        base_dir = repository.unpack(commit, Path(folder)).resolve()
        base = _load(base_dir, f"the base {commit[:12]}", shown_as=repository.prefix.rstrip("/") or ".")
        base = _with_model_folders(base, base_dir, settings.data_dir)
        names = _shared(base, head, wanted, report)
        report["notes"] += _notes(repository, commit, base, head)
        with _production(settings, report["notes"]) as production:
            merged = arena.merge(
                _side(base, production), _side(head, production), names, promoted=_promoted(production, names)
            )
            calibrations = _calibrations(production)
        contested = [contest for contest in merged.contests if contest.pairs]
        for contest in merged.contests:
            if not contest.pairs:
                report["experiments"].append(_nothing(contest))
        if contested:
            _run(settings, merged, contested, calibrations, report, progress)


# --- the two states ---------------------------------------------------------------------------------------


def _load(data_dir: Path, what: str, shown_as: str | None = None) -> ProjectConfig:
    try:
        return load_config(data_dir)
    except ConfigError as error:
        said = str(error)
        if shown_as is not None:  # the folder it was unpacked into says nothing to anybody
            said = said.replace(str(data_dir), shown_as)
        raise ConfigError(f"the configuration of {what} is wrong: {said}") from error


def _with_model_folders(base: ProjectConfig, base_dir: Path, data_dir: Path) -> ProjectConfig:
    """The base with model folders that are not under version control taken from where the head has them."""

    def found(model: Any) -> Any:
        if model.model.startswith(f"{base_dir}{os.sep}") and not Path(model.model).exists():
            return model.model_copy(update={"model": str(data_dir / Path(model.model).relative_to(base_dir))})
        return model

    models = base.models
    changed = {"embedding": [*map(found, models.embedding)], "rerank": [*map(found, models.rerank)]}
    return base.model_copy(update={"models": models.model_copy(update=changed)})


def _shared(base: ProjectConfig, head: ProjectConfig, wanted: tuple[str, ...], report: dict[str, Any]) -> list[str]:
    """The experiments both states have; what is said of the others goes into the report.

    Raises:
        PermanentError: a wanted experiment is in neither state.
    """
    known = list(dict.fromkeys([*head.experiments, *base.experiments]))
    for name in wanted:
        if name not in known:
            raise PermanentError(
                f"there is no experiment {name!r}, neither in base nor head; there are: {', '.join(known)}"
            )
    names = []
    for name in wanted or known:
        if name not in head.experiments:
            why = "the change removes this experiment, so that nothing measures its champion any more; a person has to decide"
            report["experiments"].append(_unevaluated(name, why))
        elif name not in base.experiments:
            report["notes"].append(f"experiment {name} is new: the base has nothing to compare it with")
        else:
            names.append(name)
    return names


def _notes(repository: Repository, commit: str, base: ProjectConfig, head: ProjectConfig) -> list[str]:
    from assets.experiments.arena import unused_edits

    notes = []
    if missing := repository.missing_commits(commit):
        notes.append(
            f"the base has {missing} commits on the configuration that the head does not stand on; merge the base first, or "
            "what they changed counts as if the head took it back"
        )
    compared = ("prompts/", "indexes/", "experiments/", "models.yaml")
    others = [name for name in repository.changed(commit) if not name.startswith(compared)]
    if others:
        notes.append(
            f"{len(others)} other files of the data directory changed (documents, questions, policies, ...): both sides were "
            "measured with the head's"
        )
    edits = unused_edits(base, head, {*base.experiments, *head.experiments})
    if edits:
        notes.append(f"in no experiment, so not compared: {', '.join(edits)}")
    return notes


def _side(config: ProjectConfig, production: "Connection | None") -> "Side":
    from assets.experiments.arena import Side
    from resources.models import Models
    from resources.prompt_config import PromptConfig
    from resources.prompt_labels import find_prompt

    def find(reference: str) -> PromptConfig:
        if production is None:
            raise PermanentError(
                f"prompt {reference}: its version is on record in the project's database, which cannot be reached from here; "
                "set GENAIOPS_DATABASE_URL, or name a file of prompts/"
            )
        return find_prompt(production, config.prompts, reference)

    return Side(config, Models(config.models), find)


# --- production, read only --------------------------------------------------------------------------------


@contextmanager
def _production(settings: Settings, notes: list[str]) -> "Iterator[Connection | None]":
    """A read-only connection to the database of the project; None where there is none, or it cannot be reached."""
    folder = settings.state_dir / "postgres"
    if settings.database_url is None and not (folder / "PG_VERSION").exists():
        yield None
        return
    connection = None
    try:
        url = settings.database_url or start_embedded(folder)
        connection = psycopg.connect(url, connect_timeout=10, autocommit=True)
        connection.execute("SET default_transaction_read_only = on")
        connection.execute("SET search_path = genaiops, public")
    except (psycopg.Error, GenaiopsError) as error:
        notes.append(
            f"the project's database cannot be reached ({type(error).__name__}), so promotions are not known and baselines "
            "stand for the champions"
        )
        if connection is not None:
            connection.close()
        connection = None
    try:
        yield connection
    finally:
        if connection is not None:
            connection.close()


def _promoted(production: "Connection | None", names: Sequence[str]) -> Mapping[str, str]:
    """Name of the variant promoted last, by experiment."""
    if production is None:
        return {}
    there = production.execute("SELECT to_regclass('genaiops.champion') IS NOT NULL").fetchone()
    if not there or not there[0]:
        return {}
    return dict(
        production.execute(
            """SELECT DISTINCT ON (experiment) experiment, variant.name
               FROM champion JOIN variant ON variant.fingerprint = champion.variant
               WHERE experiment = ANY(%s) ORDER BY experiment, champion_id DESC""",
            (list(names),),
        ).fetchall()
    )


def _calibrations(production: "Connection | None") -> list[tuple[Any, ...]]:
    """What judges have shown of themselves, so that those that decide need not be calibrated again: numbers, no words."""
    if production is None:
        return []
    there = production.execute("SELECT to_regclass('genaiops.judge_calibration') IS NOT NULL").fetchone()
    if not there or not there[0]:
        return []
    return production.execute(f"SELECT {', '.join(_CALIBRATION)} FROM judge_calibration").fetchall()  # type: ignore[arg-type]


# --- running ----------------------------------------------------------------------------------------------


def arena_settings(settings: Settings) -> Settings:
    """Where the arena keeps what it makes.

    Raises:
        ConfigError: the configured database is not named by a URL.
        PermanentError: its database cannot be made on the configured server, or is the configured one.
    """
    url = None if settings.database_url is None else _own_database(settings.database_url)
    return replace(settings, state_dir=settings.state_dir / "arena", database_url=url)


def _own_database(url: str) -> str:
    """The URL of the arena's database on the server of ``url``; made when it is missing.

    Raises:
        ConfigError: ``url`` is no URL, or the arena's cannot be made of it.
        PermanentError: the database cannot be made, or what answers is the configured one.
    """
    _with_database(url, "check")  # refuses before anything is connected to
    with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
        # What the driver settled on: also of a service file, PGDATABASE or the user's name.
        configured, production = connection.info.dbname, _current_database(connection)
        stem = configured.encode()[: 63 - len(DATABASE_SUFFIX)].decode(errors="ignore")  # the server cuts at 63 bytes
        name = stem + DATABASE_SUFFIX
        own = _with_database(url, name)
        if name in (configured, production):
            raise _same_database(name)
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
            try:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            except psycopg.errors.DuplicateDatabase:
                pass  # another one was faster
            except psycopg.errors.InsufficientPrivilege:
                raise PermanentError(
                    f"the arena needs a database of its own and may not make it; ask for a database {name} with pgvector that "
                    "belongs to this user, or unset GENAIOPS_DATABASE_URL to compare on an embedded one"
                ) from None
    with psycopg.connect(own, autocommit=True, connect_timeout=10) as connection:
        if _current_database(connection) == production:  # a pooler may map one name to another
            raise _same_database(name)
    return own


def _with_database(url: str, name: str) -> str:
    """``url`` with another database, wherever it states its own: a parameter ``dbname`` would win over the path.

    It is taken apart as libpq does, whose passwords may hold ``?`` and ``#``.

    Raises:
        ConfigError: it is no URL, or would still lead to another database; the value is never shown.
    """
    parts = _POSTGRES_URL.fullmatch(url)
    if parts is None:
        raise ConfigError(
            "GENAIOPS_DATABASE_URL is no URL, so the arena cannot derive a database of its own from it; write it as "
            "postgresql://user@host:5432/database (a list of key=value pairs as postgresql://?key=value&key=value)"
        )
    kept = [part for part in (parts["query"] or "").split("&") if part and unquote(part.partition("=")[0]) != "dbname"]
    own = f"{parts['server']}/{quote(name, safe='')}" + ("?" + "&".join(kept) if kept else "")
    try:
        found = conninfo_to_dict(own).get("dbname")
    except psycopg.ProgrammingError:  # its message quotes the value
        found = None
    if found != name:
        raise ConfigError(
            "GENAIOPS_DATABASE_URL cannot be read as a PostgreSQL URL; write it as postgresql://user@host:5432/database, "
            "with special characters of its parts percent-encoded, and name the database in the path only"
        )
    return own


def _current_database(connection: "psycopg.Connection[Any]") -> str:
    row = connection.execute("SELECT current_database()").fetchone()
    assert row is not None
    return row[0]


def _same_database(name: str) -> PermanentError:
    return PermanentError(
        f"the arena's database {name} would be the one GENAIOPS_DATABASE_URL names, which is only read; name another "
        f"database there, lead {name} to one of its own, or unset it to compare on an embedded one"
    )


@contextmanager
def _kept_environment() -> Iterator[None]:
    """Preparing a home exports its variables; whoever called the arena has a home of their own."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _alone(own: Settings) -> Iterator[None]:
    """Keep a second arena off this state, and leave its embedded server as it was found: a cache takes no live one.

    Raises:
        PermanentError: another one is running.
    """
    own.state_dir.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        lock = stack.enter_context((own.state_dir / "lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise PermanentError(f"another arena is running on {own.state_dir}; let it finish first") from None
        if own.database_url is not None:
            connection = stack.enter_context(psycopg.connect(own.database_url, autocommit=True, connect_timeout=10))
            free = connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).fetchone()
            if not (free and free[0]):
                raise PermanentError("another arena is running on the same database; let it finish first")
        elif not (own.state_dir / "postgres" / "postmaster.pid").exists():
            stack.callback(stop_embedded, own.state_dir / "postgres")
        yield


def _run(
    settings: Settings,
    merged: "Merged",
    contests: "Sequence[Contest]",
    calibrations: Sequence[tuple[Any, ...]],
    report: dict[str, Any],
    progress: Progress,
) -> None:
    """Run refresh, datasets and experiments on the merged configuration, and judge what they found."""
    own = arena_settings(settings)
    platform = Platform(merged.config, Database(own.database_address), own.artifacts, own.ui_url)
    with _alone(own), _kept_environment(), closing(platform.database):
        prepare_home(own)
        from pipelines.definitions import build_defs
        from pipelines.instance import opened_instance
        from pipelines.runner import evaluation_tasks, refresh_tasks, run

        _know(platform.database, calibrations)
        with opened_instance(own) as (instance, _):
            defs = build_defs(own, {"platform": platform})

            def perform(task: "Task") -> "TaskResult":
                progress(f"{task.job}: {task.title}")
                result = run(defs, instance, task)
                for line in result.failures:
                    progress(f"  {line}")
                return result

            refreshes = [perform(task) for task in refresh_tasks(merged.sources)]
            failed = _first_failure(refreshes)
            datasets: dict[str, TaskResult] = {}
            for contest in contests:
                assert contest.experiment is not None
                *before, last = evaluation_tasks(merged.config, [contest.name])
                for task in () if failed else before:
                    if task.title not in datasets:
                        datasets[task.title] = perform(task)
                problem = failed or _first_failure([datasets[task.title] for task in before])
                found = [*refreshes, *(datasets[task.title] for task in before if task.title in datasets)]
                if problem is None:
                    result = perform(last)
                    found.append(result)
                    problem = _first_failure([result])
                report["experiments"].append(
                    _stopped(contest, problem)
                    if problem
                    else _judged(platform, contest, found, report["margin"], len(contests))
                )


def _know(database: Database, calibrations: Sequence[tuple[Any, ...]]) -> None:
    if not calibrations:
        return
    rows = [tuple(Jsonb(value) if isinstance(value, list | dict) else value for value in row) for row in calibrations]
    marks = ", ".join(["%s"] * len(_CALIBRATION))
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO judge_calibration ({', '.join(_CALIBRATION)}) VALUES ({marks}) ON CONFLICT DO NOTHING",  # type: ignore[arg-type]
            rows,
        )


def _first_failure(results: "Sequence[TaskResult]") -> "TaskResult | None":
    return next((result for result in results if not result.success), None)


def _stopped(contest: "Contest", failed: "TaskResult") -> dict[str, Any]:
    """A run that did not get through: a failed check speaks against the change, an error says nothing of it.

    Nor does a check that names nothing but a part of the base. What a check says may name documents, so that only its name
    goes into the report.
    """
    from assets.experiments.arena import SUFFIX

    # a check that was not reached because of another one says nothing
    said = [line for line in failed.failures if line.startswith("check ") and "observed not evaluated:" not in line]
    checks = {line.split(":")[0].removeprefix("check "): SUFFIX in line for line in said}
    errors = [line for line in failed.failures if line.startswith("step ")]
    against = [check for check, of_base in checks.items() if check not in _NOT_EVALUATED and not of_base]
    if against and not errors and not any(check in _NOT_EVALUATED for check in checks):
        found = _unevaluated(contest.name, f"blocking checks failed: {', '.join(checks)}", contest)
        return found | {"verdict": "regression"}
    reasons = [line.partition(": ")[2].partition("\n")[0] for line in errors]
    reasons += [f"check {check} failed" + (" for the base" if of_base else "") for check, of_base in checks.items()]
    where = f"{failed.task.job} {failed.task.title}"
    return _unevaluated(contest.name, f"{where}: {'; '.join(reasons) or 'no result'}", contest)


def _unevaluated(name: str, reason: str, contest: "Contest | None" = None) -> dict[str, Any]:
    return {
        "name": name,
        "verdict": "not evaluated",
        "reason": reason,
        "champion": contest.champion if contest else None,
        "notes": list(contest.notes) if contest else [],
        "pairs": [],
    }


def _nothing(contest: "Contest") -> dict[str, Any]:
    return {
        **_unevaluated(contest.name, "no variant was edited", contest),
        "verdict": "nothing to compare",
    }


# --- judging ----------------------------------------------------------------------------------------------


def _judged(
    platform: Platform, contest: "Contest", tasks: "Sequence[TaskResult]", margin: float, experiments: int
) -> dict[str, Any]:
    """The result of an experiment, one of ``experiments`` that judge the change, read pair by pair."""
    import numpy as np

    from assets.evaluation.dataset import read_dataset
    from assets.experiments import arena_verdict
    from assets.experiments.judged import not_calibrated
    from assets.experiments.slices import groups_of

    experiment = contest.experiment
    assert experiment is not None
    with platform.database.connect() as connection:
        row = connection.execute(
            """SELECT result_id, leaderboard, snapshots, dataset_version FROM experiment_result
               WHERE experiment = %s AND result_id = %s""",
            (contest.name, _result_of(tasks)),
        ).fetchone()
        if row is None:
            return _unevaluated(contest.name, "the run left no result", contest)
        result_id, board, snapshots, version = row
        rows = {one["variant"]: one for one in board["rows"]}
        dataset = read_dataset(connection, experiment.dataset, version)
        questions = dataset.split(experiment.split)
        values = _scores(connection, result_id, board["decision_metric"])
    missing = sorted({name for pair in contest.pairs for name in (pair.base, pair.head)} - rows.keys())
    if missing:
        return _unevaluated(contest.name, f"the result has no {', '.join(missing)}", contest)
    names = list(dict.fromkeys(name for pair in contest.pairs for name in (pair.base, pair.head)))
    keys = [rows[name]["fingerprint"] for name in names]
    asked = [one for one in questions if all((key, one.question_id) in values for key in keys)]
    groups = groups_of(asked, experiment.cluster)
    lineage = {
        "dataset": {"name": experiment.dataset, "version": version, "content_hash": dataset.content_hash},
        "snapshots": snapshots,
        "metric": board["decision_metric"],
        "questions": len(asked),
        "groups": len(asked) if groups is None else len(set(groups)),
        "confidence": experiment.confidence,
        "result": result_id,
        "variants": {name: _lineage(platform, rows[name]) for name in names},
        **_work(tasks),
    }
    common = {"name": contest.name, "champion": contest.champion, "notes": list(contest.notes), **lineage}
    scores = np.array([[values[key, one.question_id] for key in keys] for one in asked], dtype=float)
    gates = [pair.gates for pair in contest.pairs]
    few = arena_verdict.too_few(len(asked), groups)
    unproven = not_calibrated(board.get("judges", {}))
    results = (
        arena_verdict.judge(
            scores.reshape(len(asked), len(keys)),
            [(names.index(pair.base), names.index(pair.head)) for pair in contest.pairs],
            gates,
            [one.question_id for one in asked],
            margin=margin,
            confidence=experiment.confidence,
            resamples=experiment.resamples,
            seed=experiment.seed,
            groups=groups,
            families=experiments,
        )
        if len(asked) > 1
        else []
    )
    pairs = [
        {
            **vars(pair),
            **({**vars(result), "difference": dict(result.difference)} if result else {}),
            "changes": _changes(platform.config, contest, pair.base, pair.head),
        }
        for pair, result in zip(contest.pairs, results or [None] * len(contest.pairs), strict=True)
    ]
    answering = [pair for pair in contest.pairs if pair.kind == "answers"]
    guards = rows[answering[0].head]["guards"] if answering else []
    if unproven:
        verdict, reason = "not evaluated", f"a judge decides that may only inform: {'; '.join(unproven)}"
    elif few:
        detectable = f"; they would show a loss of {max(one.detectable for one in results):.3f}" if results else ""
        verdict, reason = "not evaluated", f"{lineage['groups']} independent questions are too few{detectable}"
    else:
        verdict, reason = arena_verdict.verdict_of(results, gates, guards)
    return {**common, "verdict": verdict, "reason": reason, "pairs": pairs, "guards": guards}


def _result_of(tasks: "Sequence[TaskResult]") -> int | None:
    """The result the last run made, or found standing."""
    return next(
        (one.metadata["scored_variants"].get("result") for one in reversed(tasks) if "scored_variants" in one.metadata),
        None,
    )


def _scores(connection: "Connection", result_id: int, metric: str) -> dict[tuple[str, str], float]:
    """{(fingerprint of the variant, question): value} of the trials a result rests on."""
    return {
        (variant, question): value
        for variant, question, value in connection.execute(
            """SELECT trial.variant, trial.question_id, trial_score.value
               FROM result_trial JOIN trial ON trial.fingerprint = result_trial.trial
               JOIN trial_score ON trial_score.trial = trial.fingerprint
               WHERE result_id = %s AND metric = %s AND value IS NOT NULL""",
            (result_id, metric),
        )
    }


def _lineage(platform: Platform, row: Mapping[str, Any]) -> dict[str, Any]:
    """What a variant was made of: versions and fingerprints, no words."""
    from assets.experiments.arena import fingerprints

    return {
        "fingerprint": row["fingerprint"],
        "offline": row["offline"],
        "failed": row["failed"],
        "cost": row["cost"],
        "currency": row["currency"],
        "prompt_version": row["prompt_version"],
        **fingerprints(platform.config, platform.models, row),
    }


def _changes(config: ProjectConfig, contest: "Contest", base: str, head: str) -> list[str]:
    from assets.experiments.arena import changes

    assert contest.experiment is not None
    choices = {choice.name: choice for choice in contest.experiment.choices()}
    return changes(config, choices[base], choices[head])


def _work(tasks: "Sequence[TaskResult]") -> dict[str, Any]:
    """What the runs paid; what was on record cost nothing."""
    made = [metadata for task in tasks for metadata in task.metadata.values()]
    experiment = next((task.metadata["scored_variants"] for task in tasks if "scored_variants" in task.metadata), {})
    return {
        "spent": {
            "cost": sum(float(one.get("cost") or 0) for one in made),
            "currency": experiment.get("currency", "USD"),
            "tokens": int(experiment.get("tokens") or 0),
            "trials_run": int(experiment.get("trials_run") or 0),
            "trials_reused": int(experiment.get("trials_reused") or 0),
            "generations_paid": int(experiment.get("generations_paid") or 0),
        }
    }
