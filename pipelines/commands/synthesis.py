"""Commands: synthetic questions and their review.

Belongs here: arguments, help texts, printing. Does not belong here: what the commands do; each calls a plain module.
"""

import json
from pathlib import Path
from typing import Any

import click

from pipelines.commands.support import known_names, open_platform, open_settings, user_name


@click.group()
def questions() -> None:
    """Questions made from the documents: make, review, accept.

    \b
    genaiops questions generate DATASET     make drafts (the header needs a `synthetic` block)
    genaiops questions review DATASET       accept, edit or reject them, one after the other
    genaiops questions accept DATASET       write what was accepted to the dataset's file
    """


def _opened(name: str) -> Any:
    platform = open_platform()
    known_names("dataset", (name,), list(platform.config.datasets))
    return platform


@questions.command("generate")
@click.argument("name", metavar="DATASET")
def questions_generate(name: str) -> None:
    """Make drafts for DATASET until each kind has as many as its header asks for; a killed run goes on where it was.

    Offline by rules, unless `writer` names a model; then no more than `budget` is spent.
    """
    from assets.evaluation.synthesis.generating import synthesis_of
    from pipelines.demo import run_tasks
    from pipelines.jobs import SYNTHESIS_JOB
    from pipelines.runner import Task

    platform = _opened(name)
    synthesis_of(platform.config, name)
    done = run_tasks(open_settings(), [Task(SYNTHESIS_JOB, name, f"questions of {name}")])
    _print_report(platform, name)
    if not done:
        raise click.exceptions.Exit(1)


@questions.command("report")
@click.argument("name", metavar="DATASET")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def questions_report(name: str, as_json: bool) -> None:
    """Show what became of the drafts of DATASET: by filter, and acceptance by type and generator with 95 % intervals."""
    platform = _opened(name)
    if as_json:
        click.echo(json.dumps(_report(platform, name), indent=2))
        return
    _print_report(platform, name)


def _report(platform: Any, name: str) -> dict[str, Any]:
    from assets.evaluation.synthesis.generating import Generated, recipe_of, summarise, synthesis_of
    from assets.evaluation.synthesis.review import acceptance, too_few_accepted

    config = platform.config
    recipe = recipe_of(config, name, platform.models)
    work = Generated(name, recipe, {str(kind): count for kind, count in synthesis_of(config, name).wanted.items()})
    with platform.database.connect() as connection:
        summarise(connection, work)
        found = acceptance(connection, name, recipe)
    return {
        "dataset": name,
        "recipe": recipe,
        "wanted": work.wanted,
        "delivered": work.delivered,
        "states": work.states,
        "filters": work.filters,
        "generators": work.generators,
        "acceptance": [one.to_json() for one in [*found.rows, found.total]],
        "waiting": found.waiting,
        "problem": too_few_accepted(config, name, found),
    }


def _print_report(platform: Any, name: str) -> None:
    report = _report(platform, name)
    passed = ", ".join(
        f"{report['delivered'].get(kind, 0)} of {count} {kind}" for kind, count in report["wanted"].items()
    )
    click.echo(f"{name}: drafts that passed the filters: {passed}")
    for row in report["generators"]:
        click.echo(
            f"  {row['type']:<13} {row['generator']:<24} {row['passed']:>5} passed, {row['filtered out']:>5} filtered out, "
            f"{row['in review']:>4} in review"
        )
    click.echo("Filters, in their order:")
    for row in report["filters"]:
        click.echo(f"  {row['filter']:<13} refused {row['rejected']:>5} of {row['reached']:>5} ({row['share']:.1%})")
    click.echo(f"Review: {report['waiting']} wait for a person.")
    for row in report["acceptance"]:
        if row["reviewed"]:
            click.echo(
                f"  {row['type']:<13} {row['generator']:<24} {row['accepted']} accepted, {row['edited']} edited, "
                f"{row['rejected']} rejected: {row['acceptance']:.0%} as made ({row['low']:.0%} to {row['high']:.0%})"
            )
    if report["problem"]:
        click.secho(f"{report['problem']}: nothing more is made or written.", fg="yellow")


@questions.command("review")
@click.argument("name", metavar="DATASET")
@click.option("--all", "everything", is_flag=True, help="Also drafts that were not drawn for review.")
def questions_review(name: str, everything: bool) -> None:
    """Decide about the drafts of DATASET that wait: y accept, n reject, e edit, s skip, q stop.

    Every decision is kept at once, with who and when.
    """
    from assets.evaluation.synthesis.review import decide, to_review
    from resources.errors import PermanentError

    platform = _opened(name)
    with platform.database.connect() as connection:
        drafts = to_review(connection, name, everything=everything)
    decided = 0
    for number, draft in enumerate(drafts, start=1):
        _show(draft, f"{number} of {len(drafts)}")
        while True:
            said = click.prompt(
                "Accept?", type=click.Choice(["y", "n", "e", "s", "q"], case_sensitive=False), show_choices=True
            ).lower()
            if said in ("s", "q"):
                break
            question = answer = reason = None
            if said == "e":
                question = click.prompt("Question", default=draft.line["question"])
                if draft.line["answer"] is not None:
                    answer = click.prompt("Answer", default=draft.line["answer"])
            elif said == "n":
                reason = click.prompt("Why (may be empty)", default="", show_default=False)
            try:
                decision: Any = {"y": "accept", "n": "reject", "e": "edit"}[said]
                decide(
                    platform,
                    name,
                    draft.draft_id,
                    decision,
                    by=user_name(),
                    reason=reason,
                    question=question,
                    answer=answer,
                )
            except PermanentError as error:
                click.secho(str(error), fg="red", err=True)
                continue
            decided += 1
            break
        if said == "q":
            break
    click.echo(f"{decided} of {len(drafts)} decided. Write what was accepted: genaiops questions accept {name}")


def _show(draft: Any, place: str) -> None:
    click.secho(f"\n[{place}] {draft.kind}, made by {draft.generator}", bold=True)
    click.echo(f"  Question: {draft.line['question']}")
    click.echo(f"  Answer:   {draft.line['answer'] or '(the documents do not tell)'}")
    for piece in draft.line["evidence"]:
        click.echo(f"  Evidence: {piece['quote']}\n            {piece['document']}")
    if not draft.line["evidence"]:
        click.echo(f"  Made from: {', '.join(draft.line['provenance']['documents'])}")


@questions.command("export")
@click.argument("name", metavar="DATASET")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Instead of the project's review folder.")
@click.option("--all", "everything", is_flag=True, help="Also drafts that were not drawn for review.")
def questions_export(name: str, out: Path | None, everything: bool) -> None:
    """Write the drafts of DATASET that wait as JSON lines, for review in another tool.

    Fill in `decision` (accept, edit, reject), `reason` and `reviewer`; for edit change `question` or `answer`. An erasure
    cleans the file in the project's folder; one written with --out is yours to clean.
    """
    from assets.evaluation.synthesis.review import export_review

    path, count = export_review(_opened(name), name, out, everything=everything)
    click.echo(f"{count} drafts written to {path}")


@questions.command("import")
@click.argument("name", metavar="DATASET")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def questions_import(name: str, file: Path) -> None:
    """Record the decisions in FILE about drafts of DATASET; all of them, or none if a line is wrong."""
    from assets.evaluation.synthesis.review import import_review

    done = import_review(_opened(name), name, file, by=user_name())
    click.echo(
        f"{done.accepted} accepted, {done.edited} edited, {done.rejected} rejected; {done.undecided} lines without a decision."
    )


@questions.command("accept")
@click.argument("name", metavar="DATASET")
@click.option("--dry-run", is_flag=True, help="Only say what would be written.")
def questions_accept(name: str, dry_run: bool) -> None:
    """Write the accepted drafts of DATASET to its synthetic file; nothing else does.

    They are scored once the dataset was built again: genaiops evaluate
    """
    from assets.evaluation.synthesis.review import accept_into_file

    done = accept_into_file(_opened(name), name, dry_run=dry_run)
    would = "would be" if dry_run else "were"
    unreviewed = f", {done.unreviewed} of them reviewed by nobody" if done.unreviewed else ""
    click.echo(f"{done.added} questions {would} added to {done.path}{unreviewed}; {done.present} were there already.")
    if done.stale:
        click.echo(f"Left out, because their documents have changed: {', '.join(done.stale)}")
    if done.held_back:
        click.echo(
            f"{done.held_back} that nobody reviewed wait until those drawn for review are: genaiops questions review {name}"
        )


COMMANDS = (questions,)
