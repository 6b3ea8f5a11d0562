"""`genaiops preview` and `genaiops enrichment retry`."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from assets.chunks.chunking import chunk_source
from pipelines import cli
from pipelines.commands import sources
from resources.platform import Platform
from tests.enrichment_support import answering, index, models, with_server
from tests.fake_openai import FakeOpenAI
from tests.index_world import commit

STEP = {"kind": "summary", "method": "model", "model": "writer", "tries": 1}


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(answer=answering(lambda passage: "A summary.")) as server:
        yield server


@pytest.fixture
def run(
    make_platform: Callable[..., Platform], server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Platform, str]]:
    platform = with_server(
        make_platform(**{"models.yaml": models(), "indexes/main.yaml": index("main", [STEP], embedder="paid")}), server
    )
    monkeypatch.setattr(sources, "open_platform", lambda: platform)

    def invoke(*arguments: str, exit_code: int = 0) -> tuple[Platform, str]:
        result = CliRunner().invoke(cli.main, arguments)
        assert result.exit_code == exit_code, result.output
        return platform, result.output

    return invoke


def test_preview_shows_work_calls_and_money_before_anything_is_sent(run: Any, server: FakeOpenAI) -> None:
    platform, output = run("preview")
    assert "no documents were read yet" in output
    commit(platform, "docs", {"a.md": "# A\n\nOne chunk.", "b.md": "# B\n\nAnother chunk."})
    _, output = run("preview", "docs")
    assert "2 documents (2 distinct texts), 2 chunks, 2 of them to cut" in output
    assert "summary (writer)" in output
    assert "vectors of paid" in output
    assert "In all 3 calls" in output
    assert "USD" in output
    assert "policies/enrichment.yaml" in output
    assert server.requests == []
    _, output = run("preview", "docs", "--json")
    (found,) = json.loads(output)
    assert (found["calls"], found["chunks_to_make"], list(found["money"])) == (3, 2, ["USD"])
    assert "Chunk" not in output


def test_preview_refuses_unknown_sources(run: Any) -> None:
    _, output = run("preview", "dosc", exit_code=2)
    assert "Did you mean 'docs'" in output


def test_retry_says_how_many_values_will_be_asked_for_again(run: Any, server: FakeOpenAI) -> None:
    platform, _ = run("preview")
    commit(platform, "docs", {"a.md": "# A\n\nOne chunk."})
    _, output = run("enrichment", "retry", "docs")
    assert "Nothing was given up" in output
    server._answer = "no JSON"
    assert chunk_source(platform, "docs").steps[0].given_up == 1
    _, output = run("enrichment", "retry", "docs")
    assert "1 values will be asked for again" in output


def test_preview_shows_what_a_semantic_chunker_embeds_to_cut(
    make_platform: Callable[..., Platform], server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its windows of sentences are sent before there is a chunk; every one that is shown is one that is sent."""
    semantic = {"kind": "semantic", "unit": "tokens", "size": 60, "minimum": 10, "embedder": "paid"}
    files = {"models.yaml": models(), "indexes/main.yaml": index("main", chunker=semantic, embedder="paid")}
    platform = with_server(make_platform(**files), server)
    monkeypatch.setattr(sources, "open_platform", lambda: platform)

    def shown() -> tuple[str, dict[str, Any], list[str]]:
        words = CliRunner().invoke(cli.main, ["preview", "docs"])
        result = CliRunner().invoke(cli.main, ["preview", "docs", "--json"])
        assert (words.exit_code, result.exit_code) == (0, 0), words.output + result.output
        (found,) = json.loads(result.output)
        lines = [line for line in words.output.splitlines() if "cutting by paid" in line]
        return words.output, found, lines

    text = {
        f"{n}.md": " ".join(f"Sentence {k} of page {n} speaks of thing {k % 7}." for k in range(8 + n))
        for n in range(5)
    }
    commit(platform, "docs", text)
    output, found, lines = shown()
    items = {item["what"]: item for item in found["items"]}
    cutting, vectors = items["cutting by paid"], items["vectors of paid"]
    assert server.requests == []
    assert len(lines) == 1
    assert str(cutting["calls"]) in lines[0]
    assert str(cutting["input_tokens"]) in lines[0]
    assert found["calls"] == cutting["calls"] + vectors["calls"]
    assert found["tokens"] == cutting["input_tokens"] + vectors["input_tokens"]
    assert f"In all {found['calls']} calls, at most {found['tokens']} tokens" in output

    chunk_source(platform, "docs", run_id="r")
    assert len(server.requests) == cutting["calls"]
    assert sum(len(request.texts) for request in server.requests) == cutting["needed"]
    # texts that are cut are not cut again, so that only those of a new page are left
    assert shown()[2] == []
    commit(platform, "docs", {**text, "new.md": text["4.md"].replace("Sentence", "Statement")})
    _, again, lines = shown()
    assert len(lines) == 1
    (left,) = (item for item in again["items"] if item["kind"] == "cutting")
    assert 0 < left["needed"] < cutting["needed"]
