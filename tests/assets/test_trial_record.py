"""The record of a trial is complete: everything that was sent, found, said and judged, with the versions of all of it."""

import json
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

from assets.evaluation.metrics.base import METRICS
from assets.experiments import verdicts
from assets.experiments.records import FullRecord, find_trials, full_record
from pipelines.commands import experiments as commands
from resources.answerer import strip_citations
from resources.errors import PermanentError
from resources.platform import Platform
from tests.experiment_support import GUARDED, USER, files, load, sentence, write_documents
from tests.lifecycle import run_experiment

CHAIN = [{"name": "notes", "system": "Quote the sentences of the passages that matter, such as [1].", "user": USER}]
CHAINED = {"name": "chained", "system": GUARDED, "user": USER + "Notes: {{ steps.notes }}\n"}


@pytest.fixture
def platform(make_platform: Callable[..., Platform], tmp_path: Path) -> Platform:
    """An experiment with a chain and a small context has run."""
    write_documents(tmp_path / "docs")
    written = files()
    written["prompts/guarded.yaml"] |= {"parameters": {"seed": 11}}
    written["prompts/chained.yaml"] = {**CHAINED, "chain": CHAIN}
    written["experiments/catalogue.yaml"]["grid"] |= {
        "prompt": ["guarded", "unguarded", "chained"],
        "k": [1, 2],
        "context": [{"name": "all"}, {"name": "short", "max_tokens": 24, "order": "best_last"}],
    }
    platform = make_platform(**written)
    instance = dg.DagsterInstance.ephemeral()
    load(platform, instance)
    run_experiment(platform, "catalogue", instance)
    return platform


def record(platform: Platform, variant: str, question: str = "weight-drum") -> FullRecord:
    with platform.database.connect() as connection:
        (trial,) = find_trials(connection, "catalogue", question, variant).values()
        return full_record(connection, trial)


def test_record_of_a_trial_is_complete(platform: Platform) -> None:
    found = record(platform, "main/guarded/hybrid/k2/extractive")
    assert (found.state, found.tries, found.error, found.refused) == ("ok", 1, None, False)
    assert found.question["text"] == "How many kilograms does the drum weigh?"
    assert (found.question["answer"], found.question["split"]) == ("13 kilograms", "dev")
    assert [span["quote"] for span in found.question["gold"]] == [sentence("drum")]
    assert len(found.retrieved) == 2
    best = found.retrieved[0]
    assert best["path"] == "drum.md"
    assert sentence("drum") in best["text"]
    assert {"version_id", "start", "end", "rank", "score", "vector_rank", "text_rank", "chunk_hash"} <= set(best)
    assert [one["number"] for one in found.supplied] == [1, 2]
    assert found.supplied[0]["text"] == best["text"]
    (call,) = found.calls
    assert [message["role"] for message in call["messages"]] == ["system", "user"]
    assert sentence("drum") in call["messages"][1]["content"].replace("> ", "")
    assert call["text"] == found.answer
    assert found.citations[0]["path"] == "drum.md"
    assert found.usage["requests"] == 1
    assert found.latency["retrieval"] is not None
    assert found.latency["generation"] is not None
    assert set(found.scores) == set(METRICS)
    assert found.scores["genaiops.answer_quality/1"]["value"] is not None
    assert found.seeds == {"model": 11, "statistics": [7]}
    versions = found.versions
    assert versions["prompt"]["version"] == 1
    assert versions["dataset"] == {"name": "products", "version": 1}
    assert versions["index"]["snapshot"] == 1
    assert versions["index"]["fingerprint"]
    assert versions["model"]["parameters"] == {"seed": 11}
    assert versions["reported_model"]["reported"]
    assert versions["code"]["trial"]
    assert versions["metrics"] == {metric: one["fingerprint"] for metric, one in found.scores.items()}
    assert found.results == [1]
    json.dumps(found.to_json(), allow_nan=False)


def test_claims_are_shown_with_their_words_and_passages(platform: Platform) -> None:
    found = record(platform, "main/guarded/hybrid/k2/extractive")
    offline = found.claims[verdicts.OFFLINE]
    (claim, *_) = offline["items"]
    answer = strip_citations(found.answer or "")
    assert claim["words"] == answer[claim["start"] : claim["end"]]
    assert "13" in claim["words"]
    assert (claim["verdict"], claim["passages"]) == ("entailed", [1])


def test_verdict_of_a_judge_is_shown_with_what_it_is_about(platform: Platform) -> None:
    found = record(platform, "main/guarded/hybrid/k2/extractive")
    items = [
        {"of": "reference", "start": 0, "end": 2, "verdict": "covered", "passages": []},
        {"of": "passage", "start": None, "end": None, "verdict": "unused", "passages": [2]},
    ]
    with platform.database.connect() as connection:
        rows = [
            verdicts.TrialVerdicts(found.trial, "judge.own/1", "f", {"items": items, "spread": 0.5}, ("g",)),
            verdicts.TrialVerdicts(found.trial, "judge.broken/1", "f", {}, (), "ModelResponseError"),
        ]
        verdicts.write(connection, rows, "r")
        again = full_record(connection, found.trial)
    own = again.claims["judge.own/1"]
    assert [item["words"] for item in own["items"]] == ["13", None]
    assert own["spread"] == 0.5
    assert again.claims["judge.broken/1"]["error"] == "ModelResponseError"


def test_chain_and_truncated_context_are_shown_as_they_were_sent(platform: Platform) -> None:
    found = record(platform, "main/chained/hybrid/k2/extractive+short")
    assert len(found.calls) == 2
    assert found.calls[0]["messages"][0]["content"].startswith("Quote the sentences")
    assert found.calls[0]["text"].split()[0] in found.calls[1]["messages"][1]["content"]
    assert len(found.supplied) < len(found.retrieved)
    shown = found.supplied[0]
    hit = found.retrieved[shown["number"] - 1]
    assert shown["text"] in hit["text"]
    assert found.usage["requests"] == 2


def test_no_column_of_the_table_is_left_out(platform: Platform) -> None:
    with platform.database.connect() as connection:
        rows = connection.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = 'genaiops' AND table_name = 'trial'"
        ).fetchall()
    shown = {
        "fingerprint": "trial", "experiment": "experiment", "variant": "variant", "index_name": "versions",
        "snapshot": "versions", "dataset": "question", "dataset_version": "question", "question_id": "question",
        "status": "state", "error": "error", "tries": "tries", "retrieved": "retrieved", "generation": "calls",
        "answer": "answer", "refused": "refused", "citations": "citations", "usage": "usage", "retrieval": "retrieval",
        "supplied": "supplied", "steps": "calls", "retrieval_latency": "latency", "generation_latency": "latency",
        "run_id": "run_id", "created_at": "created_at", "attempts": "attempts", "given_up_at": "given_up_at",
        "versions": "versions",
    }  # fmt: skip
    assert {row[0] for row in rows} == set(shown)
    assert set(shown.values()) <= set(FullRecord.__dataclass_fields__)


def test_record_without_what_is_no_longer_kept(platform: Platform) -> None:
    found = record(platform, "main/guarded/hybrid/k1/extractive")
    with platform.database.connect() as connection:
        connection.execute("DELETE FROM generation")
        connection.execute("DELETE FROM evaluation_dataset")
        again = full_record(connection, found.trial)
    assert again.calls == [{"generation": found.calls[0]["generation"], "model": None}]
    assert again.question["text"] is None
    assert again.answer == found.answer


def test_unknown_trials_are_explained(platform: Platform) -> None:
    with platform.database.connect() as connection:
        with pytest.raises(PermanentError, match="trials on 32 questions"):
            find_trials(connection, "catalogue", "weight-dum")
        with pytest.raises(PermanentError, match="variants that have: main/"):
            find_trials(connection, "catalogue", "weight-drum", "main/other")
        with pytest.raises(PermanentError, match="none at all"):
            find_trials(connection, "other", "weight-drum")
        with pytest.raises(PermanentError, match="no trial x"):
            full_record(connection, "x")


def test_commands_show_list_and_retry(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "open_platform", lambda: platform)

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(commands.trials, list(arguments))
        assert result.exit_code == 0, result.output
        return result.output

    listed = call("show", "catalogue", "weight-drum")
    assert listed.count("ok, answered, quality") >= 6
    variant = "main/chained/hybrid/k2/extractive+short"
    shown = call("show", "catalogue", "weight-drum", "--variant", variant)
    for part in (
        "Retrieved",
        "Prompt 1 of 2",
        "Prompt 2 of 2",
        "Verdicts of genaiops.groundedness",
        "seeds",
        "docs/drum.md",
    ):
        assert part in shown
    (told,) = json.loads(call("show", "catalogue", "weight-drum", "--variant", variant, "--json"))
    assert told["answer"]
    assert "No trial of catalogue on record failed" in call("failed", "catalogue")
    with platform.database.connect() as connection:
        connection.execute(
            "UPDATE trial SET status = 'failed', error = 'TransientError', attempts = 9, given_up_at = now() WHERE fingerprint = %s",
            (told["trial"],),
        )
    assert "TransientError  9 attempts, given up" in call("failed", "catalogue")
    assert "given up at" in call("show", "catalogue", "weight-drum", "--variant", variant)
    assert "1 trials will be tried again" in call("retry", "catalogue", "--question", "weight-drum")
    assert "0 attempts" in call("failed", "catalogue")
