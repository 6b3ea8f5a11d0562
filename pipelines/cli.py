"""The command line ``genaiops``.

Belongs here: the command group and how errors are shown. Does not belong here: the commands (commands/).
Heavy imports stand inside the commands so that ``genaiops --help`` is instant.
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from pipelines.commands import (
    arena,
    asking,
    blueprints,
    comparing,
    datasets,
    erasing,
    experiments,
    exporting,
    indexes,
    judges,
    lifecycle,
    prompts,
    sources,
    synthesis,
)
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
      genaiops new --list           experiments to begin with

    State (embedded PostgreSQL, Dagster's home, reports) lives in .genaiops/; configuration in data/.
    """
    if project:
        os.environ["GENAIOPS_PROJECT"] = project


for _module in (
    arena,
    asking,
    blueprints,
    comparing,
    datasets,
    erasing,
    experiments,
    exporting,
    indexes,
    judges,
    lifecycle,
    prompts,
    sources,
    synthesis,
):
    for _command in _module.COMMANDS:
        main.add_command(_command)


if __name__ == "__main__":
    main()
