"""The drift report a person reads: a figure for the UI and a standalone HTML page.

Belongs here: drawing and writing what signals.py judged; only numbers and single terms reach this module.
Does not belong here: measuring and judging.

Both are drawn from the JSON of ``Comparison.details``, so that a stored result can be shown again.
"""

import base64
import html
import io
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CODE_VERSION = "1"

REFERENCE_COLOUR = "#8a94a6"
CURRENT_COLOUR = "#2563eb"
VERDICT_COLOURS = {"none": "#15803d", "warn": "#b45309", "alert": "#b91c1c", "not enough data": "#6b7280"}
_PANELS = 4
_SEVERITY = ["alert", "warn", "none", "not enough data"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; color: #1f2937; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-top: 1px solid #e5e7eb; padding-top: 1.5rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; } th { text-align: left; color: #4b5563; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid #e5e7eb; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
.verdict { color: #fff; border-radius: .3rem; padding: .1rem .5rem; font-size: .85em; white-space: nowrap; }
img { max-width: 100%; } .muted { color: #6b7280; }
"""


def worst_first(results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Results in the order a reader needs them."""
    return sorted(results, key=lambda result: (_SEVERITY.index(result["verdict"]), result["subject"]))


def draw(results: Sequence[Mapping[str, Any]]) -> bytes:
    """PNG of small multiples, one row per subject: lengths, shares, terms that rose and fell, MMD by chance.

    Args:
        results: ``Comparison.details`` of each subject.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 3.1 * max(len(results), 1)), dpi=80, layout="constrained")
    rows = figure.subfigures(max(len(results), 1), 1, squeeze=False)[:, 0]
    for row, result in zip(rows, results, strict=False):
        row.suptitle(
            f"{result['subject']}: {result['verdict']}", x=0.01, ha="left", color=VERDICT_COLOURS[result["verdict"]]
        )
        data = result["figure"]
        axes = row.subplots(1, _PANELS, width_ratios=[1.1, 0.8, 1.4, 1.1])
        painters = [
            (data.get("length"), _draw_lengths),
            (data.get("shares"), _draw_shares),
            ({"risen": result["risen"], "fallen": result["fallen"]}, _draw_terms),
            (data.get("mmd"), _draw_null),
        ]
        for axis, (content, paint) in zip(axes, painters, strict=True):
            if content and any(content.values()):
                axis.spines[["top", "right"]].set_visible(False)
                axis.tick_params(labelsize=8)
                paint(axis, content)
            else:
                axis.set_axis_off()
                axis.text(0.5, 0.5, "not measured", ha="center", va="center", color="#9ca3af", fontsize=9)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a term in a script the font lacks
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_lengths(axis: Any, data: Mapping[str, Any]) -> None:
    for name, colour, filled in (("reference", REFERENCE_COLOUR, True), ("current", CURRENT_COLOUR, False)):
        axis.stairs(
            data[name], data["edges"], fill=filled, alpha=0.5 if filled else 1, color=colour, label=name, linewidth=1.5
        )
    axis.set_title(data["title"], fontsize=9)
    axis.set_ylabel("share", fontsize=8)
    axis.legend(fontsize=8, frameon=False)


def _draw_shares(axis: Any, data: Mapping[str, Any]) -> None:
    names = [share[0] for share in data["shares"]]
    places = range(len(names))
    axis.barh([p + 0.2 for p in places], [share[1] for share in data["shares"]], 0.38, color=REFERENCE_COLOUR)
    axis.barh([p - 0.2 for p in places], [share[2] for share in data["shares"]], 0.38, color=CURRENT_COLOUR)
    axis.set_yticks(list(places), names)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_title(f"{data['title']} (share)", fontsize=9)


def _draw_terms(axis: Any, data: Mapping[str, Any]) -> None:
    changes = [*data["risen"][:6], *reversed(data["fallen"][:6])]
    values = [1000 * (change["current"] - change["reference"]) for change in changes]
    axis.barh(range(len(changes)), values, color=[CURRENT_COLOUR if v > 0 else REFERENCE_COLOUR for v in values])
    axis.set_yticks(range(len(changes)), [change["term"] for change in changes])
    axis.invert_yaxis()
    axis.axvline(0, color="#374151", linewidth=0.8)
    axis.set_title("terms that rose and fell (per 1000 tokens)", fontsize=9)


def _draw_null(axis: Any, data: Mapping[str, Any]) -> None:
    axis.stairs(data["counts"], data["edges"], fill=True, color=REFERENCE_COLOUR, alpha=0.5, label="by chance")
    axis.axvline(data["observed"], color=CURRENT_COLOUR, linewidth=1.8, label=f"observed, p {data['p_value']:.3g}")
    axis.set_title(data["title"], fontsize=9)
    axis.set_yticks([])
    axis.ticklabel_format(axis="x", style="sci", scilimits=(-2, 3))
    axis.legend(fontsize=8, frameon=False, loc="upper left")


def render_html(day: str, results: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> str:
    """A self-contained page: verdicts in words, every signal with its numbers, one figure per subject.

    Args:
        day: the partition, for the title.
        results: ``Comparison.details`` of each subject.
        settings: thresholds and permutations, shown at the end.
    """
    parts = [
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Drift {_e(day)}</title>",
        f"<meta name='viewport' content='width=device-width'><style>{_STYLE}</style></head><body>",
        f"<h1>Drift report</h1><p class='muted'>{_e(day)} (UTC)</p>",
        "<table><tr><th>Subject</th><th>Verdict</th><th>What moved</th></tr>",
    ]
    ordered = worst_first(results)
    for result in ordered:
        parts.append(
            f"<tr><td>{_e(result['subject'])}</td><td>{_badge(result['verdict'])}</td><td>{_e(result['words'])}</td></tr>"
        )
    parts.append("</table>")
    for result in ordered:
        parts.append(f"<h2>{_e(result['subject'])} {_badge(result['verdict'])}</h2>")
        if result["current"]:
            against = f", compared with {_e(result['reference'])}" if result["reference"] else ""
            parts.append(f"<p>{_e(result['current'])}{against}. {_e(result['words'])}</p>")
        else:
            parts.append(f"<p>{_e(result['words'])}</p>")
        if result["signals"]:
            parts += [_signals(result["signals"]), _terms(result)]
            picture = base64.b64encode(draw([result])).decode()
            parts.append(
                f"<img alt='lengths, shares, terms and MMD of {_e(result['subject'])}' src='data:image/png;base64,{picture}'>"
            )
    shown = ", ".join(f"{_e(name)} {_e(value)}" for name, value in settings.items())
    parts.append(f"<p class='muted'>Settings: {shown}. p-values are from permutations and Holm-adjusted over all tests")
    parts.append("of this report. Only terms that several documents or questions share are shown.</p></body></html>")
    return "\n".join(parts)


def _signals(signals: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        "<table><tr><th>Signal</th><th>Verdict</th><th>Observed</th><th>Measure</th><th>Size</th><th>p</th>"
        "<th>p adjusted</th><th>Sample sizes</th></tr>"
    ]
    for signal in signals:
        rows.append(
            f"<tr><td>{_e(signal['title'])}</td><td>{_badge(signal['verdict'])}</td><td>{_e(signal['statement'])}</td>"
            f"<td>{_e(signal['measure'])}</td><td class='n'>{_n(signal['effect'])}</td><td class='n'>{_n(signal['p_value'])}</td>"
            f"<td class='n'>{_n(signal['p_adjusted'])}</td>"
            f"<td class='n'>{_e(signal['samples'][1])} vs {_e(signal['samples'][0])}</td></tr>"
        )
    return "".join([*rows, "</table>"])


def _terms(result: Mapping[str, Any]) -> str:
    lists = [
        f"<p>{label}: {', '.join(_e(change['term']) for change in result[key])}</p>"
        for key, label in (("risen", "More of"), ("fallen", "Less of"))
        if result[key]
    ]
    return "".join(lists)


def _badge(verdict: str) -> str:
    return f"<span class='verdict' style='background:{VERDICT_COLOURS[verdict]}'>{_e(verdict)}</span>"


def _n(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _e(value: Any) -> str:
    return html.escape(str(value), quote=True)


def write_page(artifacts: Path, day: str, page: str) -> str:
    """Write the page as ``drift/<day>.html`` under ``artifacts``, atomically; returns that relative path."""
    relative = Path("drift") / f"{day}.html"
    target = artifacts / relative
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(target)
    return relative.as_posix()
