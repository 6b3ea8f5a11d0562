"""Commands: experiments.

Belongs here: arguments, help texts, printing. Does not belong here: what the commands do; each calls a plain module.
"""

from typing import TYPE_CHECKING

import click

from pipelines.commands.support import known_names, open_platform, user_name

if TYPE_CHECKING:
    from resources.platform import Platform


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
    champion = make_champion(platform, experiment, variant, by=user_name(), reason=reason)
    click.echo(f"{variant} is now the champion of {experiment}.")
    index = champion.variant.index
    if index in platform.config.derived:
        from resources.index_patches import index_file

        click.echo(f"It searches an index that {experiment} derives. To keep it, save this as indexes/{index}.yaml:\n")
        click.echo(index_file(platform.config.indexes[index]))


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


@click.group()
def trials() -> None:
    """Trials on record: everything about one, those that failed, and trying them again."""


@trials.command("show")
@click.argument("experiment")
@click.argument("question")
@click.option("--variant", metavar="NAME", help="Of this variant; without it all that were asked are listed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, complete.")
def show_trial(experiment: str, question: str, variant: str | None, as_json: bool) -> None:
    """Show the newest trial of EXPERIMENT on QUESTION (its id): prompt, passages, answer, claims, scores, versions.

    It prints questions, answers and text of documents.
    """
    import json

    from assets.experiments.records import find_trials, full_record
    from pipelines.trial_page import describe, line

    with open_platform().database.connect() as connection:
        found = find_trials(connection, experiment, question, variant)
        records = [full_record(connection, trial) for trial in found.values()]
    if as_json:
        click.echo(json.dumps([one.to_json() for one in records], indent=2, ensure_ascii=False))
    elif len(records) == 1:
        describe(records[0])
    else:
        for one in records:
            click.echo(line(one))
        click.echo("Show one of them with --variant NAME.")


def _asked(platform: "Platform", experiment: str) -> tuple[str, list[str]]:
    """Dataset and variants of an experiment, by fingerprint: a trial several share is on record under one of them."""
    from assets.experiments.variants import expand

    config = platform.config.experiments[experiment]
    with platform.database.connect() as connection:
        variants = expand(platform.config, platform.models, config, connection)
    return config.dataset, [variant.fingerprint for variant in variants]


@trials.command("failed")
@click.argument("experiment")
def failed_trials(experiment: str) -> None:
    """List the failed trials of EXPERIMENT: how often they were tried, and which are given up."""
    platform = open_platform()
    known_names("experiment", (experiment,), list(platform.config.experiments))
    dataset, variants = _asked(platform, experiment)
    with platform.database.connect() as connection:
        rows = connection.execute(
            """SELECT v.name, t.question_id, t.error, t.attempts, t.given_up_at IS NOT NULL
               FROM trial t JOIN variant v ON v.fingerprint = t.variant
               WHERE (t.experiment = %s OR (t.dataset = %s AND t.variant = ANY(%s))) AND t.status = 'failed' ORDER BY 1, 2""",
            (experiment, dataset, variants),
        ).fetchall()
    for name, question, error, attempts, given_up in rows:
        click.echo(f"{name}  {question}  {error}  {attempts} attempts{', given up' if given_up else ''}")
    if not rows:
        click.echo(f"No trial of {experiment} on record failed.")


@trials.command("retry")
@click.argument("experiment")
@click.option("--variant", metavar="NAME", help="Only trials of this variant.")
@click.option("--question", metavar="ID", help="Only trials on this question.")
def retry_trials(experiment: str, variant: str | None, question: str | None) -> None:
    """Let the next run of EXPERIMENT try its failed trials again, those that were given up included."""
    from assets.experiments.trials import retry

    platform = open_platform()
    known_names("experiment", (experiment,), list(platform.config.experiments))
    dataset, variants = _asked(platform, experiment)
    found = retry(platform.database, experiment, dataset=dataset, variants=variants, variant=variant, question=question)
    for name, asked, attempts in found:
        click.echo(f"{name}  {asked}  after {attempts} attempts")
    if found:
        click.echo(f"{len(found)} trials will be tried again: genaiops evaluate {experiment}")
    else:
        click.echo(f"No trial of {experiment} on record failed.")


COMMANDS = (
    promote,
    rescore,
    trials,
)
