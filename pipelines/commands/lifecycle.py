"""Commands: running the lifecycle, and looking after what it left.

Belongs here: arguments, help texts, printing. Does not belong here: what the commands do; each calls a plain module.
"""

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

import click

from pipelines.commands.support import known_names, open_config, open_platform, open_settings


@click.command()
@click.option(
    "--source",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of your own documents; it becomes a project of its own beside the sample.",
)
@click.option("--name", help="Name of that project; by default the folder's name.")
@click.option(
    "--questions",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Your own questions (JSONL) for --source.",
)
def demo(source: Path | None, name: str | None, questions: Path | None) -> None:
    """Run the whole lifecycle and print a report.

    Documents are parsed, chunked, embedded and published as a snapshot; the evaluation set is resolved; every
    prompt variant is scored; drift is reported. All of it runs through Dagster and is visible later in the UI.
    A second run does only what changed.
    """
    from pipelines import demo as lifecycle

    settings = open_settings()
    if source:
        settings = lifecycle.own_project(settings, source, name=name, questions=questions)
    sys.exit(0 if lifecycle.run_demo(settings) else 1)


@click.command()
@click.option("--port", default=3000, show_default=True, help="Port of the UI.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The UI has no login: keep it on loopback or behind a proxy that has one.",
)
def dev(port: int, host: str) -> None:
    """Open the Dagster UI: webserver and daemon, with schedules and sensors on."""
    from pipelines.server import serve

    sys.exit(serve(open_settings(), host=host, port=port))


@click.command()
@click.argument("sources", nargs=-1)
def refresh(sources: tuple[str, ...]) -> None:
    """Refresh SOURCES (default: all): list, parse, chunk, embed, check, publish.

    Exits 1 when a run failed or a blocking check kept a snapshot from being published.
    """
    from pipelines.demo import run_tasks
    from pipelines.runner import refresh_tasks

    settings = open_settings()
    config = open_config(settings)
    known_names("source", sources, [*config.source_names, *config.sources])
    sys.exit(0 if run_tasks(settings, refresh_tasks(config.expand_sources(sources or config.source_names))) else 1)


@click.command()
@click.argument("experiments", nargs=-1)
@click.option("--preview", is_flag=True, help="Only show the calls, tokens, money and minutes it would take.")
@click.option("--pilot", type=click.IntRange(min=1), metavar="N", help="First run N trials, paid, for the preview.")
@click.option("--yes", is_flag=True, help="Run the pilot without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print the preview as JSON.")
def evaluate(experiments: tuple[str, ...], preview: bool, pilot: int | None, yes: bool, as_json: bool) -> None:
    """Resolve the evaluation sets and score the variants of EXPERIMENTS (default: all).

    Sources that an index of theirs does not show yet, such as one an experiment derives, are refreshed first. With --preview
    nothing is asked of any model, except by a --pilot; evaluation sets are resolved first, and indexes must be there.
    """
    if not preview and (pilot or yes or as_json):
        raise click.UsageError("--pilot, --yes and --json belong to --preview")
    from assets.experiments.leaderboard import check_decisions
    from assets.experiments.readiness import unbuilt_sources
    from pipelines.demo import run_tasks
    from pipelines.jobs import DATASET_JOB
    from pipelines.runner import evaluation_tasks, refresh_tasks
    from pipelines.status import newest_recommendation

    settings = open_settings()
    platform = settings.platform()
    config = platform.config
    known_names("experiment", experiments, list(config.experiments))
    names = list(experiments) or list(config.experiments)
    if preview:
        from pipelines.experiment_preview import show

        check_decisions(config, names)
        with redirect_stdout(sys.stderr):
            if not run_tasks(settings, [task for task in evaluation_tasks(config, names) if task.job == DATASET_JOB]):
                sys.exit(1)
        show(platform, names, pilot=pilot, yes=yes, as_json=as_json)
        return
    with platform.database.connect() as connection:
        unbuilt = unbuilt_sources(connection, platform, names)
    succeeded = run_tasks(settings, [*refresh_tasks(list(unbuilt)), *evaluation_tasks(config, names)])
    if succeeded:
        with platform.database.connect() as connection:
            for name in names:
                click.echo(f"\n{name}: {newest_recommendation(connection, name)}")
    sys.exit(0 if succeeded else 1)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool) -> None:
    """Show what is loaded, published, serving, recommended and failing."""
    from pipelines.status import collect, describe

    report = collect(open_platform())
    if as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False, default=str))
    else:
        describe(report)


@click.command()
def validate() -> None:
    """Check every file under the data directory; say what is wrong and how to mend it."""
    from assets.experiments.leaderboard import check_decisions

    platform = open_platform()
    config = platform.config
    check_decisions(config, list(config.experiments))
    click.echo(
        f"{config.data_dir}: {len(config.source_names)} sources, {len(config.indexes)} indexes, {len(config.prompts)} prompts, "
        f"{len(config.datasets)} evaluation datasets, {len(config.experiments)} experiments. All valid."
    )
    for name in config.derived:
        users = [one for one, experiment in config.experiments.items() if name in experiment.index_names]
        click.echo(f"  {name}: {config.indexes[name].description} (derived by {', '.join(users)})")


@click.command()
def maintain() -> None:
    """Apply retention now: snapshots and caches nothing needs, old interactions, Dagster's event log; then audit."""
    from pipelines.demo import run_tasks
    from pipelines.runner import maintenance_tasks

    sys.exit(0 if run_tasks(open_settings(), maintenance_tasks()) else 1)


@click.command()
def stop() -> None:
    """Stop the embedded PostgreSQL; any command starts it again."""
    from resources.postgres import stop_embedded

    directory = open_settings().state_dir / "postgres"
    stop_embedded(directory)
    click.echo(f"PostgreSQL in {directory} is stopped.")


COMMANDS = (
    demo,
    dev,
    refresh,
    evaluate,
    status,
    validate,
    maintain,
    stop,
)
