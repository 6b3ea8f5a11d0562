"""The cost preview: exact counts before anything is spent, and no side effect."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from assets.chunks.chunking import chunk_source
from assets.chunks.spending import CHAT_SECONDS, Item, Preview, preview
from assets.index.embedding import embed_source
from resources.errors import BudgetExceededError
from resources.platform import Platform
from tests.enrichment_support import answering, index, models, with_server
from tests.fake_openai import FakeOpenAI
from tests.index_world import article, commit

Make = Callable[..., Platform]
WRITTEN = {"kind": "keywords", "method": "model", "model": "writer", "count": 3}
TEXTS = {f"{name}.md": article(name) for name in ("apple", "pear", "plum")}
TABLES = (
    "chunk",
    "chunk_set",
    "chunk_input",
    "enrichment",
    "enrichment_step",
    "enrichment_value",
    "embedding",
    "embedder",
)


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(answer=answering(lambda passage: [passage.split()[-1]])) as server:
        yield server


def counts(platform: Platform) -> dict[str, int]:
    with platform.database.connect() as connection:
        return {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # type: ignore[arg-type,index]
            for table in TABLES
        }


def by_kind(found: Preview) -> dict[str, Item]:
    return {item.what: item for item in found.items}


def test_preview_says_what_the_refresh_then_does(make_platform: Make, server: FakeOpenAI) -> None:
    files: dict[str, Any] = {
        "models.yaml": models(),
        "indexes/main.yaml": index("main", [WRITTEN, {"kind": "clean"}, {"kind": "summary"}], embedder="paid"),
        "indexes/plain.yaml": index("plain", title=True),
    }
    platform = with_server(make_platform(**files), server)
    commit(platform, "docs", {**TEXTS, "copy.md": TEXTS["apple.md"]})
    before = counts(platform)
    found = preview(platform, "docs")
    assert counts(platform) == before
    assert server.requests == []
    assert (found.revision, found.documents, found.texts) == (1, 4, 3)
    items = by_kind(found)
    assert list(items) == [
        "keywords (writer)",
        "clean (offline)",
        "summary (offline)",
        "vectors of paid",
        "vectors of lexical",
    ]

    work = chunk_source(platform, "docs", run_id="r")
    vectors = embed_source(platform, "docs", "r")
    assert found.chunks == found.chunks_to_make == work.chunks_written
    assert items["keywords (writer)"].to_make == items["keywords (writer)"].calls == work.steps[0].computed
    assert items["summary (offline)"].to_make == work.steps[2].computed
    computed = {model.model: model.computed for model in vectors.models}
    assert items["vectors of paid"].to_make == computed["paid"]
    assert items["vectors of lexical"].to_make == computed["lexical"]
    assert items["vectors of paid"].calls == -(-computed["paid"] // 4)
    assert found.calls == len(server.requests)
    assert found.money["USD"] >= work.usage.cost > 0
    assert items["vectors of lexical"].money == items["summary (offline)"].money == 0
    assert items["keywords (writer)"].seconds == pytest.approx(work.steps[0].computed * CHAT_SECONDS / 2)


def test_preview_after_a_change_counts_only_what_is_new(make_platform: Make, server: FakeOpenAI) -> None:
    files = {"models.yaml": models(), "indexes/main.yaml": index("main", [WRITTEN], embedder="paid")}
    platform = with_server(make_platform(**files), server)
    commit(platform, "docs", TEXTS)
    chunk_source(platform, "docs", run_id="r")
    embed_source(platform, "docs", "r")
    nothing = preview(platform, "docs")
    assert (nothing.chunks_to_make, nothing.calls, nothing.money) == (0, 0, {})
    assert all(item.cached == item.needed > 0 for item in nothing.items)
    commit(platform, "docs", {**TEXTS, "fig.md": "# Fig\n\nOne new chunk."})
    found = preview(platform, "docs")
    assert (found.chunks_to_make, found.calls) == (1, 2)
    assert {item.what: item.to_make for item in found.items} == {"keywords (writer)": 1, "vectors of paid": 1}
    assert by_kind(found)["keywords (writer)"].rate == "measured"
    # another embedding model: the values are there, only vectors are to be made
    other = with_server(
        make_platform(**{**files, "indexes/main.yaml": index("main", [WRITTEN], embedder="lexical")}), server
    )
    assert {item.what: item.cached for item in preview(other, "docs").items} == {
        "keywords (writer)": nothing.items[0].needed,
        "vectors of lexical": 0,
    }


def test_preview_sees_vectors_that_a_new_enrichment_shares(make_platform: Make) -> None:
    platform = make_platform(**{"indexes/main.yaml": index("main", context="none")})
    commit(platform, "docs", TEXTS)
    chunk_source(platform, "docs")
    embed_source(platform, "docs", "r")
    step = {"kind": "keywords", "use": ["search"]}  # what is embedded stays the same
    changed = make_platform(**{"indexes/main.yaml": index("main", [step], context="none")})
    found = by_kind(preview(changed, "docs"))
    assert found["vectors of lexical"].to_make == 0
    assert found["keywords (offline)"].to_make == found["vectors of lexical"].needed
    assert preview(changed, "docs").chunks_to_make == 0


def test_preview_of_a_source_without_documents_is_empty(make_platform: Make) -> None:
    found = preview(make_platform(), "docs")
    assert (found.revision, found.documents, found.chunks, found.calls) == (0, 0, 0, 0)
    assert found.to_json()["items"][0]["what"] == "vectors of lexical"


def test_preview_counts_what_a_chunker_asks_a_model_for(make_platform: Make, server: FakeOpenAI) -> None:
    semantic = {"kind": "semantic", "unit": "tokens", "size": 60, "minimum": 10, "embedder": "paid"}
    files = {"models.yaml": models(), "indexes/main.yaml": index("main", chunker=semantic)}
    platform = with_server(make_platform(**files), server)
    text = " ".join(f"Sentence number {number} speaks of thing {number % 7}." for number in range(40))
    commit(platform, "docs", {"a.md": text})
    found = by_kind(preview(platform, "docs"))["cutting by paid"]
    assert server.requests == []
    assert (found.needed, found.indexes) == (found.to_make, ("main",))
    assert found.money > 0
    work = chunk_source(platform, "docs", run_id="r")
    assert sum(len(request.texts) for request in server.requests) == found.needed
    assert found.calls == work.windows_usage.requests == len(server.requests)
    assert all(item.kind != "cutting" for item in preview(platform, "docs").items)
    limited = with_server(make_platform(**{**files, "policies/enrichment.yaml": {"calls_per_refresh": 1}}), server)
    commit(limited, "docs", {"a.md": text + " And one more."})
    sent = len(server.requests)
    with pytest.raises(BudgetExceededError, match="calls_per_refresh 1"):
        chunk_source(limited, "docs", run_id="r")
    assert len(server.requests) == sent
