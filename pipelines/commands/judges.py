"""Commands: judges.

Belongs here: arguments, help texts, printing. Does not belong here: what the commands do; each calls a plain module.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from pipelines.commands.support import known_names, open_platform, open_settings

_MEASURES = ("kappa", "auc", "spearman", "bias")


@click.group()
def judges() -> None:
    """Models that score answers, and how far they agree with people.

    \b
    genaiops judges list                    the judges, whether they may decide, and why not
    genaiops judges import begin FROM TO    bring labels of people to the form judges are compared with
    genaiops judges calibrate NAME          ask a judge what people were asked, and compare
    """


def _states(platform: Any) -> list[dict[str, Any]]:
    from assets.evaluation.judging.calibrating import fingerprint_of, standing
    from resources.errors import PermanentError

    found = []
    for name, judge in platform.config.judges.items():
        state: dict[str, Any] = {
            "judge": name, "measures": judge.measures, "metric": judge.metric, "model": judge.model,
            "experiments": [one.name for one in platform.config.experiments.values() if name in one.judges],
        }  # fmt: skip
        try:
            key = fingerprint_of(judge, platform.models)
        except PermanentError as error:  # a key that is not set on this machine
            found.append({**state, "may_decide": False, "why": str(error), "agreement": None})
            continue
        with platform.database.connect() as connection:
            stands = standing(connection, platform.config, judge, key)
        found.append({**state, "may_decide": stands.calibrated, "why": stands.why, "agreement": stands.measures})
    return found


@judges.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_judges(as_json: bool) -> None:
    """The judges of data/judges, how far each agrees with people, and whether anything may rest on it."""
    platform = open_platform()
    found = _states(platform)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if not found:
        click.echo(
            f"No judge is configured: {platform.config.data_dir / 'judges'} has an example, docs/judges.md the rest."
        )
    for one in found:
        who = one["model"] or "offline estimator"
        may = "may decide" if one["may_decide"] else "informs only"
        click.echo(f"{one['judge']}  {one['metric']}  {one['measures']} by {who}  [{may}]")
        click.echo(f"    {one['why']}")
        if one["agreement"]:
            click.echo(f"    {_agreement(one['agreement'])}")
        if one["experiments"]:
            click.echo(f"    scores {', '.join(one['experiments'])}")


def _agreement(measures: Mapping[str, Any]) -> str:
    known = [f"{name} {_shown(measures[name])}" for name in _MEASURES if measures[name]]
    return f"{', '.join(known)} on {measures['n']} labelled answers"


def _shown(estimate: Mapping[str, Any]) -> str:
    if estimate["low"] is None:
        return f"{estimate['estimate']:.3f}"
    return f"{estimate['estimate']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


@judges.command("import")
@click.argument("kind", type=click.Choice(["begin", "ragchecker"]))
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
def import_judged(kind: str, source: Path, target: Path) -> None:
    """Write labels of people as TARGET (JSONL), from SOURCE: a folder with examples.jsonl, or that file.

    begin: answers that a passage does or does not say (groundedness). ragchecker: which of two answers people prefer.
    """
    from assets.evaluation.judging.labels import import_labels

    done = import_labels(kind, source, target)
    left = f", {done.skipped} without a label left out" if done.skipped else ""
    click.echo(f"{done.items} labelled items written to {target}{left}")


@judges.command()
@click.argument("name")
def calibrate(name: str) -> None:
    """Compare the judge NAME with people, as a run of Dagster; what it was asked before is not asked again.

    Exits 1 when it does not agree as far as its file asks for: then it may inform, and decides nothing.
    """
    from pipelines.demo import run_tasks
    from pipelines.jobs import JUDGE_JOB
    from pipelines.runner import Task

    platform = open_platform()
    known_names("judge", (name,), list(platform.config.judges))
    from assets.evaluation.judging.calibrating import judge_configured

    judge_configured(platform.config, name)
    done = run_tasks(open_settings(), [Task(JUDGE_JOB, name, f"judge {name}")])
    state = next(one for one in _states(platform) if one["judge"] == name)
    _print(state)
    if not done or not state["may_decide"]:
        raise click.exceptions.Exit(1)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _print(state: Mapping[str, Any]) -> None:
    measures = state["agreement"]
    if measures is None:
        click.echo(state["why"])
        return
    click.secho(f"{state['judge']}: {'may decide' if state['may_decide'] else 'informs only'}", bold=True)
    click.echo(f"  {measures['n']} items in {measures['groups']} groups; {measures['undefined']} undefined, "
               f"{sum(measures['failed'].values())} without a usable verdict")  # fmt: skip
    for measure in (*_MEASURES, "accuracy"):
        click.echo(f"  {measure:9} {_shown(measures[measure]) if measures[measure] else 'undefined'}")
    if measures["threshold"] is not None and not measures["pairs"]:
        click.echo(f"  threshold {measures['threshold']:.3f} (chosen on the groups an item is not in)")
    for label, one in measures["by_class"].items():
        click.echo(
            f"  people say {label}: {one['n']}, right on {one['right']:.1%}"
            if one["n"]
            else f"  people say {label}: none"
        )
    for what, key in (("order", "swap"), ("draw", "draws")):
        if measures[key]:
            click.echo(f"  changed by {what}: {_shown(measures[key])} of the verdicts, {measures[key]['n']} items")
    if measures["ceiling"]:
        two = measures["ceiling"]
        click.echo(f"  two people agree on {two['same']:.1%} of {two['items']} items, kappa {_number(two['kappa'])}, "
                   f"rank correlation {_number(two['spearman'])}")  # fmt: skip
    click.echo(f"  {state['why']}")


@judges.command()
@click.argument("name", required=False)
def retry(name: str | None) -> None:
    """Ask the judge NAME, or all, again about trials it was given up on; the next evaluation does it."""
    from assets.experiments.verdicts import try_again

    platform = open_platform()
    if name:
        known_names("judge", (name,), list(platform.config.judges))
    with platform.database.connect() as connection:
        count = try_again(connection, name)
    click.echo(f"{count} trials will be judged again: genaiops evaluate" if count else "No judge failed on any trial.")


COMMANDS = (judges,)
