"""Schemas: the form in which a judge has to answer, and reading it.

Belongs here: one model per measure, its JSON schema, and what of a reply is refused.
Does not belong here: what is asked (prompts.py) and what follows from the verdicts (measures.py).

A reply that leaves out a part it was asked about, names one twice, or one that was not shown, is refused as a whole:
what is missing would otherwise count as a verdict.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from resources.judge_config import Measure

_FENCE = re.compile(r"\A\s*```(?:json)?\s*\n(.*)\n\s*```\s*\Z", re.DOTALL | re.IGNORECASE)


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Part(_Reply):
    number: int = Field(description="The number of the part, as shown.")


class GroundedClaim(_Part):
    """Whether the passages say a claim."""

    verdict: Literal["entailed", "contradicted", "unsupported"]
    passages: list[int] = Field(description="Numbers of the passages the verdict rests on; empty if none.")


class Groundedness(_Reply):
    """A verdict on every claim."""

    claims: list[GroundedClaim]


class PassageUse(_Part):
    """Whether the answer says something a passage says."""

    verdict: Literal["used", "unused"]


class Utilization(_Reply):
    """A verdict on every passage."""

    passages: list[PassageUse]


class ClaimRelevance(_Part):
    """Whether a claim is about the question."""

    verdict: Literal["relevant", "irrelevant"]


class Relevance(_Reply):
    """A verdict on every claim."""

    claims: list[ClaimRelevance]


class ClaimCorrectness(_Part):
    """Whether the reference agrees with a claim."""

    verdict: Literal["correct", "wrong", "extra"]


class ReferenceCovered(_Part):
    """Whether the answer says a claim of the reference."""

    verdict: Literal["covered", "missing"]


class Correctness(_Reply):
    """A verdict on every claim of the answer and of the reference."""

    claims: list[ClaimCorrectness]
    reference: list[ReferenceCovered]


class PassageUsefulness(_Part):
    """Whether a passage helps to arrive at the reference."""

    verdict: Literal["useful", "useless"]


class ContextPrecision(_Reply):
    """A verdict on every passage."""

    passages: list[PassageUsefulness]


class ReferenceAttribution(_Part):
    """Whether the passages say a claim of the reference."""

    verdict: Literal["attributable", "missing"]
    passages: list[int] = Field(description="Numbers of the passages that say it; empty if none.")


class ContextRecall(_Reply):
    """A verdict on every claim of the reference."""

    reference: list[ReferenceAttribution]


class Intent(_Reply):
    """One thing the question wants to know."""

    intent: str = Field(description="What it wants to know, in a few words.")
    verdict: Literal["answerable", "open"]
    passages: list[int] = Field(description="Numbers of the passages that answer it; empty if none.")


class Completeness(_Reply):
    """Everything the question wants to know."""

    intents: list[Intent] = Field(min_length=1)


class Rating(_Reply):
    """A mark with its reason."""

    reason: str = Field(description="One sentence.")
    rating: int


class Preference(_Reply):
    """Which of two answers is better."""

    reason: str = Field(description="One sentence.")
    better: Literal["first", "second", "equal"]


REPLIES: Mapping[Measure, type[BaseModel]] = {
    "groundedness": Groundedness,
    "completeness": Completeness,
    "utilization": Utilization,
    "relevance": Relevance,
    "correctness": Correctness,
    "coherence": Rating,
    "fluency": Rating,
    "context_precision": ContextPrecision,
    "context_recall": ContextRecall,
    "preference": Preference,
    "custom": Rating,
}


@dataclass(frozen=True)
class Item:
    """A verdict on one part of what was shown.

    Attributes:
        of: ``claims``, ``passages``, ``reference`` or ``intents``.
        number: which one, from 1, in the order it was shown.
        passages: numbers of the passages the verdict rests on, as shown.
    """

    of: str
    number: int
    verdict: str
    passages: tuple[int, ...] = ()


@dataclass(frozen=True)
class Reply:
    """What a judge said: verdicts on parts, or one mark."""

    items: tuple[Item, ...] = ()
    rating: int | None = None
    better: Literal["first", "second", "equal"] | None = None


def json_schema(measure: Measure) -> dict[str, Any]:
    """The form as a JSON schema: every key required, no other allowed."""
    return REPLIES[measure].model_json_schema()


def read_reply(measure: Measure, text: str, *, counts: Mapping[str, int], passages: int, scale: int) -> Reply:
    """Read and check a reply.

    Args:
        counts: how many parts of each kind were shown; each needs exactly one verdict.
        passages: how many passages were shown.
        scale: highest rating.

    Raises:
        ValueError: it has not the form that was asked for; the message quotes nothing of it.
    """
    fenced = _FENCE.match(text)
    try:
        said = REPLIES[measure].model_validate(json.loads(fenced[1] if fenced else text))
    except json.JSONDecodeError:
        raise ValueError("it is no JSON") from None
    except ValidationError as error:
        places = sorted({".".join(map(str, one["loc"])) or "the top" for one in error.errors(include_input=False)})
        named = [place for place in places if _is_place(place)]
        raise ValueError(f"it has not the form asked for, at {', '.join(named[:3]) or 'an unknown key'}") from None
    except RecursionError:
        raise ValueError("it is no JSON of a sane depth") from None
    if isinstance(said, Rating):
        if not 1 <= said.rating <= scale:
            raise ValueError(f"its rating is not between 1 and {scale}")
        return Reply(rating=said.rating)
    if isinstance(said, Preference):
        return Reply(better=said.better)
    items: list[Item] = []
    for kind, parts in said:
        if kind != "intents" and sorted(part.number for part in parts) != [*range(1, counts[kind] + 1)]:
            raise ValueError(f"its {kind} are not exactly those with the numbers 1 to {counts[kind]}")
        for place, part in enumerate(parts, 1):
            named_passages = tuple(dict.fromkeys(getattr(part, "passages", ())))
            if any(not 1 <= number <= passages for number in named_passages):
                raise ValueError(f"it names a passage that is not one of {passages}")
            items.append(Item(kind, getattr(part, "number", place), part.verdict, named_passages))
    return Reply(items=tuple(items))


def _is_place(place: str) -> bool:
    """Whether a location holds only keys of ours and numbers: what a model invented may be words of a document."""
    known = {key for reply in REPLIES.values() for key in json.dumps(reply.model_json_schema()).split('"')}
    return all(part.isdigit() or part in known for part in place.split(".")) or place == "the top"
