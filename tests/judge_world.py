"""Judges for tests: a scripted one behind the fake endpoint, and the configuration that makes the pipeline use it.

Belongs here: reading what a judge is shown, and answering in the form asked for. Does not belong here: assertions.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.conftest import MODELS

#: A section of the user message: its heading, then its parts.
_SECTION = re.compile(r"^([A-Z][a-z ]+):$", re.MULTILINE)


def models(price: float = 0.0, **chat: Any) -> dict[str, Any]:
    """models.yaml with the offline models and two judge models on an endpoint."""
    cost = {"currency": "USD", "input_per_million": price, "output_per_million": price}
    limits = {"concurrency": 2, "max_tries": 1, "timeout_seconds": 20}
    judges = [
        {"name": name, "provider": "openai", "model": name, "limits": limits, "price": cost, **chat}
        for name in ("judge-model", "other-judge")
    ]
    return {
        **MODELS,
        "providers": {**MODELS["providers"], "openai": {"kind": "openai"}},
        "chat": [*MODELS["chat"], *judges],
    }


def judge(measures: str = "groundedness", **settings: Any) -> dict[str, Any]:
    """A judge's file."""
    return {"name": "strict", "measures": measures, "model": "judge-model", **settings}


@dataclass
class Shown:
    """What a judge was shown, taken apart."""

    system: str
    user: str
    body: dict[str, Any]

    @property
    def sections(self) -> dict[str, str]:
        """Text by heading."""
        parts = _SECTION.split(self.user)
        return dict(zip(parts[1::2], map(str.strip, parts[2::2]), strict=True))

    def parts(self, heading: str) -> list[str]:
        """The numbered parts of a section, without the marks of quotation."""
        text = self.sections.get(heading, "")
        found = re.split(r"^\d+\.\n", text, flags=re.MULTILINE)[1:]
        return ["\n".join(line.removeprefix(">").strip() for line in part.strip().splitlines()) for part in found]

    def text(self, heading: str) -> str:
        """A section that is not numbered."""
        return "\n".join(line.removeprefix(">").strip() for line in self.sections.get(heading, "").splitlines())


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def fair(shown: Shown) -> dict[str, Any]:
    """A sound judge: a claim is entailed by a passage that has all of its words, and so on."""
    passages, claims = shown.parts("Passages"), shown.parts("Claims of the answer")
    reference = shown.parts("Claims of the reference answer")
    keys = set(shown.body["response_format"]["json_schema"]["schema"]["properties"])
    if "better" in keys:
        wanted = _words(" ".join(reference))
        first, second = (len(wanted & _words(shown.text(f"{which} answer"))) for which in ("First", "Second"))
        return {"reason": "r", "better": "first" if first > second else "second" if second > first else "equal"}
    if "rating" in keys:
        return {"reason": "r", "rating": 4}
    if "intents" in keys:
        holders = [n for n, one in enumerate(passages, 1) if len(_words(shown.text("Question")) & _words(one)) > 3]
        return {
            "intents": [{"intent": "all of it", "verdict": "answerable" if holders else "open", "passages": holders}]
        }
    if keys == {"claims", "reference"}:
        wanted, said = _words(" ".join(reference)), _words(" ".join(claims))
        return {
            "claims": [
                {"number": n, "verdict": "correct" if 2 * len(_words(one) & wanted) > len(_words(one)) else "extra"}
                for n, one in enumerate(claims, 1)
            ],
            "reference": [
                {"number": n, "verdict": "covered" if _words(one) <= said else "missing"}
                for n, one in enumerate(reference, 1)
            ],
        }
    if keys == {"reference"}:
        return {"reference": [_held(n, one, passages, "attributable", "missing") for n, one in enumerate(reference, 1)]}
    if keys == {"passages"}:
        useful = "useless" in json.dumps(shown.body["response_format"])
        against = _words(" ".join(reference) if useful else shown.text("Answer"))
        words = ("useful", "useless") if useful else ("used", "unused")
        return {
            "passages": [
                {"number": n, "verdict": words[0 if len(_words(one) & against) > 2 else 1]}
                for n, one in enumerate(passages, 1)
            ]
        }
    if passages:
        return {"claims": [_held(n, one, passages, "entailed", "unsupported") for n, one in enumerate(claims, 1)]}
    asked = _words(shown.text("Question"))
    return {
        "claims": [
            {"number": n, "verdict": "relevant" if _words(one) & asked else "irrelevant"}
            for n, one in enumerate(claims, 1)
        ]
    }


def _held(number: int, text: str, passages: list[str], good: str, bad: str) -> dict[str, Any]:
    holders = [place for place, one in enumerate(passages, 1) if _words(text) <= _words(one)]
    return {"number": number, "verdict": good if holders else bad, "passages": holders}


@dataclass
class ScriptedJudge:
    """What ``FakeOpenAI`` answers with: a JSON object by ``mind``, or any text of it.

    Attributes:
        seen: all that was shown, in order.
    """

    mind: Callable[[Shown], dict[str, Any] | str] = fair
    seen: list[Shown] = field(default_factory=list)

    def __call__(self, body: dict[str, Any]) -> str:
        system, user = (message["content"] for message in body["messages"])
        shown = Shown(system, user, body)
        self.seen.append(shown)
        said = self.mind(shown)
        return said if isinstance(said, str) else json.dumps(said)

    @property
    def calls(self) -> int:
        """How often it was asked."""
        return len(self.seen)
