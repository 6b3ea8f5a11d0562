"""Generating drafts from the handbook: the same everywhere, made once, followed through edits, erasures and kills."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

import pytest

from assets.evaluation.dataset import resolve
from assets.evaluation.leakage import Item, duplicates
from assets.evaluation.synthesis import generating
from assets.evaluation.synthesis.offline_writer import GENERATORS
from resources.errors import ConfigError, PermanentError
from resources.faults import CRASH_VARIABLE
from resources.platform import Platform
from resources.postgres import Database
from tests.evaluation_support import line, put_document
from tests.synthesis_world import KINDS, MakePlatform, as_bytes, drafts, load_handbook, run, synthesis_files

GENERATE = """
import sys
from pathlib import Path
from resources.config import load_config
from resources.platform import Platform
from resources.postgres import Database
from tests.synthesis_world import run
run(Platform(load_config(Path(sys.argv[1])), Database(sys.argv[2]), Path(sys.argv[3])))
"""


@pytest.fixture
def platform(make_platform: MakePlatform) -> Platform:
    platform = make_platform(**synthesis_files())
    load_handbook(platform)
    return platform


def elsewhere(platform: Platform, database: Database, **environment: str) -> subprocess.CompletedProcess[str]:
    """Generate in another process, on a database of its own."""
    return subprocess.run(
        [sys.executable, "-c", GENERATE, str(platform.config.data_dir), database.url, str(platform.artifacts)],
        env={**os.environ, **environment},
        cwd=os.getcwd(),
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_kind_is_made_and_labelled_as_what_it_is(platform: Platform) -> None:
    work = run(platform)
    made = drafts(platform, "filtered", "queued")
    assert Counter(one.kind for one in made) == KINDS == work.delivered
    assert not work.missing
    for one in made:
        assert one.generator in GENERATORS
        assert one.line["tags"] == {"type": f"synthetic-{one.kind}", "generator": one.generator}
        assert one.line["provenance"]["kind"] == "synthetic"
        assert one.line["provenance"]["generator"] == one.generator
        assert one.line["split"] in ("dev", "test"), "rules write no worked examples"
        assert (one.line["answer"] is None) == (one.kind == "unanswerable") == (not one.line["evidence"])
    assert {row["filter"] for row in work.filters} == {"form", "span", "leak", "answerable", "round_trip", "duplicate"}
    judged = sum(row["rejected"] for row in work.filters) + sum(work.delivered.values())
    assert work.filters[0]["reached"] == judged == work.made


def test_lines_are_questions_whose_evidence_a_dataset_finds_exactly(platform: Platform) -> None:
    run(platform)
    path = platform.config.synthetic_path("qa")
    path.write_text("".join(json.dumps(one.line) + "\n" for one in drafts(platform, "filtered", "queued")))
    with platform.database.connect() as connection:
        resolved = resolve(connection, platform.config, "qa", None)
    assert not resolved.stale
    assert len(resolved.active) == sum(KINDS.values())
    assert set(resolved.found) == {"exact"}
    splits: dict[str, set[str]] = {}
    for item in resolved.questions:
        splits.setdefault(str(item.spec.group), set()).add(item.spec.split)
    assert all(len(found) == 1 for found in splits.values())
    assert not duplicates([Item(one.spec.id, one.spec.question, one.spec.answer) for one in resolved.questions])


def test_the_same_in_another_process_with_another_hash_seed(
    platform: Platform, make_database: Callable[[], Database]
) -> None:
    made = []
    for seed in ("1", "77"):
        other = Platform(platform.config, make_database(), platform.artifacts)
        load_handbook(other)
        done = elsewhere(other, other.database, PYTHONHASHSEED=seed)
        assert done.returncode == 0, done.stderr
        made.append(as_bytes(other))
    run(platform)
    assert made[0] == made[1] == as_bytes(platform)
    assert len(made[0]) > 5000


def test_another_seed_makes_others_and_sets_the_undecided_aside(
    platform: Platform, make_platform: MakePlatform
) -> None:
    run(platform)
    before = {one.question_id for one in drafts(platform, "filtered", "queued")}
    with platform.database.connect() as connection:
        connection.execute(
            "UPDATE question_draft SET state = 'accepted', decided_by = 'ada' WHERE draft_id = (SELECT min(draft_id) FROM question_draft WHERE state = 'filtered')"
        )
    other = make_platform(**synthesis_files(seed=8))
    work = run(other)
    assert work.superseded == len(before) - 1
    assert work.delivered == KINDS
    now = {one.question_id for one in drafts(other, "filtered", "queued")}
    assert len(now & before) < len(before) / 2
    assert len(drafts(other, "accepted")) == 1, "what people accepted stays"


def test_a_second_run_makes_nothing(platform: Platform) -> None:
    run(platform)
    before = as_bytes(platform)
    assert run(platform).made == 0
    assert as_bytes(platform) == before


@pytest.mark.parametrize(
    "point", ["evaluation.drafts_stored:2", "evaluation.drafts_judged:2", "evaluation.drafts_stored:9"]
)
def test_a_killed_run_goes_on_and_ends_as_one_that_was_not(
    platform: Platform, make_database: Callable[[], Database], point: str
) -> None:
    whole = Platform(platform.config, make_database(), platform.artifacts)
    load_handbook(whole)
    run(whole)
    killed = elsewhere(platform, platform.database, **{CRASH_VARIABLE: point})
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = drafts(platform)
    assert left
    with platform.database.connect() as connection:  # nobody renews the lease of the dead
        connection.execute("DELETE FROM lease")
    work = run(platform)
    assert work.made == len(drafts(platform)) - len(left)
    assert as_bytes(platform) == as_bytes(whole)


def test_drafts_of_an_edited_document_are_set_aside_and_replaced(platform: Platform) -> None:
    run(platform)
    one = next(item for item in drafts(platform, "filtered", "queued") if item.kind == "fact")
    path = one.line["evidence"][0]["document"].removeprefix("docs/")
    concerned = [item for item in drafts(platform, "filtered", "queued") if one.document_ids[0] in item.document_ids]
    with platform.database.connect() as connection:
        put_document(connection, path, "# Nothing\n\nThere is nothing to be read here any more.\n")
    work = run(platform)
    assert work.stale == len(concerned)
    gone = {item.draft_id: item for item in drafts(platform, "rejected")}
    assert all(gone[item.draft_id].decided_by == "filter:stale" for item in concerned)
    assert work.delivered == KINDS, "others were made in their place"
    assert not [item for item in drafts(platform, "filtered", "queued") if path in str(item.line["evidence"])]


def test_unanswerable_drafts_are_verified_again_when_documents_come(platform: Platform) -> None:
    run(platform)
    one = next(item for item in drafts(platform, "filtered", "queued") if item.checked_by.get("absent"))
    name = " ".join(one.checked_by["absent"])
    with platform.database.connect() as connection:
        put_document(connection, "new.md", f"# News\n\nThe {name} was founded in 1920 and tells everything about it.\n")
    assert run(platform).stale >= 1
    (now,) = [item for item in drafts(platform) if item.draft_id == one.draft_id]
    assert (now.state, now.reason) == ("rejected", "the documents may answer it by now")


def test_existing_questions_are_not_asked_again(platform: Platform, make_platform: MakePlatform) -> None:
    run(platform)
    facts = [one for one in drafts(platform, "filtered", "queued") if one.kind == "fact"]
    with platform.database.connect() as connection:
        connection.execute("TRUNCATE question_draft")
    existing = [
        line(f"q{number}", one.line["question"].lower(), one.line["answer"], evidence=one.line["evidence"])
        for number, one in enumerate(facts)
    ]
    other = make_platform(**synthesis_files(*existing))
    work = run(other)
    asked = {one.line["question"] for one in drafts(other, "filtered", "queued")}
    assert asked.isdisjoint(one.line["question"] for one in facts)
    assert next(row for row in work.filters if row["filter"] == "duplicate")["rejected"] >= len(facts)
    assert any("nearly the same question: q" in str(one.reason) for one in drafts(other, "rejected"))


def test_nothing_is_kept_of_a_document_erased_meanwhile(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    read = generating.read_material
    erased: list[int] = []

    def then_erase(*arguments: object, **more: object) -> object:
        material = read(*arguments, **more)  # type: ignore[arg-type]
        erased.append(material.passages[0].document_id)
        with platform.database.connect() as connection:
            connection.execute("DELETE FROM document_version WHERE document_id = %s", (erased[0],))
            connection.execute("DELETE FROM document WHERE document_id = %s", (erased[0],))
        return material

    monkeypatch.setattr(generating, "read_material", then_erase)
    run(platform)
    assert erased
    assert not [one for one in drafts(platform) if erased[0] in one.document_ids]


def test_chunking_under_test_is_refused_before_anything_is_read(make_platform: MakePlatform) -> None:
    chunker = {"kind": "markdown", "unit": "characters", "size": 400}  # that of index main
    choice = {"index": "main", "prompt": "plain", "search_mode": "vector", "k": 1, "model": "extractive"}
    prompt = {"name": "plain", "system": "s", "user": "{{ question }}{{ passages }}"}
    experiment = {
        "name": "first", "dataset": "qa", "baseline": choice, "grid": {axis: [one] for axis, one in choice.items()},
    }  # fmt: skip
    platform = make_platform(
        **synthesis_files(chunker=chunker), **{"prompts/plain.yaml": prompt, "experiments/first.yaml": experiment}
    )
    with pytest.raises(
        ConfigError,
        match=r"evaluation/qa.yaml: synthetic.chunker: index 'main' of experiment 'first' is cut in the same",
    ):
        run(platform)


def test_datasets_that_make_none_and_sources_never_loaded_are_refused(make_platform: MakePlatform) -> None:
    with pytest.raises(PermanentError, match="source docs was never loaded"):
        run(make_platform(**synthesis_files()))
    files = synthesis_files()
    del files["evaluation/qa.yaml"]["synthetic"]
    with pytest.raises(PermanentError, match="dataset qa makes no questions; add 'synthetic"):
        run(make_platform(**files))
