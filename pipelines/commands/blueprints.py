"""Commands: beginning with a blueprint.

Belongs here: arguments, help texts, printing. Does not belong here: what the commands do; each calls a plain module.
"""

import contextlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.commands.support import open_settings

if TYPE_CHECKING:
    from pipelines.blueprints.adding import Added


@click.command()
@click.argument("kind", required=False)
@click.argument("name", required=False)
@click.option("--list", "show", is_flag=True, help="Show what there is to begin with.")
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Make it in DIR, a new project with data and state of its own, or an existing data directory.",
)
@click.option(
    "--own", is_flag=True, help="Make it a project of its own beside the sample, used by: genaiops --project NAME"
)
@click.option("--remove", metavar="NAME", help="Take out what was made under NAME.")
@click.option("--force", is_flag=True, help="With --remove: also files that were changed since.")
def new(
    kind: str | None, name: str | None, show: bool, into: Path | None, own: bool, remove: str | None, force: bool
) -> None:
    """Begin with a blueprint: add a working experiment of KIND under NAME.

    \b
    genaiops new --list
    genaiops new triage support-triage

    It comes with its questions, prompts and grid, and with documents where it answers from any, and runs at once with the offline
    models. Files are added to the data directory; none is overwritten.
    """
    if show:
        _list()
    elif remove:
        _remove(remove, into, force)
    elif kind is None or name is None:
        raise click.UsageError("give KIND and NAME; genaiops new --list shows the kinds")
    elif into and own:
        raise click.UsageError("give either --into or --own")
    else:
        _add(kind, name, into, own)


def _list() -> None:
    from pipelines.blueprints.catalogue import blueprints

    for blueprint in blueprints():
        click.echo(f"{blueprint.kind:15} {blueprint.title}: {blueprint.description}")
    click.echo("\nBegin with one: genaiops new KIND NAME")


def _add(kind: str, name: str, into: Path | None, own: bool) -> None:
    from pipelines.blueprints.adding import add, find, started_project
    from pipelines.settings import project_dir

    find(kind)
    settings = open_settings()
    program, exports, data, state = _program(settings.project), "", settings.data_dir, settings.state_dir
    if own:
        root = project_dir(settings.state_dir, name)
        program, data, state = _program(name), root / "data", root / "state"
    elif into:
        data = _data_dir(into)
        if data != settings.data_dir:
            state = data.parent / ".genaiops"
            program = "genaiops"
            exports = f"export GENAIOPS_DATA_DIR={shlex.quote(str(data))} GENAIOPS_STATE_DIR={shlex.quote(str(state))}"
    with started_project(data) if own or into else contextlib.nullcontext():
        added = add(data, kind, name)
    _describe(added, program, exports, state / "artifacts" / "experiments" / name)


def _program(project: str | None) -> str:
    return f"genaiops --project {project}" if project else "genaiops"


def _data_dir(into: Path) -> Path:
    """The data directory DIR stands for: itself, or the folder ``data`` of a project."""
    into = into.expanduser().resolve()
    return into if (into / "models.yaml").is_file() else into / "data"


def _remove(name: str, into: Path | None, force: bool) -> None:
    from pipelines.blueprints.adding import remove

    data = _data_dir(into) if into else open_settings().data_dir
    gone = remove(data, name, force=force)
    click.echo(
        f"{name} is taken out of {data}: {len(gone)} files. What is in the database stays until it is erased or retired."
    )


def _describe(added: "Added", program: str, exports: str, reports: Path) -> None:
    blueprint = added.blueprint
    click.echo(f"{added.name} was made from {blueprint.kind} ({blueprint.title}) in {added.data_dir}:")
    documents = [file for file in added.files if file.startswith("corpus/")]
    if documents:
        click.echo(f"  corpus/{added.name}/  ({len(documents)} documents)")
    for file in added.files:
        if file not in documents:
            click.echo(f"  {file}")
    for file, entries in added.entries.items():
        click.echo(f"  {file}: {', '.join(entry.partition('.')[2] for entry in entries)} added")
    for index in added.covers:
        click.secho(f"Index {index} covers all sources, so it will hold these documents, too.", fg="yellow")
    click.echo("\nNext:")
    commands: list[tuple[str, Any]] = [(exports, "")] if exports else []
    if blueprint.has_documents:
        commands.append((f"{program} refresh {added.name}", "read, split, embed and publish its documents"))
    commands.append((f"{program} evaluate {added.name}", "score its variants and recommend one"))
    commands.append((f"{program} status", "the recommendation in words"))
    if blueprint.ask:
        commands.append((f'{program} ask --experiment {added.name} "{blueprint.ask}"', "ask its champion"))
    for command, what in commands:
        click.echo(f"  {command}" + (f"   # {what}" if what else ""))
    click.echo(f"The leaderboard is in the UI ({program} dev) and, as a page, in {reports}/")
    for sentence in blueprint.next:
        click.echo(sentence.replace("__name__", added.name))
    click.echo(f"Take it out again: {program} new --remove {added.name}")


COMMANDS = (new,)
