"""Commands: giving results to other tools.

Belongs here: arguments, help texts, printing. Does not belong here: what the commands do; each calls a plain module.
"""

import click

from pipelines.commands.support import known_names, open_platform


@click.group()
def export() -> None:
    """Give results to other tools."""


@export.command()
@click.argument("experiment")
@click.option(
    "--with-answers",
    is_flag=True,
    help="Also questions, answers, worked examples and the dataset: erasing a document does not reach them there.",
)
@click.option("--seconds", default=600, show_default=True, help="Most time it may take; what was sent stays.")
def mlflow(experiment: str, with_answers: bool, seconds: int) -> None:
    """Put the newest result of EXPERIMENT on the MLflow server of MLFLOW_TRACKING_URI.

    Every evaluation does so by itself when the address is set; this is for results of the time before, and for answers. What is
    there already is not made again.
    """
    from assets.experiments.export import export_newest, tracking_of

    platform = open_platform()
    known_names("experiment", (experiment,), list(platform.config.experiments))
    tracking = tracking_of(platform)
    done = export_newest(platform, experiment, tracking, with_answers=with_answers, seconds=seconds)
    if done is None:
        raise click.ClickException(f"{experiment} has no result yet; make one with: genaiops evaluate {experiment}")
    made = f"{done.runs} runs and {done.prompts} versions of prompts made" if done.new else "everything was there"
    click.echo(f"{experiment}: {made}; run {done.run_id} of {tracking.shown}")


COMMANDS = (export,)
