"""drift_report through Dagster: reference and window are the right ones, verdicts say what moved, nothing leaks."""

import base64
import json
from collections.abc import Callable
from datetime import date
from typing import Any

import dagster as dg
import numpy as np
import pytest

from assets.monitoring.assets import build_assets
from assets.monitoring.documents import choose_snapshots
from assets.monitoring.interactions import trailing_window
from resources.platform import Platform
from tests.seeded_corpus import DIMENSIONS, SeededCorpus

DAY = "2026-02-20"
QUIZ: dict[str, Any] = {
    "evaluation/quiz.yaml": {"name": "quiz", "questions": "quiz.jsonl", "sources": ["docs"]},
    "evaluation/quiz.jsonl": "",
    "policies/drift.yaml": {"permutations": 99},
}
WORDS = [
    "the", "belt", "brake", "wheel", "saddle", "chain", "battery", "lamp", "frame", "of", "a", "bike", "is", "held", "by",
]  # fmt: skip
ASKED = ["how do i replace the belt of my bike", "what does the battery weigh", "where is the serial number"]
FOREIGN = ["kubernetes pod keeps restarting after the upgrade", "how to drain a kubernetes node of every pod"]


@pytest.fixture
def platform(make_platform: Callable[..., Platform]) -> Platform:
    return make_platform(**QUIZ)


@pytest.fixture
def corpus(platform: Platform) -> SeededCorpus:
    return SeededCorpus(platform)


def vectors(rng: np.random.Generator, size: int, axis: int = 0) -> np.ndarray:
    """Unit vectors scattered around one axis."""
    scattered = rng.normal(size=(size, DIMENSIONS)) * 0.3 + np.eye(DIMENSIONS)[axis]
    return scattered / np.linalg.norm(scattered, axis=1, keepdims=True)


def handbook(corpus: SeededCorpus, rng: np.random.Generator, size: int, name: str = "page") -> list[int]:
    return [
        corpus.document("docs", f"{name}{i}.md", " ".join(rng.choice(WORDS, rng.integers(30, 60))) + ".")
        for i in range(size)
    ]


def two_snapshots(
    corpus: SeededCorpus, *, foreign: int = 0, more: int = 0, stayed: int = 40, language: str = "en"
) -> None:
    """Snapshot 1 on 1 February with ``stayed`` pages; snapshot 2 on 19 February with ``foreign`` or ``more`` pages added."""
    rng = np.random.default_rng(1)
    pages = handbook(corpus, rng, stayed)
    build = corpus.build("main")
    corpus.show(build, pages, vectors(rng, stayed))
    corpus.publish("main", build, 1, "2026-02-01")
    if foreign:
        text = "Der Kubernetes Pod startet neu, der Cluster plant jeden Pod auf einem anderen Knoten. " * 8
        added = [
            corpus.document("docs", f"foreign{i}.md", f"{text} Nummer {i}.", language=language) for i in range(foreign)
        ]
        corpus.show(build, added, vectors(rng, foreign, axis=3), start=2)
    if more:
        corpus.show(build, handbook(corpus, rng, more, "more"), vectors(rng, more), start=2)
    corpus.publish("main", build, 2, "2026-02-19")


def report(platform: Platform, day: str = DAY) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        build_assets(platform.config),
        resources={"platform": platform},
        instance=dg.DagsterInstance.ephemeral(),
        partition_key=day,
        raise_on_error=False,
    )


def rows(platform: Platform, day: str = DAY) -> dict[str, dict[str, Any]]:
    with platform.database.connect() as connection:
        found = connection.execute("SELECT subject, details FROM drift_result WHERE day = %s", (day,)).fetchall()
    return dict(found)


def verdicts(details: dict[str, Any]) -> dict[str, str]:
    return {signal["name"]: signal["verdict"] for signal in details["signals"]}


def checks(result: dg.ExecuteInProcessResult) -> dict[str, tuple[bool, str, bool | None]]:
    return {e.check_name: (e.passed, e.severity.value, e.blocking) for e in result.get_asset_check_evaluations()}


def test_without_any_snapshot_the_report_says_why(platform: Platform) -> None:
    result = report(platform)
    assert result.success
    details = rows(platform)
    assert details["documents:main"]["verdict"] == "not enough data"
    assert "no published snapshot" in details["documents:main"]["words"]
    assert "no version yet" in details["questions:quiz"]["words"]
    assert all(passed for passed, _, _ in checks(result).values())


def test_report_waits_for_another_run_of_the_same_day(platform: Platform) -> None:
    from concurrent.futures import ThreadPoolExecutor
    from concurrent.futures import TimeoutError as NotYet

    with ThreadPoolExecutor(1) as pool:
        with platform.database.lease(f"drift:{DAY}", "another run"):
            waiting = pool.submit(report, platform)
            with pytest.raises(NotYet):
                waiting.result(timeout=4)
            assert rows(platform) == {}
        assert waiting.result(timeout=300).success
    assert set(rows(platform)) == {"documents:main", "questions:quiz"}


def test_report_that_was_taken_over_writes_nothing(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    from assets.monitoring import report as pages

    assert report(platform).success
    page = platform.artifacts / "drift" / f"{DAY}.html"
    before = (rows(platform), page.read_bytes())
    render = pages.render_html

    def lose_lease(*arguments: Any) -> str:
        with platform.database.connect() as connection:
            connection.execute("UPDATE lease SET token = token + 1, holder = 'other'")
            connection.execute("UPDATE drift_result SET verdict = 'alert'")  # what the other run wrote
        return render(*arguments) + "<!-- late -->"

    monkeypatch.setattr(pages, "render_html", lose_lease)
    assert not report(platform).success
    assert (rows(platform), page.read_bytes()) == before
    with platform.database.connect() as connection:
        assert connection.execute("SELECT DISTINCT verdict FROM drift_result").fetchall() == [("alert",)]


def test_one_snapshot_is_not_enough(platform: Platform, corpus: SeededCorpus) -> None:
    build = corpus.build("main")
    corpus.show(build, handbook(corpus, np.random.default_rng(0), 3))
    corpus.publish("main", build, 1, "2026-02-10")
    report(platform)
    assert "has only snapshot 1 of 2026-02-10" in rows(platform)["documents:main"]["words"]


def test_nothing_published_since_the_reference_means_nothing_moved(platform: Platform, corpus: SeededCorpus) -> None:
    two_snapshots(corpus)
    report(platform, "2026-03-15")
    details = rows(platform, "2026-03-15")["documents:main"]
    assert details["verdict"] == "none"
    assert "Nothing else was served since snapshot 2" in details["words"]


def test_more_pages_of_the_same_kind_change_the_volume_alone(platform: Platform, corpus: SeededCorpus) -> None:
    two_snapshots(corpus, more=30)
    report(platform)
    found = verdicts(rows(platform)["documents:main"])
    assert found.pop("volume") == "warn"
    assert set(found.values()) == {"none"}


def test_foreign_documents_raise_an_alert_that_names_the_terms(platform: Platform, corpus: SeededCorpus) -> None:
    two_snapshots(corpus, foreign=30, language="de")
    result = report(platform)
    assert result.success, "drift is news, not damage: it must not fail the run"
    details = rows(platform)["documents:main"]
    found = verdicts(details)
    assert found["vocabulary"] == found["embedding"] == "warn"
    assert found["length"] == found["language"] == "alert"
    assert details["verdict"] == "alert"
    assert "pod" in details["words"]
    assert "share of 'de' 0% → 43%" in details["words"]
    assert checks(result) == {
        "drift_computed": (True, "ERROR", True),
        "document_drift": (False, "ERROR", False),
        "question_drift": (True, "WARN", False),
    }


def test_foreign_documents_are_seen_among_many_that_stayed(platform: Platform, corpus: SeededCorpus) -> None:
    """The trap: snapshots share most documents, so a test of all against all sees nothing until a third is foreign."""
    two_snapshots(corpus, foreign=20, stayed=100)
    report(platform)
    details = rows(platform)["documents:main"]
    assert (verdicts(details)["vocabulary"], verdicts(details)["embedding"]) == ("warn", "warn")
    assert [signal["samples"] for signal in details["signals"] if signal["name"] == "embedding"] == [[100, 20]]


def test_a_lost_third_of_the_documents_is_an_alert(platform: Platform, corpus: SeededCorpus) -> None:
    rng = np.random.default_rng(2)
    pages = handbook(corpus, rng, 60)
    build = corpus.build("main")
    corpus.show(build, pages, vectors(rng, 60))
    corpus.publish("main", build, 1, "2026-02-01")
    corpus.retire(build, pages[:20], end=2)
    corpus.publish("main", build, 2, "2026-02-19")
    report(platform)
    details = rows(platform)["documents:main"]
    assert verdicts(details)["volume"] == "alert"
    assert "60 → 40 documents (-33%)" in details["words"]


def test_another_index_configuration_is_not_compared_by_vectors(platform: Platform, corpus: SeededCorpus) -> None:
    rng = np.random.default_rng(3)
    pages = handbook(corpus, rng, 40)
    for snapshot, day in ((1, "2026-02-01"), (2, "2026-02-19")):
        build = corpus.build("main", fingerprint=f"f{snapshot}")
        corpus.show(build, pages, vectors(rng, 40))
        corpus.publish("main", build, snapshot, day)
    report(platform)
    details = rows(platform)["documents:main"]
    assert verdicts(details)["embedding"] == "not enough data"
    assert "the index configuration changed in between" in details["words"]


@pytest.mark.parametrize(
    ("day", "current", "reference"),
    [
        ("2026-02-09", 2, 1),  # the reference is at least 7 days older than the day's end
        ("2026-02-05", 2, 1),  # none is old enough: the oldest
        ("2026-02-27", 3, 2),
        ("2026-03-20", 3, 3),
    ],
)
def test_the_reference_is_the_newest_snapshot_old_enough(
    platform: Platform, corpus: SeededCorpus, day: str, current: int, reference: int
) -> None:
    build = corpus.build("main")
    for snapshot, published in ((1, "2026-02-01"), (2, "2026-02-04"), (3, "2026-02-26")):
        corpus.publish("main", build, snapshot, published)
    with platform.database.connect() as connection:
        found = choose_snapshots(connection, "main", date.fromisoformat(day), 7)
    assert found[0] is not None
    assert found[1] is not None
    assert (found[0].snapshot, found[1].snapshot) == (current, reference)


def test_while_a_rollback_holds_readers_the_report_is_about_what_they_get(
    platform: Platform, corpus: SeededCorpus
) -> None:
    build = corpus.build("main")
    for snapshot, published in ((1, "2026-02-01"), (2, "2026-02-10"), (3, "2026-02-19")):
        corpus.publish("main", build, snapshot, published)
    moves = [(0, 1, "2026-02-01"), (1, 2, "2026-02-10"), (2, 1, "2026-02-11")]  # snapshot 3 came while 1 was held
    with platform.database.connect() as connection:
        with connection.cursor() as cursor:
            cursor.executemany(
                """INSERT INTO serving_move (index_name, from_snapshot, to_snapshot, moved_by, reason, moved_at)
                   VALUES ('main', %s, %s, 'ana', 'x', %s::timestamptz + interval '12 hours')""",
                moves,
            )
        found = choose_snapshots(connection, "main", date(2026, 2, 20), 10)
    assert [snapshot and snapshot.snapshot for snapshot in found[:2]] == [1, 2]


def test_a_snapshot_whose_build_is_gone_is_no_reference(platform: Platform, corpus: SeededCorpus) -> None:
    for snapshot, state, published in ((1, "dropped", "2026-02-01"), (2, "ready", "2026-02-04")):
        corpus.publish("main", corpus.build("main", state=state), snapshot, published)
    with platform.database.connect() as connection:
        assert "has only snapshot 2" in choose_snapshots(connection, "main", date(2026, 2, 20), 7)[2]


def test_the_window_grows_backwards_until_enough_was_asked(platform: Platform, corpus: SeededCorpus) -> None:
    for day, number in (
        ("2026-02-20", 5),
        ("2026-02-18", 20),
        ("2026-02-17", 10),
        ("2026-02-10", 50),
        ("2026-02-21", 9),
    ):
        for _ in range(number):
            corpus.interaction(ASKED[0], day)
    with platform.database.connect() as connection:
        window = trailing_window(connection, date(2026, 2, 20), ["main"], minimum=30, maximum_days=28)
    assert (window.first, len(window.interactions)) == (date(2026, 2, 17), 35)


def test_too_few_questions_are_said_so(platform: Platform, corpus: SeededCorpus) -> None:
    corpus.dataset("quiz", ASKED * 20)
    corpus.interaction(ASKED[0], DAY)
    report(platform)
    assert rows(platform)["questions:quiz"]["words"].startswith("1 questions were asked in the 28 days to 2026-02-20")


def test_questions_like_those_of_the_dataset_have_not_moved(platform: Platform, corpus: SeededCorpus) -> None:
    corpus.dataset("quiz", ASKED * 20)
    for question in ASKED * 15:
        corpus.interaction(question, DAY)
    report(platform)
    details = rows(platform)["questions:quiz"]
    assert details["verdict"] == "none"
    assert verdicts(details)["refusals"] == "not enough data", "no trial of this variant: said, not guessed"


def test_foreign_questions_and_refusals_raise_an_alert(platform: Platform, corpus: SeededCorpus) -> None:
    corpus.dataset("quiz", ASKED * 20)
    for number in range(40):
        corpus.trial(f"t{number}", f"q{number:03}", {"rank": 1, "score": 0.8 + number / 1000})
        corpus.interaction(FOREIGN[number % 2], DAY, refused=number % 4 > 0, hit={"rank": 1, "score": number / 100})
    result = report(platform)
    details = rows(platform)["questions:quiz"]
    found = verdicts(details)
    assert (found["vocabulary"], found["embedding"]) == ("warn", "warn")
    assert (found["refusals"], found["retrieval_score"]) == ("alert", "alert")
    assert details["verdict"] == "alert"
    assert "kubernetes" in details["words"]
    assert checks(result)["question_drift"] == (False, "ERROR", False)


def test_the_same_inputs_give_the_same_report_and_data_version(platform: Platform, corpus: SeededCorpus) -> None:
    two_snapshots(corpus, more=5)
    seen = []
    for _ in range(2):
        (event,) = report(platform).asset_materializations_for_node("drift_report")
        assert event.tags is not None
        seen.append((event.tags["dagster/data_version"], rows(platform)["documents:main"]))
    assert seen[0] == seen[1]


def test_a_new_question_changes_the_data_version(platform: Platform, corpus: SeededCorpus) -> None:
    seen = []
    for _ in range(2):
        (event,) = report(platform).asset_materializations_for_node("drift_report")
        assert event.tags is not None
        seen.append(event.tags["dagster/data_version"])
        corpus.interaction(ASKED[0], DAY)
    assert seen[0] != seen[1]


def test_a_person_can_read_figure_and_page(platform: Platform, corpus: SeededCorpus) -> None:
    two_snapshots(corpus, foreign=30)
    (event,) = report(platform).asset_materializations_for_node("drift_report")
    picture = str(event.metadata["figure"].value).split("base64,")[1].rstrip(")")
    assert base64.b64decode(picture).startswith(b"\x89PNG")
    page = (platform.artifacts / "drift" / f"{DAY}.html").read_text(encoding="utf-8")
    assert "documents:main" in page
    assert "snapshot 2 of 2026-02-19, compared with snapshot 1 of 2026-02-01" in page
    assert page.count("src=") == page.count("src='data:image/png;base64,") == 1, "the page must be self-contained"


def test_no_sentence_of_a_document_or_question_reaches_report_or_metadata(
    platform: Platform, corpus: SeededCorpus
) -> None:
    two_snapshots(corpus, foreign=30)
    corpus.document("docs", "secret.md", "nothing")
    corpus.dataset("quiz", ASKED * 20)
    for question in FOREIGN * 20:
        corpus.interaction(question, DAY)
    result = report(platform)
    said = json.dumps(rows(platform)) + (platform.artifacts / "drift" / f"{DAY}.html").read_text(encoding="utf-8")
    said += " ".join(str(event) for event in result.all_events)
    assert "kubernetes" in said
    for sentence in ("keeps restarting", "drain a kubernetes", "replace the belt", "startet neu"):
        assert sentence not in said


def test_terms_cannot_inject_markup() -> None:
    from assets.monitoring.report import render_html

    hostile = "<script>alert(1)</script>"
    details = {
        "subject": hostile, "verdict": "none", "words": hostile, "reference": hostile, "current": hostile,
        "signals": [], "risen": [], "fallen": [], "figure": {},
    }  # fmt: skip
    assert "<script>" not in render_html(DAY, [details], {hostile: hostile})
