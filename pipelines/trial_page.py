"""A trial on the command line, readable.

Belongs here: how the record of a trial is shown. Does not belong here: reading it (assets/experiments/records.py).
"""

import textwrap
from typing import Any

import click

from assets.experiments.records import FullRecord

_WIDTH = 110


def line(found: FullRecord) -> str:
    """A trial in one line."""
    quality = found.scores.get("genaiops.answer_quality/1", {}).get("value")
    said = found.error or ("refused" if found.refused else "answered")
    return f"{found.variant['name']}  {found.state}, {said}" + ("" if quality is None else f", quality {quality:.3f}")


def describe(found: FullRecord) -> None:
    """Print everything about a trial."""
    question = found.question
    click.secho(f"{found.variant['name']} on {question['id']}", bold=True)
    click.echo(f"trial {found.trial}, {found.state}, {found.tries} tries, {found.created_at}, run {found.run_id}")
    if found.error:
        click.secho(f"failed: {found.error}, {found.attempts} attempts", fg="red")
    if found.given_up_at:
        click.secho(f"given up at {found.given_up_at}: genaiops trials retry {found.experiment}", fg="red")
    _head("Question")
    _text(question["text"] or "(this version of the dataset is no longer kept)")
    if question["text"]:
        _text(f"answer: {question['answer'] or 'none'}; split {question['split']}")
        for span in question["gold"]:
            _text(f"evidence: document {span['document_id']}, characters {span['start']} to {span['end']}")
    _head("Retrieved")
    for number, hit in enumerate(found.retrieved, 1):
        ranks = ", ".join(
            f"{name} {hit[key]}" for name, key in (("vector", "vector_rank"), ("words", "text_rank")) if hit.get(key)
        )
        click.echo(
            f"  [{number}] {hit['source']}/{hit['path']}, version {hit['version_id']}, characters {hit['start']} to "
            f"{hit['end']}, score {hit['score']:.4f}{f' ({ranks})' if ranks else ''}"
        )
    _head("Supplied to the prompt")
    for one in found.supplied:
        click.echo(f"  [{one['number']}] characters {one['start']} to {one['end']}")
    for place, call in enumerate(found.calls, 1):
        _head(f"Prompt {place} of {len(found.calls)}" if len(found.calls) > 1 else "Prompt")
        if not call.get("messages"):
            _text("(this call is no longer kept)")
            continue
        for message in call["messages"]:
            click.secho(f"  {message['role']}:", dim=True)
            _text(message["content"], indent=4)
        if place < len(found.calls):
            click.secho("  said:", dim=True)
            _text(call["text"], indent=4)
    _head("Answer")
    _text(found.answer or "none")
    if found.citations:
        _text("cites " + ", ".join(f"[{one['number']}] {one['source']}/{one['path']}" for one in found.citations))
    for metric, verdicts in found.claims.items():
        _head(f"Verdicts of {metric}")
        if verdicts.get("error"):
            _text(f"no usable verdict: {verdicts['error']}, {verdicts['attempts']} attempts")
        for item in verdicts["items"]:
            passages = ", ".join(f"[{number}]" for number in item.get("passages", ()))
            _text(f"{item['verdict']} {passages}: {item['words'] or item['of']}")
    _head("Scores")
    defined = {metric: one["value"] for metric, one in found.scores.items() if one["value"] is not None}
    for metric, value in defined.items():
        click.echo(f"  {metric:42} {value:.4f}")
    if len(defined) < len(found.scores):
        click.echo(f"  {len(found.scores) - len(defined)} metrics have no value here")
    _head("Cost and versions")
    usage, latency = found.usage, found.latency
    if usage:
        _text(
            f"{usage.get('input_tokens')} tokens in, {usage.get('output_tokens')} out, {usage.get('cost')} {usage.get('currency')}"
        )
    _text(f"retrieval {_seconds(latency['retrieval'])}, generation {_seconds(latency['generation'])}")
    _facts(found.versions | {"seeds": found.seeds, "results": found.results}, leave={"metrics"})


def _facts(facts: dict[str, Any], leave: set[str]) -> None:
    for name, value in facts.items():
        if name in leave:
            continue
        shown = ", ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, dict) else str(value)
        _text(f"{name}: {shown}")


def _head(title: str) -> None:
    click.secho(f"\n{title}", bold=True)


def _text(text: str, indent: int = 2) -> None:
    pad = " " * indent
    for part in text.splitlines() or [""]:
        click.echo(textwrap.fill(part, _WIDTH, initial_indent=pad, subsequent_indent=pad) or "")


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f} s"
