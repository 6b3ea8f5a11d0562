"""Prompts: rendering them safely, and keeping every version that was ever used.

Belongs here: the Jinja2 environment, the frame around document text, immutable prompt versions.
Does not belong here: what the prompts say (data/prompts/*.yaml), which version has which label (prompt_labels.py), and
calling models (models.py, answerer.py).

A document is data. Each line of a passage reaches the template with ``> `` in front, names and headings and the
question are put on one line each, and nothing of them is ever read as template code. So a document may contain
``[2]``, ``Question:`` or orders to the model: none of it can end its passage or pass for another part of the prompt,
and a quoted ``[2]`` is no citation, because it reaches the model as ``[ 2 ]``.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb

from resources.errors import ConfigError
from resources.fingerprint import fingerprint
from resources.postgres import Connection
from resources.prompt_config import ChainStep, FewShot, PromptConfig
from resources.task_config import TaskSpec

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import SandboxedEnvironment

#: Covers the frame and the template settings; part of every prompt fingerprint.
CODE_VERSION = "1"

VARIABLES = ("question", "passages", "examples", "refusal", "persona", "instructions", "constraints", "steps")
#: Of prompts for tasks without documents.
TASK_VARIABLES = (
    "input", "labels", "fields", "languages", "examples", "persona", "instructions", "constraints", "steps", "refusal",
)  # fmt: skip
#: Keys of a worked example that say where its words are from and never reach a model.
_PROVENANCE = {"examples": {"__all__": {"documents"}}}

# Every character at which some program or model might start a new line, and those PostgreSQL and JSON cannot hold.
_LINE_BREAK = re.compile("\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
# What an answer would be read to cite; with spaces inside the brackets it is text (and code stays code).
_MARK = re.compile(r"\[(\d[\d\s,;–-]*)\]")
_UNPRINTABLE = re.compile("[\x00-\x08\x0e-\x1b\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class Passage:
    """A retrieved chunk as a prompt sees it.

    Attributes:
        number: what the answer cites it by, from 1.
        document: ``source/path``.
        headings: heading path of the chunk, outermost first.
        page: page of the document the chunk begins on, None where it has no pages.
    """

    number: int
    text: str
    document: str
    title: str = ""
    headings: tuple[str, ...] = ()
    page: int | None = None


def printable(text: str) -> str:
    """Replace characters that PostgreSQL or JSON cannot hold (NUL, other controls, lone surrogates) by U+FFFD."""
    return _UNPRINTABLE.sub("\ufffd", text)


def render(
    prompt: PromptConfig,
    question: str,
    passages: Sequence[Passage],
    *,
    examples: Sequence[FewShot] = (),
    step: ChainStep | None = None,
    said: Mapping[str, str] | None = None,
    task: TaskSpec | None = None,
) -> list[dict[str, str]]:
    """Render the system and user message.

    Args:
        question: the question, or the input of a task: that is shown as quoted lines, as a document is.
        task: of a dataset without documents; templates then have ``TASK_VARIABLES``.
        examples: worked examples beside those of the prompt, after them.
        step: a step of the prompt's chain in place of the last prompt.
        said: {step: its answer} of the chain so far. An answer may quote a document: it becomes quoted lines, in which
            the numbers of passages stay.

    Raises:
        ConfigError: the template is wrong; names the prompt, the template and the variable or line.
    """
    refusal = _one_line(prompt.refusal)
    own = {"refusal": refusal}
    if task is None:
        shown: dict[str, Any] = {
            "question": _one_line(question),
            "passages": [frame_passage(passage) for passage in passages],
            "examples": [
                {"question": _one_line(item.question), "context": _frame(item.context), "answer": item.answer}
                for item in prompt.examples
            ]
            + [_drawn(item) for item in examples],
        }
    else:
        shown = {
            "input": _quote(question),
            "labels": list(task.labels),
            "fields": list(task.fields),
            "languages": dict(task.languages),
            "examples": [
                {"input": _quote(item.question), "answer": _one_line(item.answer)}
                for item in (*prompt.examples, *examples)
            ],
        }
    values: dict[str, Any] = {
        **shown,
        "refusal": refusal,
        "persona": _render(prompt, "persona", prompt.persona, own) if prompt.persona else "",
        "instructions": _render(prompt, "instructions", prompt.instructions, own) if prompt.instructions else "",
        "constraints": [_render(prompt, "constraints", one, own) for one in prompt.constraints],
        "steps": {name: _quote(text) for name, text in (said or {}).items()},
    }
    variables = VARIABLES if task is None else TASK_VARIABLES
    where, parts = ("", prompt) if step is None else (f"chain step {step.name}: ", step)
    return [
        {"role": role, "content": _render(prompt, where + role, template, values, variables)}
        for role, template in (("system", parts.system), ("user", parts.user))
    ]


def prompt_fingerprint(prompt: PromptConfig) -> str:
    """Hash of the name and everything that can change what is rendered; the description cannot."""
    exclude: Any = {"description": True, **_PROVENANCE}
    return fingerprint({"code": CODE_VERSION, "prompt": prompt.model_dump(mode="json", exclude=exclude)})


def examples_fingerprint(examples: Sequence[FewShot]) -> str:
    """Hash of the words of worked examples; where they are from is not among it."""
    return fingerprint([example.model_dump(mode="json", exclude={"documents"}) for example in examples])


def register(connection: Connection, prompt: PromptConfig, run_id: str) -> int:
    """Record this content of a prompt and return its version; content seen before keeps its version.

    Holds a lock on the name until the transaction ends, so that two runs never give one number to two contents.
    """
    key = prompt_fingerprint(prompt)
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"prompt:{prompt.name}",))
    row = connection.execute(
        "SELECT version FROM prompt_version WHERE name = %s AND fingerprint = %s", (prompt.name, key)
    ).fetchone()
    if row is None:
        row = connection.execute(
            """INSERT INTO prompt_version (name, version, fingerprint, config, run_id)
               SELECT %(name)s, coalesce(max(version), 0) + 1, %(key)s, %(config)s, %(run_id)s
               FROM prompt_version WHERE name = %(name)s
               RETURNING version""",
            {"name": prompt.name, "key": key, "config": Jsonb(prompt.model_dump(mode="json")), "run_id": run_id},
        ).fetchone()
    assert row is not None
    return row[0]


def _one_line(text: str) -> str:
    return " ".join(printable(_LINE_BREAK.sub(" ", text)).split())


def _frame(text: str) -> str:
    lines = _LINE_BREAK.split(text.strip("\n"))
    return "\n".join(f"> {_unmarked(printable(line))}".rstrip() for line in lines)


def _quote(text: str) -> str:
    """What a model said as quoted lines, its citations as they are: they name passages that are shown again."""
    return "\n".join(f"> {printable(line)}".rstrip() for line in _LINE_BREAK.split(text.strip("\n")))


def _drawn(example: FewShot) -> dict[str, str]:
    """An example whose words are from documents and from a dataset: all of it is data."""
    return {
        "question": _unmarked(_one_line(example.question)),
        "context": _frame(example.context),
        "answer": _unmarked(_one_line(example.answer)),
    }


def example_text(example: FewShot) -> str:
    """All that a template can show of a drawn example, as it would stand there."""
    return "\n".join(_drawn(example).values())


def _unmarked(text: str) -> str:
    return _MARK.sub(r"[ \1 ]", text)


def frame_passage(passage: Passage) -> Passage:
    """The passage as it reaches a template: its text as quoted lines, everything else on one line."""
    return Passage(
        number=passage.number,
        text=_frame(passage.text),
        document=_unmarked(_one_line(passage.document)),
        title=_unmarked(_one_line(passage.title)),
        headings=tuple(_unmarked(_one_line(heading)) for heading in passage.headings),
        page=passage.page,
    )


@functools.cache
def _environment() -> "SandboxedEnvironment":
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


@functools.lru_cache(maxsize=128)
def _compiled(template: str) -> "Template":
    # compiling takes ten times as long as rendering, and one experiment renders a prompt for every question
    return _environment().from_string(template)


def _render(
    prompt: PromptConfig, part: str, template: str, values: dict[str, Any], variables: Sequence[str] = VARIABLES
) -> str:
    from jinja2 import TemplateError, TemplateSyntaxError

    where = f"prompts: {prompt.name}: {part}"
    try:
        return _compiled(template).render(values).strip()
    except TemplateSyntaxError as error:
        problem = f"{where}: line {error.lineno}: {error.message}"
    except TemplateError as error:
        problem = f"{where}: {error.message}; variables: {', '.join(variables)}"
    except Exception as error:
        # Any operation in a template may fail, and the message of such an error may quote a document.
        problem = f"{where}: the template fails with {type(error).__name__}; variables: {', '.join(variables)}"
    raise ConfigError(problem)
