"""How good full text is, by language and by what counts as length, and how long searches take."""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from psycopg import sql

from assets.chunks.chunking import chunk_source
from assets.index.embedding import store
from assets.index.refreshing import refresh_index
from assets.index.specification import specify
from resources import vector_index
from resources.fusion import Fusion
from resources.platform import Platform
from resources.vector_index import SearchFilter, View
from tests.benchmarks.measuring import show
from tests.index_world import commit, refresh, searcher
from tests.retrieval_data import mean, ndcg, rankings, recall, scifact, squad2, whole_texts, xquad

Make = Callable[..., Platform]
DIMENSIONS, CHUNK, PER_DOCUMENT = 384, 700, 20
#: Chunks the chunker really makes of such a document: it cuts at the end of paragraphs and lines.
REALLY = 28


@pytest.mark.benchmark
def test_languages(make_platform: Make, shared_data: Path) -> None:
    """Each language asked alone (the filter), and all at once, by text_search."""
    data = xquad(shared_data)
    texts = {path: text for questions in data.values() for path, text in questions.texts.items()}
    codes = {path: code for questions in data.values() for path, code in questions.languages.items()}
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for setting in ("english", "simple", "auto"):
        platform = make_platform(**whole_texts(text_search=setting))
        refresh(platform, "docs", texts, languages=codes)
        for code, questions in data.items():
            for kind, filters in ((setting, SearchFilter(languages=(code,))), (f"{setting}, all", None)):
                if filters is None and setting != "auto":
                    continue
                ranked = rankings(platform, questions, filters=filters)
                found[kind, code] = (
                    mean(ndcg(ranked[key], questions.relevant[key]) for key in ranked),
                    mean(recall(ranked[key], questions.relevant[key]) for key in ranked),
                )
    kinds = list(dict.fromkeys(kind for kind, _ in found))
    for number, metric in enumerate(("nDCG@10", "recall@5")):
        rows = [[code, *(f"{found[kind, code][number]:.3f}" for kind in kinds)] for code in data]
        rows.append(["mean", *(f"{mean(found[kind, code][number] for code in data):.3f}" for kind in kinds)])
        show(f"xquad, {metric}", ["language", *kinds], rows)


@pytest.mark.benchmark
@pytest.mark.parametrize("name", ["scifact", "squad2"])
def test_what_counts_as_length(
    make_platform: Make, shared_data: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """All words of a chunk, as BM25 says, against distinct words, as builds of layout 1 are ranked."""
    data = scifact(shared_data) if name == "scifact" else squad2(shared_data)
    platform = make_platform(**whole_texts())
    refresh(platform, "docs", data.texts)
    counted = rankings(platform, data)
    with platform.database.connect() as connection:
        row = connection.execute("SELECT sum(length(tsv)) FROM chunks_1").fetchone()
    assert row is not None
    real = View.of

    def distinct(*arguments: Any) -> View:
        index, snapshot, build, table, config, counts, graph = arguments
        return real(index, snapshot, build, table, {**config, "layout": 1}, {**counts, "lexemes": row[0]}, graph)

    monkeypatch.setattr(vector_index.View, "of", distinct)
    other = rankings(platform, data)
    show(
        f"{name}, nDCG@10 by length",
        ["all words", "distinct words"],
        [[f"{mean(ndcg(found[key], data.relevant[key]) for key in found):.4f}" for found in (counted, other)]],
    )


@pytest.mark.benchmark
@pytest.mark.parametrize("rows", [10_000, 100_000])
def test_latency(make_platform: Make, shared_data: Path, rows: int) -> None:
    """Real texts with one word in five exchanged, clustered synthetic vectors, real questions; one search at a time."""
    platform = make_platform(
        **{
            "indexes/main.yaml": {
                "name": "main",
                "embedder": "lexical",
                "chunker": {"kind": "recursive", "unit": "characters", "size": CHUNK},
                "enrichment": {"context": "none"},
            }
        }
    )
    generator = np.random.default_rng(1)
    documents = _documents(shared_data, rows // REALLY)
    languages = {path: "de" for number, path in enumerate(documents) if number % 100 == 0}
    commit(platform, "docs", documents, languages=languages)
    chunk_source(platform, "docs")
    vectors = _store_vectors(platform, generator)
    item = refresh_index(platform, "main", "docs", "run")
    assert item.publication is not None, item.outcomes
    assert item.stage is not None
    questions = [*scifact(shared_data).questions.values()][:100] + [*squad2(shared_data, 20).questions.values()][:100]
    asked = {question: vectors[position] for position, question in enumerate(questions)}
    index = searcher(platform)
    index._embed = lambda embedder, texts: [(asked[text], 0.0) for text in texts]  # type: ignore[method-assign]
    weighted = Fusion("weighted", 0.4, 0.6)
    kinds: dict[str, dict[str, Any]] = {
        "vector": {"mode": "vector"},
        "full text": {"mode": "full_text"},
        "hybrid, weighted": {"mode": "hybrid", "fusion": weighted},
        "hybrid, reciprocal ranks": {"mode": "hybrid", "fusion": Fusion("rrf", 1, 1, 60)},
        "hybrid, filter that 1 % pass": {"fusion": weighted, "filters": SearchFilter(languages=("de",))},
        "hybrid, filter that 99 % pass": {"fusion": weighted, "filters": SearchFilter(languages=("en",))},
        "hybrid, labels": {"fusion": weighted, "filters": SearchFilter(labels=())},
    }
    table, base = [], 1.0
    for name, options in kinds.items():
        seconds = []
        for turn in range(3):
            for question in questions:
                started = time.perf_counter()
                hits = index.search("main", question, k=10, **options).hits
                if turn:
                    seconds.append(time.perf_counter() - started)
                assert hits or name == "full text"  # some questions have no word of the texts
        median, tail = (float(np.percentile(seconds, level)) * 1000 for level in (50, 95))
        base = tail if name == "vector" else base
        table.append([name, round(median, 1), round(tail, 1), round(tail / base, 1)])
    show(
        f"{item.stage.counts['chunks']} chunks, ef_search {item.stage.counts.get('ef_search')}, "
        f"load {os.getloadavg()[0]:.1f}, staged in {item.stage.seconds:.0f} s",
        ["search", "p50 ms", "p95 ms", "p95 / vector p95"],
        table,
    )


def _documents(data: Path, number: int) -> dict[str, str]:
    """Documents of about ``PER_DOCUMENT`` chunks: PEPs, abstracts and paragraphs, again and again with other words."""
    chance = random.Random(7)
    texts = [*squad2(data).texts.values(), *scifact(data).texts.values()]
    texts += [path.read_text() for path in sorted((data / "peps-history" / "base").rglob("*.rst"))]
    chance.shuffle(texts)
    vocabulary = [word for text in texts[:1000] for word in text.split()]
    size = CHUNK * PER_DOCUMENT
    whole = "\n".join(texts)
    result: dict[str, str] = {}
    for position in range(number):
        start = position * size % (len(whole) - size)
        words = whole[start : start + size].split(" ")
        if position * size > len(whole):
            words = [chance.choice(vocabulary) if chance.random() < 0.2 else word for word in words]
        result[f"{position:05}.txt"] = " ".join(words)
    return result


def _store_vectors(platform: Platform, generator: np.random.Generator) -> np.ndarray:
    """A vector for every input, in 200 clusters; returns questions near some of them."""
    specification = specify(platform, "main")
    with platform.database.connect() as connection:
        row = connection.execute(
            "INSERT INTO embedder (fingerprint, config, dimensions) VALUES (%s, '{}', %s) RETURNING embedder_id",
            (specification.embedder, DIMENSIONS),
        ).fetchone()
        assert row is not None
        inputs = [
            key for (key,) in connection.execute(sql.SQL("SELECT DISTINCT input_hash FROM chunk_input ORDER BY 1"))
        ]
    centres = generator.standard_normal((200, DIMENSIONS), dtype=np.float32)
    noise = generator.standard_normal((len(inputs), DIMENSIONS), dtype=np.float32)
    vectors = centres[generator.integers(0, 200, len(inputs))] + 0.8 * noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for first in range(0, len(inputs), 5_000):
        with platform.database.connect() as connection:
            store(connection, row[0], inputs[first : first + 5_000], vectors[first : first + 5_000], "run")
    questions = vectors[:: max(1, len(inputs) // 200)][:200]
    return questions + 0.02 * generator.standard_normal(questions.shape, dtype=np.float32)
