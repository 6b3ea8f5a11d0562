"""Checks on enrichment: is every value there, within its bounds, and how many did a model fail to give?

Belongs here: the outcomes of the checks of enrichment, which checks.py adds to those of chunks.
Does not belong here: making values (enriching.py).
"""

from assets.chunks.chunking import ChunkWork
from assets.outcomes import CheckOutcome

CHECKS = {
    "enrichment_complete": "Every live chunk has the values of every step its indexes ask for, and its embedding inputs.",
    "enrichment_values": "New values have the shape and the length their step allows.",
    "given_up_share": "Of no step did a model fail to give usable values for more chunks than the policy allows.",
    "given_up": "No chunk is without the value of a step because a model gave none that could be used.",
}
#: A chunk without a value is searched all the same; only a large share of them blocks.
NOT_BLOCKING = ("given_up",)

#: Problems named in the details of a check.
SHOWN = 20


def outcomes(work: ChunkWork) -> list[CheckOutcome]:
    """All declared checks, in order."""
    return [enrichment_complete(work), enrichment_values(work), given_up_share(work), given_up(work)]


def enrichment_complete(work: ChunkWork) -> CheckOutcome:
    """No live chunk lacks a value, no chunk set the inputs of an enrichment."""
    missing = {step.name: step.coverage.missing for step in work.steps if step.coverage.missing}
    observed = [f"{count} chunks lack {name}" for name, count in missing.items()]
    if work.inputs_missing:
        observed.append(f"{work.inputs_missing} chunk sets lack the inputs of an enrichment")
    return CheckOutcome(
        "enrichment_complete",
        not observed or work.refused,  # after refused chunks nothing was enriched; another check says why
        expected=f"values of {len(work.steps)} steps, and embedding inputs, for every live chunk",
        observed="; ".join(observed) or "all there",
        details={"missing": missing} if missing else {},
    )


def enrichment_values(work: ChunkWork) -> CheckOutcome:
    """No value was refused for its shape or length; models are asked again instead, so this is about our own steps."""
    problems = [problem for step in work.steps for problem in step.problems]
    made = sum(step.computed for step in work.steps)
    return CheckOutcome(
        "enrichment_values",
        not problems,
        expected="every new value as its step says",
        observed=f"{len(problems)} of {made + len(problems)} new values are not"
        if problems
        else f"{made} new values are",
        details={"problems": problems[:SHOWN]} if problems else {},
    )


def given_up_share(work: ChunkWork) -> CheckOutcome:
    """Given-up chunks of each step as a share of its live chunks, against the policy."""
    shares = _shares(work)
    return CheckOutcome(
        "given_up_share",
        all(share <= work.maximum_given_up_share for share in shares.values()),
        expected=f"at most {work.maximum_given_up_share:.1%} of the chunks of any step",
        observed=", ".join(f"{name}: {share:.1%}" for name, share in shares.items()) or "no step asks a model",
        details={"remedy": "try the model on a few chunks; `genaiops enrichment retry SOURCE` asks again"}
        if any(shares.values())
        else {},
    )


def given_up(work: ChunkWork) -> CheckOutcome:
    """Whether any live chunk was given up."""
    counts = {step.name: step.coverage.given_up for step in work.steps if step.coverage.given_up}
    return CheckOutcome(
        "given_up",
        not counts,
        expected="no chunk without a value",
        observed=", ".join(f"{name}: {count} chunks" for name, count in counts.items()) or "none",
        blocking=False,
        severity="WARN",
        details={"given_up": counts} if counts else {},
    )


def _shares(work: ChunkWork) -> dict[str, float]:
    return {
        step.name: step.coverage.given_up / step.coverage.chunks if step.coverage.chunks else 0.0
        for step in work.steps
        if step.step.method == "model"
    }
