"""Commands: evaluation datasets, and feedback on live answers.

Belongs here: arguments, help texts, printing. Does not belong here: what the commands do; each calls a plain module.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipelines.commands.support import known_names, open_platform, user_name

_KINDS = ("squad", "beir", "excerpts", "csv")
_FORMATS = ("jsonl", "parquet", "hf", "beir")
_SPLITS = ("train", "dev", "test")
_TASKS = ("classification", "summarization", "translation", "extraction")


@click.group()
def dataset() -> None:
    """Questions that experiments are measured on: what there is, in and out, and from live use."""


@dataset.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def dataset_list(as_json: bool) -> None:
    """Show every dataset: its newest version, its questions by state and split, uses of its held-back ones."""
    from assets.evaluation.dataset import newest_version, read_dataset
    from assets.evaluation.holdout import count_uses

    platform = open_platform()
    rows: list[dict[str, Any]] = []
    with platform.database.connect() as connection:
        for name, header in platform.config.datasets.items():
            row: dict[str, Any] = {"dataset": name, "task": header.task, "version": newest_version(connection, name)}
            if row["version"] is not None:
                read = read_dataset(connection, name)
                row |= {
                    "content_hash": read.content_hash,
                    "stale": sum(item.status == "stale" for item in read.questions),
                    "unanswerable": sum(not item.answerable and item.status == "active" for item in read.questions),
                    "splits": {split: len(read.split(split)) for split in _SPLITS},
                    "held_back_uses": count_uses(connection, name, read.split("test")),
                }
            rows.append(row)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        if row["version"] is None:
            click.echo(f"{row['dataset']}: {row['task']}, never built; run `genaiops evaluate`")
            continue
        splits = ", ".join(f"{count} {split}" for split, count in row["splits"].items() if count)
        click.echo(
            f"{row['dataset']}: {row['task']}, version {row['version']}, {splits or 'no questions'}; "
            f"{row['unanswerable']} unanswerable, {row['stale']} stale; held-back questions judged "
            f"{row['held_back_uses']} choices"
        )


@dataset.command("stale")
@click.argument("name", metavar="DATASET")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def dataset_stale(name: str, as_json: bool) -> None:
    """Show the questions of DATASET whose evidence vanished, with the reason: mend or remove their lines."""
    from assets.evaluation.dataset import read_dataset

    platform = open_platform()
    known_names("dataset", (name,), list(platform.config.datasets))
    with platform.database.connect() as connection:
        read = read_dataset(connection, name)
    stale = [item for item in read.questions if item.status == "stale"]
    if as_json:
        click.echo(json.dumps([{"question": item.question_id, "reason": item.reason} for item in stale], indent=2))
        return
    for item in stale:
        click.echo(f"{item.question_id}  {item.split}  {item.reason}")
    click.echo(f"{len(stale)} of {len(read.questions)} questions of version {read.version} are stale.")


@dataset.command("uses")
@click.argument("name", metavar="DATASET")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def dataset_uses(name: str, as_json: bool) -> None:
    """Show what the held-back questions of DATASET were used for."""
    from dataclasses import asdict

    from assets.evaluation.dataset import read_dataset
    from assets.evaluation.holdout import count_uses, list_uses

    platform = open_platform()
    known_names("dataset", (name,), list(platform.config.datasets))
    with platform.database.connect() as connection:
        uses = list_uses(connection, name)
        count = count_uses(connection, name, read_dataset(connection, name).split("test"))
    if as_json:
        rows = [asdict(use) | {"used_at": use.used_at.isoformat()} for use in uses]
        click.echo(json.dumps({"uses": count, "record": rows}, indent=2))
        return
    for use in uses:
        what = f"{use.experiment}: {use.challenger[:12]} against {use.champion[:12]}" if use.challenger else "export"
        click.echo(f"{use.used_at:%Y-%m-%d %H:%M}  {use.questions} questions  {what}")
    click.echo(f"The held-back questions of today have judged {count} choices.")


@dataset.command("export")
@click.argument("name", metavar="DATASET")
@click.argument("format", type=click.Choice(_FORMATS))
@click.argument("target", type=click.Path(file_okay=False, path_type=Path))
@click.option("--version", type=int, help="A version instead of the newest.")
@click.option("--split", "splits", multiple=True, type=click.Choice(_SPLITS), help="Only this one; may be repeated.")
@click.option("--stale", is_flag=True, help="Also questions whose evidence vanished.")
def dataset_export(
    name: str, format: str, target: Path, version: int | None, splits: tuple[str, ...], stale: bool
) -> None:
    """Write DATASET to the folder TARGET: lines of ours, Parquet, a folder for `datasets`, or BEIR.

    Held-back questions among them count as used: leave them out with --split.
    """
    from assets.evaluation.exporters import export_dataset

    platform = open_platform()
    known_names("dataset", (name,), list(platform.config.datasets))
    done = export_dataset(
        platform, name, target, format,  # type: ignore[arg-type]
        version=version, splits=splits, include_stale=stale, run_id=f"cli:{os.getpid()}",
    )  # fmt: skip
    documents = f" and {done.documents} documents" if done.documents else ""
    click.echo(f"{done.questions} questions{documents} of version {done.version} written:")
    for file in done.files:
        click.echo(f"  {file}")
    if done.left_out:
        click.echo(f"{done.left_out} questions were left out: a document of their evidence has no name any more.")
    if done.held_back:
        click.echo(f"{done.held_back} held-back questions are among them; this is on record as a use.")


@dataset.command("import")
@click.argument("kind", type=click.Choice(_KINDS))
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--name", default="documents", show_default=True, help="Of the source the documents will be loaded as.")
@click.option("--language", help="squad: only this language, noted as a tag.")
@click.option("--column", "columns", multiple=True, metavar="THEIRS=OURS", help="csv: what a column means.")
@click.option(
    "--documents",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="csv: text files the quotes must stand in.",
)
@click.option(
    "--task",
    type=click.Choice(_TASKS),
    help="csv: the table has the columns input and answer, for this task without documents.",
)
@click.option("--languages", metavar="FROM:TO", help="csv with --task translation, e.g. en:de.")
def dataset_import(
    kind: str,
    source: Path,
    target: Path,
    name: str,
    language: str | None,
    columns: tuple[str, ...],
    documents: Path | None,
    task: str | None,
    languages: str | None,
) -> None:
    """Convert the data set in SOURCE to documents, questions and a header in TARGET.

    \b
    squad     the official JSON of SQuAD 1 or 2, or a folder with paragraphs.jsonl and questions.jsonl
    beir      a folder with corpus.jsonl, queries.jsonl and qrels
    excerpts  a folder with corpora and questions.jsonl (ranges of long documents)
    csv       a table of questions; with --task a table of inputs and answers, which needs no documents
    """
    from assets.evaluation.importers.beir import convert_beir
    from assets.evaluation.importers.excerpts import convert_excerpts
    from assets.evaluation.importers.inputs import convert_inputs
    from assets.evaluation.importers.squad import convert_squad
    from assets.evaluation.importers.tabular import convert_csv

    if (columns or documents) and kind != "csv":
        raise click.UsageError("--column and --documents are for csv")
    if language and kind != "squad":
        raise click.UsageError("--language is for squad")
    if task and (kind != "csv" or documents):
        raise click.UsageError("--task is for csv, without --documents")
    between = dict(zip(("from", "to"), (languages or "").split(":"), strict=False))
    if bool(languages) != (task == "translation") or (languages and len(between) < 2):
        raise click.UsageError("--languages FROM:TO goes with --task translation, and only with it")
    renamed: dict[str, str] = {}
    for column in columns:
        theirs, equals, ours = column.partition("=")
        if not equals:
            raise click.UsageError(f"--column {column}: write THEIRS=OURS, e.g. --column Frage=question")
        renamed[theirs] = ours
    convert: dict[str, Callable[[], Any]] = {
        "squad": lambda: convert_squad(source, target, name=name, language=language),
        "beir": lambda: convert_beir(source, target, name=name),
        "excerpts": lambda: convert_excerpts(source, target, name=name),
        "csv": lambda: (
            convert_inputs(source, target, name=name, task=task, columns=renamed, languages=between)  # type: ignore[arg-type]
            if task
            else convert_csv(source, target, name=name, columns=renamed, documents=documents)
        ),
    }
    report = convert[kind]()
    click.echo(f"{kind}: {report.describe()} written to {target}")
    if task:
        click.echo(
            f"To use them: put {target / 'dataset.yaml'} and {target / 'questions.jsonl'} into data/evaluation; name both files "
            "as you like."
        )
        return
    click.echo(
        f"To use them: add a source {name!r} for {target / 'documents'} to data/sources.yaml and to an index, and put\n"
        f"{target / 'dataset.yaml'} and {target / 'questions.jsonl'} into data/evaluation; name both files as you like."
    )


@dataset.command("promote")
@click.argument("interaction")
@click.argument("name", metavar="DATASET")
@click.option("--reason", required=True, help="Why; kept with the question.")
@click.option("--split", type=click.Choice(_SPLITS), default="dev", show_default=True, help="What it is asked for.")
@click.option("--question", help="Other words for it, e.g. without a name; by default as it was asked.")
@click.option("--answer", help="The right answer; by default the correction, or the answer given if rated good.")
@click.option("--unanswerable", is_flag=True, help="The documents do not tell.")
@click.option(
    "--quote",
    "quotes",
    nargs=2,
    multiple=True,
    metavar="DOCUMENT TEXT",
    help="Evidence: source/path and text copied from it; may be repeated. By default what the answer cited.",
)
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="May be repeated.")
def dataset_promote(
    interaction: str,
    name: str,
    reason: str,
    split: str,
    question: str | None,
    answer: str | None,
    unanswerable: bool,
    quotes: tuple[tuple[str, str], ...],
    tags: tuple[str, ...],
) -> None:
    """Make the live question INTERACTION (an id, or its beginning) a question of DATASET.

    One line is added to data/evaluation/DATASET.promoted.jsonl, which is read with the dataset; commit it like the
    others. Take personal data out with --question and --answer.
    """
    from assets.evaluation.feedback import promote_interaction

    platform = open_platform()
    known_names("dataset", (name,), list(platform.config.datasets))
    pairs = [tag.partition("=") for tag in tags]
    if bad := [key for key, equals, _ in pairs if not (key and equals)]:
        raise click.UsageError(f"--tag {bad[0]}: write KEY=VALUE")
    spec = promote_interaction(
        platform, interaction, name,
        by=user_name(), reason=reason, split=split, question=question, answer=answer,  # type: ignore[arg-type]
        unanswerable=unanswerable, quotes=quotes, tags={key: value for key, _, value in pairs},
    )  # fmt: skip
    click.echo(f"{spec.id} ({spec.split}) was added to {platform.config.promoted_path(name)}.")
    click.echo("It is scored once the dataset was built again: genaiops evaluate")


@click.command()
@click.argument("interaction", required=False)
@click.option("--good", "rating", flag_value=1, type=int, help="The answer is right.")
@click.option("--bad", "rating", flag_value=-1, type=int, help="It is not.")
@click.option("--comment", help="What is good or bad about it.")
@click.option("--correct", "correction", metavar="TEXT", help="What it should have been.")
@click.option("--list", "listed", is_flag=True, help="Show answers that were judged instead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def feedback(
    interaction: str | None,
    rating: int | None,
    comment: str | None,
    correction: str | None,
    listed: bool,
    as_json: bool,
) -> None:
    """Say whether the live answer INTERACTION (an id, or its beginning) was right.

    Judged answers can be made questions of a dataset: genaiops dataset promote
    """
    from dataclasses import asdict

    from assets.evaluation.feedback import judged
    from resources.interaction_log import give_feedback

    platform = open_platform()
    if listed:
        with platform.database.connect() as connection:
            names = {1: "good", -1: "bad"}
            found = judged(connection, rating=names.get(rating or 0))  # type: ignore[arg-type]
        if as_json:
            rows = [asdict(one) | {"asked_at": one.asked_at.isoformat()} for one in found]
            click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
            return
        for one in found:
            used = f"  in {', '.join(one.datasets)}" if one.datasets else ""
            corrected = ", corrected" if one.corrected else ""
            click.echo(f"{one.interaction_id}  {one.good} good, {one.bad} bad{corrected}{used}\n   {one.question}")
        click.echo(f"{len(found)} judged answers.")
        return
    if interaction is None:
        raise click.UsageError("name the interaction as `genaiops ask` printed it, or use --list")
    if rating is None and comment is None and correction is None:
        raise click.UsageError("say --good or --bad, or give --comment or --correct")
    if rating is None:
        rating = -1 if correction is not None else 0  # who corrects an answer does not find it right
    whole = give_feedback(
        platform.database, interaction, rating,  # type: ignore[arg-type]
        by=user_name(), comment=comment, correction=correction,
    )  # fmt: skip
    click.echo(f"Recorded for interaction {whole}.")


@click.command("import")
@click.argument("kind", type=click.Choice(["squad2"]))
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
def import_squad2(kind: str, source: Path, target: Path) -> None:
    """Convert a folder of SQuAD 2.0 in SOURCE to documents and questions in TARGET; see also `dataset import`."""
    from assets.evaluation.importers.squad import convert_squad

    report = convert_squad(source, target, kind=kind)
    click.echo(f"{kind}: {report.describe()} written to {target}")
    click.echo(f"Now: genaiops demo --source {target / 'documents'} --questions {target / 'questions.jsonl'}")


COMMANDS = (
    dataset,
    feedback,
    import_squad2,
)
