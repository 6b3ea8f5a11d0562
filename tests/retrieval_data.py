"""Retrieval data of ../shared/data as documents of one chunk each, and how well a ranking finds what is relevant."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resources.platform import Platform
from resources.vector_index import SearchFilter
from tests.index_world import searcher

#: An index in which no text of these data is cut, with vectors that cost little.
WHOLE_TEXTS: dict[str, Any] = {
    "models.yaml": {
        "providers": {"offline": {"kind": "offline"}},
        "embedding": [{"name": "lexical", "provider": "offline", "model": "lexical-hash", "dimensions": 64}],
        "chat": [{"name": "extractive", "provider": "offline", "model": "extractive"}],
    },
}


def whole_texts(**settings: Any) -> dict[str, Any]:
    """Files of a data directory whose index ``main`` keeps texts whole, with further settings of that index."""
    chunker = {"kind": "recursive", "unit": "characters", "size": 8192}
    index = {"name": "main", "embedder": "lexical", "chunker": chunker, "enrichment": {"context": "none"}, **settings}
    return {**WHOLE_TEXTS, "indexes/main.yaml": index}


@dataclass(frozen=True)
class Questions:
    """Texts by path, questions by id, and the paths that are relevant for each (with a grade)."""

    texts: dict[str, str]
    questions: dict[str, str]
    relevant: dict[str, dict[str, int]]
    languages: dict[str, str] = field(default_factory=dict)


def scifact(data: Path) -> Questions:
    """Claims and abstracts."""
    texts = {f"{d['_id']}.txt": f"{d['title']}\n{d['text']}" for d in _lines(data / "scifact" / "corpus.jsonl")}
    questions = {d["_id"]: d["text"] for d in _lines(data / "scifact" / "queries.jsonl")}
    relevant: dict[str, dict[str, int]] = {}
    for line in (data / "scifact" / "qrels.tsv").read_text().splitlines()[1:]:
        question, document, grade = line.split("\t")
        relevant.setdefault(question, {})[f"{document}.txt"] = int(grade)
    return Questions(texts, {key: text for key, text in questions.items() if key in relevant}, relevant)


def squad2(data: Path, every: int = 1) -> Questions:
    """Paragraphs and the questions they answer; of these, one in ``every``."""
    texts = {f"{d['paragraph_id']}.txt": d["text"] for d in _lines(data / "squad2" / "paragraphs.jsonl")}
    asked = [d for d in _lines(data / "squad2" / "questions.jsonl") if not d["is_impossible"]][::every]
    return Questions(
        texts, {d["id"]: d["question"] for d in asked}, {d["id"]: {f"{d['paragraph_id']}.txt": 1} for d in asked}
    )


def xquad(data: Path, every: int = 1) -> dict[str, Questions]:
    """The same paragraphs and questions in eight languages."""
    paragraphs = list(_lines(data / "xquad" / "paragraphs.jsonl"))
    asked = list(_lines(data / "xquad" / "questions.jsonl"))
    result = {}
    for language in sorted({d["lang"] for d in paragraphs}):
        mine = [d for d in asked if d["lang"] == language][::every]
        texts = {f"{d['paragraph_id']}.txt": d["text"] for d in paragraphs if d["lang"] == language}
        result[language] = Questions(
            texts,
            {d["id"]: d["question"] for d in mine},
            {d["id"]: {f"{d['paragraph_id']}.txt": 1} for d in mine},
            {path: str(language) for path in texts},
        )
    return result


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    return (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


def ndcg(ranking: Sequence[str], relevant: Mapping[str, int], k: int = 10) -> float:
    """Normalised discounted cumulative gain (Järvelin and Kekäläinen, 2002), linear gains."""
    gained = sum(relevant.get(path, 0) / math.log2(rank + 1) for rank, path in enumerate(ranking[:k], 1))
    best = sum(grade / math.log2(rank + 1) for rank, grade in enumerate(sorted(relevant.values())[::-1][:k], 1))
    return gained / best


def recall(ranking: Sequence[str], relevant: Mapping[str, int], k: int = 5) -> float:
    """Share of the relevant that is among the first ``k``."""
    return len(set(ranking[:k]) & set(relevant)) / len(relevant)


def rankings(
    platform: Platform, data: Questions, *, mode: Any = "full_text", filters: SearchFilter | None = None, k: int = 10
) -> dict[str, list[str]]:
    """Paths found for every question, best first."""
    found = searcher(platform).search_many("main", list(data.questions.values()), mode=mode, k=k, filters=filters)
    return {key: [hit.path for hit in result.hits] for key, result in zip(data.questions, found, strict=True)}


def mean(values: Iterable[float]) -> float:
    """The arithmetic mean."""
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)
