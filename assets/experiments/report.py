"""Reports: the leaderboard as a figure and a page, the trials as a table.

Belongs here: rendering what is already decided and recorded, into files that need nothing else to be read.
Does not belong here: any number's computation (leaderboard.py, recommendation.py).

Both hold scores, and places in documents, but neither questions nor answers nor document text. Pages that do (compare.py) lie
beside the report in ``compare``, and it links to those there are.
"""

import base64
import io
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.evaluation.metrics.base import METRICS
from assets.evaluation.metrics.semantic_metrics import DEFINITIONS
from assets.experiments import task_board
from assets.experiments.guards import describe
from assets.experiments.leaderboard import HEADLINE, Leaderboard, Row, upgraded
from assets.experiments.pareto import SAME_LATENCY_SECONDS, SAME_LATENCY_SHARE
from assets.experiments.planning import Plan
from assets.experiments.recommendation import Recommendation
from assets.experiments.records import TrialOutcome
from assets.experiments.scores import Scores

if TYPE_CHECKING:
    import pyarrow as pa
    from jinja2 import Template

_BUILT_IN = {**METRICS, **DEFINITIONS}
CODE_VERSION = "2"
#: Folder of the side-by-side pages, beside the report.
COMPARISONS = "compare"
_SHOWN_IN_FIGURE = 24
_SHOWN_MISTAKES = 6
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
td.better { background: #eaf6ec; } td.worse { background: #fbeaea; } code { font-size: .9em; }
img { max-width: 100%; } dt { font-weight: 600; } dd { margin: 0 0 .5rem; color: #414c59; }
</style></head><body>
<h1>{{ board.experiment }}</h1>
<p class="facts">Result {{ result_id }} · dataset {{ board.dataset }} version {{ board.dataset_version }}, split
{% if board.task %}
{{ board.split }}: {{ board.questions.answerable }} inputs of {{ board.task.kind }} without documents ·
{% else %}
{{ board.split }}: {{ board.questions.answerable }} answerable and {{ board.questions.unanswerable }} unanswerable questions,
{{ board.questions.stale }} left out as stale · snapshots
{% for index, snapshot in board.snapshots.items() %}{{ index }}@{{ snapshot }}{{ ", " if not loop.last }}{% endfor %} ·
{% endif %}
champion {{ board.champion }}</p>
<div class="verdict">{{ recommendation.text }}</div>
{% if recommendation.uncertain %}<h2>What is uncertain</h2>
<ul>{% for one in recommendation.uncertain %}<li>{{ one }}</li>{% endfor %}</ul>{% endif %}
{% if recommendation.diagnosis %}<h2>Where to look next</h2><ul>
{% for item in recommendation.diagnosis %}<li>{{ item.variant }}: {{ item.symptom }}. {{ item.advice | capitalize }}.</li>{% endfor %}
</ul>{% endif %}
{% if recommendation.next %}<h2>What to try next</h2><ul>
{% for one in recommendation.next %}<li>{{ one.try | capitalize }}. <code>{{ one.change }}</code>
<span class="weak">because {{ one.because }}</span></li>{% endfor %}</ul>{% endif %}
<h2>Read with care</h2><ul>{% for caveat in recommendation.caveats %}<li>{{ caveat }}</li>{% endfor %}</ul>
<h2>{{ titles[board.decision_metric] }} with {{ "%.0f" | format(board.confidence * 100) }} % intervals</h2>
<img alt="Mean {{ titles[board.decision_metric] }} of each variant with its interval" src="data:image/png;base64,{{ figure }}">
<h2>Leaderboard</h2>
<div class="scroll"><table><thead><tr><th>Variant</th><th>Model</th><th>n</th><th>Failed</th>
<th>{{ titles[board.decision_metric] }}</th><th>Interval</th><th>To champion</th><th>Interval</th><th>p</th><th>p (Holm)</th>
{% for metric in headline %}<th>{{ titles[metric] }}</th>{% endfor %}
{% if board.task %}{% for one in whole_set %}<th>{{ one.title }}</th><th>Interval</th>{% endfor %}
{% if forms %}<th>Unreadable</th>{% endif %}
{% else %}<th>Refusal P</th><th>R</th><th>F1</th><th>Used chunks</th>{% endif %}
<th>Tokens in</th><th>out</th><th>Cost</th><th>Median ms</th>
<th>95 % ms</th>{% if energy %}<th>Wh per 1000</th>{% endif %}<th>Beaten by</th>{% if margin %}<th>Not worse by {{ margin }}: p</th>{% endif %}
{% if equal %}<th>Equal within {{ equal }}: p</th>{% endif %}{% if guarded %}<th>Guards</th>{% endif %}<th>Side by side</th>
</tr></thead><tbody>
{% for row in board.rows %}<tr class="{{ 'recommended' if row.variant == recommendation.recommended else 'champion' if row.champion }}">
<td title="{{ row.fingerprint }}, prompt version {{ row.prompt_version }}, snapshot {{ row.snapshot }}">{{ row.variant }}</td>
<td class="text">{{ row.label }}</td><td>{{ row.n }}</td>
<td>{{ row.failed }}{% if row.given_up %} <span class="weak">({{ row.given_up }} given up)</span>{% endif %}</td>
<td>{{ row.decision.estimate | number }}</td><td>{{ row.decision.low | number }} – {{ row.decision.high | number }}</td>
{% if row.difference %}<td>{{ "%+.3f" | format(row.difference.estimate) }}</td>
<td>{{ "%+.3f" | format(row.difference.low) }} – {{ "%+.3f" | format(row.difference.high) }}</td>
<td>{{ "%.4f" | format(row.p) }}</td><td>{{ "%.4f" | format(row.p_adjusted) }}</td>
{% else %}<td class="weak" colspan="4">champion</td>{% endif %}
{% for metric in headline %}<td>{{ row.metrics[metric].answerable | number }}</td>{% endfor %}
{% if board.task %}{% for one in whole_set %}{% set found = row.whole_set[one.id] %}
<td>{{ found.estimate | number }}</td><td>{{ found.low | number }} – {{ found.high | number }}</td>{% endfor %}
{% if forms %}<td class="{{ 'worse' if row.unreadable else '' }}">{{ row.unreadable }}</td>{% endif %}
{% else %}<td>{{ row.refusal.precision | number }}</td><td>{{ row.refusal.recall | number }}</td>
<td>{{ row.refusal.f1 | number }}</td><td>{{ row.utilization | number }}</td>{% endif %}
<td>{{ row.input_tokens }}</td><td>{{ row.output_tokens }}</td><td>{{ "%.4f" | format(row.cost) }} {{ row.currency }}</td>
<td>{{ row.latency_median | milliseconds }}</td><td>{{ row.latency_p95 | milliseconds }}</td>
{% if energy %}<td>{{ row.energy_wh_per_1000 | number }}</td>{% endif %}
<td class="text">{{ row.dominated_by or "–" }}</td>
{% if margin %}<td>{{ row.non_inferiority.p_adjusted | p if row.non_inferiority else "–" }}</td>{% endif %}
{% if equal %}<td>{{ row.equivalence.p_adjusted | p if row.equivalence else "–" }}</td>{% endif %}
{% if guarded %}<td class="{{ 'worse' if 'broken' in row.guards | map(attribute='state') else '' }}">
{{ row.guards | selectattr("state", "equalto", "held") | list | length }} of {{ row.guards | length }}</td>{% endif %}
<td class="text">{% for other, link in links.get(row.fingerprint, []) %}<a href="{{ link }}">with {{ other }}</a> {% endfor %}</td>
</tr>
{% endfor %}</tbody></table></div>
<p class="weak">{% if board.task %}Whole-set metrics ({{ whole_set | map(attribute="title") | join(", ") or "none" }}) are no means
over inputs; their intervals are percentiles of a bootstrap. An unreadable answer counts as the worst.
{% else %}Means of metrics are over answerable questions; refusals are over all.{% endif %} p: two-sided paired sign-flip test
against the champion, {{ board.resamples }} resamples, seed {{ board.seed }}; Holm's adjustment is over
{{ board.comparisons }} comparisons. {% if board.cluster %}The {{ board.questions.compared }} questions form
{{ board.questions.groups }} groups ({{ board.cluster }}), which are resampled and flipped whole. {% endif %}Costs are those of
the calls that produced the answers, remembered or not. Two variants question by question:
<code>genaiops compare {{ board.experiment }} A B</code> writes a page and links it here.</p>
{% if confused %}<h2>What was taken for what</h2>
<div class="scroll"><table><thead><tr><th>Variant</th><th>Mistakes, the most frequent first</th></tr></thead><tbody>
{% for variant, mistakes in confused %}<tr><td>{{ variant }}</td><td class="text">{% for one in mistakes %}{{ one.label }} →
{{ one.said or "unreadable" }} {{ one.count }}×{{ ", " if not loop.last }}{% else %}none{% endfor %}</td></tr>
{% endfor %}</tbody></table></div>{% endif %}
<h2>Quality, cost, latency{{ ", energy" if energy }}</h2>
<img alt="Quality of each variant over its cost; those that none beats in everything are joined" src="data:image/png;base64,{{ front }}">
<p class="weak">A variant is beaten when another one is nowhere worse and somewhere better in mean, cost per answer and the latency
that 95 % of answers stay within (latencies closer than {{ same_share }} and {{ same_ms }} ms count as equal). Plain numbers without
their uncertainty: a view, no test. {% if energy %}Energy is what the models state in models.yaml ({{ energy | join("; ") }}).
{% else %}Energy is left out: no model of these states it (models.yaml).{% endif %}</p>
{% if judges %}<h2>Judges</h2>
<div class="scroll"><table><thead><tr><th>Judge</th><th>Model</th><th>Trials judged</th><th>Without a usable verdict</th>
<th>Changed by order</th><th>Changed by draw</th><th>κ with people</th><th>AUC</th><th>Rank correlation</th><th>Bias</th>
<th>May decide</th></tr></thead><tbody>
{% for metric, one in judges.items() %}<tr><td>{{ one.title }} <span class="weak">{{ metric }}</span></td>
<td class="text">{{ one.model }}</td><td>{{ one.scored }}</td>
<td class="{{ 'worse' if one.failed or one.unasked else '' }}">{{ one.failed + one.unasked }}</td>
<td>{{ one.swap | number }}</td><td>{{ one.unsteady | number }}</td>
{% for name in ("kappa", "auc", "spearman", "bias") %}<td>{{ one.agreement[name].estimate | number if one.agreement[name] else "–" }}</td>
{% endfor %}<td class="text">{{ "yes" if one.calibrated else "no" }}: {{ one.why }}</td></tr>{% endfor %}</tbody></table></div>
<p class="weak">A trial without a usable verdict has no score: it is left out, never counted as 0. Changed: share of the verdicts that
another order of the same passages and claims, or asking again, turned round. A judge that may not decide informs: nothing is
recommended by it.</p>{% endif %}
{% if board.search %}<h2>How the variants were selected</h2>
<p>By {{ board.search.strategy }}, seed {{ board.search.seed }}, on these questions: of {{ board.search.grid }} variants
{{ board.search.asked_all }} were asked all of them ({{ board.search.trials.asked }} of {{ board.search.trials.grid }} trials). The
others are below, with where and why they were left out.</p>
{% if board.search.retrieval.settings %}<div class="scroll"><table><thead><tr><th>Search setting</th><th>Variants</th>
<th>{{ board.search.retrieval.metric }}</th><th>Precision</th><th>Characters</th><th>Questions</th><th>Dropped</th></tr></thead>
<tbody>{% for one in board.search.retrieval.settings %}
<tr><td>{{ one.setting }}</td><td>{{ one.variants }}</td><td>{{ one.mean | number }}</td><td>{{ one.precision | number }}</td>
<td>{{ "%.0f" | format(one.characters or 0) }}</td><td>{{ one.questions }}</td><td class="text">{{ one.why or "–" }}</td></tr>
{% endfor %}</tbody></table></div>
{% else %}<p class="weak">Search settings were not compared: {{ board.search.retrieval.skipped }}.</p>{% endif %}
<ul>{% for one in board.search.rounds %}<li>Round {{ one.round }}: {{ one.variants }} variants on {{ one.questions }} questions, best
{{ one.best }} ({{ one.means[one.best] | number }})</li>{% endfor %}</ul>
{% if board.search.dropped %}<div class="scroll"><table><thead><tr><th>Left out</th><th>Where</th><th>Mean</th><th>Why</th></tr></thead>
<tbody>{% for one in board.search.dropped %}<tr><td>{{ one.variant }}</td><td class="text">{{ one.where }}</td>
<td>{{ one.mean | number }}</td><td class="text">{{ one.why }}</td></tr>{% endfor %}</tbody></table></div>{% endif %}
{% if board.search.untried.count %}<details><summary>{{ board.search.untried.count }} variants were not tried</summary>
<ul>{% for one in board.search.untried.variants %}<li>{{ one }}</li>{% endfor %}</ul></details>{% endif %}{% endif %}
{% if board.sharing %}<h2>Shared work</h2>
<div class="scroll"><table><thead><tr><th>Work</th><th>Needed by the variants</th><th>Different</th><th>Shared</th>
<th>Made in this run</th></tr></thead><tbody>
{% for kind, one in board.sharing.items() if one is mapping %}<tr><td>{{ kind }}</td><td>{{ one.needed }}</td><td>{{ one.made }}</td>
<td>{{ one.ratio | share }}</td><td>{{ "–" if one.this_run is none else one.this_run }}</td></tr>{% endfor %}</tbody></table></div>
<p class="weak">Of the work the variants need, each counted alone, this much is done once for several of them; on average
{{ board.sharing.ratio | share }}. What is not made in this run was on record, or is made by a refresh.</p>{% endif %}
{% if guarded %}<h2>Guards</h2><ul>{% for row in board.rows %}{% for guard in row.guards %}
<li>{{ row.variant }}: {{ guard | guard }}</li>{% endfor %}{% endfor %}</ul>{% endif %}
{% if board.slices %}<h2>Slices</h2>
{% if slices_figure %}<img alt="Difference to the champion by slice" src="data:image/png;base64,{{ slices_figure }}">{% endif %}
<div class="scroll"><table><thead><tr><th>Variant</th>{% for entry in board.slices %}<th>{{ entry.tag }}={{ entry.value }}<br>
{{ entry.questions }} questions{% if entry.groups < entry.questions %}, {{ entry.groups }} groups{% endif %}</th>{% endfor %}
</tr></thead><tbody>{% for row in board.rows %}<tr><td>{{ row.variant }}</td>
{% for entry in board.slices %}{% set one = entry.variants.get(row.variant) %}
{% if not one %}<td class="weak">too few</td>{% elif not one.difference %}<td>{{ one.mean | number }}</td>
{% else %}<td class="{{ one | marked(board.confidence) }}">{{ one.mean | number }} ({{ "%+.3f" | format(one.difference.estimate) }},
p {{ one.p_adjusted | p }})</td>{% endif %}{% endfor %}</tr>{% endfor %}</tbody></table></div>
<p class="weak">Mean of the decision metric, difference to the champion, and p adjusted by Holm over all slices and variants of this
table, apart from the comparison above. Coloured where that is below {{ "%.2f" | format(1 - board.confidence) }}. Slices are for
looking: none decides unless a guard names it.</p>{% endif %}
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
    axes.set_xlabel(f"{_title(board['decision_metric'])}, mean and {board['confidence']:.0%} interval")
    left_out = len(rows) - len(shown)
    axes.set_title(
        f"{board['experiment']}: {board['questions']['compared']} {task_board.noun(board)}"
        + (f" ({left_out} lower variants not shown)" if left_out else ""),
        fontsize=10,
    )
    axes.grid(axis="x", color="#e3e8ee")
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return _png(FigureCanvasAgg(picture))


def front_figure(board: Leaderboard) -> bytes:
    """A PNG of quality over cost per 1000 answers (over tokens per answer where nothing costs money)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows: list[Row] = upgraded(board)["rows"]
    paid = any(row["cost"] for row in rows)
    unit = "cost_per_1000" if paid else "tokens_per_answer"
    shown = [row for row in rows if row[unit] is not None]
    picture = Figure(figsize=(8.5, 4.2), dpi=110, layout="constrained")
    axes = picture.add_subplot()
    front = sorted((row for row in shown if row["dominated_by"] is None), key=lambda row: row[unit])
    axes.plot(
        [row[unit] for row in front],
        [row["decision"]["estimate"] for row in front],
        color="#9db7cc",
        linewidth=1,
        zorder=1,
    )
    for row in shown:
        on_front = row["dominated_by"] is None
        colour = "#d08a00" if row["champion"] else "#2f6f9f" if on_front else "#b5bcc4"
        axes.scatter([row[unit]], [row["decision"]["estimate"]], s=36, color=colour, zorder=2)
        if on_front or row["champion"]:
            axes.annotate(
                row["variant"],
                (row[unit], row["decision"]["estimate"]),
                xytext=(5, 4),
                textcoords="offset points",
                fontsize=7,
            )
    axes.set_xlabel(f"{rows[0]['currency']} per 1000 answers" if paid else "tokens per answer (nothing costs money)")
    axes.set_ylabel(f"{_title(board['decision_metric'])}, mean")
    axes.grid(color="#e3e8ee")
    axes.set_axisbelow(True)
    return _png(FigureCanvasAgg(picture))


def slices_figure(board: Leaderboard) -> bytes | None:
    """A PNG of the differences to the champion, variants by slices; None when no slice is large enough."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    board = upgraded(board)
    entries = [entry for entry in board["slices"] if entry["variants"]]
    rows = [row for row in board["rows"] if not row["champion"]][:_SHOWN_IN_FIGURE]
    if not entries or not rows:
        return None
    values = [[entry["variants"][row["variant"]]["difference"]["estimate"] for entry in entries] for row in rows]
    limit = max(0.01, max(abs(value) for row in values for value in row))
    picture = Figure(figsize=(3.5 + 0.9 * len(entries), 1.6 + 0.26 * len(rows)), dpi=110, layout="constrained")
    axes = picture.add_subplot()
    axes.imshow(values, cmap="RdYlGn", vmin=-limit, vmax=limit, aspect="auto")
    for height, row in enumerate(rows):
        for place, entry in enumerate(entries):
            one = entry["variants"][row["variant"]]
            sure = "*" if one["p_adjusted"] < 1 - board["confidence"] else ""
            axes.text(
                place, height, f"{one['difference']['estimate']:+.2f}{sure}", ha="center", va="center", fontsize=7
            )
    axes.set_xticks(
        range(len(entries)), [f"{entry['tag']}={entry['value']}" for entry in entries], rotation=40, ha="right"
    )
    axes.set_yticks(range(len(rows)), [row["variant"] for row in rows])
    axes.tick_params(labelsize=7, length=0)
    axes.set_title("Difference to the champion by slice (*: beyond chance)", fontsize=9)
    return _png(FigureCanvasAgg(picture))


def _png(canvas: Any) -> bytes:
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    return buffer.getvalue()


def _title(metric: str) -> str:
    """The title of a metric; its id when the catalogue no longer has it."""
    known = _BUILT_IN.get(metric)
    return known.title if known else metric


def _judged(board: Leaderboard, key: str) -> dict[str, str]:
    """Title or definition by metric of the judges that took part."""
    return {metric: state[key] for metric, state in board.get("judges", {}).items()}


def page(
    result_id: int,
    board: Leaderboard,
    recommendation: Recommendation,
    png: bytes,
    links: Mapping[str, Sequence[tuple[str, str]]] | None = None,
) -> str:
    """The leaderboard as one HTML file that needs no other; everything from outside is escaped.

    Args:
        board: of any schema, so that results on record can be shown.
        links: {fingerprint of a variant: (name of another one, page that compares the two)}.
    """
    board = upgraded(board)
    measured = board["rows"][0]["metrics"]
    slices = slices_figure(board)
    return _template().render(
        result_id=result_id,
        board=board,
        energy=sorted({row["energy_source"] for row in board["rows"] if row.get("energy_source")}),
        recommendation=recommendation,
        figure=base64.b64encode(png).decode(),
        front=base64.b64encode(front_figure(board)).decode(),
        slices_figure=base64.b64encode(slices).decode() if slices else "",
        headline=[
            metric
            for metric in [*(task_board.headline(board) or _headline(measured)), *DEFINITIONS, *board.get("judges", {})]
            if metric in measured and metric != board["decision_metric"]
        ],
        whole_set=[
            {"id": key, **found} for key, found in board["rows"][0].get("whole_set", {}).items() if "[" not in key
        ],
        forms=bool(board.get("task")) and board["task"]["kind"] in ("classification", "extraction"),
        confused=_confused(board),
        titles={key: _title(key) for key in {*measured, board["decision_metric"]}} | _judged(board, "title"),
        definitions={
            key: _BUILT_IN[key].definition if key in _BUILT_IN else "No longer in the catalogue." for key in measured
        }
        | _judged(board, "definition"),
        judges=board.get("judges", {}),
        margin=board["margins"].get("non_inferiority"),
        equal=board["margins"].get("equivalence"),
        guarded=any(row["guards"] for row in board["rows"]),
        links=links or {},
        same_share=f"{SAME_LATENCY_SHARE:.0%}",
        same_ms=f"{SAME_LATENCY_SECONDS * 1000:.0f}",
    )


def _headline(measured: Mapping[str, Any]) -> list[str]:
    """The headline metrics in the version that was measured."""
    stems = [metric.rpartition("/")[0] for metric in HEADLINE]
    return [key for stem in stems for key in measured if key.rpartition("/")[0] == stem]


def _confused(board: Leaderboard) -> list[tuple[str, list[dict[str, Any]]]]:
    """The mistakes of each variant of a classification, the most frequent first."""
    return [
        (
            row["variant"],
            sorted(
                (one for one in row["confusions"] if one["label"] != one["said"]),
                key=lambda one: (-one["count"], one["label"], one["said"]),
            )[:_SHOWN_MISTAKES],
        )
        for row in board["rows"]
        if "confusions" in row
    ]


def comparison_file(result_id: int, first: str, second: str) -> str:
    """Name of the page that compares the variants of two fingerprints."""
    return f"{COMPARISONS}/{result_id}-{first[:16]}-{second[:16]}.html"


def _links(folder: Path, result_id: int, board: Leaderboard) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for first in board["rows"]:
        for second in board["rows"]:
            name = comparison_file(result_id, first["fingerprint"], second["fingerprint"])
            if (folder / name).exists():
                found.setdefault(first["fingerprint"], []).append((second["variant"], name))
                found.setdefault(second["fingerprint"], []).append((first["variant"], name))
    return found


def write_page(folder: Path, result_id: int, board: Leaderboard, recommendation: Recommendation) -> Path:
    """Write the report of a result, with links to the side-by-side pages there are; it appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result_id}.html"
    partial = path.with_suffix(f".{os.getpid()}.partial")
    links = _links(folder, result_id, board)
    partial.write_text(page(result_id, board, recommendation, figure(board), links), encoding="utf-8")
    partial.replace(path)
    return path


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
                "snapshot": board["snapshots"].get(trial.variant.index, 0),
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
                **{metric: scores.values[trial.fingerprint].get(metric) for metric in measured_metrics(board)},
            }
        )
    return rows


def measured_metrics(board: Leaderboard) -> list[str]:
    """The built-in metrics, those with a model of their own, and those of the judges that took part."""
    measured = board["rows"][0]["metrics"] if board["rows"] else {}
    return [*METRICS, *(key for key in DEFINITIONS if key in measured), *board.get("judges", {})]


def _schema(board: Leaderboard) -> "pa.Schema":
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
    columns |= dict.fromkeys(("cost", "latency_seconds", *measured_metrics(board)), pa.float64())
    return pa.schema(list(columns.items()))


def files(folder: Path, result_id: int) -> dict[str, Path]:
    """Where the report and the trial records of a result are."""
    return {"report": folder / f"{result_id}.html", "trials": folder / f"{result_id}.parquet"}


def figures_of(page: Path) -> list[bytes]:
    """The pictures a report holds, as PNG, in its order: the scores, the front, and the slices if there are any."""
    text = page.read_text(encoding="utf-8")
    return [base64.b64decode(found) for found in re.findall(r'src="data:image/png;base64,([A-Za-z0-9+/=]+)"', text)]


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
    written = files(folder, result_id)
    if not written["trials"].exists():
        write_table(
            written["trials"],
            trial_rows(board, plan, outcomes, scores),
            _schema(board),
            {"result": result_id, **{key: board[key] for key in _PROVENANCE}},
        )
    if not written["report"].exists():
        write_page(folder, result_id, board, recommendation)
    return written


def _marked(one: Mapping[str, Any], confidence: float) -> str:
    """The style of a slice's cell: coloured where the difference is beyond chance."""
    if one["p_adjusted"] >= 1 - confidence:
        return ""
    return "better" if one["difference"]["estimate"] > 0 else "worse"


@cache
def _template() -> "Template":
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = lambda value: "–" if value is None else f"{value:.3f}"
    environment.filters["milliseconds"] = lambda value: "–" if value is None else f"{value * 1000:.1f}"
    environment.filters["share"] = lambda value: "–" if value is None else f"{value:.0%}"
    environment.filters["p"] = lambda value: f"{value:.4f}"
    environment.filters["guard"] = describe
    environment.filters["marked"] = _marked
    return environment.from_string(_PAGE)
