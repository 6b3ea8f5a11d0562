"""Two states of a configuration become one: who is compared with whom, and under which names."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from assets.experiments.arena import Contest, Merged, Side, changes, merge, unused_edits
from resources.config import ProjectConfig, load_config
from resources.errors import PermanentError
from resources.models import Models
from resources.prompt_config import PromptConfig
from tests.conftest import MODELS
from tests.experiment_support import UNGUARDED, USER, files

Write = Callable[[str, dict[str, Any]], ProjectConfig]


def no_versions(reference: str) -> PromptConfig:
    raise PermanentError(f"prompt {reference}: not on record")


def side(config: ProjectConfig, find: Callable[[str], PromptConfig] = no_versions) -> Side:
    return Side(config, Models(config.models), find)


def content(**changes: Any) -> dict[str, Any]:
    """Files of a data directory; keyword arguments replace whole files."""
    return {
        "sources.yaml": {"sources": [{"name": "docs", "path": "docs"}]},
        "models.yaml": deepcopy(MODELS),
        "indexes/main.yaml": {"name": "main", "embedder": "lexical"},
        **files(),
        **changes,
    }


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def made(name: str, content: dict[str, Any]) -> ProjectConfig:
        for path, value in content.items():
            target = tmp_path / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(value if isinstance(value, str) else yaml.safe_dump(value), encoding="utf-8")
        return load_config(tmp_path / name)

    return made


def experiment(**changes: Any) -> dict[str, Any]:
    return {**files()["experiments/catalogue.yaml"], **changes}


def contest(base: ProjectConfig, head: ProjectConfig, **options: Any) -> tuple[Contest, Merged]:
    merged = merge(side(base), side(head), ["catalogue"], **options)
    return merged.contests[0], merged


def test_equal_states_have_nothing_to_compare(write: Write) -> None:
    found, merged = contest(write("base", content()), write("head", content()))
    assert found.pairs == ()
    assert found.experiment is None
    assert merged.config.experiments == {}


def test_a_part_of_the_base_stands_beside_the_head_s_and_only_what_differs_does(write: Write) -> None:
    changed = {"name": "unguarded", "system": UNGUARDED + " Be brief.", "user": USER}
    found, merged = contest(write("base", content()), write("head", content(**{"prompts/unguarded.yaml": changed})))
    (pair,) = found.pairs
    assert (pair.base, pair.head) == (
        "main/unguarded--base/hybrid/k1/extractive",
        "main/unguarded/hybrid/k1/extractive",
    )
    assert merged.config.prompts["unguarded--base"].system == UNGUARDED
    assert set(merged.config.indexes) == {"main"}
    assert found.experiment is not None
    assert [choice.name for choice in found.experiment.choices()] == [pair.base, pair.head]
    assert found.experiment.baseline.name == pair.base


def test_an_embedder_that_changes_changes_the_indexes_that_use_it(write: Write) -> None:
    models = deepcopy(MODELS)
    models["embedding"][0]["dimensions"] = 128
    found, merged = contest(write("base", content()), write("head", content(**{"models.yaml": models})))
    (pair,) = found.pairs
    assert pair.parts == ("index main",)
    assert merged.config.indexes["main--base"].embedder == "lexical--base"
    assert merged.config.embedding_model("lexical--base").dimensions == 384
    assert merged.config.embedding_model("lexical").dimensions == 128
    both = Models(merged.config.models)
    assert both.embedder("lexical").fingerprint != both.embedder("lexical--base").fingerprint


def test_a_model_s_parameters_and_provider_come_along(write: Write) -> None:
    models, edited = deepcopy(MODELS), deepcopy(MODELS)
    for one, variable in ((models, "OLD_URL"), (edited, "NEW_URL")):
        one["providers"]["remote"] = {"kind": "openai", "base_url_env": variable}
        one["chat"].append({"name": "big", "provider": "remote", "model": "large"})
    grid = {**experiment()["grid"], "model": ["extractive", "big"]}
    one = experiment(grid=grid, baseline={**experiment()["baseline"], "model": "big"})
    head = write("head", content(**{"models.yaml": edited, "experiments/catalogue.yaml": one}))
    found, merged = contest(write("base", content(**{"models.yaml": models, "experiments/catalogue.yaml": one})), head)
    (pair,) = found.pairs
    assert pair.base.endswith("/big--base")
    assert merged.config.chat_model("big--base").provider == "remote--base"
    assert merged.config.models.providers["remote--base"].base_url_env == "OLD_URL"
    assert merged.config.models.providers["remote"].base_url_env == "NEW_URL"


def test_a_price_or_a_limit_is_no_change(write: Write) -> None:
    models = deepcopy(MODELS)
    models["chat"][0] |= {"price": {"input_per_million": 3.0}, "limits": {"concurrency": 9}}
    found, _ = contest(write("base", content()), write("head", content(**{"models.yaml": models})))
    assert found.pairs == ()


def test_retrieval_and_context_patches_of_one_name_stand_beside_each_other(write: Write) -> None:
    def with_patches(candidates: int, tokens: int) -> dict[str, Any]:
        grid = {
            **experiment()["grid"],
            "retrieval": [{"name": "plain"}, {"name": "wide", "rerank": {"kind": "lexical", "candidates": candidates}}],
            "context": [{"name": "all"}, {"name": "short", "max_tokens": tokens}],
        }
        baseline = {**experiment()["baseline"], "retrieval": "wide", "context": "short"}
        return content(**{"experiments/catalogue.yaml": experiment(grid=grid, baseline=baseline)})

    found, _ = contest(write("base", with_patches(20, 200)), write("head", with_patches(40, 100)))
    answering = found.pairs[0]
    assert answering.base.endswith("extractive+wide--base+short--base")
    assert set(answering.parts) == {"retrieval wide", "context short"}
    assert found.experiment is not None
    patches = {patch.name: patch for patch in found.experiment.grid.retrieval}
    assert patches["wide--base"].rerank is not None
    assert patches["wide--base"].rerank.candidates == 20
    assert patches["wide"].rerank is not None
    assert patches["wide"].rerank.candidates == 40
    assert {choice.name for choice in found.experiment.choices()} >= {answering.base, answering.head}


def test_a_promoted_variant_stays_as_long_as_the_grid_has_it(write: Write) -> None:
    base = write("base", content())
    promoted = {"catalogue": "main/guarded/hybrid/k2/extractive"}
    changed = {"name": "guarded", "system": "x", "user": USER}
    found, _ = contest(base, write("head", content(**{"prompts/guarded.yaml": changed})), promoted=promoted)
    assert found.champion == "main/guarded/hybrid/k2/extractive, promoted"
    assert [pair.kind for pair in found.pairs] == ["answers"]
    smaller = experiment(grid={**experiment()["grid"], "prompt": ["unguarded"]})
    found, _ = contest(base, write("other", content(**{"experiments/catalogue.yaml": smaller})), promoted=promoted)
    assert found.pairs[0].shown == ("main/guarded/hybrid/k2/extractive", "main/unguarded/hybrid/k1/extractive")
    assert "not in the head's grid any more" in found.pairs[0].note
    found, _ = contest(base, base, promoted={"catalogue": "main/gone/hybrid/k2/extractive"})
    assert "the promoted main/gone/hybrid/k2/extractive is not in its grid" in found.champion


def test_what_nobody_answers_with_is_compared_with_itself_and_what_is_new_with_the_champion(write: Write) -> None:
    head = content(
        **{
            "prompts/guarded.yaml": {"name": "guarded", "system": "Other.", "user": USER},
            "prompts/fresh.yaml": {"name": "fresh", "system": "New.", "user": USER},
            "experiments/catalogue.yaml": experiment(
                grid={**experiment()["grid"], "prompt": ["guarded", "unguarded", "fresh"], "k": [1, 2, 5]}
            ),
        }
    )
    found, _ = contest(write("base", content()), write("head", head))
    told = [(pair.kind, pair.base, pair.head, pair.gates) for pair in found.pairs]
    assert sorted(told) == [
        ("edited", "main/guarded--base/hybrid/k1/extractive", "main/guarded/hybrid/k1/extractive", True),
        ("new", "main/unguarded/hybrid/k1/extractive", "main/fresh/hybrid/k1/extractive", False),
        ("new", "main/unguarded/hybrid/k1/extractive", "main/unguarded/hybrid/k5/extractive", False),
    ]


def test_rules_that_the_change_edits_are_told_and_edits_outside_experiments_too(write: Write) -> None:
    base = write("base", content())
    head = write(
        "head",
        content(
            **{
                "prompts/spare.yaml": {"name": "spare", "system": "s", "user": USER},
                "experiments/catalogue.yaml": experiment(confidence=0.8),
            }
        ),
    )
    found, _ = contest(base, head)
    assert found.notes == ("the change edits the rules it is judged by (confidence); the head's were used",)
    assert unused_edits(base, head, ["catalogue"]) == ["new prompt spare"]


def test_versions_on_record_become_files_of_their_own(write: Write) -> None:
    def with_version(number: int) -> dict[str, Any]:
        grid = {**experiment()["grid"], "prompt": ["guarded", "unguarded", f"unguarded@{number}"]}
        baseline = {**experiment()["baseline"], "prompt": f"unguarded@{number}"}
        return content(**{"experiments/catalogue.yaml": experiment(grid=grid, baseline=baseline)})

    def find(reference: str) -> PromptConfig:
        return PromptConfig(name="unguarded", system=f"As {reference}.", user=USER)

    base, head = side(write("base", with_version(1)), find), side(write("head", with_version(2)), find)
    merged = merge(base, head, ["catalogue"])
    assert merged.contests[0].pairs[0].base == "main/unguarded--v1/hybrid/k1/extractive"
    assert merged.config.prompts["unguarded--v2"].system == "As unguarded@2."
    with pytest.raises(PermanentError, match="not on record"):
        merge(side(base.config), side(head.config), ["catalogue"])


def test_an_index_whose_source_is_gone_cannot_be_compared(write: Write) -> None:
    other = {"sources": [{"name": "docs", "path": "docs"}, {"name": "old", "path": "old"}]}
    base = content(
        **{"sources.yaml": other, "indexes/main.yaml": {"name": "main", "embedder": "lexical", "sources": ["old"]}}
    )
    with pytest.raises(PermanentError, match="has none of them any more"):
        contest(write("base", base), write("head", content()))


def test_the_edit_is_told_in_keys_and_lines_and_never_in_words(write: Write) -> None:
    edited = {
        "name": "unguarded",
        "system": UNGUARDED + "\nThe word Rumpelstiltskin.\n",
        "user": USER,
        "refusal": "No.",
    }
    found, merged = contest(write("base", content()), write("head", content(**{"prompts/unguarded.yaml": edited})))
    assert found.experiment is not None
    choices = {choice.name: choice for choice in found.experiment.choices()}
    said = changes(merged.config, choices[found.pairs[0].base], choices[found.pairs[0].head])
    assert said == ["prompt unguarded: system (+1 -0 lines), refusal (+1 -1 lines)"]


def test_a_prompt_that_is_edited_and_left_by_who_answers_is_compared_all_the_same(write: Write) -> None:
    head = content(
        **{
            "prompts/unguarded.yaml": {"name": "unguarded", "system": "Other.", "user": USER},
            "experiments/catalogue.yaml": experiment(baseline={**experiment()["baseline"], "prompt": "guarded"}),
        }
    )
    found, _ = contest(write("base", content()), write("head", head))
    told = {pair.kind: (pair.base, pair.head) for pair in found.pairs}
    assert told == {
        "answers": ("main/unguarded--base/hybrid/k1/extractive", "main/guarded/hybrid/k1/extractive"),
        "edited": ("main/unguarded--base/hybrid/k1/extractive", "main/unguarded/hybrid/k1/extractive"),
    }


def test_a_task_without_documents_needs_no_source_and_no_index(write: Write) -> None:
    models = deepcopy(MODELS)
    models["chat"].append({"name": "classifier", "provider": "offline", "model": "classifier"})
    grid = {"prompt": ["sort"], "model": ["classifier"]}
    files_of = {
        "models.yaml": models,
        "prompts/sort.yaml": {"name": "sort", "system": "Labels: {{ labels }}", "user": "{{ input }}"},
        "evaluation/tickets.yaml": {
            "name": "tickets", "task": "classification", "labels": ["a", "b"], "questions": "tickets.jsonl", "sources": [],
        },
        "evaluation/tickets.jsonl": "",
        "experiments/triage.yaml": {
            "name": "triage", "dataset": "tickets", "grid": grid, "baseline": {"prompt": "sort", "model": "classifier"},
        },
    }  # fmt: skip
    changed = {"name": "sort", "system": "Choose of {{ labels }}", "user": "{{ input }}"}
    base, head = (
        write("base", content(**files_of)),
        write("head", content(**{**files_of, "prompts/sort.yaml": changed})),
    )
    merged = merge(side(base), side(head), ["triage"])
    (pair,) = merged.contests[0].pairs
    assert (pair.base, pair.head) == ("sort--base/classifier", "sort/classifier")
    assert merged.sources == []
    assert merged.config.experiments["triage"].decision_metric == "sklearn.accuracy/1"
