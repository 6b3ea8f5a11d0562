"""The promoted variant goes on answering as it was proven, whatever the configuration says by now."""

from collections.abc import Callable
from typing import Any

import pytest

from assets.experiments.champion import Champion, answering_champion, current_champion
from assets.experiments.variants import expand, register_variants
from pipelines.asking import answer_question
from resources.platform import Platform
from tests.conftest import MODELS
from tests.index_world import refresh

USER = "{% for p in passages %}[{{ p.number }}] {{ p.document }}\n{{ p.text }}\n{% endfor %}Question: {{ question }}"
PROVEN = 'Answer in one sentence or reply exactly: "{{ refusal }}"'
INDEX = {"name": "main", "embedder": "lexical", "chunker": {"kind": "markdown", "unit": "characters", "size": 400}}
EXPERIMENT: dict[str, Any] = {
    "name": "one",
    "dataset": "facts",
    "grid": {"index": ["main"], "prompt": ["p"], "search_mode": ["hybrid"], "k": [2], "model": ["extractive"]},
    "baseline": {"index": "main", "prompt": "p", "search_mode": "hybrid", "k": 2, "model": "extractive"},
}


def files(system: str = PROVEN, **changed: Any) -> dict[str, Any]:
    return {
        "prompts/p.yaml": {"name": "p", "system": system, "user": USER},
        "evaluation/facts.yaml": {"name": "facts", "questions": "facts.jsonl", "sources": ["docs"]},
        "evaluation/facts.jsonl": "",
        "experiments/one.yaml": EXPERIMENT,
        "indexes/main.yaml": INDEX,
        **changed,
    }


@pytest.fixture
def promoted(make_platform: Callable[..., Platform]) -> Callable[..., Platform]:
    """Promote the only variant, then give the platform as the configuration is changed to."""
    platform = make_platform(**files())
    refresh(platform, "docs", {"belt.md": "# Belt\n\nA belt lasts about 30 000 km.\n"})
    (variant,) = expand(platform.config, platform.models, platform.config.experiments["one"])
    with platform.database.connect() as connection:
        register_variants(connection, [variant], "r")
        connection.execute(
            "INSERT INTO champion (experiment, variant, reason, set_by) VALUES ('one', %s, 'proven', 'ann')",
            (variant.fingerprint,),
        )
    return lambda *args, **changed: make_platform(**files(*args, **changed))


def answering(platform: Platform) -> Champion:
    with platform.database.connect() as connection:
        return answering_champion(connection, platform.config, platform.models, platform.config.experiments["one"])


def test_unchanged_configuration_answers_as_it_is(promoted: Callable[..., Platform]) -> None:
    champion = answering(promoted())
    assert (champion.proven, champion.reason, champion.snapshot) == (True, "proven", None)


def test_an_edited_prompt_does_not_speak_before_it_is_proven(promoted: Callable[..., Platform]) -> None:
    platform = promoted("Refuse everything.")
    champion = answering(platform)
    assert champion.proven
    assert champion.variant.prompt.system == PROVEN
    assert "as it was promoted" in champion.reason
    reply = answer_question(platform, "How long does a belt last?")
    assert reply.answer.messages[0]["content"].startswith("Answer in one sentence")
    assert reply.answer.text.startswith("A belt lasts about 30 000 km.")
    with platform.database.connect() as connection:
        row = connection.execute("SELECT variant, retrieval FROM interaction").fetchone()
        present = current_champion(connection, platform.config, platform.models, platform.config.experiments["one"])
    assert row is not None
    assert row[0] == champion.variant.fingerprint
    assert row[1]["queries"][0]["text"] == "How long does a belt last?"
    assert not present.proven, "an experiment compares with the configuration as it is now"
    assert present.variant.prompt.system == "Refuse everything."


def test_changed_retrieval_is_not_used_either(promoted: Callable[..., Platform]) -> None:
    changed = {**INDEX, "retrieval": {"rerank": {"kind": "lexical"}}}
    champion = answering(promoted(**{"indexes/main.yaml": changed}))
    assert champion.proven
    assert champion.variant.retrieval.rerank.kind == "none"


def test_an_index_that_was_built_anew_answers_from_the_snapshot_that_was_proven(
    promoted: Callable[..., Platform],
) -> None:
    smaller = {**INDEX, "chunker": {"kind": "markdown", "unit": "characters", "size": 60}}
    platform = promoted(**{"indexes/main.yaml": smaller})
    refresh(platform, "docs", {"belt.md": "# Belt\n\nA belt lasts about 40 000 km.\n"})
    champion = answering(platform)
    assert (champion.proven, champion.snapshot) == (True, 1)
    assert "30 000" in answer_question(platform, "How long does a belt last?").answer.text
    assert "40 000" in answer_question(platform, "How long does a belt last?", snapshot=2).answer.text


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"models.yaml": {**MODELS, "chat": [{**MODELS["chat"][0], "parameters": {"seed": 1}}]}}, "as it was; models.yaml"),
        ({"indexes/main.yaml": {**INDEX, "hnsw": {"ef_search": 99}}}, "another ef_search"),
        (
            {"models.yaml": {**MODELS, "embedding": [{**MODELS["embedding"][0], "dimensions": 128}]}},
            "",
        ),
    ],
)  # fmt: skip
def test_what_is_gone_is_said(promoted: Callable[..., Platform], changed: dict[str, Any], reason: str) -> None:
    champion = answering(promoted("Refuse everything.", **changed))
    if not reason:  # an older snapshot keeps its own embedding model
        assert champion.proven
        return
    assert not champion.proven
    assert champion.variant.prompt.system == "Refuse everything."
    assert reason in champion.reason


def test_a_variant_on_record_by_another_version_is_not_guessed_at(promoted: Callable[..., Platform]) -> None:
    platform = promoted("Refuse everything.")
    with platform.database.connect() as connection:
        connection.execute("UPDATE variant SET config = config - 'retrieval'")
    assert "earlier version" in answering(platform).reason
    with platform.database.connect() as connection:
        connection.execute("""UPDATE variant SET config = config || '{"retrieval": {"candidates": 7}}'""")
    assert "retrieval that has changed since" in answering(platform).reason
    with platform.database.connect() as connection:
        connection.execute("""UPDATE variant SET config = config || '{"k": 7}'""")
    champion = answering(platform)
    assert "another version" in champion.reason
    assert not champion.proven
