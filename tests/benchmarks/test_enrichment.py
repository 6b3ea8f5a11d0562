"""What enrichment is worth offline: nDCG@10 and recall@5 of the three search modes, with and without each step.

A chunk counts as relevant where it overlaps a gold span of its document; nDCG is binary with the chunks of an index that
do so as the ideal. Recall is the share of a question's gold spans that the first five chunks overlap. A difference to
the index without any enrichment is marked where its 95 % interval over questions (paired) leaves out zero.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from assets.chunks.chunking import chunk_source
from assets.chunks.enrichment_steps import offline_value
from assets.index.embedding import embed_source
from assets.index.refreshing import refresh_index
from resources.index_config import EnrichmentStep
from resources.platform import Platform
from tests.benchmarks.measuring import ROOT, show
from tests.corpus_support import refresh as read_corpus
from tests.index_world import commit, searcher

MODES = ("full_text", "vector", "hybrid")
STEPS = ("clean", "keywords", "entities", "summary", "questions", "language")
#: Questions at most, chosen by the hash of their text.
QUESTIONS = 500
RECIPES: dict[str, dict[str, Any]] = {
    "none": {"context": "none"},
    "headings": {"context": "headings"},
    "title": {"context": "none", "title": True},
    "headings and title": {"context": "headings", "title": True},
    **{
        kind: {"context": "none", "steps": [{"kind": kind}]}
        for kind in ("clean", "keywords", "entities", "summary", "questions")
    },
    "headings, clean": {"context": "headings", "steps": [{"kind": "clean"}]},
    "headings, questions": {"context": "headings", "steps": [{"kind": "questions"}]},
}


@dataclass(frozen=True)
class Asked:
    """A question and where its answer stands: (path, first character, one past the last)."""

    text: str
    gold: tuple[tuple[str, int, int], ...]


def _some(questions: list[Asked]) -> list[Asked]:
    return sorted(questions, key=lambda item: hashlib.sha256(item.text.encode()).digest())[:QUESTIONS]


def _indexes(tokens: int) -> dict[str, Any]:
    return {
        f"indexes/{number or 'main'}.yaml": {
            "name": f"i{number}",
            "embedder": "lexical",
            "chunker": {"kind": "markdown", "unit": "tokens", "size": tokens},
            "enrichment": recipe,
        }
        for number, recipe in enumerate(RECIPES.values())
    }


def _models() -> dict[str, Any]:
    from tests.conftest import MODELS

    return {**MODELS, "embedding": [{**MODELS["embedding"][0], "dimensions": 768}]}


def _squad2(make_platform: Callable[..., Platform], shared_data: Path) -> tuple[Platform, list[Asked]]:
    folder = shared_data / "squad2"
    platform = make_platform(**{"models.yaml": _models(), **_indexes(120)})
    commit(platform, "docs", {path.name: path.read_text(encoding="utf-8") for path in (folder / "documents").iterdir()})
    starts = {
        line["paragraph_id"]: (Path(line["document"]).name, line["char_start"])
        for line in map(json.loads, (folder / "paragraphs.jsonl").read_text(encoding="utf-8").splitlines())
    }
    questions = []
    for line in map(json.loads, (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()):
        if not line["is_impossible"]:
            path, start = starts[line["paragraph_id"]]
            answer = line["answers"][0]
            first = start + answer["start"]
            questions.append(Asked(line["question"], ((path, first, first + len(answer["text"])),)))
    return platform, _some(questions)


def _chunking_eval(make_platform: Callable[..., Platform], shared_data: Path) -> tuple[Platform, list[Asked]]:
    folder = shared_data / "chunking-eval"
    platform = make_platform(**{"models.yaml": _models(), **_indexes(200)})
    commit(platform, "docs", {path.name: path.read_text(encoding="utf-8") for path in (folder / "corpora").iterdir()})
    questions = [
        Asked(
            line["question"],
            tuple((f"{line['corpus_id']}.md", ref["start_index"], ref["end_index"]) for ref in line["references"]),
        )
        for line in map(json.loads, (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines())
    ]
    return platform, _some(questions)


def _handbook(make_platform: Callable[..., Platform], shared_data: Path) -> tuple[Platform, list[Asked]]:
    sources = {"sources": [{"name": "docs", "path": str(ROOT / "data" / "corpus" / "handbook")}]}
    platform = make_platform(
        **{
            "models.yaml": _models(), **_indexes(120),
            "sources.yaml": sources,
        }
    )  # fmt: skip
    read_corpus(platform)
    with platform.database.connect() as connection:
        texts = dict(
            connection.execute(
                "SELECT path, text FROM document_version JOIN document_text USING (text_hash) WHERE rev_to = 2147483647"
            ).fetchall()
        )
    questions = []
    for line in map(json.loads, (ROOT / "data/evaluation/handbook.jsonl").read_text(encoding="utf-8").splitlines()):
        spans = []
        for item in line["evidence"]:
            path = item["document"].partition("/")[2]
            start = texts.get(path, "").find(item["quote"])
            if start >= 0:
                spans.append((path, start, start + len(item["quote"])))
        if spans:
            questions.append(Asked(line["question"], tuple(spans)))
    return platform, _some(questions)


SETS = {"handbook": _handbook, "squad2": _squad2, "chunking-eval": _chunking_eval}


@pytest.mark.benchmark
@pytest.mark.parametrize("name", list(SETS))
def test_gain_of_enrichment(name: str, make_platform: Callable[..., Platform], shared_data: Path) -> None:
    platform, questions = SETS[name](make_platform, shared_data)
    chunk_source(platform, "docs")
    embed_source(platform, "docs", "benchmark")
    results: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for number, recipe in enumerate(RECIPES):
        refresh_index(platform, f"i{number}", "docs", "benchmark")
        spans = _chunk_spans(platform, f"i{number}")
        for mode in MODES:
            found = searcher(platform).search_many(f"i{number}", [item.text for item in questions], mode=mode, k=10)
            results[recipe, mode] = [
                _scores(item, result.hits, spans) for item, result in zip(questions, found, strict=True)
            ]
    rows = []
    for recipe in RECIPES:
        cells: list[Any] = [recipe]
        for mode in MODES:
            for part in (0, 1):
                values = [score[part] for score in results[recipe, mode]]
                base = [score[part] for score in results["none", mode]]
                cells.append(f"{_mean(values):.3f}{_mark(values, base)}")
        rows.append(cells)
    header = ["", *(f"{mode} {metric}" for mode in MODES for metric in ("nDCG@10", "recall@5"))]
    show(f"{name}: {len(questions)} questions; + and - differ from none, paired 95 %", header, rows)


@pytest.mark.benchmark
def test_speed_of_each_step(shared_data: Path, make_platform: Callable[..., Platform]) -> None:
    platform, _ = _squad2(make_platform, shared_data)
    chunk_source(platform, "docs")
    with platform.database.connect() as connection:
        chunks = connection.execute(
            """SELECT substr(text, start_char + 1, end_char - start_char), heading_path FROM chunk
               JOIN document_text USING (text_hash) WHERE chunker_id = 1"""
        ).fetchall()
    rows = []
    for kind in STEPS:
        step = EnrichmentStep(kind=kind)  # type: ignore[arg-type]
        offline_value(step, *chunks[0])  # loads what it needs
        started = time.process_time()
        for text, path in chunks:
            offline_value(step, text, path)
        rows.append([kind, round(len(chunks) / (time.process_time() - started))])
    size = sum(len(text) for text, _ in chunks) / len(chunks)
    show(f"Offline steps: chunks of {size:.0f} characters a second, one core", ["step", "chunks/s"], rows)


def _chunk_spans(platform: Platform, index: str) -> dict[str, list[tuple[int, int]]]:
    with platform.database.connect() as connection:
        row = connection.execute(
            """SELECT b.table_name, s.snapshot FROM index_state i JOIN index_snapshot s
               ON s.index_name = i.index_name AND s.snapshot = i.head JOIN index_build b USING (build_id)
               WHERE i.index_name = %s""",
            (index,),
        ).fetchone()
        assert row is not None
        spans: dict[str, list[tuple[int, int]]] = {}
        for path, start, end in connection.execute(
            f"""SELECT v.path, c.start_char, c.end_char FROM {row[0]} c JOIN document_version v
                ON v.document_id = c.document_id AND v.rev_to = 2147483647"""  # type: ignore[arg-type]
        ):
            spans.setdefault(path, []).append((start, end))
    return spans


def _overlaps(path: str, start: int, end: int, gold: tuple[tuple[str, int, int], ...]) -> bool:
    return any(path == other and start < last and first < end for other, first, last in gold)


def _scores(asked: Asked, hits: Any, spans: dict[str, list[tuple[int, int]]]) -> tuple[float, float]:
    relevant = [_overlaps(hit.path, hit.start, hit.end, asked.gold) for hit in hits]
    possible = sum(
        _overlaps(path, *span, asked.gold) for path in {path for path, _, _ in asked.gold} for span in spans[path]
    )
    ideal = sum(1 / math.log2(rank + 2) for rank in range(min(10, possible)))
    gain = sum(1 / math.log2(rank + 2) for rank, good in enumerate(relevant) if good)
    covered = sum(any(_overlaps(hit.path, hit.start, hit.end, (span,)) for hit in hits[:5]) for span in asked.gold)
    return gain / ideal if ideal else 0.0, covered / len(asked.gold)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _mark(values: list[float], base: list[float]) -> str:
    differences = [value - other for value, other in zip(values, base, strict=True)]
    mean = _mean(differences)
    deviation = math.sqrt(sum((item - mean) ** 2 for item in differences) / max(1, len(differences) - 1))
    half = 1.96 * deviation / math.sqrt(len(differences))
    return "+" if mean > half else "-" if mean < -half else " "
