"""The header's ``synthetic`` block, passages cut as no index under test is cut, and questions made of them by rules."""

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assets.evaluation.synthesis import templates
from assets.evaluation.synthesis.cloze import ask, blanks, names, stands_alone
from assets.evaluation.synthesis.drafts import Quote
from assets.evaluation.synthesis.passages import LiveDocument, Passage, conflicts, cut, read_material
from assets.evaluation.synthesis.search import PassageIndex
from resources.chunker_config import FixedChunker
from resources.config import load_config
from resources.errors import ConfigError
from resources.synthesis_config import KINDS
from tests.conftest import MODELS
from tests.evaluation_support import dataset_files, put_document
from tests.synthesis_world import HANDBOOK, MakePlatform, load_handbook, synthesis_files

CHOICE = {"index": "main", "prompt": "plain", "search_mode": "vector", "k": 1, "model": "extractive"}
PLAIN = {"name": "plain", "system": "s", "user": "{{ question }}{{ passages }}"}
OPENAI = {"providers": {**MODELS["providers"], "openai": {"kind": "openai"}},
          "chat": [*MODELS["chat"], {"name": "mini", "provider": "openai", "model": "m"}]}  # fmt: skip


# --- the header


@pytest.mark.parametrize(
    ("synthetic", "header", "message"),
    [
        ({"kinds": {"fact": 0}}, {}, "qa.yaml: synthetic.kinds: ask for at least one question"),
        ({"kinds": {"riddle": 3}}, {}, "synthetic.kinds.riddle.*'fact', 'multi_hop'"),
        ({"writer": "mimi"}, {}, "synthetic.writer: there is no chat model .* 'mimi'.*Did you mean 'mini'"),
        ({"writer": "extractive"}, {}, "synthetic.writer: 'extractive' is an offline model, which writes no questions"),
        ({"reader": "extractive"}, {}, "synthetic.reader: 'extractive' is an offline model"),
        ({"include": "unreviewed", "review_share": 0}, {}, "include: unreviewed needs a review_share above 0"),
        ({"file": "../qa.jsonl"}, {}, "synthetic.file"),
        ({"file": "qa.jsonl"}, {}, "synthetic.file: qa.jsonl holds other questions"),
        ({"chunker": {"kind": "semantic", "embedder": "lexicon"}}, {}, "synthetic.chunker.embedder: .*Did you mean 'lexical'"),
        ({"share": 0.5}, {}, "synthetic.share: unknown key; allowed: .*review_share"),
        ({}, {"task": "classification", "labels": ["a", "b"], "sources": []}, "synthetic: questions are made from documents"),
    ],
)  # fmt: skip
def test_wrong_headers_name_the_key_and_the_remedy(
    make_data_dir: Callable[..., Path], synthetic: dict[str, Any], header: dict[str, Any], message: str
) -> None:
    files = synthesis_files(header=header, **synthetic)
    with pytest.raises(ConfigError, match=message):
        load_config(make_data_dir(**files, **{"models.yaml": {**MODELS, **OPENAI}}))


def test_a_header_without_the_block_is_as_it_was(make_data_dir: Callable[..., Path]) -> None:
    plain = load_config(make_data_dir(**dataset_files())).datasets["qa"]
    assert plain.synthetic is None
    assert "synthetic" not in plain.model_dump()
    asking = load_config(make_data_dir(**synthesis_files())).datasets["qa"]
    assert asking.fingerprint() != plain.fingerprint()
    assert list(asking.synthetic.wanted) == list(KINDS) if asking.synthetic else False


# --- passages


@pytest.mark.parametrize(
    ("index", "own", "same"),
    [
        ({"kind": "markdown", "unit": "characters", "size": 400}, {"kind": "markdown", "unit": "characters", "size": 400}, True),
        ({"kind": "markdown", "unit": "characters", "size": 400}, {"kind": "markdown", "unit": "characters", "size": 401}, False),
        ({"kind": "fixed", "unit": "characters", "size": 900}, {"kind": "fixed", "unit": "characters", "size": 900, "overlap": 0}, True),
        ({"kind": "parent_child", "parent": {"kind": "layout", "size": 800}, "child": {"kind": "sentence", "size": 120}},
         {"kind": "sentence", "size": 120}, True),
        ({"kind": "sentence", "size": 120}, {"kind": "parent_child"}, True),
        ({"kind": "recursive", "size": 200}, {"kind": "fixed", "unit": "characters", "size": 900}, False),
    ],
)  # fmt: skip
def test_chunkings_of_indexes_under_test_are_told_from_others(
    make_platform: MakePlatform, index: dict[str, Any], own: dict[str, Any], same: bool
) -> None:
    experiment = {
        "name": "first",
        "dataset": "qa",
        "baseline": CHOICE,
        "grid": {axis: [one] for axis, one in CHOICE.items()},
    }
    platform = make_platform(
        **synthesis_files(chunker=own),
        **{
            "indexes/main.yaml": {"name": "main", "embedder": "lexical", "chunker": index},
            "indexes/other.yaml": {"name": "other", "embedder": "lexical", "chunker": own},  # in no experiment
            "prompts/plain.yaml": PLAIN,
            "experiments/first.yaml": experiment,
        },
    )
    found = conflicts(platform.config, "qa", platform.models)
    assert [(one.experiment, one.index) for one in found] == ([("first", "main")] if same else [])


def test_derived_indexes_are_under_test_too(make_platform: MakePlatform) -> None:
    own = {"kind": "sentence", "size": 90}
    grid = {axis: [one] for axis, one in CHOICE.items() if axis != "index"}
    experiment = {
        "name": "first", "dataset": "qa", "baseline": CHOICE,
        "grid": {"index": ["main"], **grid, "index_axes": {"base": "main", "chunker": [own, {"kind": "sentence", "size": 60}]}},
    }  # fmt: skip
    platform = make_platform(
        **synthesis_files(chunker=own), **{"prompts/plain.yaml": PLAIN, "experiments/first.yaml": experiment}
    )
    (found,) = conflicts(platform.config, "qa", platform.models)
    assert found.index.startswith("main--")


def test_passages_hold_whole_sentences_at_their_exact_places() -> None:
    path = HANDBOOK / "warranty"
    for file in sorted(path.glob("*.md")):
        text = file.read_text(encoding="utf-8")
        for passage in cut(
            LiveDocument(1, "docs.2", file.name, "T", "en", [], b"x", text), FixedChunker(unit="characters", size=900)
        ):
            assert passage.document == f"docs/{file.name}", "evidence names the source, not the shard"
            assert text[passage.start : passage.end] == passage.text
            for start, end in passage.statements:
                assert passage.start <= start < end <= passage.end
                assert text[start:end] == passage.part(start, end) == text[start:end].strip()
                assert text.count(text[start:end]) >= 1


def test_too_many_documents_are_left_out_but_their_words_are_known(make_platform: MakePlatform) -> None:
    platform = make_platform(**synthesis_files())
    load_handbook(platform)
    with platform.database.connect() as connection:
        for number in range(3):
            put_document(
                connection, f"late{number}.md", f"The quinquereme number {number} sails to Ophir from distant Nineveh."
            )
        whole = read_material(connection, platform.config, "qa", platform.models)
        part = read_material(connection, platform.config, "qa", platform.models, most=20)
    assert whole.complete
    assert not part.complete
    assert part.documents + part.left_out == whole.documents
    assert len(part.everything) < len(whole.everything)
    assert part.knows("quinquerem") == whole.knows("quinquerem") is True


def test_search_ranks_as_bm25_does() -> None:
    index = PassageIndex()
    for text in ("the red lamp", "a lamp, a lamp and a bell", "nothing of the kind", "red bells ring"):
        index.add(text)
    assert index.search("red lamps", 3) == [0, 1, 3]
    assert index.search("umbrella", 3) == []
    assert index.holding("red umbrella") == []
    assert index.holding("red lamp") == [0, 1]
    assert PassageIndex().search("red", 1) == []


# --- by rules


def statement(text: str, *, title: str = "T", headings: tuple[str, ...] = (), language: str = "en") -> Quote:
    passage = Passage(1, b"x", "docs/a.md", title, language, 0, 0, len(text), text, headings, ((0, len(text)),))
    return Quote(passage, 0, len(text))


@pytest.mark.parametrize(
    ("text", "alone"),
    [
        ("The Heron was built by the Kestrel workshop in Lund.", True),
        ("It was built by the Kestrel workshop in the city of Lund.", False),
        ("However, the Heron was built by the Kestrel workshop in Lund.", False),
        ("The Heron | was built | by the Kestrel workshop in Lund.", False),
        ("the Heron was built by the Kestrel workshop in Lund.", False),
        ("The Heron was built by the Kestrel workshop in Lund", False),
        ("See [the plans](plans.md) of the Heron for all of its parts.", False),
        ("Too short a sentence.", False),
    ],
)
def test_statements_have_to_stand_alone(text: str, alone: bool) -> None:
    assert stands_alone(text) is alone


@pytest.mark.parametrize(
    ("text", "asks", "question", "answer"),
    [
        ("The old brewery in the north was founded in 1724.", "year",
         "The old brewery in the north was founded in which year?", "1724"),
        ("The battery of the bicycle lasts for 80 kilometres on one charge.", "number",
         "The battery of the bicycle lasts for how many kilometres on one charge?", "80"),
        ("The fee for late returns of a bicycle is 2.5 % of its price.", "share",
         "The fee for late returns of a bicycle is what percentage of its price?", "2.5 %"),
        ("Marta Lindqvist designed the red trailer for the city of Lund.", "subject",
         "Who or what designed the red trailer for the city of Lund?", "Marta Lindqvist"),
        ("The red trailer was designed by Marta Lindqvist for heavy loads.", "name",
         "Which name fills the gap: “The red trailer was designed by ____ for heavy loads”?", "Marta Lindqvist"),
    ],
)  # fmt: skip
def test_facts_are_asked_for_by_their_kind(text: str, asks: str, question: str, answer: str) -> None:
    found = {blank.asks: blank for blank in blanks(statement(text))}
    assert ask(text, found[asks]) == question  # type: ignore[index]
    assert found[asks].answer == answer  # type: ignore[index]
    assert answer not in question


def test_numbers_of_names_are_no_numbers() -> None:
    found = blanks(statement("The chain of an Ox 3 again needs the oil of 12 drops on each side."))
    assert [one.answer for one in found if one.asks == "number"] == ["12"]


def test_what_title_or_headings_tell_is_not_asked_for() -> None:
    text = "The red trailer was designed by Marta Lindqvist for heavy loads in 2004."
    asked = {blank.answer for blank in blanks(statement(text, title="Marta Lindqvist", headings=("Since 2004",)))}
    assert not asked & {"Marta Lindqvist", "2004"}


def test_german_nouns_are_no_names_and_gaps_are_asked_for_in_german() -> None:
    text = "Der Akku des Fahrrads wird nach der Garantie von Marta Lindqvist kostenlos geprüft."
    assert names(text, "de") == ["Marta Lindqvist"]
    blank = next(one for one in blanks(statement(text, language="de")) if one.asks == "name")
    assert ask(text, blank, "de").startswith("Was gehört in die Lücke: „Der Akku")


def test_two_statements_and_changed_ones() -> None:
    first = statement("The Otter trailer was shown in Oslo at the fair of the harbour.")
    second = statement("In 2004 the workshop of Lund sold 300 pieces of the Otter trailer.")
    year = next(one for one in blanks(second) if one.asks == "year")
    made = templates.bridge(first, second, "Otter", year)
    assert made is not None
    assert "Otter" not in made
    assert made.count("[X]") == 3
    assert (
        templates.bridge(first, statement("The Otter of 2004 is an Otter trailer for all loads."), "Fair", year) is None
    )
    other = statement("The Heron bicycle was built in 1998 by the workshop in Lund.")
    earlier = next(one for one in blanks(other) if one.asks == "year")
    compared = templates.compare(second, other, year, earlier)
    assert compared is not None
    assert compared[1] == "1998"
    assert "1998" not in compared[0]
    assert templates.compare(second, second, year, year) is None
    swapped = templates.swap(second, year, "Lund", "Port Halvane")
    assert swapped is not None
    assert "Port Halvane" in swapped
    assert "Lund" not in swapped
    assert "which year" in swapped


def test_rewording_and_misspelling_change_words_and_keep_numbers() -> None:
    chance = random.Random(1)
    plain = "In May 2004, the old brewery with 300 people was founded in which city?"
    said = templates.reword(plain, chance)
    assert said == "The aged brewery with 300 persons was established in which city, in May 2004?"
    assert templates.reword("The lamp shines in which colour?", chance) is None
    assert templates.reword("The lamp shines for how many nights?", chance) is None
    assert (
        templates.keywords("Was gehört in die Lücke: „Der Akku des ____ wird geprüft“?") == "Akku geprüft: was fehlt?"
    )
    assert templates.keywords("The lamp of the bicycle shines in which colour?") == "lamp bicycle shines which colour?"
    noisy = templates.misspell(
        "Which name fills the gap: “The 300 pieces were sold by ____ in Oslo”?", random.Random(3)
    )
    assert noisy == noisy.lower()
    assert "300" in noisy
    assert "..." in noisy
    assert noisy != plain


PROGRAM = """
import json
from pathlib import Path
from assets.evaluation.synthesis.offline_writer import OfflineWriter
from assets.evaluation.synthesis.passages import LiveDocument, Material, cut, seeded
from assets.evaluation.synthesis.search import PassageIndex
from resources.chunker_config import FixedChunker
from resources.synthesis_config import KINDS
material = Material([], PassageIndex())
for path in sorted(Path("data/corpus/handbook").rglob("*.md")):
    document = LiveDocument(1, "docs", path.name, path.stem, "en", [], path.name.encode(), path.read_text(encoding="utf-8"))
    material.passages += cut(document, FixedChunker(unit="characters", size=900))
material.passages.sort(key=lambda one: seeded(7, one.place))
writer = OfflineWriter(7)
writer.prepare(material)
for kind in KINDS:
    for task, draft in writer.write(list(writer.tasks(kind, material))[:40], ""):
        print(task.key(writer.fingerprint).hex(), json.dumps(draft and draft.line("r"), ensure_ascii=False))
"""


def test_the_writer_is_the_same_under_every_hash_seed() -> None:
    said = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "4242")
    ]
    assert said[0] == said[1]
    assert sum('"question"' in line for line in said[0].splitlines()) > 50
