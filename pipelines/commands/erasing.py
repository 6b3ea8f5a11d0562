"""Commands: erasure.

Belongs here: arguments, help texts, printing. Does not belong here: what the commands do; each calls a plain module.
"""

import json

import click

from pipelines.commands.support import open_platform, user_name


@click.command()
@click.option("--document", metavar="SOURCE/PATH", help="One document.")
@click.option("--source", help="Every document of a source; with a pattern or text, only those that match.")
@click.option("--pattern", metavar="REGEX", help="Whatever fits a regular expression of PostgreSQL; (?i) ignores case.")
@click.option("--text", help="Whatever holds these words: any case, any white space between them.")
@click.option("--hide-path", is_flag=True, help="Write a hash instead of the path into the proof.")
@click.option("--show-pattern", is_flag=True, help="Write the pattern into the proof instead of a salted hash.")
@click.option(
    "--time-limit", type=float, default=60.0, show_default=True, help="Seconds a pattern may take for one table."
)
@click.option("--no-vacuum", is_flag=True, help="Leave it to autovacuum to clear the space that deleted rows had.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def forget(
    document: str | None,
    source: str | None,
    pattern: str | None,
    text: str | None,
    hide_path: bool,
    show_pattern: bool,
    time_limit: float,
    no_vacuum: bool,
    yes: bool,
) -> None:
    """Erase documents everywhere at once: every snapshot, cache, dataset, trial, interaction and file.

    This cannot be undone, and a later refresh will refuse the same documents. What would be erased is shown first. The
    proof of what was removed where is kept and printed. docs/erasure.md says what stays.
    """
    from assets.governance import erasure as erasing
    from resources.errors import ConfigError

    try:
        selector = erasing.make_selector(
            document=document, source=source, pattern=pattern, text=text, seconds=time_limit
        )
    except ConfigError as error:
        if not (document or source or pattern or text):
            raise click.UsageError(
                "give either --document SOURCE/PATH or --source NAME, --pattern or --text"
            ) from error
        raise click.UsageError(str(error)) from error
    platform = open_platform()
    if not yes:
        found = erasing.preview(platform, selector)
        for name in found.documents:
            click.echo(name)
        click.echo(f"{len(found.documents)} documents" + "".join(f", {n} x {table}" for table, n in found.rows.items()))
        click.confirm("Erase this, and everything derived from it, for ever?", abort=True)
    erasure = erasing.forget(
        platform,
        document=document,
        source=source,
        pattern=pattern,
        text=text,
        by=user_name(),
        hide_path=hide_path,
        show_pattern=show_pattern,
        pattern_seconds=time_limit,
        vacuum=not no_vacuum,
    )
    click.echo(json.dumps(erasure.proof, indent=2))
    if erasure.completed:
        click.secho(f"erasure {erasure.completed} had been interrupted; its files are done now", fg="yellow", err=True)
    for path in erasure.user_files:
        click.secho(f"{path} still quotes it; this file is yours, edit it by hand", fg="yellow")
    for table in erasure.not_vacuumed:
        click.secho(f"{table} is in use; its freed space is cleared by the next autovacuum", fg="yellow", err=True)


COMMANDS = (forget,)
