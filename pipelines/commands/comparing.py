"""Commands: looking at what an experiment found.

Belongs here: arguments, help texts, printing. Does not belong here: what the commands do; each calls a plain module.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any

import click

from pipelines.commands.support import known_names, open_platform


def _judged(platform: Any, judge: str, budget: float | None, ask: Any, comparison: Any) -> Any:
    return ask(platform, comparison, judge, run_id=f"cli:{os.getpid()}", budget=budget)


@click.command()
@click.argument("experiment")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--only", type=click.Choice(["better", "worse", "changed"]), help="Only questions on which B differs so.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write instead of the one the leaderboard links to. Erasing a document does not reach it.",
)
@click.option("--judge", metavar="NAME", help="Also ask this preference judge which answer is better (docs/judges.md).")
@click.option("--budget", type=click.FloatRange(min=0), help="Most money the judge may spend.")
@click.option("--open", "show", is_flag=True, help="Open the page in a browser.")
def compare(
    experiment: str,
    first: str,
    second: str,
    only: str | None,
    out: Path | None,
    judge: str | None,
    budget: float | None,
    show: bool,
) -> None:
    """Write variants A and B of EXPERIMENT side by side, question by question, as a page.

    What differs in answers and retrieved chunks is marked. Shows the newest result; the experiment must not be running.
    """
    from assets.experiments.compare import write_comparison

    platform = open_platform()
    known_names("experiment", (experiment,), list(platform.config.experiments))
    if budget is not None and judge is None:
        raise click.UsageError("--budget belongs to --judge")
    options: dict[str, Any] = {"only": only, "out": out}
    if judge is not None:
        from assets.experiments.preferences import add_preferences

        options["judge"] = partial(_judged, platform, judge, budget, add_preferences)
    comparison, path = write_comparison(platform, experiment, first, second, **options)
    counts = comparison.counts()
    click.echo(
        f"On {len(comparison.pairs)} questions {second} is better on {counts['better']} and worse on {counts['worse']} than "
        f"{first}; the same score with another answer on {counts['other answer']}."
    )
    if comparison.judge:
        click.echo(comparison.judge)
    click.echo(str(path))
    if show:
        click.launch(str(path))


COMMANDS = (compare,)
