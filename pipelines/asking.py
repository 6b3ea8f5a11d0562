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

    Args:
        labels: what the caller may see beside unlabelled sources; None: everything.

    Raises:
        PermanentError: no such experiment or variant, or an empty question.
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
    answerer = Answerer(platform.database, config, models, VectorIndex(platform.database, config, models))
    filters = SearchFilter(sources=sources or None, languages=languages or None, labels=labels)
    answer = answerer.answer(chosen, question, snapshot=snapshot, filters=filters, run_id="cli:ask")
    identity = log_interaction(platform.database, answer=answer, variant=chosen, question=question, reason=reason)
    return Reply(str(identity), question, answer, chosen, reason)


def describe(reply: Reply) -> None:
    """Print an answer for a person."""
    import click

    answer = reply.answer
    click.secho(answer.text, bold=True)
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
