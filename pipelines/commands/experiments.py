"""Commands: evaluation datasets and experiments.

Belongs here: arguments, help texts, printing. Does not belong here: what the commands do; each calls a plain module.
"""

from pathlib import Path

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


@click.command("import")
@click.argument("kind", type=click.Choice(["squad2"]))
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
def import_dataset(kind: str, source: Path, target: Path) -> None:
    """Convert a public data set in SOURCE to documents and questions in TARGET."""
    from assets.evaluation.converters import convert_squad2

    counts = convert_squad2(source, target)
    click.echo(f"{kind}: " + ", ".join(f"{value} {key}" for key, value in counts.items()) + f" written to {target}")
    click.echo(f"Now: genaiops demo --source {target / 'documents'} --questions {target / 'questions.jsonl'}")


COMMANDS = (
    promote,
    import_dataset,
)
