"""Review of drafts by people, its files and figures, accepted ones in the dataset, and what an erasure leaves of it all."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from scipy.stats import binomtest

from assets.evaluation.checks import provenance_complete
from assets.evaluation.dataset import resolve
from assets.evaluation.questions import load_questions
from assets.evaluation.synthesis.generating import recipe_of
from assets.evaluation.synthesis.review import (
    accept_into_file,
    acceptance,
    decide,
    export_review,
    import_review,
    review_file,
    wilson,
)
from assets.evaluation.synthesis.store import StoredDraft
from assets.governance.erasure import find_traces, forget
from assets.governance.retention import retain_records
from pipelines.cli import main
from pipelines.commands import synthesis as commands
from resources.errors import ConfigError, LeaseHeldError, PermanentError
from resources.platform import Platform
from tests.evaluation_support import put_document
from tests.synthesis_world import KINDS, MakePlatform, drafts, load_handbook, run, synthesis_files


@pytest.fixture
def platform(make_platform: MakePlatform) -> Platform:
    platform = make_platform(**synthesis_files(review_share=0.5))
    load_handbook(platform)
    run(platform)
    return platform


@pytest.fixture
def shell(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setattr(commands, "open_platform", lambda: platform)
    return lambda *arguments, **more: CliRunner().invoke(main, ["questions", *arguments], **more)


def first(platform: Platform, kind: str = "fact", state: Any = "queued") -> StoredDraft:
    return next(one for one in drafts(platform, state) if one.kind == kind)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


# --- deciding -----------------------------------------------------------------------------------------------


def test_a_seeded_share_waits_for_people(platform: Platform, make_platform: MakePlatform) -> None:
    share = len(drafts(platform, "queued")) / sum(KINDS.values())
    assert 0.25 < share < 0.75
    queued = {one.question_id for one in drafts(platform, "queued")}
    with platform.database.connect() as connection:
        connection.execute("TRUNCATE question_draft")
    again = make_platform(**synthesis_files(review_share=0.5))
    run(again)
    assert {one.question_id for one in drafts(again, "queued")} == queued


def test_decisions_say_who_when_and_why_and_are_final(platform: Platform) -> None:
    good, bad, mended = [one for one in drafts(platform, "queued", "filtered") if one.kind == "fact"][:3]
    assert decide(platform, "qa", good.draft_id, "accept", by="ada").state == "accepted"
    now = decide(platform, "qa", bad.draft_id, "reject", by="bob", reason=" nobody asks this ")
    assert (now.state, now.decided_by, now.reason, now.reviewed) == ("rejected", "bob", "nobody asks this", True)
    assert now.decided_at is not None
    now = decide(platform, "qa", mended.draft_id, "edit", by="ada", question="In  plain words,\nwhat is it?")
    assert (now.state, now.line["question"], now.line["answer"]) == (
        "edited", "In plain words, what is it?", mended.line["answer"],
    )  # fmt: skip
    with pytest.raises(PermanentError, match=f"draft {good.draft_id}: it is accepted by ada already"):
        decide(platform, "qa", good.draft_id, "reject", by="bob")
    filtered_out = first(platform, "noisy", "rejected") if any(
        one.kind == "noisy" for one in drafts(platform, "rejected")
    ) else drafts(platform, "rejected")[0]  # fmt: skip
    with pytest.raises(PermanentError, match="is rejected by filter:"):
        decide(platform, "qa", filtered_out.draft_id, "accept", by="bob")
    with pytest.raises(PermanentError, match="qa has no draft 999999"):
        decide(platform, "qa", 999999, "accept", by="bob")


@pytest.mark.parametrize(
    ("kind", "edit", "message"),
    [
        ("fact", {}, "nothing was edited"),
        ("fact", {"answer": "Atlantis"}, "answer: no piece of the evidence holds it"),
        ("fact", {"question": "  "}, "question: the text is empty"),
        ("fact", {"question": "a\0b?"}, "NUL"),
        (
            "unanswerable",
            {"question": "What else is there to know about bicycles?"},
            "makes it unanswerable and has to stay",
        ),
    ],
)
def test_unsound_edits_are_refused(platform: Platform, kind: str, edit: dict[str, str], message: str) -> None:
    draft = first(platform, kind)
    with pytest.raises(PermanentError, match=message):
        decide(platform, "qa", draft.draft_id, "edit", by="ada", **edit)
    assert first(platform, kind).draft_id == draft.draft_id


def test_nothing_is_decided_while_drafts_are_made_or_erased(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resources.postgres.time.sleep", lambda seconds: None)
    monkeypatch.setattr("resources.postgres.time.monotonic", iter(range(0, 10_000, 60)).__next__)
    with platform.database.lease("dataset:qa", "another run"), pytest.raises(LeaseHeldError):
        decide(platform, "qa", first(platform).draft_id, "accept", by="ada")


# --- review files -------------------------------------------------------------------------------------------


def test_review_file_goes_out_and_comes_back(platform: Platform, tmp_path: Path) -> None:
    path, count = export_review(platform, "qa")
    assert path == review_file(platform.artifacts, "qa")
    lines = rows(path)
    assert len(lines) == count == len(drafts(platform, "queued"))
    for row in lines:
        assert row["decision"] == ""
        assert row["generator"].startswith("offline-")
        assert all(piece["quote"] in piece["context"] for piece in row["evidence"] if piece["quote"])
    mended = next(row for row in lines if row["type"] == "fact")
    mended |= {"decision": "edit", "question": "What is it, in other words?", "reviewer": "eve"}
    others = [row for row in lines if row is not mended]
    others[0]["decision"], others[1]["decision"] = "accept", "Reject "
    others[1]["reason"] = "too easy"
    back = write(tmp_path / "back.jsonl", lines)
    done = import_review(platform, "qa", back, by="ada")
    assert (done.accepted, done.edited, done.rejected, done.undecided) == (1, 1, 1, count - 3)
    by = {one.draft_id: one for one in drafts(platform, "accepted", "edited", "rejected") if one.reviewed}
    assert by[mended["draft"]].decided_by == "eve"
    assert (by[others[1]["draft"]].state, by[others[1]["draft"]].reason) == ("rejected", "too easy")
    assert len(rows(path)) == count - 3, "what was decided lies in the review folder no longer"
    again = import_review(platform, "qa", back, by="ada")
    assert (again.accepted, again.edited, again.rejected) == (0, 0, 0), "the same file twice changes nothing"


def test_wrong_lines_are_told_all_at_once_and_nothing_is_recorded(platform: Platform, tmp_path: Path) -> None:
    path, _ = export_review(platform, "qa")
    lines = rows(path)
    good, unknown, foreign, odd, swapped, *_ = lines
    good["decision"] = "accept"
    unknown |= {"draft": 999999, "decision": "accept"}
    foreign |= {"dataset": "other", "decision": "accept"}
    odd["decision"] = "maybe"
    swapped |= {"question_id": "synthetic-other", "decision": "accept"}
    with pytest.raises(ConfigError) as raised:
        import_review(platform, "qa", write(tmp_path / "b.jsonl", [*lines[:5], {**good}, {"x": 1}]), by="ada")
    told = str(raised.value)
    for part in (
        "b.jsonl:2: there is no draft 999999", "b.jsonl:3: dataset: this line is of 'other'",
        "b.jsonl:4: decision: must be one of accept, edit, reject", "b.jsonl:5: there is no draft",
        "b.jsonl:6: draft", "decided about twice", "b.jsonl:7: draft: the number of a draft is missing", "Nothing was recorded",
    ):  # fmt: skip
        assert part in told, told
    assert not drafts(platform, "accepted")


# --- acceptance ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (3, 10), (29, 30), (30, 30), (700, 1000)])
def test_intervals_are_wilsons(successes: int, trials: int) -> None:
    expected = binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_acceptance_by_type_and_generator_counts_people_alone(platform: Platform) -> None:
    facts = [one for one in drafts(platform, "queued", "filtered") if one.kind == "fact"]
    for number, one in enumerate(facts[:4]):
        edit = {"question": f"Edited {number}, what is it?"} if number == 3 else {}
        decide(platform, "qa", one.draft_id, ("accept", "accept", "reject", "edit")[number], by="ada", **edit)  # type: ignore[arg-type]
    with platform.database.connect() as connection:
        report = acceptance(connection, "qa", recipe_of(platform.config, "qa", platform.models))
        other = acceptance(connection, "qa", "another recipe")
    assert (report.total.accepted, report.total.edited, report.total.rejected) == (2, 1, 1)
    assert report.total.share == 0.5, "an edited draft was not good enough as it was made"
    assert report.total.interval == wilson(2, 4)
    assert sum(one.reviewed for one in report.rows) == 4
    assert {one.kind for one in report.rows} == {"fact"}
    assert report.waiting == len(drafts(platform, "queued"))
    assert (other.total.share, other.total.interval) == (None, (0.0, 1.0))


# --- into the dataset ---------------------------------------------------------------------------------------


def test_only_accept_writes_and_only_what_people_accepted(platform: Platform) -> None:
    path = platform.config.synthetic_path("qa")
    queued = drafts(platform, "queued")
    for one in queued[:3]:
        decide(platform, "qa", one.draft_id, "accept", by="ada")
    assert not path.exists(), "a decision alone writes nothing"
    assert accept_into_file(platform, "qa", dry_run=True).added == 3
    assert not path.exists()
    done = accept_into_file(platform, "qa")
    assert (done.added, done.unreviewed, done.present, done.stale) == (3, 0, 0, ())
    assert platform.config.question_files("qa")[-1] == path
    specs = load_questions(platform.config.question_files("qa"), platform.config.datasets["qa"])
    assert {spec.id for spec in specs} == {one.question_id for one in queued[:3]}
    assert all(spec.provenance["reviewed_by"] == "ada" and spec.tags["generator"] for spec in specs)
    with platform.database.connect() as connection:
        resolved = resolve(connection, platform.config, "qa", None)
    assert provenance_complete(resolved).passed
    assert not resolved.stale
    again = accept_into_file(platform, "qa")
    assert (again.added, again.present) == (0, 3)
    assert run(platform).made == 0, "what is in the file counts as made"


def test_unreviewed_ones_wait_for_those_drawn_for_review(make_platform: MakePlatform) -> None:
    platform = make_platform(**synthesis_files(review_share=0.5, include="unreviewed"))
    load_handbook(platform)
    run(platform)
    unreviewed = len(drafts(platform, "filtered"))
    before = accept_into_file(platform, "qa")
    assert (before.added, before.held_back) == (0, unreviewed)
    for one in drafts(platform, "queued"):
        decide(platform, "qa", one.draft_id, "accept", by="ada")
    done = accept_into_file(platform, "qa")
    assert (done.unreviewed, done.held_back) == (unreviewed, 0)
    assert done.added == sum(KINDS.values())
    marks = Counter(line["provenance"].get("reviewed") for line in rows(done.path))
    assert marks == {False: unreviewed, None: done.added - unreviewed}


def test_too_few_accepted_write_nothing(make_platform: MakePlatform) -> None:
    platform = make_platform(**synthesis_files(review_share=0.5, minimum_reviewed=4))
    load_handbook(platform)
    run(platform)
    for number, one in enumerate(drafts(platform, "queued")[:4]):
        decide(platform, "qa", one.draft_id, "accept" if number < 2 else "reject", by="ada")
    with pytest.raises(
        PermanentError, match=r"of 4 drafts reviewed 2 were accepted as made \(50%\); minimum_acceptance is 70%"
    ):
        accept_into_file(platform, "qa")
    assert not platform.config.synthetic_path("qa").exists()


def test_accepted_drafts_of_documents_edited_since_are_left_out(platform: Platform) -> None:
    one = first(platform)
    decide(platform, "qa", one.draft_id, "accept", by="ada")
    with platform.database.connect() as connection:
        put_document(connection, one.line["evidence"][0]["document"].removeprefix("docs/"), "# Gone\n\nAll of it.\n")
    done = accept_into_file(platform, "qa")
    assert (done.added, done.stale) == (0, (one.question_id,))


# --- erasure and retention ----------------------------------------------------------------------------------


def test_an_erased_document_takes_its_drafts_and_review_lines_along(platform: Platform) -> None:
    pending = drafts(platform, "queued", "filtered")
    often, _ = Counter(one.document_ids[0] for one in pending if one.line["evidence"]).most_common(1)[0]
    one = next(item for item in pending if item.document_ids[0] == often and item.line["evidence"])
    decide(platform, "qa", one.draft_id, "accept", by="ada")
    accept_into_file(platform, "qa")
    document = one.line["evidence"][0]["document"]
    concerned = [item for item in drafts(platform) if one.document_ids[0] in item.document_ids]
    unconcerned = len(drafts(platform)) - len(concerned)
    path, count = export_review(platform, "qa", everything=True)
    in_file = sum(document in str(row) for row in rows(path))
    quotes = [piece["quote"] for item in concerned for piece in item.line["evidence"] if piece["document"] == document]
    assert in_file
    assert find_traces(platform, quotes[0])
    erasure = forget(platform, document=document, by="ops")
    assert erasure.proof["question_draft"] == len(concerned)
    assert erasure.proof["file:review/qa.jsonl"] == in_file
    assert len(drafts(platform)) == unconcerned
    assert len(rows(path)) == count - in_file
    for quote in quotes:
        assert not find_traces(platform, quote)
    assert erasure.user_files == {"evaluation/qa.synthetic.jsonl": 1}, "the user's own file is named, not edited"


def test_an_unanswerable_draft_goes_with_the_document_its_words_are_from(platform: Platform) -> None:
    one = first(platform, "unanswerable")
    decide(platform, "qa", one.draft_id, "accept", by="ada")
    accept_into_file(platform, "qa")
    with platform.database.connect() as connection:  # and as a question of a version
        connection.execute(
            """INSERT INTO evaluation_dataset (dataset, version, content_hash, corpus, counts, file, run_id)
               VALUES ('qa', 1, 'c', '{}', '{}', '', 'r')"""
        )
        connection.execute(
            """INSERT INTO evaluation_question (dataset, version, question_id, question, split, tags, status, fingerprint)
               VALUES ('qa', 1, %s, %s, 'dev', '{}', 'active', 'f')""",
            (one.question_id, one.line["question"]),
        )
    erasure = forget(platform, document=one.line["provenance"]["documents"][0], by="ops")
    assert erasure.proof["evaluation_question"] == 1
    assert not find_traces(platform, one.line["question"])
    assert erasure.user_files == {"evaluation/qa.synthetic.jsonl": 1}


def test_a_pattern_finds_drafts_and_reasons(platform: Platform) -> None:
    one, two = drafts(platform, "queued")[:2]
    decide(platform, "qa", one.draft_id, "reject", by="ada", reason="Zacharias Quill says it is wrong")
    decide(platform, "qa", two.draft_id, "edit", by="ada", question=f"Zacharias Quill asks: {two.line['question']}")
    erasure = forget(platform, text="zacharias quill", by="ops")
    assert erasure.proof == {"question_draft": 2}


def test_rejected_drafts_go_with_their_time_and_others_stay(platform: Platform) -> None:
    decide(platform, "qa", first(platform).draft_id, "accept", by="ada")
    rejected = len(drafts(platform, "rejected"))
    kept = len(drafts(platform)) - rejected
    assert rejected
    assert retain_records(platform).drafts == 0
    with platform.database.connect() as connection:
        connection.execute(
            "UPDATE question_draft SET created_at = created_at - interval '91 days', decided_at = decided_at - interval '91 days'"
        )
    assert retain_records(platform).drafts == rejected
    assert len(drafts(platform)) == kept


# --- commands -----------------------------------------------------------------------------------------------


def test_commands_review_report_and_accept(shell: Callable[..., Result], platform: Platform, tmp_path: Path) -> None:
    waiting = drafts(platform, "queued")
    said = shell("review", "qa", input="y\nn\ntoo easy\ne\n\n\ns\nq\n")
    assert said.exit_code == 0, said.output
    assert f"[1 of {len(waiting)}] {waiting[0].kind}, made by {waiting[0].generator}" in said.output
    assert waiting[0].line["question"] in said.output
    assert "nothing was edited" in said.output, "an edit that changes nothing is asked about again"
    assert "2 of" in said.output
    states = {one.draft_id: one.state for one in drafts(platform)}
    assert [states[one.draft_id] for one in waiting[:3]] == ["accepted", "rejected", "queued"]

    report = json.loads(shell("report", "qa", "--json").output)
    assert report["delivered"] == KINDS
    assert report["filters"][0]["filter"] == "form"
    assert report["acceptance"][-1] | {"low": 0, "high": 0} == {
        "type": "all", "generator": "all", "reviewed": 2, "accepted": 1, "edited": 0, "rejected": 1, "acceptance": 0.5,
        "low": 0, "high": 0,
    }  # fmt: skip
    told = shell("report", "qa").output
    assert "offline-cloze/1" in told
    assert "50% as made" in told

    out = tmp_path / "mine.jsonl"
    assert f"{len(waiting) - 2} drafts written to {out}" in shell("export", "qa", "--out", str(out)).output
    lines = rows(out)
    lines[0]["decision"] = "accept"
    assert shell("import", "qa", str(write(out, lines))).output.startswith("1 accepted, 0 edited, 0 rejected;")
    assert "2 questions would be added" in shell("accept", "qa", "--dry-run").output
    assert "2 questions were added" in shell("accept", "qa").output
    assert "there is no dataset 'qua'" in shell("report", "qua").output


def test_generate_runs_the_job_and_prints_what_there_is(
    shell: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(commands, "open_settings", lambda: "settings")
    monkeypatch.setattr("pipelines.demo.run_tasks", lambda settings, tasks: not asked.append((settings, *tasks)))
    said = shell("generate", "qa")
    assert said.exit_code == 0, said.output
    ((settings, task),) = asked
    assert (settings, task.job, task.partition) == ("settings", "generate_questions", "qa")
    assert "drafts that passed the filters: 12 of 12 fact" in said.output
    monkeypatch.setattr("pipelines.demo.run_tasks", lambda settings, tasks: False)
    assert shell("generate", "qa").exit_code == 1
