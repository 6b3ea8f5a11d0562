"""Server: the Dagster UI and daemon on this project's state.

Belongs here: starting and stopping Dagster's processes. Does not belong here: what they load (definitions.py).
"""

import os
import signal
import subprocess
import sys

import click

from pipelines.settings import CHECKOUT, Settings, prepare_home


def serve(settings: Settings, *, host: str, port: int) -> int:
    """Run webserver and daemon until interrupted; return their exit code."""
    from dataclasses import replace

    from pipelines.instance import opened_instance

    settings = replace(settings, ui_url=f"http://{host}:{port}")
    environment = {**os.environ, **prepare_home(settings)}
    command = [
        sys.executable,
        "-m",
        "dagster",
        "dev",
        "-w",
        str(CHECKOUT / "workspace.yaml"),
        "-h",
        host,
        "-p",
        str(port),
    ]
    click.echo(f"Dagster UI: {settings.ui_url}   (Ctrl-C stops it; state in {settings.state_dir})")
    with opened_instance(settings) as (_, abandoned):
        pass
    if abandoned:
        click.echo(f"{len(abandoned)} run(s) of a killed process were reported as failed; they are retried.")
    # A shell that starts jobs with "&" has SIGINT ignored, and an ignored signal would be inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, cwd=CHECKOUT, env=environment)
    signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGTERM))
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # the terminal sent it to the children too; wait for them to end cleanly
