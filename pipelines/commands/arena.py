"""Command: the arena.

Belongs here: arguments, help texts, printing, exit status. Does not belong here: the comparison (pipelines/arena.py).
"""

import sys
from pathlib import Path

import click

from pipelines.commands.support import open_settings
from resources.errors import GenaiopsError

#: Not 1, which says that there is a regression.
NOT_EVALUATED = 2
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option("--base", required=True, metavar="REF", help="Branch, tag or commit to compare with, e.g. origin/main.")
@click.option("--experiment", "experiments", metavar="NAME", multiple=True, help="Only this one; may be repeated.")
@click.option(
    "--margin",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.02,
    show_default=True,
    help="Largest loss of the decision metric that is taken for none.",
)
@click.option(
    "--strict", is_flag=True, help="Exit 1 too when it is not shown that the loss is smaller than the margin."
)
@click.option("--out", type=_FILE, help="Write the report as Markdown, for a pull request.")
@click.option("--json", "as_json", type=_FILE, help="Write the report as JSON.")
@click.pass_context
def arena(
    context: click.Context,
    base: str,
    experiments: tuple[str, ...],
    margin: float,
    strict: bool,
    out: Path | None,
    as_json: Path | None,
) -> None:
    """Compare the prompts, indexes and models of the work tree with those of a base, before they are merged.

    Evaluates what the base answers with against what the work tree would answer with, on the documents and questions of the
    work tree, in a state of its own (.genaiops/arena). The work tree and production are only read.

    Exit status: 0 no significant regression, or nothing to compare; 1 a regression, or a guard or blocking check failed;
    2 not evaluated.
    """
    import json
    import traceback

    try:
        from assets.experiments.arena_report import summary
        from pipelines.arena import run_arena

        outcome = run_arena(
            open_settings(),
            base,
            experiments=experiments,
            margin=margin,
            strict=strict,
            progress=lambda line: click.echo(line, err=True),
        )
        for path, text in (
            (out, outcome.markdown),
            (as_json, json.dumps(outcome.report, indent=2, sort_keys=True) + "\n"),
        ):
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
        click.echo("\n".join(summary(outcome.report)))
        status = outcome.exit_code
    except GenaiopsError as error:
        click.secho(f"error: {error}", fg="red", err=True)
        status = NOT_EVALUATED
    except (Exception, KeyboardInterrupt):  # whatever went wrong, the change was not judged
        traceback.print_exc(file=sys.stderr)
        status = NOT_EVALUATED
    context.exit(status)


COMMANDS = (arena,)
