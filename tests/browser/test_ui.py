"""A person's path in the Dagster UI: open it, materialize a source, see checks, metadata and the published snapshot."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium")
CHROMIUM_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)"),
]


@pytest.fixture
def ui(make_data_dir: Callable[..., Path], tmp_path: Path, database_url: str) -> Iterator[str]:
    """Address of a running UI with daemon, on a small data directory."""
    data = make_data_dir()
    (tmp_path / "docs" / "brakes.md").write_text("# Brakes\n\nThe brake pads last about 3,000 km.\n", encoding="utf-8")
    (tmp_path / "docs" / "empty.md").write_text("", encoding="utf-8")
    (tmp_path / "docs" / "chain.md").write_text("# Chain\n\nOil the chain every 250 km.\n", encoding="utf-8")
    for number in range(8):
        (tmp_path / "docs" / f"part-{number}.md").write_text(
            f"# Part {number}\n\nPart {number} weighs {number + 3} kg.\n", encoding="utf-8"
        )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "GENAIOPS_DATA_DIR": str(data),
        "GENAIOPS_STATE_DIR": str(tmp_path / "state"),
        "GENAIOPS_DATABASE_URL": database_url,
    }
    log = (tmp_path / "dev.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "dev", "--port", str(port)],
        cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(
            lambda: urllib.request.urlopen(f"{address}/server_info", timeout=2).status == 200, "the webserver", process
        )
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def page() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        page.set_default_timeout(90_000)
        yield page
        browser.close()


def test_person_materializes_a_source_and_sees_checks_and_metadata(ui: str, page: Any) -> None:
    page.goto(f"{ui}/assets/raw_documents?view=overview", wait_until="domcontentloaded")
    page.get_by_role("button", name="Materialize").first.click()
    page.get_by_role("button", name="All", exact=True).click()
    page.get_by_role("button", name="Launch", exact=False).last.click()

    def succeeded() -> bool:
        page.goto(f"{ui}/assets/search_index?view=checks", wait_until="domcontentloaded")
        page.wait_for_timeout(3000)
        return page.get_by_text("Succeeded").count() >= 4

    _wait(succeeded, "the checks of search_index")
    page.get_by_text("recall_at_10").first.click()
    page.get_by_text("blocking", exact=False).first.wait_for()

    page.goto(f"{ui}/assets/raw_documents?view=events", wait_until="domcontentloaded")
    page.get_by_text("quarantined").first.wait_for()
    assert page.get_by_text("empty.md").count() >= 1, "the quarantined file is not shown"
    page.goto(f"{ui}/assets/search_index?view=events", wait_until="domcontentloaded")
    page.get_by_text("snapshots").first.wait_for()


def _wait(ready: Callable[[], bool], what: str, process: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process is None or process.poll() is None, (
            f"{what}: the process ended with {process.returncode if process else None}"
        )
        try:
            if ready():
                return
        except OSError:
            pass  # not listening yet
        time.sleep(1)
    raise AssertionError(f"{what}: not there after 240 s")
