"""Identity of a chunking and of an enrichment: their fingerprints and their rows in the database.

Belongs here: what makes two chunkings (or enrichments) the same; assets and the search resource both need to know.
Does not belong here: cutting texts (assets/chunks/chunkers.py) and composing what is embedded (enrichment.py).
"""

from functools import cache
from importlib.metadata import version

from psycopg.types.json import Jsonb

from resources.fingerprint import fingerprint
from resources.index_config import ChunkerConfig, EnrichmentConfig
from resources.postgres import Connection

#: Raised by hand when assets/chunks/chunkers.py, or the heading scan it uses, would cut or label a text differently.
CHUNKER_CODE_VERSION = "1"
#: Raised by hand when assets/chunks/enrichment.py would compose another input.
ENRICHMENT_CODE_VERSION = "1"


def chunker_fingerprint(config: ChunkerConfig) -> str:
    """Hash of everything that decides how a text is cut: configuration, our code, the splitter's release."""
    return fingerprint(
        {"config": config.model_dump(mode="json"), "code": CHUNKER_CODE_VERSION, "splitter": _splitter_version()}
    )


def enrichment_fingerprint(config: EnrichmentConfig) -> str:
    """Hash of everything that decides what is embedded for a given chunk."""
    return fingerprint({"config": config.model_dump(mode="json"), "code": ENRICHMENT_CODE_VERSION})


def chunker_id(connection: Connection, config: ChunkerConfig) -> int:
    """The id of a chunker's row; the row is made when it is new."""
    key = chunker_fingerprint(config)
    connection.execute(
        "INSERT INTO chunker (fingerprint, config) VALUES (%s, %s) ON CONFLICT (fingerprint) DO NOTHING",
        (key, Jsonb(config.model_dump(mode="json"))),
    )
    row = connection.execute("SELECT chunker_id FROM chunker WHERE fingerprint = %s", (key,)).fetchone()
    assert row is not None
    return row[0]


def enrichment_id(connection: Connection, config: EnrichmentConfig) -> int:
    """The id of an enrichment's row; the row is made when it is new."""
    key = enrichment_fingerprint(config)
    connection.execute(
        "INSERT INTO enrichment (fingerprint, config) VALUES (%s, %s) ON CONFLICT (fingerprint) DO NOTHING",
        (key, Jsonb(config.model_dump(mode="json"))),
    )
    row = connection.execute("SELECT enrichment_id FROM enrichment WHERE fingerprint = %s", (key,)).fetchone()
    assert row is not None
    return row[0]


@cache
def _splitter_version() -> str:
    return version("langchain-text-splitters")
