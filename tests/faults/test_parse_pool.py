"""Parser processes that crash, loop, eat memory or are killed: it costs one document, and none outlives its parent."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from assets.corpus.failures import KilledParse, ParseLimits
from assets.corpus.parse_pool import Outcome, ParsePool, Task
from resources.errors import TransientError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def pool() -> Iterator[ParsePool]:
    made = ParsePool("tests.bad_parsers:handle", size=1)
    yield made
    made.close()
    _gone(made.process_ids)


def _run(pool: ParsePool, document: str, seconds: float = 20.0, memory: int = 512 << 20, **options: Any) -> Any:
    return pool.submit(Task({}, document.encode(), ParseLimits(seconds, memory), **options)).result(60)


def _text(outcome: Outcome) -> str:
    assert isinstance(outcome, dict), outcome
    return outcome["text"]


def _process(outcome: Outcome) -> int:
    assert isinstance(outcome, dict), outcome
    return outcome["pid"]


def _gone(process_ids: list[int], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while any(_alive(pid) for pid in process_ids):
        assert time.monotonic() < deadline, "a parser process is still alive"
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("document", "code", "words"),
    [
        ("segfault", "crashed", "SIGSEGV"),
        ("abort", "crashed", "SIGABRT"),
        ("exit", "crashed", "status 3"),
        ("loop", "timeout", "0.5 seconds"),
        ("native-loop", "timeout", "0.5 seconds"),
        ("grow", "memory", "512 MiB"),
        ("allocate", "memory", "512 MiB"),
        ("rust-abort", "memory", "512 MiB"),
    ],
)
def test_whatever_a_document_does_costs_that_document_alone(
    pool: ParsePool, document: str, code: str, words: str
) -> None:
    seconds = 0.5 if "loop" in document else 20.0
    futures = [
        pool.submit(Task({}, text.encode(), ParseLimits(seconds, 512 << 20)))
        for text in ("echo before", document, "echo after")
    ]
    before, outcome, after = (future.result(60) for future in futures)
    assert isinstance(outcome, KilledParse)
    assert (outcome.code, outcome.transient) == (code, False)
    assert words in outcome.reason
    assert (_text(before), _text(after)) == ("before", "after")
    assert len(pool.process_ids) == 1


def test_limits_that_were_met_are_told(pool: ParsePool) -> None:
    assert _run(pool, "loop", seconds=0.3).limit == {"timeout_seconds": 0.3}
    assert _run(pool, "grow", memory=300 << 20).limit == {"memory_bytes": 300 << 20}
    assert _run(pool, "segfault").limit == {}


def test_a_time_limit_does_not_count_the_start_of_a_process(pool: ParsePool) -> None:
    assert _run(pool, "echo x", seconds=0.2)["text"] == "x"


def test_a_kill_from_outside_is_tried_again_and_said_to_be_transient(pool: ParsePool, tmp_path: Path) -> None:
    outcome = _run(pool, "killed")
    assert (outcome.code, outcome.transient) == ("crashed", True)
    assert _run(pool, f"killed-once {tmp_path / 'mark'}")["text"]


def test_a_document_is_not_blamed_for_what_an_earlier_one_broke(pool: ParsePool) -> None:
    first = _run(pool, "echo x")
    assert _run(pool, "second-crash")["pid"] != first["pid"]


def test_an_exception_keeps_the_process_and_does_not_quote_the_document(pool: ParsePool) -> None:
    first = _run(pool, "echo x")
    outcome = _run(pool, "raise SECRET")
    assert outcome["failed"] == ["parse_failed", "the parser failed with ValueError"]
    assert _run(pool, "recurse")["failed"] == ["damaged", "nested too deeply"]
    assert _run(pool, "echo x")["pid"] == first["pid"]


def test_what_a_parser_prints_is_seen_nowhere(pool: ParsePool, capfd: pytest.CaptureFixture[str]) -> None:
    assert _run(pool, "chatter x")["text"] == "x"
    seen = capfd.readouterr()
    assert "SECRET" not in seen.out + seen.err


def test_large_documents_and_answers_pass(pool: ParsePool) -> None:
    assert len(_run(pool, "flood")["text"]) == 50_000_000
    assert _run(pool, "echo " + "y" * 20_000_000)["text"] == "y" * 20_000_000


def test_a_process_gets_no_secrets_unless_it_is_trusted(pool: ParsePool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENAIOPS_DATABASE_URL", "postgresql://user:secret@host/db")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    plain, trusted = _run(pool, "echo x"), _run(pool, "echo x", trusting=True)
    assert not {"GENAIOPS_DATABASE_URL", "OPENAI_API_KEY", "HOME"} & set(plain["environment"])
    assert "OPENAI_API_KEY" in trusted["environment"]
    assert _run(pool, "echo x")["pid"] != trusted["pid"]


def test_no_process_runs_before_there_is_work_nor_long_after_it() -> None:
    pool = ParsePool("tests.bad_parsers:handle", size=2, idle_seconds=0.3)
    assert pool.process_ids == []
    assert _run(pool, "echo x")["text"] == "x"
    _gone(pool.process_ids)
    deadline = time.monotonic() + 5
    while pool.process_ids and time.monotonic() < deadline:
        time.sleep(0.02)
    assert pool.process_ids == []
    assert _run(pool, "echo again")["text"] == "again"
    pool.close()


def test_more_work_is_spread_over_processes_and_a_little_is_not() -> None:
    pool = ParsePool("tests.bad_parsers:handle", size=2)
    few = [pool.submit(Task({}, b"sleep 0.05")) for _ in range(3)]
    assert len({_process(future.result(60)) for future in few}) == 1
    many = [pool.submit(Task({}, b"sleep 0.05")) for _ in range(60)]
    assert len({_process(future.result(60)) for future in many}) == 2
    pool.close()


def test_results_belong_to_their_documents_whatever_finishes_first() -> None:
    pool = ParsePool("tests.bad_parsers:handle", size=2)
    futures = [pool.submit(Task({}, f"echo {number}".encode())) for number in range(300)]
    assert [_text(future.result(60)) for future in futures] == [str(number) for number in range(300)]
    pool.close()


def test_closing_ends_processes_and_fails_what_waits() -> None:
    pool = ParsePool("tests.bad_parsers:handle", size=1)
    futures = [pool.submit(Task({}, b"sleep 30")) for _ in range(2)]
    while not pool.process_ids:
        time.sleep(0.02)
    ids = pool.process_ids
    pool.close()
    for future in futures:
        with pytest.raises(TransientError):
            future.result(30)
    _gone(ids)
    with pytest.raises(TransientError):
        pool.submit(Task({}, b"echo x"))


def test_a_process_that_cannot_start_is_the_trouble_of_this_machine() -> None:
    pool = ParsePool("tests.no_such_module:handle", size=1)
    with pytest.raises(TransientError, match="could be started"):
        _run(pool, "echo x")
    pool.close()


PARENT = """
import sys, threading, time
from assets.corpus.failures import ParseLimits
from assets.corpus.parse_pool import Outcome, ParsePool, Task
pool = ParsePool("tests.bad_parsers:handle", size=2)
for _ in range(40):
    pool.submit(Task({}, b"%s", ParseLimits(600, 1 << 30)))
while len(pool.process_ids) < 2:
    time.sleep(0.02)
time.sleep(0.5)
print(*pool.process_ids, flush=True)
%s
"""


@pytest.mark.parametrize("document", ["loop", "native-loop"])
@pytest.mark.parametrize("ending", ["time.sleep(600)", "sys.exit(0)"], ids=["killed", "exits"])
def test_no_process_outlives_its_parent(document: str, ending: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT % (document, ending)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    ids = [int(word) for word in parent.stdout.readline().split()]
    assert len(ids) == 2
    if "sleep" in ending:
        assert all(_alive(pid) for pid in ids)
        parent.send_signal(signal.SIGKILL)
    parent.wait(30)
    _gone(ids)


def test_a_pool_works_from_a_thread_that_ends(pool: ParsePool) -> None:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(_run(pool, "echo x")))
    thread.start()
    thread.join()
    assert _run(pool, "echo y")["pid"] == results[0]["pid"]  # it did not end with the thread that asked


SPAWNED = textwrap.dedent(
    """
    import multiprocessing, sys
    from assets.corpus.parse_pool import Task, shared_pool
    from assets.corpus.parsing import format_of, request
    from resources.source_config import FolderSource

    def step(queue):
        form, source = format_of("a.html"), FolderSource(name="docs", path="docs")
        outcome = shared_pool().submit(Task(request(form, source), b"<p>words</p>")).result(60)
        queue.put(outcome["document"]["text"])

    if __name__ == "__main__":
        context = multiprocessing.get_context(sys.argv[1])
        queue = context.Queue()
        process = context.Process(target=step, args=(queue,), daemon=sys.argv[2] == "daemon")
        process.start()
        print(queue.get(timeout=60))
        process.join()
    """
)


@pytest.mark.parametrize(
    ("method", "daemon"), [("forkserver", "no"), ("spawn", "no"), ("fork", "no"), ("spawn", "daemon")]
)
def test_a_pool_works_inside_of_child_processes(tmp_path: Path, method: str, daemon: str) -> None:
    script = tmp_path / "main.py"
    script.write_text(SPAWNED)
    done = subprocess.run(
        [sys.executable, str(script), method, daemon],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.stdout.strip() == "words", done.stderr
