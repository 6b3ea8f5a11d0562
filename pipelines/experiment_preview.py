"""The preview of an experiment on the command line: what it would ask of models and cost, before it does.

Belongs here: the pilot's question, and how the figures are shown. Does not belong here: the figures
(assets/experiments/spending.py).
"""

import json
import os
from collections.abc import Sequence

import click

from assets.experiments.spending import ExperimentPreview, Item, Range, preview_experiment
from assets.experiments.spending import pilot as run_pilot
from resources.platform import Platform


def show(platform: Platform, experiments: Sequence[str], *, pilot: int | None, yes: bool, as_json: bool) -> None:
    """Print the previews of some experiments.

    Args:
        pilot: trials of each to run first; they are paid.
        yes: run them without asking.
    """
    found = []
    for name in experiments:
        if pilot:
            if not yes:
                click.confirm(f"Run {pilot} trials of {name} now? Their calls are paid.", abort=True, err=True)
            work = run_pilot(platform, name, pilot, f"pilot:{os.getpid()}")
            told = f"; stopped: {work.stopped}" if work.stopped else ""
            click.echo(f"{name}: pilot of {work.run} trials, {work.failed} failed{told}", err=True)
        found.append(preview_experiment(platform, name))
    if as_json:
        click.echo(json.dumps([one.to_json() for one in found], indent=2))
        return
    for one in found:
        describe(one)


def describe(found: ExperimentPreview) -> None:
    """Print one preview."""
    click.secho(f"\n{found.experiment}", bold=True)
    click.echo(
        f"  {found.variants} variants on {found.questions} questions: {found.trials} trials, {found.on_record} on record"
    )
    width = max((len(item.what) for item in found.items), default=0)
    click.echo(f"  {'':{width}}    needed    cached     calls        tokens         money    time")
    for item in found.items:
        tokens = (item.input_tokens + item.output_tokens).times(item.share)
        money = item.money.times(item.share)
        click.echo(
            f"  {item.what:{width}}  {item.needed:>8}  {item.cached:>8}  {_amount(item.calls * item.share.likely):>8}  "
            f"{_amount(tokens.likely):>12}  {_money(money, item.currency):>12}  {_time(item.seconds * item.share.likely):>6}"
        )
        notes = [*([item.basis] if item.basis else []), *_notes(item)]
        if notes:
            click.secho(f"  {'':{width}}  {'; '.join(notes)}", dim=True)
    tokens, minutes = found.tokens, _time(found.seconds)
    click.secho(
        f"\n  Likely {found.calls} calls, {_amount(tokens.likely)} tokens ({_amount(tokens.low)} to {_amount(tokens.high)}) "
        f"and {_spent(found)}, about {minutes}; {found.cached} calls are on record.",
        bold=True,
    )
    if found.budget is not None:
        over = sum(amount.likely for amount in found.money.values()) > found.budget
        told = "which the run would exceed: it would be refused" if over else "which is enough"
        click.secho(f"  The budget is {found.budget:.4f}, {told}.", fg="red" if over else None)
    if any(item.calls for item in found.items):
        click.echo(
            f"  Calls that fail and are repeated come on top: at worst {found.worst_tries[0]} requests for a trial in one run, "
            f"{found.worst_tries[1]} in all; then it is given up."
        )


def _notes(item: Item) -> list[str]:
    notes = [] if item.certain else ["only if a variant is recommended; counted at the high end alone"]
    if item.share.likely < 1:
        notes.append(f"the strategy is likely to ask {item.share.likely:.0%} of it, at most {item.share.high:.0%}")
    return notes


def _spent(found: ExperimentPreview) -> str:
    amounts = [
        f"{amount.likely:.4f} {currency} ({amount.low:.4f} to {amount.high:.4f})"
        for currency, amount in found.money.items()
    ]
    return ", ".join(amounts) or "no money"


def _amount(value: float) -> str:
    return f"{value:.0f}" if value else "-"


def _money(amount: Range, currency: str) -> str:
    return f"{amount.likely:.4f} {currency}" if amount.high else "-"


def _time(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 6 else f"{seconds:.1f} s"
