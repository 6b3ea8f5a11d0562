"""Commands: versions of prompts and their labels.

Belongs here: arguments, help texts, printing. Does not belong here: what the commands do (resources/prompt_labels.py).
"""

from typing import TYPE_CHECKING, Any

import click

from pipelines.commands.support import open_platform, user_name

if TYPE_CHECKING:
    from resources.prompt_labels import PromptVersion

_NO_CHANGE = "Who answers stays as it is: that is the champion of each experiment (genaiops promote)."


@click.group()
def prompts() -> None:
    """Versions of prompts: what was tried, why, how it did, and which one has which label.

    \b
    PROMPT is a name (concise: its newest version), a version (concise@3) or a label (concise@production).
    """


def _found(connection: Any, reference: str) -> "PromptVersion":
    from resources.prompt_config import split_reference
    from resources.prompt_labels import find_version

    name, version = split_reference(reference)
    return find_version(connection, name, version)


def _mean(value: float | None) -> str:
    return "no value" if value is None else f"{value:.3f}"


@prompts.command("list")
@click.argument("name", required=False)
def list_prompts(name: str | None) -> None:
    """The versions on record, newest first, of the prompt NAME or of all."""
    from resources.prompt_labels import prompt_names, versions

    with open_platform().database.connect() as connection:
        names = [name] if name else prompt_names(connection)
        found = [version for one in names for version in versions(connection, one)]
    if not found:
        click.echo(
            "No prompt is on record yet: an experiment records those it runs, `genaiops prompts save` one without."
        )
    for version in found:
        labels = f"  [{', '.join(version.labels)}]" if version.labels else ""
        best = max(version.results, key=lambda one: one["mean"] if one["mean"] is not None else -1, default=None)
        measured = f"  {best['metric']} {_mean(best['mean'])} ({best['experiment']})" if best else ""
        why = f"  {version.rationale}" if version.rationale else ""
        click.echo(f"{version.name}@{version.version}  {version.created_at:%Y-%m-%d %H:%M}{labels}{measured}{why}")


@prompts.command()
@click.argument("prompt")
def show(prompt: str) -> None:
    """One version with its text, parameters, reason, results and labels."""
    import yaml

    from resources.prompt_labels import label_moves

    with open_platform().database.connect() as connection:
        version = _found(connection, prompt)
        moves = label_moves(connection, version.name)
    click.secho(f"{version.name}@{version.version}", bold=True)
    click.echo(f"fingerprint  {version.fingerprint}")
    click.echo(f"on record    {version.created_at:%Y-%m-%d %H:%M} by {version.author or version.run_id}")
    click.echo(f"reason       {version.rationale or '(none given)'}")
    click.echo(f"labels       {', '.join(version.labels) or '(none)'}")
    for one in version.results:
        click.echo(
            f"measured     {one['metric']} {_mean(one['mean'])} over {one['questions']} questions: {one['variant']}, "
            f"result {one['result']} of {one['experiment']}"
        )
    for move in moves:
        if move.version == version.version:
            verb = "put" if move.kind == "set" else "back by rollback"
            click.echo(f"label        {move.label} {verb} {move.set_at:%Y-%m-%d %H:%M} by {move.set_by}: {move.reason}")
    click.echo()
    if version.prompt is None:
        click.echo(
            "Its text cannot be shown: it held examples of an erased document, or another version of the code wrote it."
        )
    else:
        click.echo(
            yaml.safe_dump(version.prompt.model_dump(mode="json"), sort_keys=False, allow_unicode=True), nl=False
        )


@prompts.command()
@click.argument("before")
@click.argument("after")
def diff(before: str, after: str) -> None:
    """What changed between two versions, part by part."""
    from resources.prompt_labels import difference

    with open_platform().database.connect() as connection:
        old, new = _found(connection, before), _found(connection, after)
    text = difference(old, new)
    click.echo(text or f"{old.name}@{old.version} and {new.name}@{new.version} do not differ.")


@prompts.command()
@click.argument("name")
@click.argument("version", type=click.IntRange(min=1))
@click.argument("label")
@click.option("--reason", required=True, help="Why; kept for the audit.")
def label(name: str, version: int, label: str, reason: str) -> None:
    """Let LABEL name VERSION of the prompt NAME from now on."""
    from resources.prompt_labels import set_label

    with open_platform().database.connect() as connection:
        moved = set_label(connection, name, label, version, by=user_name(), reason=reason)
    if moved is None:
        click.echo(f"{label} names {name}@{version} already.")
    else:
        click.echo(f"{label} names {name}@{version} now. {_NO_CHANGE}")


@prompts.command()
@click.argument("name")
@click.argument("label")
@click.option("--reason", required=True, help="Why; kept for the audit.")
def rollback(name: str, label: str, reason: str) -> None:
    """Let LABEL of the prompt NAME name the version it named before."""
    from resources.prompt_labels import roll_back

    with open_platform().database.connect() as connection:
        moved = roll_back(connection, name, label, by=user_name(), reason=reason)
    click.echo(f"{label} names {name}@{moved.version} again. {_NO_CHANGE}")


@prompts.command()
@click.argument("name")
@click.option("--rationale", required=True, help="Why this version exists; kept with it.")
@click.option("--author", help="Who wrote it; you by default.")
def save(name: str, rationale: str, author: str | None) -> None:
    """Put the present content of prompts/NAME.yaml on record, with the reason for it."""
    from pipelines.commands.support import known_names
    from resources.prompt_labels import save as save_prompt

    platform = open_platform()
    known_names("prompt", (name,), list(platform.config.prompts))
    with platform.database.connect() as connection:
        version = save_prompt(
            connection, platform.config.prompts[name], rationale=rationale, author=author or user_name()
        )
    click.echo(f"saved as {name}@{version}")


COMMANDS = (prompts,)
