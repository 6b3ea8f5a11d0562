"""Identity of a chunking and of an enrichment: their fingerprints and their rows in the database.

Belongs here: what makes two chunkings (or enrichments) the same; assets and the search resource both need to know.
Does not belong here: cutting texts (assets/chunks/chunkers.py) and composing what is embedded (enrichment.py).
"""

import unicodedata
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb

from resources import offline_models, query_cleaning
from resources.chunker_plugins import function_identity
from resources.fingerprint import fingerprint
from resources.index_config import ChunkerConfig, EnrichmentConfig, EnrichmentStep
from resources.postgres import Connection

if TYPE_CHECKING:
    from resources.models import Models

#: Raised by hand when any chunker, or the heading scan they use, would cut or label a text differently.
CHUNKER_CODE_VERSION = "1"
#: Likewise for one kind alone; ``markdown`` and ``recursive`` change with their splitter's release besides.
KIND_CODE_VERSIONS = dict.fromkeys(("fixed", "sentence", "layout", "code", "semantic", "custom", "parent_child"), "1")
#: Raised by hand when the splitter would be told another length in tokens.
_MEASURE_CODE_VERSION = "2"
_SPLITTER_KINDS = ("markdown", "recursive")
#: Raised by hand when assets/chunks/enrichment.py would compose another input.
ENRICHMENT_CODE_VERSION = "1"
#: Raised by hand when another heading would be taken for the title of a text.
TITLE_CODE_VERSION = "1"
#: Raised by hand when assets/chunks/enrichment_steps.py would make another value of that kind.
STEP_CODE_VERSIONS = dict.fromkeys(("clean", "keywords", "entities", "summary", "questions", "language"), "1")
#: Raised by hand when assets/chunks/enrichment_models.py would ask otherwise, or accept other answers.
PROMPTS_CODE_VERSION = "1"


def chunker_fingerprint(config: ChunkerConfig, models: "Models | None" = None) -> str:
    """Hash of everything that decides how a text is cut: configuration, our code, and whatever else the kind uses
    (the splitter's release, the embedding model, the code of a custom function).

    Args:
        models: needed where cutting asks an embedding model, whose own fingerprint enters.

    Raises:
        PermanentError: there is no such embedding model, or its key is missing.
        ConfigError: no installed package offers the custom function.
        ValueError: the chunker needs a model, and ``models`` was not given.
    """
    return fingerprint(_chunker_parts(config, models))


def _chunker_parts(config: ChunkerConfig, models: "Models | None") -> dict[str, Any]:
    parts: dict[str, Any] = {"config": config.model_dump(mode="json"), "code": CHUNKER_CODE_VERSION}
    if config.kind in _SPLITTER_KINDS:
        if config.unit == "tokens":
            parts["measure"] = _MEASURE_CODE_VERSION
        return {**parts, "splitter": _splitter_version()}
    # which characters are letters, spaces or joined to the one before is for Python's Unicode tables to say
    parts |= {"kind_code": KIND_CODE_VERSIONS[config.kind], "unicode": unicodedata.unidata_version}
    if config.kind == "semantic":
        if models is None:
            raise ValueError("a chunker that asks an embedding model needs the models for its fingerprint")
        del parts["config"]["embedder"]  # the name of a model decides nothing
        parts["embedder"] = models.embedder(config.embedder).fingerprint
    elif config.kind == "custom":
        parts["function"] = function_identity(config.function)
    elif config.kind == "parent_child":
        parts["config"] = {"kind": config.kind}
        parts["parent"] = _chunker_parts(config.parent, models)
        parts["child"] = _chunker_parts(config.child, models)
    return parts


def enrichment_fingerprint(config: EnrichmentConfig, models: "Models | None" = None) -> str:
    """Hash of everything that decides what is embedded and searched for a given chunk.

    Settings that change nothing (no title, a step whose value is used nowhere) do not enter.

    Args:
        models: needed where a step asks a chat model, whose own fingerprint enters.
    """
    shown: dict[str, Any] = {"context": config.context}
    if config.title:
        shown["title"] = TITLE_CODE_VERSION
    used = [step for step in config.steps if step.use]
    if used:
        shown["steps"] = [{"step": step_fingerprint(step, models), "use": list(step.use)} for step in used]
    return fingerprint({"config": shown, "code": ENRICHMENT_CODE_VERSION})


def step_fingerprint(step: EnrichmentStep, models: "Models | None" = None) -> str:
    """Hash of everything that decides the value of a step for a given chunk; not of what the value is used for.

    Raises:
        PermanentError: there is no such chat model, or its key is missing.
        ValueError: the step asks a chat model, and ``models`` was not given.
    """
    parts: dict[str, Any] = {
        "kind": step.kind,
        "method": step.method,
        "headings": step.sees_headings,
        "code": STEP_CODE_VERSIONS[step.kind],
    }
    if step.kind in ("keywords", "entities", "questions"):
        parts["count"] = step.count
    if step.kind not in ("clean", "language"):
        parts["max_characters"] = step.max_characters
        parts["cleaning"] = query_cleaning.CODE_VERSION
    if step.kind == "clean":
        parts["cleaning"] = [query_cleaning.CODE_VERSION, unicodedata.unidata_version]
    if step.kind == "language":
        parts["identifier"] = _identifier_version()
    if step.kind in ("keywords", "summary") and step.method == "offline":
        parts["words"] = offline_models.CODE_VERSION
    if step.method == "model":
        if models is None:
            raise ValueError("a step that asks a chat model needs the models for its fingerprint")
        parts["prompts"] = PROMPTS_CODE_VERSION
        parts["model"] = models.chat(step.model or "").fingerprint
    return fingerprint(parts)


def chunker_id(connection: Connection, config: ChunkerConfig, models: "Models | None" = None) -> int:
    """The id of a chunker's row; the row is made when it is new."""
    key = chunker_fingerprint(config, models)
    connection.execute(
        "INSERT INTO chunker (fingerprint, config) VALUES (%s, %s) ON CONFLICT (fingerprint) DO NOTHING",
        (key, Jsonb(config.model_dump(mode="json"))),
    )
    row = connection.execute("SELECT chunker_id FROM chunker WHERE fingerprint = %s", (key,)).fetchone()
    assert row is not None
    return row[0]


def enrichment_id(connection: Connection, config: EnrichmentConfig, models: "Models | None" = None) -> int:
    """The id of an enrichment's row; the row, and those of its steps, are made when they are new."""
    key = enrichment_fingerprint(config, models)
    connection.execute(
        "INSERT INTO enrichment (fingerprint, config) VALUES (%s, %s) ON CONFLICT (fingerprint) DO NOTHING",
        (key, Jsonb(config.model_dump(mode="json"))),
    )
    row = connection.execute("SELECT enrichment_id FROM enrichment WHERE fingerprint = %s", (key,)).fetchone()
    assert row is not None
    for step in config.steps:
        connection.execute(
            "INSERT INTO enrichment_part (enrichment_id, step_id) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            (row[0], step_id(connection, step, models)),
        )
    return row[0]


def step_id(connection: Connection, step: EnrichmentStep, models: "Models | None" = None) -> int:
    """The id of a step's row; the row is made when it is new."""
    key = step_fingerprint(step, models)
    connection.execute(
        """INSERT INTO enrichment_step (fingerprint, config) SELECT %(key)s, %(config)s
           WHERE NOT EXISTS (SELECT FROM enrichment_step WHERE fingerprint = %(key)s)
           ON CONFLICT (fingerprint) DO NOTHING""",
        {"key": key, "config": Jsonb(step.model_dump(mode="json"))},
    )
    row = connection.execute("SELECT step_id FROM enrichment_step WHERE fingerprint = %s", (key,)).fetchone()
    assert row is not None
    return row[0]


@cache
def _identifier_version() -> str:
    return version("py3langid")


@cache
def _splitter_version() -> str:
    return version("langchain-text-splitters")
