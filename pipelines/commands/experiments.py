"""Commands: experiments.

Belongs here: arguments, help texts, printing. Does not belong here: what the commands do; each calls a plain module.
"""

import click

from pipelines.commands.support import known_names, open_platform, user_name


@click.command()
@click.argument("experiment")
@click.argument("variant")
@click.option("--reason", required=True, help="Why; kept for the audit.")
def promote(experiment: str, variant: str, reason: str) -> None:
    """Make VARIANT the champion of EXPERIMENT: the one that answers.

    Refused unless persisted evidence for exactly this combination of corpus, index, prompt and model recommends it.
    """
    from assets.experiments.champion import promote as make_champion

    platform = open_platform()
    known_names("experiment", (experiment,), list(platform.config.experiments))
    make_champion(platform, experiment, variant, by=user_name(), reason=reason)
    click.echo(f"{variant} is now the champion of {experiment}.")


@click.command()
@click.option("--experiment", metavar="NAME", help="Only trials of this experiment.")
@click.option("--metric", "metrics", metavar="ID", multiple=True, help="Only this metric; may be repeated.")
def rescore(experiment: str | None, metrics: tuple[str, ...]) -> None:
    """Score the trials on record by today's metrics, without running any of them again.

    Computes what is missing, and what was computed by another definition or other code. No model is called.
    """
    import os

    from assets.experiments.scores import Rescored
    from assets.experiments.scores import rescore as score_again

    def tell(name: str, done: Rescored) -> None:
        click.echo(f"{name}: {done.trials} trials, {done.computed} scores computed", err=True)

    try:
        done = score_again(
            open_platform(), f"cli:{os.getpid()}", experiment=experiment, metrics=metrics or None, progress=tell
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    click.echo(f"{done.trials} trials on record, {done.computed} scores computed.")
    if done.skipped:
        click.echo(f"{done.skipped} trials were left out: their version of the dataset is no longer kept.")
    if done.computed:
        click.echo("Leaderboards follow when the experiments are evaluated next: genaiops evaluate")


COMMANDS = (
    promote,
    rescore,
)
