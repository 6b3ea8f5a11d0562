"""Tasks without documents, end to end through Dagster: dataset, experiment, verdict, champion, asking."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from rich.console import Console

from assets.evaluation.metrics.base import METRICS
from assets.experiments.champion import promote
from assets.experiments.compare import write_comparison
from assets.monitoring.questions import compare_questions
from pipelines.asking import answer_question, describe
from pipelines.demo import _print_leaderboard
from resources.config import load_config
from resources.errors import PermanentError
from resources.platform import Platform
from tests import task_world
from tests.fake_openai import FakeOpenAI, Fault, Request, Status
from tests.lifecycle import build_dataset, run_experiment
from tests.standins import TWO_SOURCES, Lifecycle, make


def evaluate(
    platform: Platform, dataset: str, experiment: str
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Build the dataset and run the experiment; returns the metadata, the leaderboard and the recommendation."""
    instance = dg.DagsterInstance.ephemeral()
    build_dataset(platform, dataset, instance)
    work = run_experiment(platform, experiment, instance)["scored_variants"]
    with platform.database.connect() as connection:
        row = connection.execute(
            "SELECT leaderboard, recommendation FROM experiment_result WHERE experiment = %s ORDER BY result_id DESC LIMIT 1",
            (experiment,),
        ).fetchone()
    assert row is not None
    return work, row[0], row[1]


@pytest.mark.parametrize(
    ("files", "dataset", "experiment", "better", "decided_on"),
    [
        (task_world.triage, "tickets", "triage", "shown/classifier+near", "sklearn.accuracy/1"),
        (task_world.summaries, "news", "summaries", "short/summarizer", "rouge.rougeL/1"),
        (task_world.translations, "phrases", "translations", "words/translator", "sacrebleu.chrf/1"),
        (task_world.fields, "orders", "fields", "fields/extractor+four", "genaiops.extraction_f1/1"),
    ],
)
def test_the_planted_variant_is_recommended(
    make_platform: Callable[..., Platform],
    files: Callable[[], dict[str, Any]],
    dataset: str,
    experiment: str,
    better: str,
    decided_on: str,
) -> None:
    platform = make_platform(**files())
    work, board, recommendation = evaluate(platform, dataset, experiment)
    assert (board["decision_metric"], board["snapshots"]) == (decided_on, {})
    assert (recommendation["verdict"], recommendation["recommended"]) == ("promote", better)
    assert recommendation["confirmation"]["outcome"] == "confirmed"
    assert (work["searches"], work["searches_remembered"]) == (0, 0)
    task = platform.config.datasets[dataset].task
    for row in board["rows"]:
        assert (row["index"], row["snapshot"]) == ("", None)
        for metric, means in row["metrics"].items():
            assert (means["answerable"] is None) or task in METRICS[metric].tasks, metric
    page = Path(work["report"]).read_text(encoding="utf-8")
    assert f"inputs of {task} without documents" in page
    assert not any(column in page for column in ("Refusal P", "Used chunks"))
    assert not any("nanswerable" in one or "Groundedness" in one for one in recommendation["caveats"])
    whole_set = {key for row in board["rows"] for key in row["whole_set"] if "[" not in key}
    assert (
        whole_set
        == {
            "classification": {"sklearn.precision_macro/1", "sklearn.recall_macro/1", "sklearn.f1_macro/1"},
            "summarization": set(),
            "translation": {"sacrebleu.corpus_bleu/1", "sacrebleu.corpus_chrf/1"},
            "extraction": {"genaiops.extraction_f1_micro/1"},
        }[str(task)]
    )
    for key in whole_set:
        one = board["rows"][0]["whole_set"][key]
        assert 0 <= one["low"] <= one["estimate"] <= one["high"] <= 1
        assert one["title"] in page


def rewrite(platform: Platform, **files: Any) -> Platform:
    """The platform as another process sees it after files of its data directory were written."""
    for name, content in files.items():
        text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
        (platform.config.data_dir / name).write_text(text, encoding="utf-8")
    return replace(platform, config=load_config(platform.config.data_dir))


def test_the_champion_is_promoted_asked_and_stays_as_it_was_proven(
    make_platform: Callable[..., Platform], capsys: pytest.CaptureFixture[str]
) -> None:
    platform = make_platform(**task_world.triage())
    evaluate(platform, "tickets", "triage")
    with pytest.raises(PermanentError, match="does not recommend it"):
        promote(platform, "triage", "shown/classifier", "me", "because")
    assert not answer_question(platform, "I was charged twice", experiment="triage").answer.hits
    champion = promote(platform, "triage", "shown/classifier+near", "me", "it sorts better")
    assert (champion.variant.index, champion.variant.k) == ("", 0)

    text = "Hello\nMy parcel never arrived, and the courier left nothing. [1]\n> Label: billing"
    reply = answer_question(platform, text, experiment="triage", labels=())
    assert reply.read["label"] == "delivery"
    assert sum(reply.read["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert (reply.to_json()["task"], reply.to_json()["read"], reply.to_json()["passages"]) == (
        "classification",
        reply.read,
        [],
    )
    capsys.readouterr()
    describe(reply)
    printed = capsys.readouterr().out
    assert "read as: delivery (" in printed
    assert "shown/classifier+near, classification without documents; chosen: it sorts better" in printed
    describe(replace(reply, answer=replace(reply.answer, text="I cannot tell.")))
    assert "cannot be read: it is not one of billing, delivery" in capsys.readouterr().out
    assert reply.answer.messages[1]["content"].endswith(
        "> Hello\n> My parcel never arrived, and the courier left nothing. [1]\n> > Label: billing\nLabel:"
    )
    with platform.database.connect() as connection:
        logged = connection.execute(
            """SELECT question, answer, index_name, snapshot, variant, generation.messages, interaction.retrieved
               FROM interaction JOIN generation ON generation.fingerprint = interaction.generation
               WHERE interaction_id = %s""",
            (reply.interaction,),
        ).fetchone()
    assert logged == (text, reply.answer.text, "", 0, champion.variant.fingerprint, reply.answer.messages, [])
    with pytest.raises(PermanentError, match="has no documents; leave snapshot, sources and languages out"):
        answer_question(platform, text, experiment="triage", sources=("docs",))

    # another prompt and one label more: the champion goes on as it was promoted
    prompt = {**task_world.PROMPTS["shown"], "system": "Labels: {{ labels | join(', ') }}. Give the label."}
    header = yaml.safe_load((platform.config.data_dir / "evaluation/tickets.yaml").read_text())
    changed = rewrite(
        platform,
        **{
            "prompts/shown.yaml": prompt,
            "evaluation/tickets.yaml": {**header, "labels": [*header["labels"], "sales"]},
        },
    )
    again = answer_question(changed, text, experiment="triage")
    assert again.variant == champion.variant
    assert again.answer.generation == reply.answer.generation
    assert "as it was promoted" in again.variant_reason


def test_a_second_run_repeats_nothing_and_another_header_everything(make_platform: Callable[..., Platform]) -> None:
    files = task_world.fields()
    platform = make_platform(**files)
    first, board, _ = evaluate(platform, "orders", "fields")
    assert (first["trials_run"], first["dagster/row_count"]) == (96 + 64, 96)  # with the confirmation
    second, same, _ = evaluate(platform, "orders", "fields")
    assert second["new_result"] is False
    assert same == board
    assert second.get("trials_run", 0) == 0
    header = {**files["evaluation/orders.yaml"], "fields": ["due_date", "order_number", "gate"]}
    changed = rewrite(platform, **{"evaluation/orders.yaml": header})
    with pytest.raises(Exception, match="header of dataset orders asks for something else than its version 1"):
        run_experiment(changed, "fields", dg.DagsterInstance.ephemeral())
    third, _, _ = evaluate(changed, "orders", "fields")
    assert third["trials_run"] == 96 + 64  # the order of the fields is part of the prompt


def test_two_variants_are_shown_side_by_side(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(**task_world.translations())
    evaluate(platform, "phrases", "translations")
    console = Console(width=200, record=True, file=io.StringIO())
    _print_leaderboard(console, platform, "translations")
    printed = console.export_text()
    assert "2 variants on 48 inputs" in printed
    assert all(title in printed for title in ("chrf", "BLEU", "METEOR", "words/translator"))
    assert "recall" not in printed
    comparison, page = write_comparison(platform, "translations", "plain/translator", "words/translator")
    assert comparison.counts()["better"] == len(comparison.pairs) == 48
    text = page.read_text(encoding="utf-8")
    assert "translation]</mark>" in text
    assert '<li class="only"' not in text


def test_an_unreadable_answer_is_counted_and_scored_worst(make_platform: Callable[..., Platform]) -> None:
    """A prompt whose answers have no form is worst on every input, and the reader is told so."""
    files = task_world.triage()
    silent = {"name": "silent", "system": "Sort messages.", "user": "{{ input }}\nTopic:"}
    files["prompts/silent.yaml"] = silent
    files["experiments/triage.yaml"] |= {
        "grid": {"prompt": ["bare", "silent"], "model": ["classifier"]},
        "baseline": {"prompt": "bare", "model": "classifier"},
    }
    platform = make_platform(**files)
    work, board, recommendation = evaluate(platform, "tickets", "triage")
    row = next(row for row in board["rows"] if row["variant"] == "silent/classifier")
    assert (row["failed"], row["unreadable"], row["n"]) == (0, 64, 64)
    assert row["metrics"]["sklearn.accuracy/1"] == {
        "answerable": 0.0, "answerable_defined": 64, "unanswerable": None, "unanswerable_defined": 0,
    }  # fmt: skip
    assert row["metrics"]["sklearn.log_loss/1"]["answerable"] == pytest.approx(36.04, abs=0.01)
    assert any("64 answers had not the form" in one for one in recommendation["caveats"])
    assert {one["said"] for one in row["confusions"]} == {""}
    assert "→\nunreadable" in Path(work["report"]).read_text(encoding="utf-8")


def test_inputs_of_live_use_are_compared_with_the_dataset(make_platform: Callable[..., Platform]) -> None:
    """They have no index; they are known by the variant that was measured on the dataset."""
    files = task_world.triage()
    files["policies/drift.yaml"] = {"minimum_questions": 20}
    platform = make_platform(**files)
    evaluate(platform, "tickets", "triage")
    asked = [row["question"] for row in task_world.tickets(seed=99)[:24]]
    for text in asked:
        answer_question(platform, text, experiment="triage")
    today = datetime.now(UTC).date()
    found = compare_questions(platform, "tickets", today, 200)
    assert found.reason == ""
    assert found.inputs["interactions"] == 24
    by_name = {signal.name: signal for signal in found.signals}
    assert by_name["length"].samples == (144, 24)
    assert by_name["retrieval_score"].effect is None


def test_a_dataset_without_sources_waits_for_nobody(make_data_dir: Callable[..., Path]) -> None:
    """Its partition has no upstream: a refresh wakes it never, an edit of its files does, and its experiment follows it."""
    files = {**TWO_SOURCES, **task_world.triage()}
    lifecycle = Lifecycle(load_config(make_data_dir(**files)))
    instance, cursor = dg.DagsterInstance.ephemeral(), None

    def tick() -> dict[str, set[str | None]]:
        nonlocal cursor
        result = dg.evaluate_automation_conditions(lifecycle.plain, instance=instance, cursor=cursor)
        cursor = result.cursor
        return {
            name: set(result.get_requested_partitions(dg.AssetKey(name)))
            for name in ("evaluation_dataset", "scored_variants")
        }

    tick()
    make(lifecycle, instance, "raw_documents", "docs")
    assert tick() == {"evaluation_dataset": {"quiz"}, "scored_variants": set()}
    make(lifecycle, instance, "evaluation_dataset", "tickets")
    assert tick() == {"evaluation_dataset": set(), "scored_variants": {"triage"}}


def test_a_chain_hands_on_what_its_step_said(make_platform: Callable[..., Platform]) -> None:
    """First the sentences that matter, then one of them; both calls are remembered and on record."""
    files = task_world.summaries()
    files["prompts/chained.yaml"] = {
        "name": "chained",
        "chain": [{"name": "facts", "system": "At most two sentences.", "user": "{{ input }}\nFacts:"}],
        "system": "One sentence.",
        "user": "Text:\n{{ input }}\nFacts:\n{{ steps.facts }}\nSummary:",
    }
    files["experiments/summaries.yaml"] |= {
        "grid": {"prompt": ["long", "chained"], "model": ["summarizer"]},
    }
    platform = make_platform(**files)
    work, board, recommendation = evaluate(platform, "news", "summaries")
    assert (recommendation["verdict"], recommendation["recommended"]) == ("promote", "chained/summarizer")
    assert work["trials_run"] == 2 * (48 + 32)
    with platform.database.connect() as connection:
        steps = connection.execute("SELECT count(*) FROM trial WHERE jsonb_array_length(steps) = 1").fetchone()
    assert steps == (80,)
    assert board["rows"][0]["output_tokens"] > 0


def test_a_real_endpoint_is_asked_and_read_the_same_way(make_platform: Callable[..., Platform]) -> None:
    """Labels with and without probabilities, chatter that is no label, and requests that fail for good."""
    by_text = {row["question"].splitlines()[0]: row["answer"] for row in task_world.tickets()}

    def said(body: dict[str, Any]) -> str:
        messages = body["messages"]
        first = next(line for line in messages[-1]["content"].split("\n") if line.startswith("> ")).removeprefix("> ")
        label = by_text[first]
        if "probabilities" in messages[0]["content"]:
            return f'```json\n{{"label": "{label}", "probabilities": {{"{label}": 1.0}}}}\n```'
        return f"I would say {label}." if label == "account" else f"Label: {label.upper()}\nBecause of the words."

    def refused(request: Request) -> Fault | None:
        return Status(400) if "Once more" in json.dumps(request.body) else None

    files = task_world.triage()
    files["models.yaml"] = {
        **task_world.MODELS,
        "providers": {**task_world.MODELS["providers"], "remote": {"kind": "openai"}},
        "chat": [*task_world.MODELS["chat"], {"name": "remote", "provider": "remote", "model": "m"}],
    }
    files["prompts/plain.yaml"] = {"name": "plain", "system": "Sort it.", "user": "{{ input }}"}
    files["experiments/triage.yaml"] |= {
        "grid": {"prompt": ["plain", "bare"], "model": ["remote"]},
        "baseline": {"prompt": "plain", "model": "remote"},
        "maximum_failed_share": 0.5,
    }
    with FakeOpenAI(answer=said, fault=refused) as server:
        platform = make_platform(**files)
        platform = replace(platform, environment={"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "k"})
        _, board, recommendation = evaluate(platform, "tickets", "triage")
    rows = {row["variant"]: row for row in board["rows"]}
    plain, bare = rows["plain/remote"], rows["bare/remote"]
    dev = [row for row in task_world.tickets() if row["split"] == "dev"]
    failing = sum("Once more" in row["question"] for row in dev)
    assert failing
    assert plain["failed"] == bare["failed"] == failing == bare["unreadable"]
    chatty = sum(row["answer"] == "account" and "Once more" not in row["question"] for row in dev)
    assert plain["unreadable"] == failing + chatty
    assert bare["metrics"]["sklearn.accuracy/1"]["answerable"] == pytest.approx(1 - failing / 64)
    assert plain["metrics"]["sklearn.accuracy/1"]["answerable"] == pytest.approx(1 - (failing + chatty) / 64)
    assert bare["metrics"]["sklearn.log_loss/1"]["answerable_defined"] == 64
    assert plain["metrics"]["sklearn.log_loss/1"]["answerable_defined"] == failing + chatty
    assert recommendation["recommended"] == "bare/remote"
    assert any("failed and count as the worst score" in one for one in recommendation["caveats"])
