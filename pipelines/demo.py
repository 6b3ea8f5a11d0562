"""Demo: the whole lifecycle in one command, with live progress and a closing report.

Belongs here: order of the runs, progress display, the report, and projects made from a user's own folder.
Does not belong here: executing a run (runner.py) and anything a stage does.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from pipelines.jobs import DATASET_JOB, EXPERIMENT_JOB, REFRESH_JOB
from pipelines.runner import Task, TaskResult, lifecycle, opened, run
from pipelines.settings import CHECKOUT, Settings, project_dir
from resources.errors import ConfigError
from resources.platform import Platform

#: Variants shown in the closing report; the HTML report has all.
LEADERBOARD_ROWS = 5
_STATES = {
    "running": "[cyan]running[/]",
    "done": "[green]done[/]",
    "failed": "[red]failed[/]",
    "skipped": "[yellow]skipped[/]",
}


def run_demo(settings: Settings) -> bool:
    """Run the whole lifecycle and print the report; False when a run failed."""
    console = _console()
    started = time.perf_counter()
    console.print(f"[bold]genaiops[/]: data in {settings.data_dir}, state in {settings.state_dir}")
    with opened(settings) as (defs, instance):
        platform = settings.platform()
        tasks = lifecycle(platform.config, day=datetime.now(UTC).date())
        refreshes = [task for task in tasks if task.job == REFRESH_JOB]
        results = _run_all(console, defs, instance, refreshes)
        if all(result.success for result in results):
            short = _write_missing_questions(console, platform)
            rest = [task for task in tasks if task not in refreshes and not _asks(platform, task, short)]
            results += _run_all(console, defs, instance, rest)
        else:
            console.print(
                "[red]A source was not published, so nothing is evaluated on it.[/] What failed stands below."
            )
    seconds = time.perf_counter() - started
    _print_report(console, settings, platform, results, seconds)
    return all(result.success for result in results)


def run_tasks(settings: Settings, tasks: Sequence[Task]) -> bool:
    """Run some tasks with progress and their failures printed; False when one failed."""
    console = _console()
    with opened(settings) as (defs, instance):
        results = _run_all(console, defs, instance, tasks)
    _print_failures(console, results)
    return all(result.success for result in results)


def _console() -> Any:
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=150)


def _run_all(console: Any, defs: Any, instance: Any, tasks: Sequence[Task]) -> list[TaskResult]:
    """Run tasks one after the other; a live table on a terminal, a line per step elsewhere."""
    from rich.live import Live
    from rich.markup import escape
    from rich.table import Table

    steps: dict[tuple[str, str], tuple[str, float, str]] = {}

    def render() -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        for (title, step), (state, since, note) in steps.items():
            elapsed = time.perf_counter() - since if state == "running" else since
            table.add_row(f"  {title}", step, _STATES[state], f"{elapsed:6.1f} s", f"[dim]{escape(note)}[/]")
        return table

    def progress(task: Task, step: str, state: str) -> None:
        key = (task.title, step)
        before = steps.get(key, ("", 0.0, ""))
        if state not in _STATES:
            steps[key] = (*before[:2], state) if before[0] else ("running", time.perf_counter(), state)
            return
        elapsed = time.perf_counter() - before[1] if before[0] == "running" else 0.0
        steps[key] = (state, time.perf_counter() if state == "running" else elapsed, before[2])
        if not console.is_terminal and state != "running":
            console.print(f"  {task.title}: {step} {_STATES[state]} {elapsed:.1f} s")

    results = []
    if console.is_terminal:
        with Live(get_renderable=render, console=console, refresh_per_second=4):
            for task in tasks:
                results.append(run(defs, instance, task, progress))
    else:
        for task in tasks:
            results.append(run(defs, instance, task, progress))
    return results


def _print_failures(console: Any, results: Sequence[TaskResult]) -> None:
    from rich.markup import escape

    for result in results:
        for line in result.failures:
            console.print(f"  [red]{escape(result.task.title)}[/]: {escape(line)}")
        if not result.success:
            console.print(f"  [red]{escape(result.task.title)} failed[/]; run {result.run_id}")


# --- the report ---------------------------------------------------------------------------------------


def _print_report(
    console: Any, settings: Settings, platform: Platform, results: Sequence[TaskResult], seconds: float
) -> None:
    from rich.markup import escape

    from pipelines.status import collect

    state = collect(platform)
    work = work_done(results)
    console.rule("[bold]Report")
    for row in state["sources"]:
        console.print(
            f"Source [bold]{row['source']}[/]: {row['documents']} documents, {row['quarantined']} quarantined (revision {row['revision']})"
        )
    for row in state["indexes"]:
        counts = row["counts"]
        held = f" [yellow]held by a rollback at {row['serving']}[/]" if row["held_by"] else ""
        console.print(f"Index [bold]{row['index_name']}[/]: {counts['chunks']} chunks, snapshot {row['serving']}{held}")
    for experiment in platform.config.experiments:
        _print_leaderboard(console, platform, experiment)
    for row in state["drift"]:
        console.print(f"Drift, {row['subject']}: [bold]{row['verdict']}[/]. {escape(row['words'])}")
    embedded = _total(results, "embeddings", "tokens")
    sent, received = (_total(results, "scored_variants", label) for label in ("input_tokens", "output_tokens"))
    cost = sum(_total(results, asset, "cost") for asset in ("embeddings", "scored_variants"))
    console.print(f"Models in this run: {embedded + sent:,.0f} tokens in, {received:,.0f} out, cost {cost:.4f}")
    succeeded = all(result.success for result in results)
    if any(work.values()):
        console.print("Work done: " + ", ".join(f"{value:,.0f} {name}" for name, value in work.items() if value))
    elif succeeded:
        console.print(
            "[green]Nothing had changed:[/] no document was parsed, no chunk made, no text embedded, no row written, no trial run."
        )
    inside = sum(sum(result.seconds.values()) for result in results)
    console.print(f"Time: {seconds:.1f} s, of which {inside:.1f} s inside assets")
    _print_failures(console, results)
    program = f"genaiops --project {settings.project}" if settings.project else "genaiops"
    command = "make dev" if settings.data_dir == CHECKOUT / "data" else f"{program} dev"
    console.print(
        f'\nOpen the UI: [bold]{command}[/], then {escape(settings.ui_url)}   Ask: [bold]{program} ask "..."[/]'
    )
    console.print(f"Reports: {escape(str(platform.artifacts))}")


#: What is counted as work: (words, asset, label of its metadata).
WORK = (
    ("documents parsed", "raw_documents", "parsed"),
    ("texts chunked", "chunks", "texts_chunked"),
    ("texts embedded", "embeddings", "computed"),
    ("index rows added", "search_index", "rows_added"),
    ("index rows retired", "search_index", "rows_retired"),
    ("trials run", "scored_variants", "trials_run"),
    ("model calls", "scored_variants", "generations_paid"),
)


def work_done(results: Sequence[TaskResult]) -> dict[str, int]:
    """Sum the work counters of the materializations in ``results``."""
    return {words: int(_total(results, asset, label)) for words, asset, label in WORK}


def _total(results: Sequence[TaskResult], asset: str, label: str) -> float:
    return sum(float(result.metadata.get(asset, {}).get(label) or 0) for result in results)


def _print_leaderboard(console: Any, platform: Platform, experiment: str) -> None:
    """The newest result of an experiment: the best variants, the champion, and the recommendation."""
    from rich.markup import escape
    from rich.table import Table

    from assets.evaluation.metrics.base import METRICS
    from assets.experiments.task_board import headline

    with platform.database.connect() as connection:
        row = connection.execute(
            "SELECT leaderboard, recommendation FROM experiment_result WHERE experiment = %s ORDER BY result_id DESC LIMIT 1",
            (experiment,),
        ).fetchone()
    if row is None:
        return
    board, recommendation = row
    questions = board["questions"]
    of_task = [metric for metric in headline(board) or () if metric != board["decision_metric"]][:4]
    asked = (
        f"{questions['answerable']} inputs"
        if board.get("task")
        else f"{questions['answerable']} answerable and {questions['unanswerable']} unanswerable questions"
    )
    console.print(
        f"\nExperiment [bold]{experiment}[/]: {len(board['rows'])} variants on {asked} "
        f"({board['split']} split, dataset version {board['dataset_version']})"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("variant", no_wrap=True)
    for title in (
        METRICS[board["decision_metric"]].title.lower() if board.get("task") else "answer quality",
        f"{board['confidence']:.0%} interval",
        "vs champion",
        "p (Holm)",
        *([METRICS[metric].title for metric in of_task] or ["recall", "nDCG", "F1", "refusal F1"]),
    ):
        table.add_column(title, justify="right")
    shown = [row for position, row in enumerate(board["rows"]) if position < LEADERBOARD_ROWS or row["champion"]]
    for row in shown:
        metrics, difference = row["metrics"], row["difference"]
        table.add_row(
            escape(row["variant"]) + (" (champion)" if row["champion"] else ""),
            f"{row['decision']['estimate']:.3f}",
            f"{row['decision']['low']:.3f} to {row['decision']['high']:.3f}",
            f"{difference['estimate']:+.3f}" if difference else "",
            f"{row['p_adjusted']:.4f}" if row["p_adjusted"] is not None else "",
            *(
                _number(metrics[metric]["answerable"])
                for metric in of_task or ("genaiops.recall/2", "genaiops.ndcg/2", "squad.f1/1")
            ),
            *([] if of_task else [_number(row["refusal"]["f1"])]),
        )
    console.print(table)
    hidden = len(board["rows"]) - len(shown)
    if hidden:
        console.print(f"[dim]and {hidden} more in the report[/]")
    console.print(f"[bold]Recommendation:[/] {escape(recommendation['text'])}")
    for caveat in recommendation["caveats"]:
        console.print(f"[dim]- {escape(caveat)}[/]")
    if recommendation["recommended"]:
        console.print(
            f'To adopt it: genaiops promote {experiment} {escape(recommendation["recommended"])} --reason "..."'
        )
    console.print()


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


# --- projects made from a user's own folder ---------------------------------------------------------------


def own_project(settings: Settings, source: Path, *, name: str | None, questions: Path | None) -> Settings:
    """Make (or update) a project whose only source is a folder of the user's, and return its settings.

    The configuration is a copy of the checkout's with the source replaced; the user owns it from then on, so an
    existing file is never overwritten.

    Raises:
        ConfigError: the name cannot be a source name.
    """
    name = name or re.sub(r"[^a-z0-9_-]+", "-", source.resolve().name.lower()).strip("-_") or "documents"
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,40}", name):
        raise ConfigError(
            f"--name: {name!r} cannot name a source; use lower-case letters, digits, - and _, a letter first"
        )
    root = project_dir(settings.state_dir, name)
    data = root / "data"
    _write_new(
        data / "sources.yaml",
        yaml.safe_dump({"sources": [{"name": name, "path": str(source.resolve())}]}, sort_keys=False),
    )
    for part in (
        "models.yaml",
        *(
            str(path.relative_to(CHECKOUT / "data"))
            for folder in ("prompts", "policies")
            for path in sorted((CHECKOUT / "data" / folder).glob("*.yaml"))
        ),
    ):
        _write_new(data / part, (CHECKOUT / "data" / part).read_text(encoding="utf-8"))
    for folder in ("indexes", "experiments"):
        for path in sorted((CHECKOUT / "data" / folder).glob("*.yaml")):
            text = re.sub(r"\bhandbook\b", name, path.read_text(encoding="utf-8"))
            text = re.sub(r"(?m)^(?:slices|cluster):.*\n", "", text)  # tags are those of the sample's questions
            _write_new(data / folder / path.name.replace("handbook", name), text)
    _write_new(
        data / "evaluation" / f"{name}.yaml",
        yaml.safe_dump(
            {
                "name": name,
                "description": f"Questions about {name}.",
                "questions": f"{name}.jsonl",
                "sources": [name],
                "minimum_questions": 5,
                "minimum_unanswerable_share": 0.0,
            },
            sort_keys=False,
        ),
    )
    _write_new(data / "evaluation" / f"{name}.jsonl", questions.read_text(encoding="utf-8") if questions else "")
    return replace(settings, data_dir=data, state_dir=root / "state")


def _write_new(path: Path, text: str) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _asks(platform: Platform, task: Task, datasets: set[str]) -> bool:
    """Whether a task needs one of ``datasets``."""
    if task.job == EXPERIMENT_JOB:
        return platform.config.experiments[str(task.partition)].dataset in datasets
    return task.job == DATASET_JOB and task.partition in datasets


def _write_missing_questions(console: Any, platform: Platform) -> set[str]:
    """Fill an empty question file with questions made from headings, so that a first experiment can run.

    Returns:
        The datasets for which the documents have too few headings: there is nothing to evaluate them on yet.
    """
    short: set[str] = set()
    from assets.evaluation.heading_questions import generate

    for name, dataset in platform.config.datasets.items():
        path = platform.config.questions_path(name)
        if path.read_text(encoding="utf-8").strip():
            continue
        with platform.database.connect() as connection:
            count = generate(connection, platform.config, name, path)
        if count < dataset.minimum_questions:
            path.write_text("", encoding="utf-8")
            short.add(name)
            console.print(
                f"[yellow]Nothing is evaluated yet:[/] {path} is empty, and the documents have too few headings to make "
                "questions from. Write questions your users ask, with the quotes that answer them, and run again."
            )
        else:
            console.print(
                f"[yellow]{path} was empty:[/] {count} questions were made from headings. They are a smoke test; "
                "replace them by questions your users ask, with the quotes that answer them."
            )
    return short
