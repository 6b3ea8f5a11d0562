"""Text search configurations: which of PostgreSQL's a text or a question is read with.

Belongs here: languages and their configurations, and the SQL that makes words of a text.
Does not belong here: ranking (search_statements.py), and the SQL functions themselves (migration 0006).

With ``text_search: auto`` every document is read in its own language. Snowball stemmers do that where PostgreSQL has
one; any other language, and a document whose language is unknown, is taken word by word with accents folded. Scripts
without spaces between words become pairs of characters in either case.
"""

from collections.abc import Mapping
from typing import Any

from psycopg import sql

from resources.fingerprint import fingerprint
from resources.postgres import Connection

#: The setting that lets each document's language decide.
AUTO = "auto"
#: PostgreSQL's configuration of a language (ISO 639-1, with the ISO 639-3 codes in use for the same).
CONFIGURATIONS: dict[str, str] = {
    "ar": "arabic", "ca": "catalan", "da": "danish", "de": "german", "el": "greek", "en": "english", "es": "spanish",
    "et": "estonian", "eu": "basque", "fi": "finnish", "fr": "french", "ga": "irish", "hi": "hindi", "hu": "hungarian",
    "hy": "armenian", "id": "indonesian", "it": "italian", "lt": "lithuanian", "nb": "norwegian", "ne": "nepali",
    "nl": "dutch", "nn": "norwegian", "no": "norwegian", "pt": "portuguese", "ro": "romanian", "ru": "russian",
    "sr": "serbian", "sv": "swedish", "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}  # fmt: skip
#: Of every other language, and where none is known.
OTHER = "simple"
#: Languages a question is read in, those with most chunks first.
MAXIMUM_CONFIGURATIONS = 8
#: Characters of a question that a search reads.
MAXIMUM_CHARACTERS = 10_000

_PROBE = (
    "Running runners ran; the organisation's universities were happily generalised. Häuser Bücher größer, maisons "
    "naïves généralisées, niños españoles corriendo, ISTANBUL kitapları, Россия красивые книги, 中文测试 テスト 한국어 "
    "المدارس الكبيرة, लड़कों की किताबें, ΕΛΛΗΝΙΚΑ βιβλία, e-mail a@example.org www.example.org/x 3.14 -5 2026-01-31"
)


def configuration_of(language: str | None) -> str:
    """PostgreSQL's configuration for a language code such as ``de`` or ``pt-BR``."""
    return CONFIGURATIONS.get((language or "").replace("_", "-").split("-")[0].lower(), OTHER)


def configuration_sql(text_search: str, language: str) -> sql.Composable:
    """SQL of the name of the configuration that reads a document.

    Args:
        text_search: of the index: a configuration, or ``auto``.
        language: SQL of the document's language, e.g. ``v.language``.
    """
    if text_search != AUTO:
        return sql.Literal(text_search) + sql.SQL("::text")
    cases = sql.SQL(" ").join(
        sql.SQL("WHEN {} THEN {}").format(sql.Literal(code), sql.Literal(name))
        for code, name in sorted(CONFIGURATIONS.items())
    )
    return sql.SQL("CASE lower(split_part(replace({}, '_', '-'), '-', 1)) {} ELSE {} END").format(
        sql.SQL(language),  # type: ignore[arg-type]
        cases,
        sql.Literal(OTHER),
    )


def words_sql(text_search: str, configuration: str, content: str) -> sql.Composable:
    """SQL of the ``tsvector`` of a text.

    Args:
        configuration: SQL of the name of the configuration, as ``configuration_sql`` gives it.
        content: SQL of the text.
    """
    if text_search != AUTO:
        return sql.SQL("to_tsvector({}::regconfig, {})").format(
            sql.Literal(text_search),
            sql.SQL(content),  # type: ignore[arg-type]
        )
    return sql.SQL("language_words({}::regconfig, {})").format(
        sql.SQL(configuration),  # type: ignore[arg-type]
        sql.SQL(content),  # type: ignore[arg-type]
    )


def question_sql(text_search: str) -> sql.Composable:
    """SQL of a table of the words (``lexeme``) of the question in the parameter ``question``."""
    if text_search != AUTO:
        return sql.SQL("SELECT lexeme FROM unnest(to_tsvector(%(configuration)s::regconfig, %(question)s::text)) asked")
    return sql.SQL("SELECT lexeme FROM question_words(%(configurations)s::text[], %(question)s::text) lexeme")


def present_configurations(text_search: str, counts: Mapping[str, Any]) -> tuple[str, ...]:
    """The configurations a question is read with, from the counts of a snapshot."""
    if text_search != AUTO:
        return (text_search,)
    languages = counts.get("languages", {})
    present = sorted(languages, key=lambda name: (-languages[name], name))[:MAXIMUM_CONFIGURATIONS]
    return tuple(present) or (OTHER,)


def analysis_fingerprint(connection: Connection, text_search: str) -> str:
    """Hash of how this server makes words of a text: its major version, its locale, and a sample in many languages.

    Another stemmer or locale gives other words for the same question; rows made before would not be found any more.
    """
    wanted = sorted({*CONFIGURATIONS.values(), OTHER}) if text_search == AUTO else [text_search]
    rows = connection.execute(
        sql.SQL(
            """SELECT current_setting('server_version_num')::integer / 10000, datcollate, datctype,
                      array(SELECT name || coalesce({}::text, '') FROM unnest(%(wanted)s::text[]) name ORDER BY name)
               FROM pg_database WHERE datname = current_database()"""
        ).format(words_sql(text_search, "name", "%(probe)s::text")),
        {"wanted": wanted, "probe": _PROBE},
    ).fetchone()
    assert rows is not None
    return fingerprint(list(rows))
