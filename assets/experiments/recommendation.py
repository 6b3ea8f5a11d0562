"""The recommendation: what the leaderboard says, in words and numbers.

Belongs here: deciding between "promote", "keep" and "not enough evidence", the diagnosis, the caveats, confirmation on
held-back questions. Pure functions of a leaderboard.
Does not belong here: making the leaderboard (leaderboard.py), and making anybody champion (champion.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from assets.evaluation.metrics.base import METRICS
from assets.experiments.leaderboard import GROUNDEDNESS, RECALL, SIMILARITY, TOKEN_F1, Leaderboard, Row
from assets.experiments.statistics import (
    POWER,
    mean_interval,
    minimum_detectable_effect,
    questions_needed,
    sign_flip_p_values,
)

CODE_VERSION = "1"
Recommendation = dict[str, Any]

#: Where the diagnosis calls a mean low or high; rough on purpose, it only points to where to look.
HIGH_RECALL, HIGH_UTILIZATION, HIGH_GROUNDEDNESS, LOW_CORRECTNESS, LOW_SIMILARITY = 0.8, 0.5, 0.8, 0.5, 0.5
#: Questions asked more often than this to choose a variant are no longer a fair test of it.
MANY_USES = 5


def recommend(leaderboard: Leaderboard) -> Recommendation:
    """Recommend a variant, or say what is missing to do so.

    A variant is recommended when it is better than the champion beyond chance: Holm-adjusted p below
    1 - confidence, and the whole interval of its difference above zero. Of several the one with the highest mean is.

    Returns:
        JSON-able: ``verdict`` (``promote``, ``keep`` or ``not enough evidence``), ``recommended`` (variant name or
        None), ``text`` (the reasons in words), ``alternatives``, ``power``, ``diagnosis``, ``caveats``.
    """
    alpha = 1 - leaderboard["confidence"]
    rows: list[Row] = leaderboard["rows"]
    champion = next(row for row in rows if row["champion"])
    challengers = [row for row in rows if not row["champion"]]
    proven = [row for row in challengers if row["p_adjusted"] < alpha and row["difference"]["low"] > 0]
    power = None
    if proven:
        verdict, chosen = "promote", proven[0]
        text = _promote(leaderboard, chosen, champion)
    elif rows[0]["champion"] or not challengers or challengers[0]["difference"]["estimate"] <= 0:
        verdict, chosen = "keep", champion
        text = _keep(leaderboard, champion, challengers)
    else:
        verdict, chosen = "not enough evidence", champion
        power = _power(leaderboard, challengers[0])
        text = _not_enough(leaderboard, challengers[0], champion, power)
    alternatives = _alternatives(rows, chosen, alpha) if verdict == "promote" else []
    sentences = [text, *(alternative["text"] for alternative in alternatives)]
    return {
        "verdict": verdict,
        "recommended": chosen["variant"] if verdict == "promote" else None,
        "recommended_fingerprint": chosen["fingerprint"] if verdict == "promote" else None,
        "champion": champion["variant"],
        "champion_fingerprint": champion["fingerprint"],
        "decision_metric": leaderboard["decision_metric"],
        "text": " ".join(sentences),
        "alternatives": alternatives,
        "power": power,
        "diagnosis": diagnose(rows[0] if verdict == "not enough evidence" else chosen),
        "caveats": _caveats(leaderboard),
        "confirmation": None,
    }


def diagnose(row: Row) -> list[dict[str, str]]:
    """Where to look next for one variant: the table of symptoms, read with estimators that need no judge.

    Completeness is estimated by retrieval recall, utilization by the share of supplied chunks that are cited,
    groundedness by lexical entailment, correctness by token F1, similarity by chrF; all on answerable questions.
    """
    metrics = row["metrics"]
    recall, grounded, correct, similar = (
        metrics[metric]["answerable"] for metric in (RECALL, GROUNDEDNESS, TOKEN_F1, SIMILARITY)
    )
    used = row["utilization"]
    found: list[dict[str, str]] = []

    def add(symptom: str, advice: str) -> None:
        found.append({"variant": row["variant"], "symptom": symptom, "advice": advice})

    if recall is not None and used is not None and recall < HIGH_RECALL and used >= HIGH_UTILIZATION:
        add(
            f"retrieval finds {recall:.0%} of the evidence, and the answers cite {used:.0%} of what they are given",
            "more or better chunks are needed: raise k, or change the search mode or the chunking",
        )
    if recall is not None and used is not None and recall >= HIGH_RECALL and used < HIGH_UTILIZATION:
        add(
            f"retrieval finds {recall:.0%} of the evidence, and the answers cite only {used:.0%} of what they are given",
            "less would do: lower k, or make chunks smaller",
        )
    if grounded is not None and correct is not None and grounded >= HIGH_GROUNDEDNESS and correct < LOW_CORRECTNESS:
        add(
            f"{grounded:.0%} of the statements are supported by the passages, yet token F1 is {correct:.2f}",
            "the source is wrong, or the model picks or infers the wrong part of it",
        )
    elif (
        grounded is not None and used is not None and similar is not None
        and grounded >= HIGH_GROUNDEDNESS and used >= HIGH_UTILIZATION and similar < LOW_SIMILARITY
    ):  # fmt: skip
        add(
            f"answers are supported and use their passages, but are worded differently (chrF {similar:.2f})",
            "the prompt makes the model paraphrase: ask for the wording of the documents",
        )
    return found


def confirm(
    leaderboard: Leaderboard,
    recommendation: Recommendation,
    champion: Sequence[float],
    recommended: Sequence[float],
    *,
    uses: int,
) -> dict[str, Any]:
    """Compare champion and recommended variant on questions that took no part in choosing.

    One comparison, so no adjustment. The intervals show whether the choice holds; a split that is used again and
    again becomes part of the choosing, so its uses are counted.

    Args:
        champion: decision scores on the held-back split, one per question; ``recommended`` likewise.
        uses: how many recommendations this split has been used for, this one included.
    """

    import numpy as np

    settings = {"resamples": leaderboard["resamples"], "seed": leaderboard["seed"]}
    differences = np.asarray(recommended, dtype=float) - np.asarray(champion, dtype=float)
    interval = mean_interval(differences, confidence=leaderboard["confidence"], **settings)
    p = sign_flip_p_values(differences[:, None], **settings)[0]
    if interval.low > 0 and p < 1 - leaderboard["confidence"]:
        outcome, words = "confirmed", "It is confirmed"
    elif interval.estimate > 0:
        outcome, words = "not contradicted", "It is not contradicted, but not confirmed either,"
    else:
        outcome, words = "contradicted", "It is contradicted"
    text = (
        f"{words} on {len(differences)} held-back questions: {np.mean(recommended):.3f} against {np.mean(champion):.3f}, "
        f"difference {_signed(interval.to_json())}, p = {p:.4f}. This split has now been used {_times(uses)}"
        + ("; renew it before trusting it further." if uses > MANY_USES else ".")
    )
    return {
        "outcome": outcome,
        "text": text,
        "dataset": leaderboard["dataset"],
        "questions": len(differences),
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


def _promote(leaderboard: Leaderboard, chosen: Row, champion: Row) -> str:
    return (
        f"Promote {chosen['variant']}: {_metric(leaderboard)} {_interval(chosen['decision'])} against "
        f"{_interval(champion['decision'])} of the champion {champion['variant']}, difference "
        f"{_signed(chosen['difference'])}, Holm-adjusted p = {chosen['p_adjusted']:.4f} over "
        f"{_count(leaderboard['comparisons'], 'comparison')}, on {leaderboard['questions']['compared']} questions."
    )


def _keep(leaderboard: Leaderboard, champion: Row, challengers: Sequence[Row]) -> str:
    text = f"Keep the champion {champion['variant']}: {_metric(leaderboard)} {_interval(champion['decision'])}"
    if not challengers:
        return text + "; there is no other variant to compare it with."
    return text + f"; none of the {_count(len(challengers), 'other variant')} has a higher mean."


def _power(leaderboard: Leaderboard, row: Row) -> dict[str, Any]:
    """What this many questions could show, at the level one of several comparisons has to pass."""
    questions = leaderboard["questions"]["compared"]
    alpha = (1 - leaderboard["confidence"]) / max(1, leaderboard["comparisons"])
    deviation, effect = row["difference_deviation"], row["difference"]["estimate"]
    needed = questions_needed(deviation, effect, alpha=alpha)
    return {
        "questions": questions,
        "alpha": alpha,
        "power": POWER,
        "deviation": deviation,
        "minimum_detectable_effect": minimum_detectable_effect(deviation, questions, alpha=alpha),
        "questions_needed": needed,
        "questions_missing": max(0, needed - questions) if needed is not None else None,
    }


def _not_enough(leaderboard: Leaderboard, best: Row, champion: Row, power: dict[str, Any]) -> str:
    text = (
        f"Not enough evidence to replace the champion {champion['variant']}. {best['variant']} has the highest mean "
        f"{_metric(leaderboard)}, {best['decision']['estimate']:.3f} against {champion['decision']['estimate']:.3f}, but "
        f"the difference is {_signed(best['difference'])} with Holm-adjusted p = {best['p_adjusted']:.4f} over "
        f"{_count(leaderboard['comparisons'], 'comparison')}. {power['questions']} questions show a difference of "
        f"{power['minimum_detectable_effect']:.3f} with probability {power['power']:.0%}"
    )
    missing = power["questions_missing"]
    if missing:
        return text + f"; about {missing} more would be needed for one of {best['difference']['estimate']:.3f}."
    return text + "; the one seen is that large, so repeat with new questions before deciding."


def _alternatives(rows: Sequence[Row], chosen: Row, alpha: float) -> list[dict[str, Any]]:
    """Cheaper or faster variants that cannot be told apart from the chosen one, when that is the best of all."""
    equal = [row for row in rows[1:] if row["p_against_best"] >= alpha]
    if chosen is not rows[0] or not equal:
        return []
    found: list[dict[str, Any]] = []
    cheapest = min(equal, key=lambda row: (row["cost"], row["input_tokens"] + row["output_tokens"]))
    money, tokens = chosen["cost"], chosen["input_tokens"] + chosen["output_tokens"]
    fewer = cheapest["input_tokens"] + cheapest["output_tokens"]
    if cheapest["cost"] < money or (cheapest["cost"] == money and fewer < tokens):
        saved = f"{1 - cheapest['cost'] / money:.0%} less money" if money else f"{1 - fewer / tokens:.0%} fewer tokens"
        found.append(_alternative("cheaper", cheapest, f"it takes {saved}"))
    timed = [row for row in equal if row["latency_median"] is not None]
    fastest = min(timed, key=lambda row: row["latency_median"], default=None)
    if fastest and chosen["latency_median"] and fastest["latency_median"] < 0.8 * chosen["latency_median"]:
        found.append(
            _alternative(
                "faster",
                fastest,
                f"its median latency is {fastest['latency_median'] * 1000:.1f} ms instead of "
                f"{chosen['latency_median'] * 1000:.1f} ms",
            )
        )
    return found


def _alternative(kind: str, row: Row, why: str) -> dict[str, Any]:
    text = (
        f"{row['variant']} (mean {row['decision']['estimate']:.3f}) cannot be told apart from it and is {kind}: {why}."
    )
    return {"kind": kind, "variant": row["variant"], "text": text}


def _caveats(leaderboard: Leaderboard) -> list[str]:
    rows: list[Row] = leaderboard["rows"]
    found = []
    offline = sorted({row["model"] for row in rows if row["offline"]})
    if offline:
        found.append(
            f"{', '.join(offline)} is an offline stand-in that quotes sentences; scores say how retrieval and prompts "
            "work with it, not how a language model would answer."
        )
    found.append("Groundedness and utilization are lexical estimates without a judge model.")
    failed = sum(row["failed"] for row in rows)
    if failed:
        worst = max(rows, key=lambda row: row["failed"])
        found.append(
            f"{_count(failed, 'trial')} failed and count as the worst score; most with {worst['variant']} ({worst['failed']})."
        )
    stale = leaderboard["questions"]["stale"]
    if stale:
        found.append(f"{_count(stale, 'question')} left out, because a snapshot shows another text of their evidence.")
    if not leaderboard["questions"]["unanswerable"]:
        found.append("No unanswerable questions: whether a variant refuses when it should was not measured.")
    return found


def _metric(leaderboard: Leaderboard) -> str:
    return METRICS[leaderboard["decision_metric"]].title.lower()


def _interval(values: dict[str, float]) -> str:
    return f"{values['estimate']:.3f} [{values['low']:.3f}, {values['high']:.3f}]"


def _signed(values: dict[str, float]) -> str:
    return f"{values['estimate']:+.3f} [{values['low']:+.3f}, {values['high']:+.3f}]"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")
