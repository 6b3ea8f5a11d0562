"""The command line ``genaiops``.

Belongs here: arguments, help texts, printing. Does not belong here: what the commands do; each calls a plain module.
Heavy imports stand inside the commands so that ``genaiops --help`` is instant.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from resources.errors import GenaiopsError

Command = TypeVar("Command", bound=Callable[..., Any])


class Group(click.Group):
    """Prints the project's own errors as one clear message instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; exit 1 with the message of a known error."""
        try:
            return super().invoke(ctx)
        except GenaiopsError as error:
            message = str(error)
        except OSError as error:
            from resources.disk import disk_full, is_full

            if not is_full(error):
                raise
            message = str(disk_full(error))
        click.secho(f"error: {message}", fg="red", err=True)
        return ctx.exit(1)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--project",
    metavar="NAME",
    envvar="GENAIOPS_PROJECT",
    help="Work on a project made by `genaiops demo --source DIR` instead of the checkout's data/.",
)
@click.version_option(package_name="genaiops")
def main(project: str | None) -> None:
    """Operate generative AI over your own documents, as Dagster assets.

    \b
    First steps
      genaiops demo                 run the whole lifecycle on data/ and print a report
      genaiops ask "question"       answer from the published index, with citations
      genaiops dev                  open the Dagster UI on the same state
      genaiops demo --source DIR    the same for a folder of your own

    State (embedded PostgreSQL, Dagster's home, reports) lives in .genaiops/; configuration in data/.
    """
    if project:
        os.environ["GENAIOPS_PROJECT"] = project


def _settings() -> Any:
    from pipelines.settings import load_settings

    return load_settings()


def _platform() -> Any:
    return _settings().platform()


def _config(settings: Any) -> Any:
    from resources.config import load_config

    return load_config(settings.data_dir)


def _labels(config: Any, named: tuple[str, ...], public: bool) -> tuple[str, ...] | None:
    """What the caller may see: None without restriction, as operators and evaluation search."""
    if public and named:
        raise click.UsageError("give either --public or --label")
    _known("label", named, sorted({source.label for source in config.sources.values() if source.label}))
    return named or (() if public else None)


def _user() -> str:
    import getpass

    return f"{getpass.getuser()} (cli)"


@main.command()
@click.option(
    "--source",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of your own documents; it becomes a project of its own beside the sample.",
)
@click.option("--name", help="Name of that project; by default the folder's name.")
@click.option(
    "--questions",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Your own questions (JSONL) for --source.",
)
def demo(source: Path | None, name: str | None, questions: Path | None) -> None:
    """Run the whole lifecycle and print a report.

    Documents are parsed, chunked, embedded and published as a snapshot; the evaluation set is resolved; every
    prompt variant is scored; drift is reported. All of it runs through Dagster and is visible later in the UI.
    A second run does only what changed.
    """
    from pipelines import demo as lifecycle

    settings = _settings()
    if source:
        settings = lifecycle.own_project(settings, source, name=name, questions=questions)
    sys.exit(0 if lifecycle.run_demo(settings) else 1)


@main.command()
@click.option("--port", default=3000, show_default=True, help="Port of the UI.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The UI has no login: keep it on loopback or behind a proxy that has one.",
)
def dev(port: int, host: str) -> None:
    """Open the Dagster UI: webserver and daemon, with schedules and sensors on."""
    from pipelines.server import serve

    sys.exit(serve(_settings(), host=host, port=port))


@main.command()
@click.argument("sources", nargs=-1)
def refresh(sources: tuple[str, ...]) -> None:
    """Refresh SOURCES (default: all): list, parse, chunk, embed, check, publish.

    Exits 1 when a run failed or a blocking check kept a snapshot from being published.
    """
    from pipelines.demo import run_tasks
    from pipelines.runner import refresh_tasks

    settings = _settings()
    config = _config(settings)
    _known("source", sources, [*config.source_names, *config.sources])
    sys.exit(0 if run_tasks(settings, refresh_tasks(config.expand_sources(sources or config.source_names))) else 1)


@main.command()
@click.argument("experiments", nargs=-1)
def evaluate(experiments: tuple[str, ...]) -> None:
    """Resolve the evaluation sets and score the variants of EXPERIMENTS (default: all)."""
    from pipelines.demo import run_tasks
    from pipelines.runner import evaluation_tasks

    settings = _settings()
    config = _config(settings)
    _known("experiment", experiments, list(config.experiments))
    sys.exit(0 if run_tasks(settings, evaluation_tasks(config, list(experiments) or list(config.experiments))) else 1)


@main.command()
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

    The interaction is logged: it feeds the drift report, and an auditor can trace it.
    """
    from pipelines.asking import answer_question, describe

    platform = _platform()
    _known("source", source, platform.config.source_names)
    _known("experiment", (experiment,) if experiment else (), list(platform.config.experiments))
    reply = answer_question(
        platform,
        question,
        experiment=experiment,
        variant=variant,
        snapshot=snapshot,
        sources=source,
        languages=language,
        labels=_labels(platform.config, label, public),
    )
    if as_json:
        click.echo(json.dumps(reply.to_json(), indent=2, ensure_ascii=False))
    else:
        describe(reply)


@main.command()
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

    platform = _platform()
    index = index or next(iter(platform.config.indexes))
    _known("index", (index,), list(platform.config.indexes))
    _known("source", source, platform.config.source_names)
    result = VectorIndex(platform.database, platform.config, platform.models).search(
        index,
        question,
        mode=mode,  # type: ignore[arg-type]
        k=k,
        snapshot=snapshot,
        filters=SearchFilter(sources=source or None, labels=_labels(platform.config, label, public)),
    )
    click.echo(f"{index}, snapshot {result.snapshot}, {mode}, {1000 * result.latency:.1f} ms")
    for hit in result.hits:
        headings = " > ".join(hit.heading_path)
        ranks = f"vector {hit.vector_rank or '-'}, text {hit.text_rank or '-'}"
        page = f" page {hit.page}" if hit.page is not None else ""
        click.secho(f"\n{hit.rank}. {hit.source}/{hit.path}{page} [{hit.start}:{hit.end}]  {headings}", bold=True)
        click.echo(f"   score {hit.score:.4f} ({ranks})")
        click.echo("   " + " ".join(hit.text.split())[:300])


@main.command()
@click.argument("index")
@click.option("--dataset", required=True, help="Evaluation dataset whose questions are searched for.")
@click.option(
    "--split", type=click.Choice(["train", "dev"]), default="dev", show_default=True, help="Which of its questions."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def tune(index: str, dataset: str, split: str, as_json: bool) -> None:
    """Recommend the weights of hybrid search for INDEX, measured on a dataset. Nothing is changed."""
    from assets.experiments.tuning import describe, tune_fusion

    platform = _platform()
    _known("index", (index,), list(platform.config.indexes))
    _known("dataset", (dataset,), list(platform.config.datasets))
    found = tune_fusion(platform, index, dataset, split)  # type: ignore[arg-type]
    click.echo(json.dumps(found.to_json(), indent=2) if as_json else describe(found))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool) -> None:
    """Show what is loaded, published, serving, recommended and failing."""
    from pipelines.status import collect, describe

    report = collect(_platform())
    if as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False, default=str))
    else:
        describe(report)


@main.command()
def validate() -> None:
    """Check every file under the data directory; say what is wrong and how to mend it."""
    platform = _platform()
    config = platform.config
    click.echo(
        f"{config.data_dir}: {len(config.source_names)} sources, {len(config.indexes)} indexes, {len(config.prompts)} prompts, "
        f"{len(config.datasets)} evaluation datasets, {len(config.experiments)} experiments. All valid."
    )


@main.command()
@click.argument("sources", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def preview(sources: tuple[str, ...], as_json: bool) -> None:
    """Show what a refresh of SOURCES (default: all) would compute and cost, before it does.

    Chunks to cut, values of enrichment steps and vectors to make, how many are cached, calls to models, tokens, money
    and minutes. Nothing is written or sent. It speaks of the documents that were read last.
    """
    from assets.chunks.spending import preview as plan
    from pipelines.previewing import describe

    platform = _platform()
    config = platform.config
    _known("source", sources, [*config.source_names, *config.sources])
    previews = [plan(platform, part) for part in config.expand_sources(sources or config.source_names)]
    if as_json:
        click.echo(json.dumps([found.to_json() for found in previews], indent=2, ensure_ascii=False))
    else:
        describe(previews, str(config.data_dir / "policies" / "enrichment.yaml"))


@main.group()
def enrichment() -> None:
    """Values that are added to chunks for searching."""


@enrichment.command("retry")
@click.argument("source")
def enrichment_retry(source: str) -> None:
    """Ask again about the chunks of SOURCE for which a model gave no usable value, at its next refresh."""
    from assets.index.dead_letters import retry_given_up

    platform = _platform()
    _known("source", (source,), [*platform.config.source_names, *platform.config.sources])
    count = sum(retry_given_up(platform, part) for part in platform.config.expand_sources([source]))
    click.echo(
        f"{count} values will be asked for again by `genaiops refresh {source}`." if count else "Nothing was given up."
    )


@main.command()
@click.argument("index")
def snapshots(index: str) -> None:
    """List the retained snapshots of INDEX: any of them can be searched, evaluated or rolled back to."""
    from resources.vector_index import VectorIndex

    platform = _platform()
    _known("index", (index,), list(platform.config.indexes))
    for item in VectorIndex(platform.database, platform.config, platform.models).snapshots(index):
        marks = [
            mark for mark, on in (("serving", item.is_serving), ("head", item.is_head), ("pinned", item.pinned)) if on
        ]
        sources = ", ".join(f"{name} r{revision}" for name, revision in item.sources.items())
        click.echo(
            f"{item.snapshot:>5}  {item.published_at:%Y-%m-%d %H:%M:%S}  {item.counts.get('documents', '?'):>6} documents  "
            f"{item.counts.get('chunks', '?'):>7} chunks  {sources}  {' '.join(marks)}"
        )


@main.command()
@click.argument("index")
@click.option("--to", type=int, help="Snapshot to serve; by default the one before the serving one.")
@click.option("--reason", required=True, help="Why; kept for the audit.")
def rollback(index: str, to: int | None, reason: str) -> None:
    """Serve an earlier snapshot of INDEX, at once.

    The index is held there: refreshes go on publishing, but readers stay until `genaiops forward INDEX`.
    """
    from assets.index.publishing import rollback as move

    platform = _platform()
    _known("index", (index,), list(platform.config.indexes))
    serving = move(platform.database, index, to=to, by=_user(), reason=reason)
    click.echo(f"{index} now serves snapshot {serving} and is held there; `genaiops forward {index}` ends the hold.")


@main.command()
@click.argument("index")
def forward(index: str) -> None:
    """End a rollback: serve the newest published snapshot of INDEX again."""
    from assets.index.publishing import roll_forward

    platform = _platform()
    _known("index", (index,), list(platform.config.indexes))
    click.echo(f"{index} now serves snapshot {roll_forward(platform.database, index, by=_user())}.")


@main.command()
@click.option("--document", metavar="SOURCE/PATH", help="One document.")
@click.option("--source", help="Every document of a source; with a pattern or text, only those that match.")
@click.option("--pattern", metavar="REGEX", help="Whatever fits a regular expression of PostgreSQL; (?i) ignores case.")
@click.option("--text", help="Whatever holds these words: any case, any white space between them.")
@click.option("--hide-path", is_flag=True, help="Write a hash instead of the path into the proof.")
@click.option("--show-pattern", is_flag=True, help="Write the pattern into the proof instead of a salted hash.")
@click.option(
    "--time-limit", type=float, default=60.0, show_default=True, help="Seconds a pattern may take for one table."
)
@click.option("--no-vacuum", is_flag=True, help="Leave it to autovacuum to clear the space that deleted rows had.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def forget(
    document: str | None,
    source: str | None,
    pattern: str | None,
    text: str | None,
    hide_path: bool,
    show_pattern: bool,
    time_limit: float,
    no_vacuum: bool,
    yes: bool,
) -> None:
    """Erase documents everywhere at once: every snapshot, cache, dataset, trial, interaction and file.

    This cannot be undone, and a later refresh will refuse the same documents. What would be erased is shown first. The
    proof of what was removed where is kept and printed. docs/erasure.md says what stays.
    """
    from assets.governance import erasure as erasing
    from resources.errors import ConfigError

    try:
        selector = erasing.make_selector(
            document=document, source=source, pattern=pattern, text=text, seconds=time_limit
        )
    except ConfigError as error:
        if not (document or source or pattern or text):
            raise click.UsageError(
                "give either --document SOURCE/PATH or --source NAME, --pattern or --text"
            ) from error
        raise click.UsageError(str(error)) from error
    platform = _platform()
    if not yes:
        found = erasing.preview(platform, selector)
        for name in found.documents:
            click.echo(name)
        click.echo(f"{len(found.documents)} documents" + "".join(f", {n} x {table}" for table, n in found.rows.items()))
        click.confirm("Erase this, and everything derived from it, for ever?", abort=True)
    erasure = erasing.forget(
        platform,
        document=document,
        source=source,
        pattern=pattern,
        text=text,
        by=_user(),
        hide_path=hide_path,
        show_pattern=show_pattern,
        pattern_seconds=time_limit,
        vacuum=not no_vacuum,
    )
    click.echo(json.dumps(erasure.proof, indent=2))
    if erasure.completed:
        click.secho(f"erasure {erasure.completed} had been interrupted; its files are done now", fg="yellow", err=True)
    for path in erasure.user_files:
        click.secho(f"{path} still quotes it; this file is yours, edit it by hand", fg="yellow")
    for table in erasure.not_vacuumed:
        click.secho(f"{table} is in use; its freed space is cleared by the next autovacuum", fg="yellow", err=True)


@main.group()
def quarantine() -> None:
    """Documents that were listed but may not enter, with the reason and a way back."""


@quarantine.command("list")
@click.option("--source", help="Only this source.")
def quarantine_list(source: str | None) -> None:
    """List quarantined documents."""
    from assets.corpus.quarantine import list_quarantined

    platform = _platform()
    config = platform.config
    _known("source", (source,) if source else (), [*config.source_names, *config.sources])
    with platform.database.connect() as connection:
        rows = [
            row
            for part in (config.expand_sources([source]) if source else [None])
            for row in list_quarantined(connection, part)
        ]
    for row in rows:
        why = f": {row.released_reason}" if row.released_reason else ""
        released = f"  released by {row.released_by}{why}" if row.released_by else ""
        click.echo(f"{row.source}/{row.path}  {row.code}: {row.reason}{released}")
    click.echo(f"{len(rows)} in quarantine")


@quarantine.command("release")
@click.argument("document", metavar="SOURCE/PATH")
@click.option("--why", help="The reason, kept with the decision and shown in the list.")
def quarantine_release(document: str, why: str | None) -> None:
    """Let exactly this content of a document in at the next refresh."""
    from assets.corpus.quarantine import release

    source, _, path = document.partition("/")
    platform = _platform()
    with platform.database.connect() as connection:
        release(connection, platform.config.partition_of(source, path), path, by=_user(), why=why)
    click.echo(f"{document} is released; run `genaiops refresh {source}`.")


@main.command()
@click.argument("experiment")
@click.argument("variant")
@click.option("--reason", required=True, help="Why; kept for the audit.")
def promote(experiment: str, variant: str, reason: str) -> None:
    """Make VARIANT the champion of EXPERIMENT: the one that answers.

    Refused unless persisted evidence for exactly this combination of corpus, index, prompt and model recommends it.
    """
    from assets.experiments.champion import promote as make_champion

    platform = _platform()
    _known("experiment", (experiment,), list(platform.config.experiments))
    make_champion(platform, experiment, variant, by=_user(), reason=reason)
    click.echo(f"{variant} is now the champion of {experiment}.")


@main.command()
def maintain() -> None:
    """Apply retention now: snapshots and caches nothing needs, old interactions, Dagster's event log; then audit."""
    from pipelines.demo import run_tasks
    from pipelines.runner import maintenance_tasks

    sys.exit(0 if run_tasks(_settings(), maintenance_tasks()) else 1)


@main.command("import")
@click.argument("kind", type=click.Choice(["squad2"]))
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
def import_dataset(kind: str, source: Path, target: Path) -> None:
    """Convert a public data set in SOURCE to documents and questions in TARGET."""
    from assets.evaluation.converters import convert_squad2

    counts = convert_squad2(source, target)
    click.echo(f"{kind}: " + ", ".join(f"{value} {key}" for key, value in counts.items()) + f" written to {target}")
    click.echo(f"Now: genaiops demo --source {target / 'documents'} --questions {target / 'questions.jsonl'}")


@main.command()
def stop() -> None:
    """Stop the embedded PostgreSQL; any command starts it again."""
    from resources.postgres import stop_embedded

    directory = _settings().state_dir / "postgres"
    stop_embedded(directory)
    click.echo(f"PostgreSQL in {directory} is stopped.")


def _known(what: str, names: tuple[str, ...], allowed: list[str]) -> None:
    """Refuse unknown names, naming the nearest."""
    import difflib

    for name in names:
        if name not in allowed:
            close = difflib.get_close_matches(name, allowed, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise click.UsageError(f"there is no {what} {name!r}; there are: {', '.join(allowed)}.{hint}")


if __name__ == "__main__":
    main()
