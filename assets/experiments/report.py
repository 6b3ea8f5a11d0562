"""Reports: the leaderboard as a figure and a page, the trials as a table.

Belongs here: rendering what is already decided and recorded, into files that need nothing else to be read.
Does not belong here: any number's computation (leaderboard.py, recommendation.py).

Both hold scores, and places in documents, but neither questions nor answers nor document text.
"""

import base64
import io
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.evaluation.metrics.base import METRICS
from assets.experiments.leaderboard import HEADLINE, Leaderboard, Row
from assets.experiments.recommendation import Recommendation
from assets.experiments.scores import Scores
from assets.experiments.trials import Plan, TrialOutcome

if TYPE_CHECKING:
    import pyarrow as pa
    from jinja2 import Template

CODE_VERSION = "1"
_SHOWN_IN_FIGURE = 24
_PROVENANCE = ("experiment", "dataset", "dataset_version", "split", "snapshots", "champion", "settings")

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ board.experiment }}: leaderboard</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2430; margin: 2rem auto; max-width: 88rem; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
p.facts { color: #5a6675; margin-top: 0; }
.verdict { border-left: 4px solid #2f6f9f; background: #f2f7fb; padding: .7rem 1rem; max-width: 70rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #e3e8ee; }
th { background: #f6f8fa; font-weight: 600; } th:first-child, td:first-child, td.text { text-align: left; }
tr.champion { background: #fff8e6; } tr.recommended { background: #eaf6ec; } .weak { color: #8a94a1; }
img { max-width: 100%; } dt { font-weight: 600; } dd { margin: 0 0 .5rem; color: #414c59; }
</style></head><body>
<h1>{{ board.experiment }}</h1>
<p class="facts">Result {{ result_id }} · dataset {{ board.dataset }} version {{ board.dataset_version }}, split
{{ board.split }}: {{ board.questions.answerable }} answerable and {{ board.questions.unanswerable }} unanswerable questions,
{{ board.questions.stale }} left out as stale · snapshots
{% for index, snapshot in board.snapshots.items() %}{{ index }}@{{ snapshot }}{{ ", " if not loop.last }}{% endfor %} ·
champion {{ board.champion }}</p>
<div class="verdict">{{ recommendation.text }}</div>
{% if recommendation.diagnosis %}<h2>Where to look next</h2><ul>
{% for item in recommendation.diagnosis %}<li>{{ item.variant }}: {{ item.symptom }}. {{ item.advice | capitalize }}.</li>{% endfor %}
</ul>{% endif %}
<h2>Read with care</h2><ul>{% for caveat in recommendation.caveats %}<li>{{ caveat }}</li>{% endfor %}</ul>
<h2>{{ titles[board.decision_metric] }} with {{ "%.0f" | format(board.confidence * 100) }} % intervals</h2>
<img alt="Mean {{ titles[board.decision_metric] }} of each variant with its interval" src="data:image/png;base64,{{ figure }}">
<h2>Leaderboard</h2>
<div class="scroll"><table><thead><tr><th>Variant</th><th>Model</th><th>n</th><th>Failed</th>
<th>{{ titles[board.decision_metric] }}</th><th>Interval</th><th>To champion</th><th>Interval</th><th>p</th><th>p (Holm)</th>
{% for metric in headline %}<th>{{ titles[metric] }}</th>{% endfor %}
<th>Refusal P</th><th>R</th><th>F1</th><th>Used chunks</th><th>Tokens in</th><th>out</th><th>Cost</th><th>Median ms</th>
</tr></thead><tbody>
{% for row in board.rows %}<tr class="{{ 'recommended' if row.variant == recommendation.recommended else 'champion' if row.champion }}">
<td title="{{ row.fingerprint }}, prompt version {{ row.prompt_version }}, snapshot {{ row.snapshot }}">{{ row.variant }}</td>
<td class="text">{{ row.label }}</td><td>{{ row.n }}</td><td>{{ row.failed }}</td>
<td>{{ row.decision.estimate | number }}</td><td>{{ row.decision.low | number }} – {{ row.decision.high | number }}</td>
{% if row.difference %}<td>{{ "%+.3f" | format(row.difference.estimate) }}</td>
<td>{{ "%+.3f" | format(row.difference.low) }} – {{ "%+.3f" | format(row.difference.high) }}</td>
<td>{{ "%.4f" | format(row.p) }}</td><td>{{ "%.4f" | format(row.p_adjusted) }}</td>
{% else %}<td class="weak" colspan="4">champion</td>{% endif %}
{% for metric in headline %}<td>{{ row.metrics[metric].answerable | number }}</td>{% endfor %}
<td>{{ row.refusal.precision | number }}</td><td>{{ row.refusal.recall | number }}</td>
<td>{{ row.refusal.f1 | number }}</td><td>{{ row.utilization | number }}</td>
<td>{{ row.input_tokens }}</td><td>{{ row.output_tokens }}</td><td>{{ "%.4f" | format(row.cost) }} {{ row.currency }}</td>
<td>{{ "%.1f" | format(row.latency_median * 1000) if row.latency_median is not none else "–" }}</td></tr>
{% endfor %}</tbody></table></div>
<p class="weak">Means of metrics are over answerable questions; refusals are over all. p: two-sided paired sign-flip test
against the champion, {{ board.resamples }} resamples, seed {{ board.seed }}; Holm's adjustment is over
{{ board.comparisons }} comparisons. Costs are those of the calls that produced the answers, remembered or not.</p>
<h2>What the metrics mean</h2><dl>
{% for metric in headline %}<dt>{{ titles[metric] }} <span class="weak">{{ metric }}</span></dt>
<dd>{{ definitions[metric] }}</dd>{% endfor %}</dl>
</body></html>
"""


def figure(board: Leaderboard) -> bytes:
    """A PNG with one dot and interval per variant, best on top; of many variants the best ones and the champion."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows: list[Row] = board["rows"]
    shown = [row for place, row in enumerate(rows) if place < _SHOWN_IN_FIGURE or row["champion"]]
    picture = Figure(figsize=(8.5, 1.2 + 0.24 * len(shown)), dpi=110, layout="constrained")
    axes = picture.add_subplot()
    for height, row in enumerate(reversed(shown)):
        score = row["decision"]
        proven = row["p_adjusted"] is not None and row["p_adjusted"] < 1 - board["confidence"]
        colour = "#d08a00" if row["champion"] else "#2e7d32" if proven and row["difference"]["low"] > 0 else "#6b7785"
        axes.plot([score["low"], score["high"]], [height, height], color=colour, linewidth=2, solid_capstyle="round")
        axes.plot([score["estimate"]], [height], marker="o", markersize=6, color=colour)
    axes.set_yticks(
        range(len(shown)), [row["variant"] + (" (champion)" if row["champion"] else "") for row in reversed(shown)]
    )
    axes.tick_params(axis="y", labelsize=8, length=0)
    axes.set_xlabel(f"{METRICS[board['decision_metric']].title}, mean and {board['confidence']:.0%} interval")
    left_out = len(rows) - len(shown)
    axes.set_title(
        f"{board['experiment']}: {board['questions']['compared']} questions"
        + (f" ({left_out} lower variants not shown)" if left_out else ""),
        fontsize=10,
    )
    axes.grid(axis="x", color="#e3e8ee")
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    buffer = io.BytesIO()
    FigureCanvasAgg(picture).print_png(buffer)
    return buffer.getvalue()


def page(result_id: int, board: Leaderboard, recommendation: Recommendation, png: bytes) -> str:
    """The leaderboard as one HTML file that needs no other; everything from outside is escaped."""
    return _template().render(
        result_id=result_id,
        board=board,
        recommendation=recommendation,
        figure=base64.b64encode(png).decode(),
        headline=[metric for metric in HEADLINE if metric != board["decision_metric"]],
        titles={key: metric.title for key, metric in METRICS.items()},
        definitions={key: metric.definition for key, metric in METRICS.items()},
    )


def trial_rows(
    board: Leaderboard, plan: Plan, outcomes: Mapping[str, TrialOutcome], scores: Scores
) -> list[dict[str, Any]]:
    """One row per trial: what was asked of whom, what was retrieved (places, no text), the answer's facts, all scores."""
    labels = {row["variant"]: row["label"] for row in board["rows"]}
    rows = []
    for trial in plan.trials:
        outcome, hits = outcomes[trial.fingerprint], trial.result.hits
        rows.append(
            {
                "trial": trial.fingerprint,
                "variant": trial.variant.name,
                "variant_fingerprint": trial.variant.fingerprint,
                "label": labels[trial.variant.name],
                "index": trial.variant.index,
                "snapshot": board["snapshots"][trial.variant.index],
                "dataset": board["dataset"],
                "dataset_version": board["dataset_version"],
                "question_id": trial.question.question_id,
                "answerable": trial.question.answerable,
                "status": outcome.status,
                "error": outcome.error,
                "refused": outcome.refused,
                "cited": [citation.number for citation in outcome.citations],
                "retrieved_documents": [hit.document_id for hit in hits],
                "retrieved_paths": [f"{hit.source}/{hit.path}" for hit in hits],
                "retrieved_starts": [hit.start for hit in hits],
                "retrieved_ends": [hit.end for hit in hits],
                "retrieved_scores": [hit.score for hit in hits],
                "input_tokens": outcome.usage.get("input_tokens"),
                "output_tokens": outcome.usage.get("output_tokens"),
                "cost": outcome.usage.get("cost"),
                "latency_seconds": outcome.latency,
                "generation": outcome.generation,
                **{metric: scores.values[trial.fingerprint].get(metric) for metric in METRICS},
            }
        )
    return rows


def _schema() -> "pa.Schema":
    import pyarrow as pa

    columns: dict[str, Any] = dict.fromkeys(
        ("trial", "variant", "variant_fingerprint", "label", "index", "dataset", "question_id", "status", "error",
         "generation"),
        pa.string(),
    )  # fmt: skip
    columns |= dict.fromkeys(("snapshot", "dataset_version", "input_tokens", "output_tokens"), pa.int64())
    columns |= dict.fromkeys(("answerable", "refused"), pa.bool_())
    columns |= dict.fromkeys(
        ("cited", "retrieved_documents", "retrieved_starts", "retrieved_ends"), pa.list_(pa.int64())
    )
    columns |= {"retrieved_paths": pa.list_(pa.string()), "retrieved_scores": pa.list_(pa.float64())}
    columns |= dict.fromkeys(("cost", "latency_seconds", *METRICS), pa.float64())
    return pa.schema(list(columns.items()))


def write(
    folder: Path,
    result_id: int,
    board: Leaderboard,
    recommendation: Recommendation,
    plan: Plan,
    outcomes: Mapping[str, TrialOutcome],
    scores: Scores,
) -> dict[str, Path]:
    """Write report and trial records of a result, unless they are there; a file appears whole or not at all."""
    from resources.parquet_io import write_table

    folder.mkdir(parents=True, exist_ok=True)
    files = {"report": folder / f"{result_id}.html", "trials": folder / f"{result_id}.parquet"}
    if not files["trials"].exists():
        write_table(
            files["trials"],
            trial_rows(board, plan, outcomes, scores),
            _schema(),
            {"result": result_id, **{key: board[key] for key in _PROVENANCE}},
        )
    if not files["report"].exists():
        partial = files["report"].with_suffix(f".{os.getpid()}.partial")
        partial.write_text(page(result_id, board, recommendation, figure(board)), encoding="utf-8")
        partial.replace(files["report"])
    return files


@cache
def _template() -> "Template":
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = lambda value: "–" if value is None else f"{value:.3f}"
    return environment.from_string(_PAGE)
