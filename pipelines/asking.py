"""Asking: one question answered by the champion, logged, and shown with its provenance.

Belongs here: choosing the variant and printing. Does not belong here: retrieval and generation (resources/answerer.py).
"""

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resources.errors import PermanentError
from resources.platform import Platform

if TYPE_CHECKING:
    from resources.answerer import Answer, Variant


@dataclass(frozen=True)
class Reply:
    """An answer with what an auditor asks for."""

    interaction: str
    question: str
    answer: "Answer"
    variant: "Variant"
    variant_reason: str

    @property
    def read(self) -> Any:
        """What a task's answer was read as: {label, probabilities}, the fields, or its text; None: unreadable."""
        from resources.task_output import read_fields, read_label

        task = self.variant.task
        if task is None:
            return None
        if task.kind == "classification":
            found = read_label(self.answer.text, task.labels)
            return found and {"label": found[0], "probabilities": found[1]}
        if task.kind == "extraction":
            return read_fields(self.answer.text, task.fields)
        return self.answer.text

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON-able values."""
        return {
            "interaction": self.interaction,
            "question": self.question,
            "answer": self.answer.text,
            "refused": self.answer.refused,
            "citations": [
                {
                    "number": citation.number,
                    "document": f"{citation.source}/{citation.path}",
                    "start": citation.start,
                    "end": citation.end,
                    "page": citation.page,
                    "document_id": citation.document_id,
                    "version_id": citation.version_id,
                }
                for citation in self.answer.citations
            ],
            "passages": [hit.to_json() for hit in self.answer.hits],
            "supplied": self.answer.supplied,
            "index": self.variant.index,
            "snapshot": self.answer.snapshot,
            "variant": self.variant.name,
            "variant_fingerprint": self.variant.fingerprint,
            "why_this_variant": self.variant_reason,
            "generation": self.answer.generation,
            "steps": list(self.answer.steps),
            "retrieval": self.answer.retrieval,
            **({"task": self.variant.task.kind, "read": self.read} if self.variant.task is not None else {}),
            "usage": self.answer.usage.to_json(),
            "retrieval_seconds": self.answer.retrieval_latency,
            "generation_seconds": self.answer.generation_latency,
        }


def answer_question(
    platform: Platform,
    question: str,
    *,
    experiment: str | None = None,
    variant: str | None = None,
    snapshot: int | None = None,
    sources: tuple[str, ...] = (),
    languages: tuple[str, ...] = (),
    labels: tuple[str, ...] | None = None,
) -> Reply:
    """Answer with the champion of an experiment (or the variant named) and log the interaction.

    The champion of an experiment on a task without documents is given the question as its input.

    Args:
        labels: what the caller may see beside unlabelled sources; None: everything.

    Raises:
        PermanentError: no such experiment or variant, an empty question, or a task without documents is asked to
            answer from some of them.
        SnapshotNotFoundError: nothing is published, or the snapshot is not retained.
    """
    from assets.experiments.champion import answering_champion
    from assets.experiments.variants import expand
    from resources.answerer import Answerer
    from resources.interaction_log import log_interaction
    from resources.vector_index import SearchFilter, VectorIndex

    if not question.strip():
        raise PermanentError("the question is empty")
    config, models = platform.config, platform.models
    if not config.experiments:
        raise PermanentError(
            f"{config.data_dir}/experiments holds no experiment, so no variant is configured to answer"
        )
    experiment = experiment or next(iter(config.experiments))
    if experiment not in config.experiments:
        raise PermanentError(f"there is no experiment {experiment!r}; there are: {', '.join(config.experiments)}")
    if variant:
        with platform.database.connect() as connection:
            variants = expand(config, models, config.experiments[experiment], connection)
        by_name = {item.name: item for item in variants}
        if variant not in by_name:
            near = difflib.get_close_matches(variant, by_name, n=1)
            hint = f". Did you mean {near[0]!r}?" if near else ""
            raise PermanentError(
                f"there is no variant {variant!r} in {experiment}; there are: {', '.join(by_name)}{hint}"
            )
        chosen, reason = by_name[variant], "asked for on the command line"
    else:
        with platform.database.connect() as connection:
            champion = answering_champion(connection, config, models, config.experiments[experiment])
        chosen, reason = champion.variant, champion.reason
        snapshot = champion.snapshot if snapshot is None else snapshot
    if chosen.task is not None and (sources or languages or snapshot is not None):
        raise PermanentError(
            f"{chosen.name} of {experiment} is for {chosen.task.kind} and has no documents; leave snapshot, sources and "
            "languages out"
        )
    answerer = Answerer(platform.database, config, models, VectorIndex(platform.database, config, models))
    filters = SearchFilter(sources=sources or None, languages=languages or None, labels=labels)
    answer = answerer.answer(chosen, question, snapshot=snapshot, filters=filters, run_id="cli:ask")
    identity = log_interaction(
        platform.database, answer=answer, variant=chosen, question=question, reason=reason, filters=filters
    )
    return Reply(str(identity), question, answer, chosen, reason)


def describe(reply: Reply) -> None:
    """Print an answer for a person."""
    import click

    answer = reply.answer
    click.secho(answer.text, bold=True)
    task = reply.variant.task
    if task is not None:
        _describe_read(reply)
        click.secho(
            f"\n{reply.variant.name}, {task.kind} without documents; chosen: {reply.variant_reason}; "
            f"{1000 * answer.generation_latency:.0f} ms; interaction {reply.interaction}",
            dim=True,
        )
        return
    titles = {(hit.document_id, hit.start): hit for hit in answer.hits}
    for citation in answer.citations:
        hit = titles.get((citation.document_id, citation.start))
        headings = " > ".join(hit.heading_path) if hit else ""
        page = f" page {citation.page}" if citation.page is not None else ""
        click.echo(
            f"  [{citation.number}] {citation.source}/{citation.path}{page} [{citation.start}:{citation.end}]  {headings}"
        )
    click.secho(
        f"\n{reply.variant.name}, {reply.variant.index} snapshot {answer.snapshot}; chosen: {reply.variant_reason}; "
        f"{1000 * (answer.retrieval_latency + answer.generation_latency):.0f} ms; interaction {reply.interaction}",
        dim=True,
    )


def _describe_read(reply: Reply) -> None:
    """Print how an answer with a form was read."""
    import click

    task, read = reply.variant.task, reply.read
    assert task is not None
    if task.kind not in ("classification", "extraction"):
        return
    if read is None:
        wanted = f"one of {', '.join(task.labels)}" if task.labels else f"an object with {', '.join(task.fields)}"
        click.secho(f"  cannot be read: it is not {wanted}", fg="red")
    elif task.kind == "classification":
        sure = "" if read["probabilities"] is None else f" ({read['probabilities'][read['label']]:.0%})"
        click.echo(f"  read as: {read['label']}{sure}")
    else:
        for name, value in read.items():
            click.echo(f"  {name}: {'-' if value is None else value}")
