"""Commands: what a refresh would cost, and what it held back.

Belongs here: arguments, help texts, printing. Does not belong here: what the commands do; each calls a plain module.
"""

import json

import click

from pipelines.commands.support import known_names, open_platform, user_name


@click.command()
@click.argument("sources", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def preview(sources: tuple[str, ...], as_json: bool) -> None:
    """Show what a refresh of SOURCES (default: all) would compute and cost, before it does.

    Chunks to cut, values of enrichment steps and vectors to make, how many are cached, calls to models, tokens, money
    and minutes. Nothing is written or sent. It speaks of the documents that were read last.
    """
    from assets.chunks.spending import preview as plan
    from pipelines.previewing import describe

    platform = open_platform()
    config = platform.config
    known_names("source", sources, [*config.source_names, *config.sources])
    previews = [plan(platform, part) for part in config.expand_sources(sources or config.source_names)]
    if as_json:
        click.echo(json.dumps([found.to_json() for found in previews], indent=2, ensure_ascii=False))
    else:
        describe(previews, str(config.data_dir / "policies" / "enrichment.yaml"))


@click.group()
def enrichment() -> None:
    """Values that are added to chunks for searching."""


@enrichment.command("retry")
@click.argument("source")
def enrichment_retry(source: str) -> None:
    """Ask again about the chunks of SOURCE for which a model gave no usable value, at its next refresh."""
    from assets.index.dead_letters import retry_given_up

    platform = open_platform()
    known_names("source", (source,), [*platform.config.source_names, *platform.config.sources])
    count = sum(retry_given_up(platform, part) for part in platform.config.expand_sources([source]))
    click.echo(
        f"{count} values will be asked for again by `genaiops refresh {source}`." if count else "Nothing was given up."
    )


@click.group()
def quarantine() -> None:
    """Documents that were listed but may not enter, with the reason and a way back."""


@quarantine.command("list")
@click.option("--source", help="Only this source.")
def quarantine_list(source: str | None) -> None:
    """List quarantined documents."""
    from assets.corpus.quarantine import list_quarantined

    platform = open_platform()
    config = platform.config
    known_names("source", (source,) if source else (), [*config.source_names, *config.sources])
    with platform.database.connect() as connection:
        rows = [
            row
            for part in (config.expand_sources([source]) if source else [None])
            for row in list_quarantined(connection, part)
        ]
    for row in rows:
        why = f": {row.released_reason}" if row.released_reason else ""
        released = f"  released by {row.released_by}{why}" if row.released_by else ""
        click.echo(f"{row.source}/{row.path}  {row.code}: {row.reason}{released}")
    click.echo(f"{len(rows)} in quarantine")


@quarantine.command("release")
@click.argument("document", metavar="SOURCE/PATH")
@click.option("--why", help="The reason, kept with the decision and shown in the list.")
def quarantine_release(document: str, why: str | None) -> None:
    """Let exactly this content of a document in at the next refresh."""
    from assets.corpus.quarantine import release

    source, _, path = document.partition("/")
    platform = open_platform()
    with platform.database.connect() as connection:
        release(connection, platform.config.partition_of(source, path), path, by=user_name(), why=why)
    click.echo(f"{document} is released; run `genaiops refresh {source}`.")


COMMANDS = (
    preview,
    enrichment,
    quarantine,
)
