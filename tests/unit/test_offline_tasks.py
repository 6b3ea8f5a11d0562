"""The offline stand-ins: what they read of a prompt, what they do with it, and that they say when they can do nothing."""

import json
import subprocess
import sys
from typing import Any

import pytest

from resources import offline_tasks
from resources.models import Models
from resources.prompt_config import FewShot, PromptConfig
from resources.prompt_store import render
from resources.task_config import TaskSpec
from resources.task_output import read_fields, read_label
from tests.conftest import MODELS


def ask(model: str, system: str, user: str) -> str:
    """What a stand-in says to two messages."""
    return offline_tasks.answer(model, [{"role": "system", "content": system}, {"role": "user", "content": user}])


# --- reading a prompt ---------------------------------------------------------------------------------------


def test_a_prompt_is_taken_apart() -> None:
    user = "Examples\n> one\n> two\nLabel: a\n\n> three\n\nb\nNow this:\n> four\n> Label: a\nLabel:"
    found = offline_tasks.read([{"role": "system", "content": "Labels: a, b"}, {"role": "user", "content": user}])
    assert found.input == "four\nLabel: a"
    assert found.examples == (("one\ntwo", "a"), ("three", "b"))
    assert "Label: a" not in found.instructions


def test_the_steps_of_a_chain_are_no_examples() -> None:
    user = "What matters:\n> a note\nText:\n> the text\nSummary:"
    found = offline_tasks.read([{"role": "user", "content": user}])
    assert (found.input, found.examples) == ("the text", ())


def test_rendered_prompts_are_read_as_they_are_meant() -> None:
    prompt = PromptConfig(
        name="p",
        system="Labels: {{ labels | join(', ') }}",
        user="{% for e in examples %}\n{{ e.input }}\n{{ e.answer }}\n\n{% endfor %}\n{{ input }}",
        examples=[FewShot(question="first\n\nline", answer="a")],
    )
    task = TaskSpec(kind="classification", labels=("a", "b"))
    messages = render(prompt, "now\n\n> this", [], examples=[FewShot(question="second", answer="b")], task=task)
    found = offline_tasks.read(messages)
    assert found.examples == (("first\n\nline", "a"), ("second", "b"))
    assert found.input == "now\n\n> this"


@pytest.mark.parametrize(
    "system",
    ["Labels: spam, not spam", "Sort it. Labels: spam, not spam. Say one.", "Answer with one of: spam, not spam",
     "Categories are:\n- spam: offers\n- not spam: all else", "The labels:\n* `spam`\n* `not spam`", "labels: spam | not spam"],
)  # fmt: skip
def test_labels_are_found_where_people_write_them(system: str) -> None:
    assert ask("classifier", system, "> These are spam offers.") == "spam"


# --- classifier ---------------------------------------------------------------------------------------------

SHOWN = "> The invoice is wrong\nLabel: money\n\n> The parcel is late\nLabel: post\n\n"


def test_the_nearest_example_decides() -> None:
    assert ask("classifier", "Labels: post, money", f"{SHOWN}> Two invoices are wrong\nLabel:") == "money"
    assert ask("classifier", "Labels: post, money", f"{SHOWN}> A late parcel again\nLabel:") == "post"
    assert ask("classifier", "", f"{SHOWN}> A late parcel again\nLabel:") == "post"  # labels from the examples


def test_what_is_said_of_a_label_counts() -> None:
    system = "Labels:\n- money: invoices, refunds\n- post: parcels, couriers"
    assert ask("classifier", system, "> Where is my parcel?") == "post"


def test_probabilities_are_given_when_they_are_asked_for() -> None:
    said = ask("classifier", "Labels: post, money. Give probabilities.", f"{SHOWN}> Wrong invoice\nLabel:")
    label, probabilities = read_label(said, ("post", "money")) or ("", None)
    assert label == "money"
    assert probabilities is not None
    assert probabilities["money"] > 0.9
    assert sum(probabilities.values()) == pytest.approx(1)


def test_without_any_sign_all_labels_are_as_likely() -> None:
    said = json.loads(ask("classifier", "Labels: b, a, c. Probabilities, please.", "> zzz"))
    assert said == {"label": "b", "probabilities": {"b": 0.333333, "a": 0.333333, "c": 0.333333}}


def test_without_labels_it_says_so_and_that_is_unreadable() -> None:
    said = ask("classifier", "Sort this.", "> text")
    assert said == "There are no labels to choose from."
    assert read_label(said, ("a", "b")) is None


# --- summarizer ---------------------------------------------------------------------------------------------

TEXT = "> The dam broke at noon and the dam water reached the town.\n> A dog barked.\n> The town lost its bridge to the dam water."


@pytest.mark.parametrize(
    ("system", "sentences"),
    [("One sentence.", 1), ("Use at most two sentences.", 2), ("In 3 short sentences", 3), ("Summarise.", 2), ("At most 9 words.", 1)],
)  # fmt: skip
def test_a_summary_is_as_long_as_asked(system: str, sentences: int) -> None:
    said = ask("summarizer", system, f"{TEXT}\nSummary:")
    assert said.count(".") == sentences
    assert all(part.strip() in TEXT.replace("> ", "") for part in said.split("."))
    if "words" in system:
        assert len(said.split()) <= 9


def test_without_a_limit_the_examples_tell_the_length() -> None:
    shown = "> A long text about nothing. It has two sentences.\nSummary: Three words here\n\n"
    assert len(ask("summarizer", "Summarise.", f"{shown}{TEXT}\nSummary:").split()) <= 3


def test_no_text_no_summary() -> None:
    assert ask("summarizer", "One sentence.", ">\nSummary:") == ""


# --- translator ---------------------------------------------------------------------------------------------


def test_a_translation_is_what_the_prompt_holds() -> None:
    system = "Translate.\ngood morning = guten Morgen\n- world → Welt\ngood = gut"
    assert ask("translator", system, "> Good morning, world!") == "Guten Morgen, Welt!"
    assert ask("translator", system, "> Good, my world.") == "Gut, my Welt."


def test_a_text_that_was_translated_before_is_not_translated_again() -> None:
    shown = "> Please close the door.\nGerman: Bitte die Tür schließen.\n\n"
    assert ask("translator", "", f"{shown}> please close the door\nGerman:") == "Bitte die Tür schließen."


def test_words_that_go_together_are_learned() -> None:
    shown = "> the red door\nGerman: die rote Tür\n\n> the red lamp\nGerman: die rote Lampe\n\n> a red\nGerman: ein rote\n\n"
    assert ask("translator", "", f"{shown}> red sky\nGerman:") == "rote sky"


def test_what_cannot_be_translated_is_labelled() -> None:
    assert ask("translator", "Translate.", "> Nothing is known.") == "[no translation] Nothing is known."


# --- extractor ----------------------------------------------------------------------------------------------

MAIL = "> Dear team,\n> order A-4711 of 3 May 2026 for Ana Lind cost EUR 1,250.00.\n> Write to ana.lind@example.org or +49 30 1234567.\n> Ticket: T-99"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("order_number", "A-4711"), ("date", "3 May 2026"), ("customer_name", "Ana Lind"), ("amount", "EUR 1,250.00"),
        ("email", "ana.lind@example.org"), ("phone", "+49 30 1234567"), ("ticket", "T-99"), ("website", None),
        ("mood", None),
    ],
)  # fmt: skip
def test_a_field_is_found_by_its_name(field: str, value: str | None) -> None:
    said = ask("extractor", f"Give JSON. Fields: {field}", f"{MAIL}\nJSON:")
    assert read_fields(said, (field,)) == {field: value}


def test_examples_tell_where_a_value_stands() -> None:
    shown = '> Unload at Birch please.\nJSON: {"gate": "Birch"}\n\n> Drop it at Cedar now.\nJSON: {"gate": "Cedar"}\n\n'
    assert ask("extractor", "Fields: gate", "> Bring it at Maple today.\nJSON:") == '{"gate": null}'
    assert ask("extractor", "Fields: gate", f"{shown}> Bring it at Maple today.\nJSON:") == '{"gate": "Maple"}'
    assert ask("extractor", "", f"{shown}> Bring it at Maple today.\nJSON:") == '{"gate": "Maple"}'


# --- behind the client --------------------------------------------------------------------------------------


def models(name: str) -> Models:
    from resources.model_config import ModelsFile

    chat: list[Any] = [
        {"name": "extractive", "provider": "offline", "model": "extractive"},
        {"name": "mine", "provider": "offline", "model": name},
    ]
    return Models(ModelsFile.model_validate({**MODELS, "chat": chat}))


@pytest.mark.parametrize("name", offline_tasks.MODELS)
def test_it_is_reached_like_any_other_model(name: str) -> None:
    chat = models(name).chat("mine")
    messages = [
        {"role": "system", "content": "Labels: a, b. Fields: date."},
        {"role": "user", "content": "> b on 2026-01-01"},
    ]
    said = chat.complete(messages)
    assert said.text == offline_tasks.answer(name, messages)
    assert said.model == f"{name} (offline)"
    assert said.usage.input_tokens > 0
    assert chat.offline
    assert chat.fingerprint != models("extractive").chat("mine").fingerprint


def test_a_name_that_is_none_is_refused_with_those_there_are() -> None:
    from resources.errors import PermanentError

    with pytest.raises(
        PermanentError, match=r"no model 'clasifier'; it has 'extractive', 'classifier', .*Did you mean 'classifier'\?"
    ):
        models("clasifier").chat("mine")


def test_another_process_says_the_same() -> None:
    """Nothing depends on the order of sets or on hashes of texts, which differ from process to process."""
    user = f"{SHOWN}> A late invoice, and a wrong parcel\nLabel:"
    system = "Labels: post, money, none. Probabilities."
    code = (
        "import sys, json; from resources import offline_tasks as o; m = json.load(sys.stdin); "
        "print(json.dumps([o.answer(name, m) for name in o.MODELS]))"
    )
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    said = [offline_tasks.answer(name, messages) for name in offline_tasks.MODELS]
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code], input=json.dumps(messages), capture_output=True, text=True, check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        )  # fmt: skip
        assert json.loads(done.stdout) == said
