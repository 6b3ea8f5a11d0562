"""Commands: the snapshots of an index.

Belongs here: arguments, help texts, printing. Does not belong here: what the commands do; each calls a plain module.
"""

import click

from pipelines.commands.support import known_names, open_platform, user_name


@click.command()
@click.argument("index")
def snapshots(index: str) -> None:
    """List the retained snapshots of INDEX: any of them can be searched, evaluated or rolled back to."""
    from resources.vector_index import VectorIndex

    platform = open_platform()
    known_names("index", (index,), list(platform.config.indexes))
    for item in VectorIndex(platform.database, platform.config, platform.models).snapshots(index):
        marks = [
            mark for mark, on in (("serving", item.is_serving), ("head", item.is_head), ("pinned", item.pinned)) if on
        ]
        sources = ", ".join(f"{name} r{revision}" for name, revision in item.sources.items())
        click.echo(
            f"{item.snapshot:>5}  {item.published_at:%Y-%m-%d %H:%M:%S}  {item.counts.get('documents', '?'):>6} documents  "
            f"{item.counts.get('chunks', '?'):>7} chunks  {sources}  {' '.join(marks)}"
        )


@click.command()
@click.argument("index")
@click.option("--to", type=int, help="Snapshot to serve; by default the one before the serving one.")
@click.option("--reason", required=True, help="Why; kept for the audit.")
def rollback(index: str, to: int | None, reason: str) -> None:
    """Serve an earlier snapshot of INDEX, at once.

    The index is held there: refreshes go on publishing, but readers stay until `genaiops forward INDEX`.
    """
    from assets.index.publishing import rollback as move

    platform = open_platform()
    known_names("index", (index,), list(platform.config.indexes))
    serving = move(platform.database, index, to=to, by=user_name(), reason=reason)
    click.echo(f"{index} now serves snapshot {serving} and is held there; `genaiops forward {index}` ends the hold.")


@click.command()
@click.argument("index")
def forward(index: str) -> None:
    """End a rollback: serve the newest published snapshot of INDEX again."""
    from assets.index.publishing import roll_forward

    platform = open_platform()
    known_names("index", (index,), list(platform.config.indexes))
    click.echo(f"{index} now serves snapshot {roll_forward(platform.database, index, by=user_name())}.")


COMMANDS = (
    snapshots,
    rollback,
    forward,
)
