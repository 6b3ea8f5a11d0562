"""Side by side: what differs is marked, everything is escaped, and the page goes with what it shows."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from assets.experiments.compare import MAXIMUM_WORDS, mark_differences, page, write_comparison
from assets.governance.erasure import forget
from pipelines.commands import comparing
from resources.errors import PermanentError
from resources.platform import Platform
from tests.experiment_support import files, load, write_documents
from tests.lifecycle import run_experiment

GUARDED, UNGUARDED = "main/guarded/hybrid/k1/extractive", "main/unguarded/hybrid/k1/extractive"
SCRIPT = "<script>alert('drum')</script>"


def shown(segments: tuple[tuple[str, bool], ...]) -> str:
    return "".join(f"[{text}]" if marked else text for text, marked in segments)


def test_words_the_other_side_lacks_are_marked() -> None:
    first, second = mark_differences("The drum weighs 13 kilograms.", "The old drum weighs 14 kilograms.")
    assert shown(first) == "The drum weighs [13] kilograms."
    assert shown(second) == "The[ old] drum weighs [14] kilograms."


@pytest.mark.parametrize(
    ("one", "other"), [("", ""), ("same", "same"), ("", "new words"), ("a  b\n c", "a b c"), ("<b>", "</b> &")]
)
def test_marking_loses_nothing(one: str, other: str) -> None:
    first, second = mark_differences(one, other)
    assert "".join(text for text, _ in first) == one
    assert "".join(text for text, _ in second) == other
    assert any(marked for _, marked in (*first, *second)) == (one != other)


def test_very_long_answers_are_marked_as_a_whole() -> None:
    long = " ".join(str(number) for number in range(2 * MAXIMUM_WORDS))
    assert mark_differences(long, long + " end") == (((long, True),), ((long + " end", True),))
    assert mark_differences(long, long) == (((long, False),), ((long, False),))


@pytest.fixture
def platform(make_platform: Callable[..., Platform], tmp_path: Path) -> Platform:
    """The experiment has run; one question asks for something that looks like a script."""
    write_documents(tmp_path / "docs")
    world = files()
    world["evaluation/products.jsonl"] = world["evaluation/products.jsonl"].replace(
        "How many kilograms does the drum weigh?", f"How many kilograms does the drum {SCRIPT} weigh?"
    )
    platform = make_platform(**world)
    with dg.DagsterInstance.ephemeral() as instance:
        load(platform, instance)
        run_experiment(platform, "catalogue", instance)
    return platform


def rows(platform: Platform, query: str) -> list[Any]:
    with platform.database.connect() as connection:
        return connection.execute(query).fetchall()  # type: ignore[call-overload]


def test_comparison_shows_every_question_and_is_linked_from_the_leaderboard(platform: Platform) -> None:
    report = platform.artifacts / "experiments" / "catalogue" / "1.html"
    assert "<a href" not in report.read_text(encoding="utf-8")
    comparison, path = write_comparison(platform, "catalogue", UNGUARDED, GUARDED)
    ((board,),) = rows(platform, "SELECT leaderboard FROM experiment_result")
    means = {row["variant"]: row["decision"]["estimate"] for row in board["rows"]}
    assert len(comparison.pairs) == board["questions"]["compared"] == 20
    for name, side in ((UNGUARDED, "first"), (GUARDED, "second")):
        scores = [getattr(pair, side).score for pair in comparison.pairs]
        assert sum(scores) / len(scores) == pytest.approx(means[name])
    gains = [abs((pair.second.score or 0) - (pair.first.score or 0)) for pair in comparison.pairs]
    assert gains == sorted(gains, reverse=True)
    counts = comparison.counts()
    assert counts["better"] > counts["worse"]
    html = path.read_text(encoding="utf-8")
    assert html.count("<section>") == 20
    assert "<mark>" in html
    linked = re.findall(r'<a href="([^"]*)">with ', report.read_text(encoding="utf-8"))
    assert [report.parent / link for link in linked] == [path, path]  # from either variant's row
    assert f'<a href="../{report.name}">' in html


def test_everything_from_outside_is_escaped(platform: Platform) -> None:
    _, path = write_comparison(platform, "catalogue", UNGUARDED, GUARDED)
    html = path.read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(&#39;drum&#39;)&lt;/script&gt;" in html
    assert "<script" not in html
    assert "default-src 'none'" in html


def test_only_some_questions_can_be_asked_for(platform: Platform) -> None:
    comparison, _ = write_comparison(platform, "catalogue", UNGUARDED, GUARDED)
    counts = comparison.counts()
    assert page(comparison, only="better").count("<section>") == counts["better"] > 0
    assert page(comparison, only="worse").count("<section>") == counts["worse"]
    assert page(comparison, only="changed").count("<section>") == 20 - counts["same answer"]


@pytest.mark.parametrize(
    ("experiment", "second", "message"),
    [
        ("catalogue", GUARDED.replace("k1", "k9"), "did you mean"),
        ("catalogue", UNGUARDED, "named twice"),
        ("catalog", GUARDED, "there is no experiment"),
    ],
)
def test_what_is_not_there_is_named(platform: Platform, experiment: str, second: str, message: str) -> None:
    with pytest.raises(PermanentError, match=message):
        write_comparison(platform, experiment, UNGUARDED, second)


def test_trials_that_were_removed_are_told(platform: Platform) -> None:
    rows(
        platform,
        "DELETE FROM result_trial WHERE trial IN (SELECT fingerprint FROM trial WHERE question_id = 'weight-drum') RETURNING 1",
    )
    comparison, path = write_comparison(platform, "catalogue", UNGUARDED, GUARDED)
    assert len(comparison.pairs) == 19
    rows(platform, "DELETE FROM result_trial RETURNING 1")
    with pytest.raises(PermanentError, match="no longer on record; materialize scored_variants again"):
        write_comparison(platform, "catalogue", UNGUARDED, GUARDED)
    assert path.exists()


def test_erasure_removes_the_pages(platform: Platform, tmp_path: Path) -> None:
    """They hold answers in every wording there was, so an erasure does not go looking for them."""
    _, path = write_comparison(platform, "catalogue", UNGUARDED, GUARDED)
    (tmp_path / "docs" / "anvil.md").unlink()
    forget(platform, document="docs/anvil.md", by="ops")
    assert not path.exists()


def test_command_prints_counts_and_no_text(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "open_platform", lambda: platform)
    out = tmp_path / "elsewhere" / "page.html"
    done = CliRunner().invoke(
        comparing.compare, ["catalogue", UNGUARDED, GUARDED, "--out", str(out), "--only", "changed"]
    )
    assert done.exit_code == 0, done.output
    assert "On 20 questions" in done.output
    assert "kilograms" not in done.output
    assert "Shown: changed" in out.read_text(encoding="utf-8")
    assert not (platform.artifacts / "experiments" / "catalogue" / "compare").exists()
