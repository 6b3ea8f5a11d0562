"""How good the detectors of the screening are on labelled data: counts behind the table of docs/screening.md.

The split is by line of each file: even lines are the development half, on which rules and thresholds were chosen, odd
lines the test half. All benign e-mails and tables of BIPIA stand on even lines, so false alarms are counted on both
halves together.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assets.corpus.screening import injection, pii, toxicity
from assets.corpus.screening.findings import Finding, View

#: Names of the data set to ours.
_NAMES = {"DOMAIN_NAME": "URL"}
THRESHOLD = 0.5


@dataclass(frozen=True)
class Quality:
    """True positives, false positives, false negatives."""

    hits: int = 0
    false: int = 0
    missed: int = 0

    @property
    def precision(self) -> float:
        """Share of what was reported that is right."""
        return self.hits / (self.hits + self.false) if self.hits + self.false else 0.0

    @property
    def recall(self) -> float:
        """Share of what there is that was reported."""
        return self.hits / (self.hits + self.missed) if self.hits + self.missed else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def lines(path: Path, split: str) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file: ``dev``, ``test`` or ``all``."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return rows if split == "all" else rows[0 if split == "dev" else 1 :: 2]


def personal_data(data: Path, split: str, regions: tuple[str, ...] = ("US", "GB")) -> dict[str, Quality]:
    """By type: a span counts as found when a finding of its type overlaps it. A date of birth is a DATE_TIME there."""
    hits: Counter[str] = Counter()
    false: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for row in lines(data / "pii" / "examples.jsonl", split):
        found = [item for item in pii.find(View(row["text"]), regions=regions, urls=True) if item.score >= THRESHOLD]
        right: set[Finding] = set()
        for span in row["spans"]:
            stated = str(span["type"])
            name = _NAMES.get(stated, stated)
            overlapping = {
                item
                for item in found
                if item.start < span["end"]
                and item.end > span["start"]
                and (item.entity == name or (item.entity, name) == ("DATE_OF_BIRTH", "DATE_TIME"))
            }
            right |= overlapping
            named = {item.entity for item in overlapping} or {name}
            for entity in named:
                (hits if overlapping else missed)[entity] += 1
        for item in found:
            false[item.entity] += item not in right
    return {name: Quality(hits[name], false[name], missed[name]) for name in sorted({*hits, *false, *missed})}


def injections(data: Path, split: str, threshold: float) -> dict[tuple[str, str, str], tuple[int, int]]:
    """(source, channel, label) to (how many were reported, how many there are)."""
    counts: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for row in lines(data / "injection" / "examples.jsonl", split):
        source = row["source"].partition(" (")[0] + (" (in the wild)" if "verazuo" in row["source"] else "")
        cell = counts[source, row["channel"], row["label"]]
        cell[0] += injection.score_of(row["text"]) >= threshold
        cell[1] += 1
    return {key: (found, total) for key, (found, total) in sorted(counts.items())}


def abuse(data: Path, split: str) -> dict[str, tuple[int, int]]:
    """Label to (how many were reported, how many there are)."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in lines(data / "toxicity" / "examples.jsonl", split):
        cell = counts[row["label"]]
        cell[0] += any(item.score >= THRESHOLD for item in toxicity.find(View(row["text"])))
        cell[1] += 1
    return {key: (found, total) for key, (found, total) in sorted(counts.items())}


def clean_documents(data: Path) -> Mapping[str, list[str]]:
    """Real documents with nothing to be found in them, by corpus."""

    def texts(paths: Iterable[Path]) -> list[str]:
        return [path.read_text(encoding="utf-8", errors="replace") for path in sorted(paths)]

    return {
        "peps-history (base)": texts((data / "peps-history" / "base").rglob("*.rst")),
        "rust-book-history (base)": texts((data / "rust-book-history" / "base").rglob("*.md")),
        "squad2 (documents)": texts(path for path in (data / "squad2" / "documents").rglob("*") if path.is_file()),
        "squad2 (paragraphs)": [row["text"] for row in lines(data / "squad2" / "paragraphs.jsonl", "all")],
    }
