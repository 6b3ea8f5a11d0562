"""The preview on the command line: what a refresh would compute and cost, before it does.

Belongs here: how the figures are shown. Does not belong here: the figures (assets/chunks/spending.py).
"""

from collections.abc import Sequence

import click

from assets.chunks.spending import Item, Preview


def describe(previews: Sequence[Preview], files: str) -> None:
    """Print one table per source, and totals.

    Args:
        files: where limits are set, named where money would be spent.
    """
    for found in previews:
        if not found.revision:
            click.secho(f"{found.source}: no documents were read yet; materialize raw_documents first", fg="yellow")
            continue
        click.secho(f"\n{found.source}, revision {found.revision}", bold=True)
        click.echo(
            f"  {found.documents} documents ({found.texts} distinct texts), {found.chunks} chunks, "
            f"{found.chunks_to_make} of them to cut"
        )
        width = max((len(item.what) for item in found.items), default=0)
        click.echo(f"  {'':{width}}    needed    cached   to make     calls      tokens       money    time")
        for item in found.items:
            click.echo(f"  {item.what:{width}}  {_figures(item)}")
    read = [found for found in previews if found.revision]
    if not read:
        return
    money: dict[str, float] = {}
    for found in read:
        for currency, amount in found.money.items():
            money[currency] = money.get(currency, 0.0) + amount
    spent = ", ".join(f"{amount:.4f} {currency}" for currency, amount in sorted(money.items())) or "no money"
    calls, tokens = sum(found.calls for found in read), sum(found.tokens for found in read)
    click.secho(
        f"\nIn all {calls} calls, at most {tokens} tokens and {spent}, about {_minutes(sum(found.seconds for found in read))}.",
        bold=True,
    )
    if any(item.calls and item.rate == "stated" for found in read for item in found.items):
        click.echo("Times of calls are assumed until some were made; tokens are counted by us, not by the provider.")
    if calls:
        click.echo(f"Calls that fail and are repeated come on top. {files} sets a limit.")


def _figures(item: Item) -> str:
    money = f"{item.money:.4f} {item.currency}" if item.money else "-"
    return (
        f"{item.needed:>8}  {item.cached:>8}  {item.to_make:>8}  {item.calls or '-':>8}  "
        f"{item.input_tokens + item.output_tokens if item.calls else '-':>10}  {money:>10}  {_minutes(item.seconds):>6}"
    )


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 6 else f"{seconds:.1f} s"
