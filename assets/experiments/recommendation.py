"""The recommendation: what the leaderboard says, in words and numbers.

Belongs here: the verdict, what it costs, what is uncertain, what to try next, confirmation on held-back questions. Pure
functions of a leaderboard.
Does not belong here: making the leaderboard (leaderboard.py), symptoms (diagnosis.py), and making anybody champion
(champion.py).

A verdict needs a test that was passed. That a difference was not shown is never read as equality: "equal" and "cheaper
and no worse" are tests of their own, against margins that were set before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from assets.evaluation.metrics import semantic_metrics
from assets.evaluation.metrics.base import METRICS
from assets.experiments import guards, task_board
from assets.experiments.diagnosis import diagnose
from assets.experiments.judged import not_calibrated
from assets.experiments.leaderboard import Leaderboard, Row
from assets.experiments.statistics import (
    POWER,
    Groups,
    mean_interval,
    minimum_detectable_effect,
    non_inferiority,
    power_of,
    questions_needed,
    sign_flip_p_values,
)

CODE_VERSION = "2"
Recommendation = dict[str, Any]

#: Questions asked more often than this to choose a variant are no longer a fair test of it.
MANY_USES = 5
#: Intervals rest on as many independent groups as there are; of fewer than this they come out too short.
FEW_GROUPS = 20
#: Most variants that are better, and not allowed, that the text names; the leaderboard has the guards of all.
TOLD = 2
#: Differences whose probability of being shown is told.
EFFECTS = (0.01, 0.02, 0.05, 0.1)


def recommend(leaderboard: Leaderboard) -> Recommendation:
    """Recommend a variant, or say what is missing to do so.

    The verdicts, in the order they are looked for; every one but the last two rests on a test at level
    1 - confidence, adjusted by Holm over the variants it is made for:

    - ``inform only``: a judge that the decision metric or a guard rests on is not calibrated; this comes before all.
    - ``promote``: better than the champion (adjusted p below the level, and the whole interval of the difference above
      zero), with all guards held. Of several the one with the highest mean.
    - ``promote cheaper``: takes at least ``margins.minimum_saving`` less than the champion, is shown not to be worse by
      ``margins.non_inferiority``, with all guards held. Of several the one that saves most.
    - ``equal``: every variant is either shown to be worse, or shown to differ by less than ``margins.equivalence``.
    - ``keep``: no other variant has a higher mean, or those shown to be better break a guard.
    - ``not enough evidence``: a variant has a higher mean, and neither chance nor a guard can be ruled out.

    Returns:
        JSON-able: ``verdict``, ``recommended`` (variant name or None), ``text`` (all of it in words), ``why``, ``cost``,
        ``alternatives``, ``power``, ``uncertain``, ``diagnosis``, ``next``, ``caveats``, ``confirmation``.
    """
    alpha = 1 - leaderboard["confidence"]
    rows: list[Row] = leaderboard["rows"]
    champion = next(row for row in rows if row["champion"])
    challengers = [row for row in rows if not row["champion"]]
    proven = [row for row in challengers if row["p_adjusted"] < alpha and row["difference"]["low"] > 0]
    passing = [row for row in proven if guards.held(row["guards"])]
    cheaper = _cheaper(leaderboard, challengers, champion)
    power, chosen = None, champion
    if passing:
        verdict, chosen = "promote", passing[0]
        why = _promote(leaderboard, chosen, champion, proven)
    elif cheaper:
        verdict, chosen = "promote cheaper", cheaper[0]
        why = _promote_cheaper(leaderboard, chosen, champion)
    elif proven:
        broken = all(any(guard["state"] == "broken" for guard in row["guards"]) for row in proven)
        verdict = "keep" if broken else "not enough evidence"
        power = None if broken else _power(leaderboard, proven[0])
        why = _guarded(champion, proven, broken)
    elif equal := _equal(challengers, alpha):
        verdict = "equal"
        why = _equals(leaderboard, champion, equal)
    elif not challengers or max(row["difference"]["estimate"] for row in challengers) <= 0:
        verdict = "keep"
        why = _keep(leaderboard, champion, challengers)
    else:
        verdict = "not enough evidence"
        power = _power(leaderboard, challengers[0])
        why = _not_enough(leaderboard, challengers[0], champion, power)
    if unproven := not_calibrated(leaderboard.get("judges", {})):
        verdict, chosen, power = "inform only", champion, None
        why = _inform_only(leaderboard, rows[0], champion, unproven)
    promoted = verdict.startswith("promote")
    subject = chosen if promoted or verdict in ("keep", "equal") else rows[0]
    cost = _cost(chosen, champion) if promoted else None
    alternatives = _alternatives(leaderboard, chosen) if verdict == "promote" else []
    uncertain = _uncertain(leaderboard, chosen, champion)
    diagnosis = diagnose(subject)
    sentences = [
        why,
        *_selected(leaderboard),
        *([cost["text"]] if cost else []),
        *(one["text"] for one in alternatives),
    ]
    return {
        "verdict": verdict,
        "recommended": chosen["variant"] if promoted else None,
        "recommended_fingerprint": chosen["fingerprint"] if promoted else None,
        "champion": champion["variant"],
        "champion_fingerprint": champion["fingerprint"],
        "decision_metric": leaderboard["decision_metric"],
        "text": " ".join(sentences),
        "why": why,
        "cost": cost,
        "alternatives": alternatives,
        "power": power,
        "uncertain": uncertain,
        "diagnosis": diagnosis,
        "next": _next(leaderboard, verdict, power, diagnosis),
        "caveats": _caveats(leaderboard),
        "confirmation": None,
    }


def confirm(
    leaderboard: Leaderboard,
    recommendation: Recommendation,
    champion: Sequence[float],
    recommended: Sequence[float],
    *,
    uses: int,
    groups: Groups = None,
) -> dict[str, Any]:
    """Compare champion and recommended variant on questions that took no part in choosing.

    One comparison, so no adjustment: that the variant is better, or, when it was recommended as cheaper, that it is not
    worse by the margin. A split that is used again and again becomes part of the choosing, so its uses are counted.

    Args:
        champion: decision scores on the held-back split, one per question; ``recommended`` likewise.
        uses: how many recommendations this split has been used for, this one included.
        groups: of questions that belong together, one label a question.
    """

    import numpy as np

    settings = {"resamples": leaderboard["resamples"], "seed": leaderboard["seed"], "groups": groups}
    alpha = 1 - leaderboard["confidence"]
    differences = np.asarray(recommended, dtype=float) - np.asarray(champion, dtype=float)
    interval = mean_interval(differences, confidence=leaderboard["confidence"], **settings)
    if recommendation["verdict"] == "promote cheaper":
        margin = leaderboard["margins"]["non_inferiority"]
        p = non_inferiority(differences[:, None], margin, alpha=alpha, groups=groups)[0].p
        shown, least, claim = p < alpha, -margin, f"p = {p:.4f} that it is not {margin:g} worse"
    else:
        p = sign_flip_p_values(differences[:, None], **settings)[0]
        shown, least, claim = interval.low > 0 and p < alpha, 0.0, f"p = {p:.4f}"
    if shown:
        outcome, words = "confirmed", "It is confirmed"
    elif interval.estimate > least:
        outcome, words = "not contradicted", "It is not contradicted, but not confirmed either,"
    else:
        outcome, words = "contradicted", "It is contradicted"
    text = (
        f"{words} on {len(differences)} held-back questions: {np.mean(recommended):.3f} against {np.mean(champion):.3f}, "
        f"difference {_signed(interval.to_json())}, {claim}. This split has now been used {_times(uses)}"
        + ("; renew it before trusting it further." if uses > MANY_USES else ".")
    )
    return {
        "outcome": outcome,
        "text": text,
        "dataset": leaderboard["dataset"],
        "questions": len(differences),
        "groups": len(differences) if groups is None else len(set(groups)),
        "champion": recommendation["champion_fingerprint"],
        "recommended": recommendation["recommended_fingerprint"],
        "champion_mean": float(np.mean(champion)),
        "recommended_mean": float(np.mean(recommended)),
        "difference": interval.to_json(),
        "p": p,
        "uses": uses,
    }


def leave_pending(recommendation: Recommendation, why: str) -> None:
    """Mark a recommendation whose confirmation on held-back questions was cut short; it cannot be promoted."""
    text = f"Not yet confirmed on held-back questions ({why}); the next run tries again."
    recommendation["confirmation"] = {"outcome": "pending", "text": text}
    recommendation["text"] += " " + text


def is_pending(recommendation: Recommendation) -> bool:
    """Whether the confirmation of a recommendation was cut short."""
    return (recommendation["confirmation"] or {}).get("outcome") == "pending"


# --- which tests were passed ---------------------------------------------------------------------------------


def _cheaper(leaderboard: Leaderboard, challengers: Sequence[Row], champion: Row) -> list[Row]:
    """Variants that save enough and are shown to be no worse, the greatest saving first."""
    alpha, least = 1 - leaderboard["confidence"], leaderboard["margins"].get("minimum_saving")
    found = [
        (saved, row)
        for row in challengers
        if (test := row["non_inferiority"]) is not None
        and test["p_adjusted"] < alpha
        and guards.held(row["guards"])
        and (saved := _saving(row, champion)) >= least
    ]
    return [row for _, row in sorted(found, key=lambda item: (-item[0], -item[1]["decision"]["estimate"]))]


def _equal(challengers: Sequence[Row], alpha: float) -> list[Row]:
    """The variants shown to be equal to the champion, if all others are shown to be worse; else none."""
    equal = [row for row in challengers if row["equivalence"] and row["equivalence"]["p_adjusted"] < alpha]
    worse = [row for row in challengers if row["p_adjusted"] < alpha and row["difference"]["high"] < 0]
    return equal if all(row in equal or row in worse for row in challengers) else []


def _saving(row: Row, other: Row) -> float:
    """Share of the other's money that a row saves; of its tokens, where neither costs money. Negative: it costs more."""
    unit = "cost_per_1000" if row["cost_per_1000"] or other["cost_per_1000"] else "tokens_per_answer"
    mine, theirs = row[unit], other[unit]
    if mine is None or theirs is None:
        return 0.0
    return 1 - mine / theirs if theirs else -1.0 if mine else 0.0


# --- in words ----------------------------------------------------------------------------------------------


def _promote(leaderboard: Leaderboard, chosen: Row, champion: Row, proven: Sequence[Row]) -> str:
    text = (
        f"Promote {chosen['variant']}: {_metric(leaderboard)} {_interval(chosen['decision'])} against "
        f"{_interval(champion['decision'])} of the champion {champion['variant']}, difference "
        f"{_signed(chosen['difference'])}, Holm-adjusted p = {chosen['p_adjusted']:.4f} over "
        f"{_count(leaderboard['comparisons'], 'comparison')}, on {_questions(leaderboard)}."
    )
    if chosen["guards"]:
        text += f" It holds {_count(len(chosen['guards']), 'guard')}."
    refused = [row for row in proven if row["decision"]["estimate"] > chosen["decision"]["estimate"]]
    for row in refused[:TOLD]:
        text += f" {row['variant']} has a higher mean, but: {_not_held(row)}."
    if len(refused) > TOLD:
        text += f" So with {_count(len(refused) - TOLD, 'more variant')}, whose guards the leaderboard shows."
    return text


def _promote_cheaper(leaderboard: Leaderboard, chosen: Row, champion: Row) -> str:
    test = chosen["non_inferiority"]
    return (
        f"Promote {chosen['variant']}: it is cheaper, and shown not to be worse than the champion {champion['variant']} by "
        f"{test['margin']:g} or more: {_metric(leaderboard)} {_interval(chosen['decision'])} against "
        f"{_interval(champion['decision'])}, difference {_signed(chosen['difference'])}, lower bound {test['low']:+.3f}, "
        f"Holm-adjusted p = {test['p_adjusted']:.4f} over {_count(leaderboard['comparisons'], 'comparison')}, on "
        f"{_questions(leaderboard)}. No variant that holds its guards was shown to be better."
        + (f" It holds {_count(len(chosen['guards']), 'guard')}." if chosen["guards"] else "")
    )


def _guarded(champion: Row, proven: Sequence[Row], broken: bool) -> str:
    opening = "Keep the champion" if broken else "Not enough evidence to replace the champion"
    found = "; ".join(f"{row['variant']} ({_signed(row['difference'])}): {_not_held(row)}" for row in proven[:TOLD])
    if len(proven) > TOLD:
        found += f"; and {_count(len(proven) - TOLD, 'more variant')}"
    return f"{opening} {champion['variant']}. What is shown to be better on the decision metric does not pass its guards: {found}."


def _inform_only(leaderboard: Leaderboard, best: Row, champion: Row, unproven: Sequence[str]) -> str:
    found = (
        f"{best['variant']} has the highest mean, {_interval(best['decision'])} against {_interval(champion['decision'])} of the "
        f"champion {champion['variant']}, difference {_signed(best['difference'])}"
        if best["difference"]
        else f"the champion {champion['variant']} has the highest mean, {_interval(best['decision'])}"
    )
    return (
        f"For information only, nothing is recommended: what would decide is said by a judge that has not shown how far it "
        f"agrees with people. {'; '.join(unproven)}. By {_metric(leaderboard)}, {found}, on {_questions(leaderboard)}."
    )


def _equals(leaderboard: Leaderboard, champion: Row, equal: Sequence[Row]) -> str:
    tests = "; ".join(
        f"{row['variant']} {_signed(row['difference'])}, within [{row['equivalence']['low']:+.3f}, "
        f"{row['equivalence']['high']:+.3f}], Holm-adjusted p = {row['equivalence']['p_adjusted']:.4f}"
        for row in equal
    )
    others = leaderboard["comparisons"] - len(equal)
    return (
        f"Equal: the champion {champion['variant']} stays, because nothing is gained by replacing it. Shown to differ from it "
        f"by less than {equal[0]['equivalence']['margin']:g} in {_metric(leaderboard)}, on {_questions(leaderboard)}: {tests}."
        + (f" The other {_count(others, 'variant')} were shown to be worse." if others else "")
    )


def _keep(leaderboard: Leaderboard, champion: Row, challengers: Sequence[Row]) -> str:
    text = f"Keep the champion {champion['variant']}: {_metric(leaderboard)} {_interval(champion['decision'])}"
    if not challengers:
        return text + "; there is no other variant to compare it with."
    return text + f"; none of the {_count(len(challengers), 'other variant')} has a higher mean."


def _not_enough(leaderboard: Leaderboard, best: Row, champion: Row, power: dict[str, Any]) -> str:
    text = (
        f"Not enough evidence to replace the champion {champion['variant']}. {best['variant']} has the highest mean "
        f"{_metric(leaderboard)}, {best['decision']['estimate']:.3f} against {champion['decision']['estimate']:.3f}, but "
        f"the difference is {_signed(best['difference'])} with Holm-adjusted p = {best['p_adjusted']:.4f} over "
        f"{_count(leaderboard['comparisons'], 'comparison')}. {_questions(leaderboard).capitalize()} show a difference of "
        f"{power['minimum_detectable_effect']:.3f} with probability {power['power']:.0%}"
    )
    missing = power["questions_missing"]
    if missing:
        return text + f"; about {missing} more would be needed for one of {best['difference']['estimate']:.3f}."
    return text + "; the one seen is that large, so repeat with new questions before deciding."


def _selected(leaderboard: Leaderboard) -> list[str]:
    """How the variants that are compared were chosen, where not all of the grid are."""
    search = leaderboard.get("search")
    if not search:
        return []
    return [
        f"Selected on these questions by {search['strategy']}: of {_count(search['grid'], 'variant')} {search['asked_all']} were "
        f"asked all of them ({search['trials']['asked']} of {search['trials']['grid']} trials); a variant chosen this way becomes "
        "champion only when held-back questions confirm it."
    ]


def _not_held(row: Row) -> str:
    return "; ".join(guards.describe(guard) for guard in row["guards"] if guard["state"] != "held")


def _power(leaderboard: Leaderboard, row: Row) -> dict[str, Any]:
    """What this many questions could show, at the level one of several comparisons has to pass."""
    questions, groups = leaderboard["questions"]["compared"], leaderboard["questions"]["groups"]
    alpha = (1 - leaderboard["confidence"]) / max(1, leaderboard["comparisons"])
    deviation, effect = row["difference_deviation"], row["difference"]["estimate"]
    needed = questions_needed(deviation, effect, alpha=alpha)
    missing = max(0, needed - questions) if needed is not None else None
    return {
        "questions": questions,
        "groups": groups,
        "alpha": alpha,
        "power": POWER,
        "deviation": deviation,
        "design_effect": (deviation / row["difference_spread"]) ** 2 if row["difference_spread"] else 1.0,
        "minimum_detectable_effect": minimum_detectable_effect(deviation, questions, alpha=alpha),
        "questions_needed": needed,
        "questions_missing": missing,
        "groups_missing": None if missing is None else -(-missing * groups // questions),
        "curve": {f"{one:g}": power_of(one, deviation, questions, alpha=alpha) for one in EFFECTS},
    }


def _cost(chosen: Row, champion: Row) -> dict[str, Any]:
    """What answers of the chosen variant take, beside those of the champion."""
    facts = ("cost_per_1000", "tokens_per_answer", "latency_median", "latency_p95", "energy_wh_per_1000")
    parts = []
    if chosen["cost_per_1000"] or champion["cost_per_1000"]:
        parts.append(
            f"{chosen['cost_per_1000'] or 0:.4f} {chosen['currency']} per 1000 answers instead of "
            f"{champion['cost_per_1000'] or 0:.4f}{_change(chosen['cost_per_1000'], champion['cost_per_1000'])}"
        )
    if chosen["tokens_per_answer"] is not None and champion["tokens_per_answer"] is not None:
        parts.append(
            f"{chosen['tokens_per_answer']:.0f} tokens an answer instead of {champion['tokens_per_answer']:.0f}"
            f"{_change(chosen['tokens_per_answer'], champion['tokens_per_answer'])}"
        )
    if chosen["latency_p95"] is not None and champion["latency_p95"] is not None:
        parts.append(
            f"95 % of answers within {chosen['latency_p95'] * 1000:.0f} ms instead of {champion['latency_p95'] * 1000:.0f} ms"
        )
    mine, theirs = chosen.get("energy_wh_per_1000"), champion.get("energy_wh_per_1000")
    if mine is not None and theirs is not None:
        parts.append(
            f"{mine:.3g} Wh per 1000 answers instead of {theirs:.3g}{_change(mine, theirs)}, as the models state"
        )
    return {
        **{fact: chosen.get(fact) for fact in facts},
        "champion": {fact: champion.get(fact) for fact in facts},
        "currency": chosen["currency"],
        "saving": _saving(chosen, champion),
        "text": f"It takes {'; '.join(parts)}." if parts else "What it costs was not recorded.",
    }


def _change(mine: float | None, theirs: float | None) -> str:
    return f" ({mine / theirs - 1:+.0%})" if mine is not None and theirs else ""


def _alternatives(leaderboard: Leaderboard, chosen: Row) -> list[dict[str, Any]]:
    """A cheaper and a faster variant beside the chosen one, when that is the best of all.

    With a non-inferiority margin, only such as are shown not to be worse by it; without, the differences are told and
    nothing is claimed of them.
    """
    rows: list[Row] = leaderboard["rows"]
    margin, alpha = leaderboard["margins"].get("non_inferiority"), 1 - leaderboard["confidence"]
    if chosen is not rows[0]:
        return []
    if margin is None:
        near = [row for row in rows[1:] if row["to_best"]["difference"]["high"] >= 0]
    else:
        near = [row for row in rows[1:] if row["to_best"]["non_inferiority"]["p_adjusted"] < alpha]
    near = [row for row in near if guards.held(row["guards"])]
    found: list[dict[str, Any]] = []
    cheapest = max(near, key=lambda row: _saving(row, chosen), default=None)
    if cheapest and (saved := _saving(cheapest, chosen)) >= leaderboard["margins"].get("minimum_saving", 0.1):
        what = "money" if chosen["cost_per_1000"] else "of the tokens"
        found.append(_alternative("cheaper", cheapest, f"saves {saved:.0%} {what}", margin))
    timed = [row for row in near if row["latency_p95"] is not None]
    fastest = min(timed, key=lambda row: row["latency_p95"], default=None)
    if fastest and chosen["latency_p95"] and fastest["latency_p95"] < 0.8 * chosen["latency_p95"]:
        took = f"answers 95 % within {fastest['latency_p95'] * 1000:.0f} ms instead of {chosen['latency_p95'] * 1000:.0f} ms"
        found.append(_alternative("faster", fastest, took, margin))
    return found


def _alternative(kind: str, row: Row, how: str, margin: float | None) -> dict[str, Any]:
    gap = row["to_best"]["difference"]
    if margin is None:
        claim = "no margin was set (margins.non_inferiority), so whether that is little enough was not tested"
    else:
        claim = f"that is shown to be less than {margin:g}"
    text = f"{row['variant']} {how}; its mean differs by {_signed(gap)}, and {claim}."
    return {"kind": kind, "variant": row["variant"], "difference": gap, "tested": margin is not None, "text": text}


def _uncertain(leaderboard: Leaderboard, chosen: Row, champion: Row) -> list[str]:
    """What the numbers do not settle."""
    found = []
    if chosen is not champion:
        found.append(
            f"The true difference may lie anywhere in {_signed(chosen['difference'])} "
            f"({leaderboard['confidence']:.0%} interval)."
        )
    if leaderboard["comparisons"] > 1 and chosen is not champion:
        found.append(
            f"{chosen['variant']} was chosen among {leaderboard['comparisons'] + 1} variants on these questions, so its mean "
            "on them flatters it; the held-back questions tell."
        )
    for entry in leaderboard["slices"]:
        row = entry["variants"].get(chosen["variant"], {})
        if row.get("p_adjusted", 1) < 1 - leaderboard["confidence"] and row["difference"]["high"] < 0:
            found.append(
                f"On {entry['tag']}={entry['value']} it is worse than the champion: {_signed(row['difference'])}, "
                f"Holm-adjusted p = {row['p_adjusted']:.4f} over the slices ({entry['questions']} questions; slices decide "
                "nothing unless a guard names them)."
            )
    for guard in champion["guards"]:
        if guard["state"] != "held":
            found.append(f"The champion itself is not shown to meet a guard: {guards.describe(guard)}.")
    if leaderboard["questions"]["groups"] < FEW_GROUPS:
        found.append(
            f"Only {leaderboard['questions']['groups']} independent groups of questions: intervals of so few come out too short."
        )
    return found


def _next(
    leaderboard: Leaderboard, verdict: str, power: dict[str, Any] | None, diagnosis: Sequence[dict[str, Any]]
) -> list[dict[str, str]]:
    """What to try next: {``try``: in words, ``change``: what to edit, ``because``: why}."""
    found = []
    if power and power["questions_missing"]:
        of_groups = f" ({power['groups_missing']} groups)" if power["groups"] < power["questions"] else ""
        found.append(
            {
                "try": f"add about {power['questions_missing']} questions{of_groups}, or compare fewer variants",
                "change": f"questions of dataset {leaderboard['dataset']}, split {leaderboard['split']}",
                "because": f"{power['questions']} questions show a difference of {power['minimum_detectable_effect']:.3f} "
                f"with probability {power['power']:.0%}, the one seen is smaller",
            }
        )
    found += [
        {
            "try": "compare the judge with people, and let it decide only when it agrees with them",
            "change": f"calibration.labels in judges/{state['judge']}.yaml, then genaiops judges calibrate {state['judge']}",
            "because": state["why"],
        }
        for state in leaderboard.get("judges", {}).values()
        if state["decides"] and not state["calibrated"]
    ]
    found += [{"try": one["advice"], "change": one["change"], "because": one["symptom"]} for one in diagnosis]
    if verdict == "not enough evidence" and leaderboard["margins"].get("non_inferiority") is None:
        found.append(
            {
                "try": "if a cheaper variant would do, say how much worse it may be before the next look",
                "change": "margins.non_inferiority: 0.02",
                "because": "without a margin no variant can be shown to be good enough",
            }
        )
    if verdict in ("keep", "equal") and not diagnosis:
        found.append(
            {
                "try": "compare something that differs more: other examples, another prompt or model"
                if leaderboard.get("task")
                else "compare something that differs more: another chunking, embedder, prompt or model",
                "change": "grid.context, grid.prompt, grid.model"
                if leaderboard.get("task")
                else "grid.index, grid.prompt, grid.model",
                "because": "no symptom points anywhere, and the variants compared are not better",
            }
        )
    return found


def _caveats(leaderboard: Leaderboard) -> list[str]:
    rows: list[Row] = leaderboard["rows"]
    found = []
    offline = sorted({row["model"] for row in rows if row["offline"]})
    if offline:
        found.append(
            f"{', '.join(offline)} is an offline stand-in that understands nothing; scores say whether labels, examples and "
            "limits of the prompt reach it, not how a language model would do."
            if leaderboard.get("task")
            else f"{', '.join(offline)} is an offline stand-in that quotes sentences; scores say how retrieval and prompts "
            "work with it, not how a language model would answer."
        )
    if not leaderboard.get("task"):
        found.append("Groundedness and utilization are lexical estimates without a judge model.")
    for metric, state in leaderboard.get("judges", {}).items():
        if not state["calibrated"]:
            found.append(f"{metric} informs and decides nothing: {state['why']}.")
        if missing := state["failed"] + state["unasked"]:
            found.append(
                f"{metric} has no value on {_count(missing, 'trial')}, because the judge gave no usable verdict; they are left out."
            )
    unreadable = max(rows, key=lambda row: row.get("unreadable", 0))
    if unreadable.get("unreadable"):
        found.append(
            f"{_count(sum(row.get('unreadable', 0) for row in rows), 'answer')} had not the form that was asked for and count "
            f"as the worst; most of {unreadable['variant']} ({unreadable['unreadable']})."
        )
    questions = leaderboard["questions"]
    if questions["groups"] < questions["compared"]:
        found.append(
            f"The {questions['compared']} questions form {questions['groups']} groups ({leaderboard['cluster']}) and are not "
            "independent; intervals and tests allow for it."
        )
    failed = sum(row["failed"] for row in rows)
    if failed:
        worst = max(rows, key=lambda row: row["failed"])
        found.append(
            f"{_count(failed, 'trial')} failed and count as the worst score; most with {worst['variant']} ({worst['failed']})."
        )
    if questions["stale"]:
        found.append(
            f"{_count(questions['stale'], 'question')} left out, because a snapshot shows another text of their evidence."
        )
    if not questions["unanswerable"] and not leaderboard.get("task"):
        found.append("No unanswerable questions: whether a variant refuses when it should was not measured.")
    return found


def _questions(leaderboard: Leaderboard) -> str:
    questions = leaderboard["questions"]
    groups = f" in {questions['groups']} groups" if questions["groups"] < questions["compared"] else ""
    return f"{questions['compared']} {task_board.noun(leaderboard)}{groups}"


def _metric(leaderboard: Leaderboard) -> str:
    metric = leaderboard["decision_metric"]
    known = METRICS.get(metric) or semantic_metrics.DEFINITIONS.get(metric)
    return known.title.lower() if known else leaderboard["judges"][metric]["title"]


def _interval(values: dict[str, float]) -> str:
    return f"{values['estimate']:.3f} [{values['low']:.3f}, {values['high']:.3f}]"


def _signed(values: dict[str, float]) -> str:
    return f"{values['estimate']:+.3f} [{values['low']:+.3f}, {values['high']:+.3f}]"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")
