"""Questions made offline from the documents of SQuAD 2.0, beside its own 4 025: how many pass, and that they are sound."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from assets.evaluation.importers.squad import convert_squad
from assets.evaluation.leakage import Item, duplicates, leaks
from assets.evaluation.metrics.words import sentences, words
from assets.evaluation.questions import load_questions
from assets.evaluation.synthesis import store
from assets.evaluation.synthesis.generating import generate
from assets.evaluation.synthesis.search import term_set
from assets.evaluation.synthesis.templates import INVENTED
from resources.platform import Platform
from tests.evaluation_support import put_document

KINDS = {"fact": 100, "multi_hop": 30, "comparison": 20, "unanswerable": 60, "paraphrase": 30, "noisy": 30}
#: Measured: all 270 in 5 to 24 s, however busy the machine; see docs/synthetic-questions.md.
MINIMUM = 200
SECONDS = 120


@pytest.fixture
def squad(shared_data: Path, tmp_path: Path, make_platform: Callable[..., Platform]) -> Platform:
    convert_squad(shared_data / "squad2", tmp_path / "squad", name="docs")
    platform = make_platform(
        **{
            "evaluation/squad.yaml": {
                "name": "squad",
                "questions": str(tmp_path / "squad" / "questions.jsonl"),
                "sources": ["docs"],
                "synthetic": {"kinds": KINDS},
            }
        }
    )
    with platform.database.connect() as connection:
        for path in sorted((tmp_path / "squad" / "documents").glob("*.md")):
            put_document(connection, path.name, path.read_text(encoding="utf-8").rstrip("\n"))
    return platform


@pytest.mark.slow
def test_questions_made_from_squads_documents_are_sound(squad: Platform) -> None:
    started = time.perf_counter()
    with squad.database.lease("dataset:squad", "run") as lease:
        work = generate(squad, "squad", run_id="run", lease=lease)
    seconds = time.perf_counter() - started
    with squad.database.connect() as connection:
        drafts = store.read(connection, "squad", states=("filtered", "queued"))
        texts = dict(
            connection.execute(
                "SELECT 'docs/' || path, text FROM document_version JOIN document_text USING (text_hash)"
            ).fetchall()
        )
    print(f"\n{len(drafts)} drafts in {seconds:.1f} s from {work.passages} passages of {work.documents} documents")
    print(work.delivered, work.missing, work.states)
    for row in work.filters:
        print(row)
    for row in work.generators:
        print(row)
    assert len(drafts) >= MINIMUM
    assert seconds < SECONDS
    assert work.delivered == KINDS
    check_spans(drafts, texts)
    check_unanswerable(drafts, texts)
    check_against_squad(squad, drafts)


def check_spans(drafts: list[store.StoredDraft], texts: dict[str, str]) -> None:
    """Every piece of evidence stands in its document once and as quoted, and one of them holds the answer."""
    pieces = 0
    for draft in drafts:
        for piece, (start, end) in zip(draft.line["evidence"], draft.checked_by["spans"], strict=True):
            pieces += 1
            assert texts[piece["document"]][start:end] == piece["quote"]
            assert texts[piece["document"]].count(piece["quote"]) == 1
        if draft.line["answer"] is not None:
            assert any(draft.line["answer"] in piece["quote"] for piece in draft.line["evidence"])
    assert pieces > len([draft for draft in drafts if draft.line["answer"] is not None])


def check_unanswerable(drafts: list[store.StoredDraft], texts: dict[str, str]) -> None:
    """Looked for in all documents, in another way than the filter's: no word of an invented name, and no three sentences
    that hold a swapped name and half of what is said of it."""
    vocabulary = {word for text in texts.values() for word in words(text)}
    windows = [
        (f" {' '.join(words(window))} ", term_set(window))
        for text in texts.values()
        for found in [sentences(text)]
        for window in [" ".join(found[place : place + 3]) for place in range(len(found))]
    ]
    how: Counter[str] = Counter()
    for draft in drafts:
        if draft.line["answer"] is not None:
            continue
        how[draft.scores["absent"]] += 1
        asked = set(words(draft.line["question"]))
        if draft.scores["absent"] == "word":
            assert any(set(words(name)) <= asked for name in INVENTED)
            assert not vocabulary.intersection(draft.checked_by["absent"])
            continue
        name = f" {' '.join(words(draft.checked_by['apart']['name']))} "
        rest = set(draft.checked_by["apart"]["words"])
        assert all(len(rest & held) < len(rest) / 2 for text, held in windows if name in text)
    assert min(how["word"], how["combination"]) >= 10


def check_against_squad(platform: Platform, drafts: list[store.StoredDraft]) -> None:
    """No draft repeats a question of SQuAD or another draft, nor gives one away, nor is given away by one."""
    squad = [Item(one.id, one.question, one.answer) for one in load_questions(platform.config.question_files("squad"))]
    made = [Item(draft.question_id, draft.line["question"], draft.line["answer"]) for draft in drafts]
    assert not {pair for pair in duplicates([*squad, *made]) if any(name.startswith("synthetic-") for name in pair)}
    assert not leaks(made, squad, {})
    assert not leaks(squad, made, {})
