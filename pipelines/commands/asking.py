"""Commands: asking and searching.

Belongs here: arguments, help texts, printing. Does not belong here: what the commands do; each calls a plain module.
"""

import json

import click

from pipelines.commands.support import caller_labels, known_names, open_platform


@click.command()
@click.argument("question")
@click.option("--experiment", help="Whose champion answers; by default the first experiment.")
@click.option("--variant", help="Answer with this variant of the experiment instead of its champion.")
@click.option("--snapshot", type=int, help="Answer from this retained snapshot instead of the serving one.")
@click.option("--source", multiple=True, help="Only from this source; may be repeated.")
@click.option("--language", multiple=True, help="Only from documents in this language; may be repeated.")
@click.option("--label", multiple=True, help="As a caller with this label sees it; may be repeated.")
@click.option("--public", is_flag=True, help="As a caller without any label sees it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: answer, citations, passages, versions.")
def ask(
    question: str,
    experiment: str | None,
    variant: str | None,
    snapshot: int | None,
    source: tuple[str, ...],
    language: tuple[str, ...],
    label: tuple[str, ...],
    public: bool,
    as_json: bool,
) -> None:
    """Answer QUESTION from the published index, with citations.

    Of an experiment on a task without documents (a label, a summary, a translation, fields) QUESTION is the input.

    The interaction is logged: it feeds the drift report, and an auditor can trace it.
    """
    from pipelines.asking import answer_question, describe

    platform = open_platform()
    known_names("source", source, platform.config.source_names)
    known_names("experiment", (experiment,) if experiment else (), list(platform.config.experiments))
    reply = answer_question(
        platform,
        question,
        experiment=experiment,
        variant=variant,
        snapshot=snapshot,
        sources=source,
        languages=language,
        labels=caller_labels(platform.config, label, public),
    )
    if as_json:
        click.echo(json.dumps(reply.to_json(), indent=2, ensure_ascii=False))
    else:
        describe(reply)


@click.command()
@click.argument("question")
@click.option("--index", help="Index to search; by default the first one.")
@click.option(
    "--mode",
    type=click.Choice(["hybrid", "vector", "full_text"]),
    default="hybrid",
    show_default=True,
    help="Both rankings fused, or one of them.",
)
@click.option("-k", default=5, show_default=True, help="How many chunks.")
@click.option("--snapshot", type=int, help="A retained snapshot; by default the serving one.")
@click.option("--source", multiple=True, help="Only from this source; may be repeated.")
@click.option("--label", multiple=True, help="As a caller with this label sees it; may be repeated.")
@click.option("--public", is_flag=True, help="As a caller without any label sees it.")
def search(
    question: str,
    index: str | None,
    mode: str,
    k: int,
    snapshot: int | None,
    source: tuple[str, ...],
    label: tuple[str, ...],
    public: bool,
) -> None:
    """Show what an index finds for QUESTION: ranks, scores and where each chunk stands."""
    from resources.vector_index import SearchFilter, VectorIndex

    platform = open_platform()
    index = index or next(iter(platform.config.indexes))
    known_names("index", (index,), list(platform.config.indexes))
    known_names("source", source, platform.config.source_names)
    result = VectorIndex(platform.database, platform.config, platform.models).search(
        index,
        question,
        mode=mode,  # type: ignore[arg-type]
        k=k,
        snapshot=snapshot,
        filters=SearchFilter(sources=source or None, labels=caller_labels(platform.config, label, public)),
    )
    click.echo(f"{index}, snapshot {result.snapshot}, {mode}, {1000 * result.latency:.1f} ms")
    for hit in result.hits:
        headings = " > ".join(hit.heading_path)
        ranks = f"vector {hit.vector_rank or '-'}, text {hit.text_rank or '-'}"
        page = f" page {hit.page}" if hit.page is not None else ""
        click.secho(f"\n{hit.rank}. {hit.source}/{hit.path}{page} [{hit.start}:{hit.end}]  {headings}", bold=True)
        click.echo(f"   score {hit.score:.4f} ({ranks})")
        click.echo("   " + " ".join(hit.text.split())[:300])


@click.command()
@click.argument("index")
@click.option("--dataset", required=True, help="Evaluation dataset whose questions are searched for.")
@click.option(
    "--split", type=click.Choice(["train", "dev"]), default="dev", show_default=True, help="Which of its questions."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def tune(index: str, dataset: str, split: str, as_json: bool) -> None:
    """Recommend the weights of hybrid search for INDEX, measured on a dataset. Nothing is changed."""
    from assets.experiments.tuning import describe, tune_fusion

    platform = open_platform()
    known_names("index", (index,), list(platform.config.indexes))
    known_names("dataset", (dataset,), list(platform.config.datasets))
    found = tune_fusion(platform, index, dataset, split)  # type: ignore[arg-type]
    click.echo(json.dumps(found.to_json(), indent=2) if as_json else describe(found))


COMMANDS = (
    ask,
    search,
    tune,
)
