"""docs/metrics.md says of every metric what the catalogue says; ``python -m tests.unit.test_metrics_documented`` prints it."""

from pathlib import Path

from assets.evaluation.metrics.base import METRICS

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def rows() -> list[str]:
    """A table row for each metric; those at fixed depths stand with the metric they are a depth of."""
    found = []
    for metric, one in METRICS.items():
        if one.depth is not None:
            continue
        name, _, version = metric.rpartition("/")
        depths = [str(other.depth) for key, other in METRICS.items() if key == f"{name}@{other.depth}/{version}"]
        ids = f"`{metric}`" + (f", also `@{'`, `@'.join(depths)}`" if depths else "")
        better = "higher" if one.higher_is_better else "lower"
        target = f"; target {one.target[0]:g} to {one.target[1]:g}" if one.target else ""
        scale = f"{one.range[0]:g} to {one.range[1]:g}, {better} is better{target}"
        found.append(f"| {ids} | {one.estimator} | {scale} | {one.applies_to} | {one.definition} |")
    return found


def test_every_metric_is_documented_as_it_is() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    missing = [row.split("|")[1].strip() for row in rows() if row not in text]
    assert not missing, "print the rows anew with python -m tests.unit.test_metrics_documented"


if __name__ == "__main__":
    print("\n".join(rows()))
