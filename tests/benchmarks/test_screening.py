"""Quality and speed of the screening's detectors on real data; docs/screening.md has the tables."""

import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from assets.corpus.screening import near_duplicates
from assets.corpus.screening.detectors import detectors_of, inspect
from assets.corpus.screening.findings import View
from assets.corpus.screening.judging import judge
from resources.policy_config import ScreeningPolicy
from tests.benchmarks.measuring import show
from tests.screening_quality import Quality, abuse, clean_documents, injections, personal_data

_THRESHOLDS = (0.5, 0.6, 0.7, 0.8)
_SPEED_BYTES = 3_000_000


@pytest.mark.benchmark
def test_quality(shared_data: Path) -> None:
    for split in ("dev", "test"):
        rows = [
            [name, item.hits + item.missed, f"{item.precision:.3f}", f"{item.recall:.3f}", f"{item.f1:.3f}"]
            for name, item in personal_data(shared_data, split).items()
        ]
        show(f"Personal data, {split} half", ["type", "spans", "precision", "recall", "F1"], rows)
    for split in ("dev", "test"):
        found = {threshold: injections(shared_data, split, threshold) for threshold in _THRESHOLDS}
        show(
            f"Prompt injection, {split} half: share reported by threshold",
            ["source", "channel", "label", "texts", *map(str, _THRESHOLDS)],
            [
                [*key, total, *(f"{found[threshold][key][0] / total:.3f}" for threshold in _THRESHOLDS)]
                for key, (_, total) in found[0.5].items()
            ],
        )
    policy = ScreeningPolicy()
    for split in ("dev", "test"):
        by_key = injections(shared_data, split, policy.prompt_injection.threshold)
        false = sum(found for (_, _, label), (found, _) in by_key.items() if label == "benign")
        rows = []
        for channel in ("direct", "indirect"):
            cells = [cell for (_, where, label), cell in by_key.items() if (where, label) == (channel, "injection")]
            hits, total = sum(cell[0] for cell in cells), sum(cell[1] for cell in cells)
            item = Quality(hits, false, total - hits)
            rows.append([channel, total, f"{item.precision:.3f}", f"{item.recall:.3f}", f"{item.f1:.3f}"])
        show(
            f"Prompt injection at the default threshold, {split} half (false alarms of both channels in each row)",
            ["channel", "attacks", "precision", "recall", "F1"],
            rows,
        )
    for split in ("dev", "test"):
        counts = abuse(shared_data, split)
        false, neutral = counts["neither"]
        rows = []
        for label in ("hate", "offensive"):
            hits, total = counts[label]
            item = Quality(hits, false, total - hits)
            rows.append([label, total, f"{item.precision:.3f}", f"{item.recall:.3f}", f"{item.f1:.3f}"])
        rows.append(["neither (false alarms)", neutral, "", f"{false / neutral:.3f}", ""])
        show(f"Toxicity, {split} half", ["label", "tweets", "precision", "recall", "F1"], rows)


@pytest.mark.benchmark
def test_false_alarms_on_clean_documents(shared_data: Path) -> None:
    policy = ScreeningPolicy()
    detectors = list(detectors_of(policy).values())
    rows = []
    for name, texts in clean_documents(shared_data).items():
        documents: Counter[str] = Counter()
        refused = 0
        for text in texts:
            judgement = judge(inspect(View(text), detectors).findings, policy)
            documents.update(list(judgement.summary))
            refused += judgement.action != "allow"
        rows.append([name, len(texts), refused, *(documents[detector.name] for detector in detectors)])
    show(
        "Documents with a finding at or above the default threshold",
        ["corpus", "documents", "kept out", *(detector.name for detector in detectors)],
        rows,
    )


@pytest.mark.benchmark
def test_speed(shared_data: Path) -> None:
    texts: list[str] = []
    for text in clean_documents(shared_data)["peps-history (base)"]:
        texts.append(text)
        if sum(map(len, texts)) >= _SPEED_BYTES:
            break
    size = sum(len(text.encode()) for text in texts)
    detectors = list(detectors_of(ScreeningPolicy()).values())
    for text in texts:  # imports and caches
        inspect(View(text), detectors)
    best: dict[str, float] = defaultdict(lambda: float("inf"))

    def measure(name: str, work: object) -> None:
        started = time.process_time()
        work()  # pyright: ignore[reportCallIssue]
        best[name] = min(best[name], time.process_time() - started)

    for _ in range(5):
        views = [View(text) for text in texts]
        measure("words (shared)", lambda views=views: [view.words and view.aligned for view in views])
        for detector in detectors:
            measure(detector.name, lambda d=detector, views=views: [d.find(view) for view in views])
        measure(
            "near_duplicate (sketch)",
            lambda: [near_duplicates.bands(near_duplicates.sketch(near_duplicates.runs(text))) for text in texts],
        )
        measure("all detectors", lambda: [inspect(View(text), detectors) for text in texts])
    best["all, with near_duplicate"] = best["all detectors"] + best["near_duplicate (sketch)"]
    show(
        f"CPU of one core on {size / 1e6:.1f} MB of clean technical text, best of 5",
        ["detector", "MB/s", "milliseconds per MB"],
        [[name, f"{size / seconds / 1e6:.1f}", f"{seconds / size * 1e9:.1f}"] for name, seconds in best.items()],
    )
    print("  (target: all together at least 5 MB/s on an idle core)")
