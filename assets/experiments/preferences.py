"""Preferences: which of two variants' answers a judge prefers, question by question.

Belongs here: asking a preference judge about the pairs of a comparison, and a test of what it says. Does not belong here: the
judge (assets/evaluation/judging), reading and showing the pairs (compare.py).

A preference informs: it is shown beside the scores, and nothing is recommended by it.
"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import comb

from assets.evaluation.judging.calibrating import standing
from assets.evaluation.judging.judges import build_judge
from assets.evaluation.judging.preference import prefer
from assets.experiments import verdicts
from assets.experiments.compare import Comparison, Pair
from resources.answerer import strip_citations
from resources.errors import BudgetExceededError, PermanentError, TransientError
from resources.generation_memo import GenerationMemo
from resources.models import Budget
from resources.platform import Platform

FIRST, SECOND, NEITHER, FAILED = "first", "second", "neither", "no usable verdict"


def add_preferences(
    platform: Platform, comparison: Comparison, name: str, *, run_id: str, budget: float | None = None
) -> Comparison:
    """Ask a judge about every question both variants answered differently; what it was asked before costs nothing.

    Args:
        name: a judge that measures preference.
        budget: most money that may be spent.

    Raises:
        PermanentError: there is no such judge, it measures something else, or its key is missing.
        BudgetExceededError: the next question might cost more than is left; what was answered is remembered.
    """
    known = [key for key, one in platform.config.judges.items() if one.measures == "preference" and one.model]
    if name not in known:
        raise PermanentError(
            f"there is no judge {name!r} that measures preference; there are: {', '.join(known) or 'none'} (judges/*.yaml)"
        )
    config = platform.config.judges[name]
    currency = platform.config.chat_model(str(config.model)).price.currency
    judge = build_judge(config, platform.models.within(Budget(budget, currency=currency)))
    memo = GenerationMemo(platform.database)

    calls: dict[str, tuple[str, ...]] = {}

    def ask(pair: Pair) -> str | None:
        if pair.change == "same answer":
            return None
        first, second = (
            strip_citations("".join(text for text, _ in side.answer)) for side in (pair.first, pair.second)
        )
        try:
            said = prefer(
                judge, memo, run_id, question=pair.question.question, reference=pair.question.answer, first=first,
                second=second, documents=pair.documents,
            )  # fmt: skip
        except BudgetExceededError:
            raise
        except (PermanentError, TransientError):
            return FAILED
        calls.update(dict.fromkeys(pair.trials, said.generations))
        return {-1: FIRST, 1: SECOND}.get(said.value, NEITHER)

    with ThreadPoolExecutor(judge.chat.config.limits.concurrency, thread_name_prefix=f"judge-{name}") as pool:
        try:
            found = list(pool.map(ask, comparison.pairs))
        finally:  # what was shown of an answer has to go with it
            with platform.database.connect() as connection:
                verdicts.link(connection, calls, config.metric, judge.fingerprint, run_id)
    with platform.database.connect() as connection:
        stands = standing(connection, platform.config, config, judge.fingerprint)
    words = f"{described(found, name)} It {'has been compared with people' if stands.calibrated else 'informs only'}: {stands.why}."
    pairs = tuple(replace(pair, preferred=one) for pair, one in zip(comparison.pairs, found, strict=True))
    return replace(comparison, pairs=pairs, judge=words)


def described(found: Sequence[str | None], name: str) -> str:
    """What a judge prefers on the whole, with the two-sided sign test over the questions it prefers an answer on."""
    counts = Counter(found)
    first, second = counts[FIRST], counts[SECOND]
    text = f"Judge {name} prefers the second answer on {second} questions, the first on {first}, neither on {counts[NEITHER]}"
    text += f", and said nothing usable on {counts[FAILED]}" if counts[FAILED] else ""
    return f"{text} (sign test p = {sign_test(first, second):.4f})."


def sign_test(first: int, second: int) -> float:
    """Chance of a split at least as uneven if both were preferred as often (binomial, two-sided); 1 without a preference."""
    n = first + second
    tail = sum(comb(n, count) for count in range(min(first, second) + 1)) / 2**n
    return min(1.0, 2 * tail)
