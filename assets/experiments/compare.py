"""Side by side: two variants on each question, with what differs marked.

Belongs here: reading the trials of a result, finding what differs, and the page that shows it.
Does not belong here: whether the difference is beyond chance (leaderboard.py), and printing (pipelines/commands/comparing.py).

The page holds questions, answers and names of documents, so it is written only when somebody asks for it, into the folder of
the experiment's report, where every erasure removes it and retention removes it with the trials it shows.
"""

from __future__ import annotations

import difflib
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from assets.evaluation.dataset import Question, read_dataset
from assets.evaluation.metrics.base import METRICS
from assets.experiments import report
from assets.experiments.champion import experiment_config
from assets.experiments.leaderboard import Leaderboard, upgraded
from resources.errors import PermanentError
from resources.platform import Platform
from resources.postgres import Connection

if TYPE_CHECKING:
    from jinja2 import Template

Change = Literal["better", "worse", "other answer", "same answer"]
Only = Literal["better", "worse", "changed"]
Segment = tuple[str, bool]  # a piece of text, and whether the other side lacks it

#: Longer answers are marked as a whole: finding what they share takes time that grows with the square of their length.
MAXIMUM_WORDS = 2000


@dataclass(frozen=True)
class Place:
    """A retrieved chunk: where it stands, whether the answer cites it, and whether the other variant lacks it."""

    rank: int
    path: str
    heading: str
    start: int
    end: int
    cited: bool
    only_here: bool


@dataclass(frozen=True)
class Side:
    """What one variant made of a question; ``score`` is of the decision metric, None where that is undefined."""

    answer: tuple[Segment, ...]
    note: str
    score: float | None
    places: tuple[Place, ...]
    tokens: int | None
    latency: float | None


@dataclass(frozen=True)
class Pair:
    """One question with both answers; ``change`` is what the second variant makes of it against the first.

    Attributes:
        preferred: the answer a judge prefers, ``neither``, or ``no usable verdict``; None when no judge was asked.
        documents: ids of those that either variant retrieved; ``trials``: fingerprints of both trials.
    """

    question: Question
    first: Side
    second: Side
    change: Change
    preferred: str | None = None
    documents: frozenset[int] = frozenset()
    trials: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Comparison:
    """Two variants on all questions of a result, the greatest differences first.

    Attributes:
        missing: questions of which a trial is no longer on record.
        judge: what a judge prefers on the whole, in words; empty when none was asked.
    """

    result_id: int
    board: Leaderboard
    first: Mapping[str, Any]
    second: Mapping[str, Any]
    pairs: tuple[Pair, ...]
    missing: int
    judge: str = ""

    def counts(self) -> dict[str, int]:
        """Questions by change."""
        found = Counter(pair.change for pair in self.pairs)
        return {change: found[change] for change in ("better", "worse", "other answer", "same answer")}


def write_comparison(
    platform: Platform,
    experiment: str,
    first: str,
    second: str,
    *,
    only: Only | None = None,
    out: Path | None = None,
    judge: Callable[[Comparison], Comparison] = lambda comparison: comparison,
) -> tuple[Comparison, Path]:
    """Compare two variants on the newest result of an experiment, and write the page.

    Args:
        first, second: names of variants, as the leaderboard has them.
        only: show only the questions on which the second is better or worse, or on which the answer changed at all.
        out: file to write; by default the one beside the report, which is written again and then links to it.
        judge: adds what a judge prefers (preferences.py).

    Raises:
        PermanentError: there is no such experiment, result or variant, or the trials are no longer on record.
        LeaseHeldError: the experiment, or an erasure, is running.
    """
    experiment_config(platform.config, experiment)
    folder = platform.artifacts / "experiments" / experiment
    with platform.database.lease(f"experiment:{experiment}", f"cli:{os.getpid()}") as lease:
        with platform.database.connect() as connection:
            lease.check(connection)
            comparison, recommendation = _read(connection, experiment, first, second)
        comparison = judge(comparison)
        path = out or folder / report.comparison_file(
            comparison.result_id, comparison.first["fingerprint"], comparison.second["fingerprint"]
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(page(comparison, only=only), encoding="utf-8")
        partial.replace(path)
        if out is None:
            report.write_page(folder, comparison.result_id, comparison.board, recommendation)
    return comparison, path


def _read(connection: Connection, experiment: str, first: str, second: str) -> tuple[Comparison, dict[str, Any]]:
    row = connection.execute(
        """SELECT result_id, leaderboard, recommendation FROM experiment_result
           WHERE experiment = %s ORDER BY result_id DESC LIMIT 1""",
        (experiment,),
    ).fetchone()
    if row is None:
        raise PermanentError(f"experiment {experiment} has no result; materialize scored_variants")
    result_id, board, recommendation = row[0], upgraded(row[1]), row[2]
    named = {one["variant"]: one for one in board["rows"]}
    for name in (first, second):
        if name not in named:
            near = difflib.get_close_matches(name, named, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(named)}"
            raise PermanentError(f"result {result_id} of {experiment} has no variant {name!r}; {hint}")
    if first == second:
        raise PermanentError(f"{first!r} is named twice; name two variants of {experiment}")
    metric, pair = board["decision_metric"], (named[first], named[second])
    trials: dict[str, dict[str, tuple[Any, ...]]] = {one["fingerprint"]: {} for one in pair}
    for variant, question_id, *found in connection.execute(
        """SELECT variant, question_id, status, error, answer, refused, retrieved, citations, usage,
                  retrieval_latency + generation_latency, value, trial.fingerprint
           FROM result_trial JOIN trial ON trial.fingerprint = result_trial.trial
           LEFT JOIN trial_score ON trial_score.trial = trial.fingerprint AND metric = %s
           WHERE result_id = %s AND variant = ANY(%s)""",
        (metric, result_id, list(trials)),
    ):
        trials[variant][question_id] = tuple(found)
    asked = [
        question
        for question in read_dataset(connection, board["dataset"], board["dataset_version"]).split(board["split"])
        if any(question.question_id in known for known in trials.values())
    ]
    both = [question for question in asked if all(question.question_id in known for known in trials.values())]
    if not both:
        raise PermanentError(
            f"the trials of result {result_id} of {experiment} are no longer on record; materialize scored_variants again"
        )
    pairs = [_pair(question, *(known[question.question_id] for known in trials.values())) for question in both]
    pairs.sort(
        key=lambda pair: (-abs(_gain(pair.first, pair.second)), pair.change == "same answer", pair.question.question_id)
    )
    return Comparison(result_id, board, *pair, tuple(pairs), len(asked) - len(both)), recommendation


def _gain(first: Side, second: Side) -> float:
    """How much more the second scores; nothing where one has no value, as when a judge failed on it."""
    return 0.0 if first.score is None or second.score is None else second.score - first.score


def _pair(question: Question, first: tuple[Any, ...], second: tuple[Any, ...]) -> Pair:
    answers = mark_differences(first[2] or "", second[2] or "")
    sides = [
        _side(mine, other, answer)
        for mine, other, answer in zip((first, second), (second, first), answers, strict=True)
    ]
    gain = _gain(sides[0], sides[1])
    same = first[:4] == second[:4]
    change: Change = "better" if gain > 0 else "worse" if gain < 0 else "same answer" if same else "other answer"
    documents = frozenset(hit["document_id"] for side in (first, second) for hit in side[4])
    return Pair(question, sides[0], sides[1], change, documents=documents, trials=(first[-1], second[-1]))


def _side(mine: tuple[Any, ...], other: tuple[Any, ...], answer: tuple[Segment, ...]) -> Side:
    status, error, _, refused, retrieved, citations, usage, latency, score, _ = mine
    elsewhere = {(hit["document_id"], hit["start"], hit["end"]) for hit in other[4]}
    cited = {citation["number"] for citation in citations}
    return Side(
        answer=answer,
        note=f"failed: {error}" if status == "failed" else "refused" if refused else "",
        score=score,
        places=tuple(
            Place(
                rank=hit["rank"],
                path=f"{hit['source']}/{hit['path']}",
                heading=" › ".join(hit.get("heading_path") or ()),
                start=hit["start"],
                end=hit["end"],
                cited=number in cited,
                only_here=(hit["document_id"], hit["start"], hit["end"]) not in elsewhere,
            )
            for number, hit in enumerate(retrieved, 1)
        ),
        tokens=usage["input_tokens"] + usage["output_tokens"] if usage.get("input_tokens") is not None else None,
        latency=latency,
    )


def mark_differences(first: str, second: str) -> tuple[tuple[Segment, ...], tuple[Segment, ...]]:
    """Both texts in pieces, with the words marked that the other one does not have at that place."""
    sides = [re.findall(r"\s+|[^\s]+", text) for text in (first, second)]
    if max(map(len, sides)) > 2 * MAXIMUM_WORDS:
        return ((first, first != second),), ((second, first != second),)
    found: tuple[list[Segment], list[Segment]] = ([], [])
    matcher = difflib.SequenceMatcher(None, *sides, autojunk=False)
    for kind, *ends in matcher.get_opcodes():
        for side, words, start, end in zip(found, sides, ends[::2], ends[1::2], strict=True):
            if start < end:
                side.append(("".join(words[start:end]), kind != "equal"))
    return tuple(found[0]), tuple(found[1])


def page(comparison: Comparison, *, only: Only | None = None) -> str:
    """The comparison as one HTML file that needs no other; everything from outside is escaped, and no script can run."""
    wanted = {None: None, "better": {"better"}, "worse": {"worse"}, "changed": {"better", "worse", "other answer"}}[
        only
    ]
    metric = comparison.board["decision_metric"]
    return _template().render(
        it=comparison,
        board=comparison.board,
        counts=comparison.counts(),
        pairs=[pair for pair in comparison.pairs if wanted is None or pair.change in wanted],
        only=only,
        title=METRICS[metric].title if metric in METRICS else metric,
    )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ board.experiment }}: {{ it.first.variant }} and {{ it.second.variant }}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2430; margin: 2rem auto; max-width: 88rem; padding: 0 1.5rem; }
h1 { font-size: 1.4rem; margin-bottom: .2rem; } .facts, .weak { color: #5a6675; } .facts { margin-top: 0; }
section { border-top: 2px solid #e3e8ee; padding: .6rem 0 1rem; } h2 { font-size: 1rem; margin: .3rem 0; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1.5rem; } .pair > div { min-width: 0; overflow-wrap: anywhere; }
.answer { white-space: pre-wrap; background: #f6f8fa; padding: .5rem .7rem; border-radius: .3rem; }
.first mark { background: #fbd9d3; } .second mark { background: #cdebd0; } mark { color: inherit; }
.better { color: #2e7d32; } .worse { color: #b3261e; } ol { padding-left: 1.4rem; margin: .4rem 0; font-size: .88em; }
li.only { font-weight: 600; } li.only::after { content: " (only here)"; font-weight: 400; color: #5a6675; }
</style></head><body>
<h1>{{ it.first.variant }} and {{ it.second.variant }}</h1>
<p class="facts"><a href="../{{ it.result_id }}.html">{{ board.experiment }}</a>, result {{ it.result_id }} · {{ board.dataset }} version
{{ board.dataset_version }}, split {{ board.split }} · {{ title }}
{{ it.first.decision.estimate | number }} and {{ it.second.decision.estimate | number }}</p>
<p>On {{ it.pairs | length }} questions the second is <span class="better">better on {{ counts["better"] }}</span>,
<span class="worse">worse on {{ counts["worse"] }}</span>, scores the same with another answer on {{ counts["other answer"] }}, and
answers the same on {{ counts["same answer"] }}.{% if it.missing %} {{ it.missing }} questions are left out: their trials are no longer
on record.{% endif %}{% if it.judge %} {{ it.judge }}{% endif %}{% if only %} Shown: {{ only }}.{% endif %} The questions are ordered by the size of the difference; single
questions show what changes, not whether it is beyond chance: that is in the leaderboard.</p>
{% for pair in pairs %}<section>
{% if board.task %}<div class="answer">{{ pair.question.question }}</div>{% else %}<h2>{{ pair.question.question }}</h2>{% endif %}

<p class="facts">{{ pair.question.question_id }} · <span class="{{ pair.change }}">{{ pair.change }}</span> ·
{% if pair.preferred %}judge prefers: {{ pair.preferred }} · {% endif %}
{{ "expected: " ~ pair.question.answer if pair.question.answer else "to be refused" if not pair.question.answerable else
"no expected answer" }}{% for key, value in pair.question.tags.items() %} · {{ key }}={{ value }}{% endfor %}</p>
<div class="pair">{% for side, style in ((pair.first, "first"), (pair.second, "second")) %}<div class="{{ style }}">
<p class="weak">{{ title }} {{ side.score | number }}{{ " · " ~ side.note if side.note }}
{% if side.tokens is not none %} · {{ side.tokens }} tokens{% endif %}
{% if side.latency is not none %} · {{ "%.0f" | format(side.latency * 1000) }} ms{% endif %}</p>
<div class="answer">{% for text, marked in side.answer %}{% if marked %}<mark>{{ text }}</mark>{% else %}{{ text }}{% endif %}
{%- endfor %}</div>
<ol>{% for place in side.places %}<li value="{{ place.rank }}"{% if place.only_here %} class="only"{% endif %}>{{ place.path }}
{{ place.start }}–{{ place.end }}{{ " · " ~ place.heading if place.heading }}{{ " · cited" if place.cited }}</li>{% endfor %}</ol>
</div>{% endfor %}</div></section>
{% endfor %}
</body></html>
"""


@cache
def _template() -> Template:
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = lambda value: "–" if value is None else f"{value:.3f}"
    return environment.from_string(_PAGE)
