"""Commands: looking at what an experiment found.

Belongs here: arguments, help texts, printing. Does not belong here: what the commands do; each calls a plain module.
"""

from pathlib import Path

import click

from pipelines.commands.support import known_names, open_platform


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
@click.option("--open", "show", is_flag=True, help="Open the page in a browser.")
def compare(experiment: str, first: str, second: str, only: str | None, out: Path | None, show: bool) -> None:
    """Write variants A and B of EXPERIMENT side by side, question by question, as a page.

    What differs in answers and retrieved chunks is marked. Shows the newest result; the experiment must not be running.
    """
    from assets.experiments.compare import write_comparison

    platform = open_platform()
    known_names("experiment", (experiment,), list(platform.config.experiments))
    comparison, path = write_comparison(platform, experiment, first, second, only=only, out=out)  # type: ignore[arg-type]
    counts = comparison.counts()
    click.echo(
        f"On {len(comparison.pairs)} questions {second} is better on {counts['better']} and worse on {counts['worse']} than "
        f"{first}; the same score with another answer on {counts['other answer']}."
    )
    click.echo(str(path))
    if show:
        click.launch(str(path))


COMMANDS = (compare,)
