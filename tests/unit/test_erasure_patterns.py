"""Erasure by a pattern: everything that fits goes, whoever wrote it, and nothing else; and no table is unknown to it."""

import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from assets.governance.erasure import find_traces, forget, make_selector, preview
from assets.governance.holdings import BUILD_TABLES, HOLDINGS
from assets.governance.matching import Matcher, literal_pattern
from resources.errors import ConfigError, PermanentError
from resources.interaction_log import log_interaction
from resources.platform import Platform
from resources.postgres import Database
from tests.seeded_corpus import SeededCorpus

NAME = "Ada Lovelace"
SECRET = f"# Staff\n\nThe engine is programmed by {NAME}, telephone 555-0123.\n"
WRAPPED = "# Minutes\n\nPresent were Charles Babbage and ADA\n  LOVELACE, who left early.\n"
OTHER = "# Bicycles\n\nEvery bicycle leaves the workshop with a charged battery.\n"


def hit(document: int, path: str, text: str) -> dict[str, Any]:
    return {"rank": 1, "score": 0.5, "document_id": document, "source": "docs", "path": path, "text": text}


@pytest.fixture
def platform(make_platform: Callable[..., Platform]) -> Platform:
    return make_platform()


def insert(platform: Platform, statement: str, *values: Any) -> None:
    with platform.database.connect() as connection:
        connection.execute(statement, values)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def corpus(platform: Platform) -> SeededCorpus:
    """Three documents, two of them about a person, and words about her that no document holds."""
    corpus = SeededCorpus(platform)
    staff = corpus.document("docs", "staff.md", SECRET)
    minutes = corpus.document("wiki", "minutes.md", WRAPPED)
    minutes = corpus.document("wiki", "minutes.md", "# Minutes\n\nNobody.\n", document_id=minutes, revision=2)
    bikes = corpus.document("docs", "bikes.md", OTHER)
    build = corpus.build("main")
    corpus.show(build, [staff, minutes, bikes])
    corpus.publish("main", build, 1, "2026-02-01")
    corpus.dataset("quiz", [f"Who is {NAME}?", "What is in the bag?"])
    corpus.trial("t-other", "q001", hit(bikes, "bikes.md", OTHER))
    corpus.trial("t-asked", "q000", hit(bikes, "bikes.md", OTHER))
    corpus.interaction(f"Where does {NAME.lower()} live?", "2026-02-01", hit=hit(bikes, "bikes.md", OTHER))
    corpus.interaction("How long is the battery charged?", "2026-02-01", hit=hit(bikes, "bikes.md", OTHER))
    insert(
        platform,
        """INSERT INTO generation (fingerprint, model, messages, text, usage, latency, run_id)
           VALUES ('g-person', '{}', %s, 'answer', '{}', 0.1, 'run')""",
        Jsonb([{"role": "user", "content": f'They call her "{NAME}"\nand more'}]),
    )
    for table, statement, value in (
        ("quarantine", "INSERT INTO quarantine (source, path, code, reason, run_id) VALUES ('docs', %s, 'x', 'r', 'run')", f"cv of {NAME}.md"),
        ("alert", "INSERT INTO alert (alert_key, state, title, body) VALUES ('k', 'failing', 't', %s)", f"of {NAME}"),
        ("evidence", """INSERT INTO evidence (kind, subject, fingerprint, check_name, passed, blocking, details, run_id)
            VALUES ('documents', 'docs', 'f', 'c', true, true, %s, 'run')""", Jsonb({"expected": 1, "rows": [{"title": NAME}]})),
        ("drift_result", "INSERT INTO drift_result (day, subject, verdict, details, file, run_id) VALUES ('2026-02-01', 's', 'none', %s, 'drift/2026-02-01.html', 'run')", Jsonb({"risen": [{"term": NAME, "current": 0.5}, {"term": "bike"}]})),
        ("prompt_version", "INSERT INTO prompt_version (name, version, fingerprint, config, run_id) VALUES ('p', 1, 'f', %s, 'run')", Jsonb({"examples": [{"answer": f"{NAME} did"}]})),
        ("serving_move", "INSERT INTO serving_move (index_name, from_snapshot, to_snapshot, moved_by, reason) VALUES ('main', 0, 1, 'ops', %s)", f"{NAME} complained"),
        ("source_entry", "INSERT INTO source_entry (source, path, identity, content_hash, bytes) VALUES ('docs', %s, 'i', '\\x02', 1)", f"{NAME}.md"),
        ("enrichment_step", "INSERT INTO enrichment_step (fingerprint, config) VALUES (%s, '{}')", "s"),
    ):  # fmt: skip
        assert table in HOLDINGS
        insert(platform, statement, value)
    (platform.artifacts / "drift").mkdir(parents=True)
    (platform.artifacts / "drift" / "2026-02-01.html").write_text("<img src='of her terms'>")
    (platform.artifacts / "drift" / "2026-02-02.html").write_text("<td>bike</td>")
    (platform.artifacts / "experiments").mkdir()
    (platform.artifacts / "experiments" / "1.html").write_text("<p>by <b>Ada</b> Lovelace</p>")
    (platform.artifacts / "experiments" / "2.html").write_text("<p>bicycles</p>")
    lines = [json.dumps({"text": f"about {NAME}"}), json.dumps({"text": "bicycles"}), NAME]
    (platform.artifacts / "experiments" / "out.jsonl").write_text("\n".join(lines) + "\n")
    return corpus


def everything(platform: Platform) -> set[str]:
    """Where any spelling of the name is still found."""
    found: set[str] = set()
    for spelling in (NAME, NAME.upper(), NAME.lower(), "ADA\n  LOVELACE", "LOVELACE", "Lovelace"):
        found |= set(find_traces(platform, spelling))
    return found


def test_the_preview_names_documents_and_counts_the_rest(corpus: SeededCorpus) -> None:
    found = preview(corpus.platform, make_selector(text=NAME))
    assert found.documents == (f"docs/{NAME}.md", f"docs/cv of {NAME}.md", "docs/staff.md", "wiki/minutes.md")
    assert found.rows == {"evaluation_question": 1, "generation": 1, "interaction": 1}
    assert everything(corpus.platform), "nothing was erased"


def test_a_person_leaves_no_trace_and_the_others_keep_theirs(corpus: SeededCorpus) -> None:
    erasure = forget(corpus.platform, text=NAME, by="ops")
    tombstones = {"forgotten.path"}  # the paths that hold the name are what keeps them out
    assert everything(corpus.platform) == tombstones
    assert erasure.documents == 2
    assert find_traces(corpus.platform, "charged battery")
    with corpus.platform.database.connect() as connection:
        for query, left in (
            ("SELECT path FROM document_version", {"bikes.md"}),
            ("SELECT question FROM evaluation_question", {"What is in the bag?"}),
            ("SELECT question FROM interaction", {"How long is the battery charged?"}),
            ("SELECT fingerprint FROM trial", {"t-other"}),
            ("SELECT path FROM source_entry", set()),
            ("SELECT path FROM quarantine", set()),
        ):
            rows = connection.execute(sql.SQL(query)).fetchall()  # pyright: ignore[reportArgumentType]
            assert {row[0] for row in rows} == left, query
        drift = connection.execute("SELECT details, file FROM drift_result").fetchone()
        prompt = connection.execute("SELECT config FROM prompt_version").fetchone()
        evidence = connection.execute("SELECT passed, details FROM evidence").fetchone()
    gone = "(erased on request)"
    assert drift == ({"risen": [{"term": gone, "current": 0.5}, {"term": "bike"}]}, None)
    assert prompt == ({"examples": [{"answer": gone}]},)
    assert evidence == (True, {"expected": 1, "rows": [{"title": gone}]})
    files = {path.name for path in corpus.platform.artifacts.rglob("*") if path.is_file()}
    assert files == {"2026-02-02.html", "2.html", "out.jsonl"}


def test_every_version_counts_also_one_that_is_no_longer_live(corpus: SeededCorpus) -> None:
    erasure = forget(corpus.platform, pattern=r"(?i)babbage", by="ops")
    assert (erasure.documents, erasure.proof["document_version"]) == (1, 2)


def test_one_erasure_one_proof_and_a_pattern_that_is_not_told(corpus: SeededCorpus) -> None:
    first = forget(corpus.platform, text=NAME, by="ops")
    with corpus.platform.database.connect() as connection:
        rows = connection.execute("SELECT erasure_id, selector, proof FROM erasure").fetchall()
        tombstones = connection.execute("SELECT DISTINCT erasure_id FROM forgotten").fetchall()
    assert rows == [(first.erasure_id, first.selector, first.proof)]
    assert tombstones == [(first.erasure_id,)]
    assert re.fullmatch(r"pattern:sha256:[0-9a-f]{16}:[0-9a-f]{64}", first.selector)
    assert "ovelace" not in json.dumps(first.proof)
    assert forget(corpus.platform, text=NAME, by="ops").erasure_id is None, "nothing is left"


def test_a_pattern_may_be_recorded_as_it_is(corpus: SeededCorpus) -> None:
    assert forget(corpus.platform, pattern=r"555-\d{4}", by="ops", show_pattern=True).selector == r"pattern:555-\d{4}"


def test_within_a_source_only_its_documents_go(corpus: SeededCorpus) -> None:
    erasure = forget(corpus.platform, text=NAME, source="wiki", by="ops")
    assert (erasure.documents, set(erasure.proof) & {"evaluation_question", "generation", "alert"}) == (1, set())
    with corpus.platform.database.connect() as connection:
        assert {row[0] for row in connection.execute("SELECT path FROM document_version")} == {"staff.md", "bikes.md"}
    assert preview(corpus.platform, make_selector(text=NAME, source="wiki")).documents == ()


def test_text_that_no_document_holds_goes_too(platform: Platform) -> None:
    """Cached by a refresh that was never committed."""
    SeededCorpus(platform)
    insert(platform, "INSERT INTO document_text VALUES ('\\x01', %s, 5)", SECRET)
    insert(
        platform,
        """INSERT INTO parse_result (content_hash, parser_fingerprint, text_hash, title, seconds)
           VALUES ('\\x02', 'p', '\\x01', %s, 0)""",
        "Staff",
    )
    assert forget(platform, text=NAME, by="ops").proof == {"document_text": 1, "parse_result": 1}


def test_numbers_and_keys_inside_json_count(platform: Platform) -> None:
    corpus = SeededCorpus(platform)
    document = corpus.document("docs", "a.md", OTHER)
    for metadata in ({"front_matter": {"phone": 5550123}}, {"front_matter": {"ada@example.com": "owner"}}):
        insert(platform, "UPDATE document_version SET metadata = %s WHERE document_id = %s", Jsonb(metadata), document)
        for pattern in ("5550123", r"ada@example\.com"):
            fits = pattern.replace("\\", "") in json.dumps(metadata)
            assert bool(preview(platform, make_selector(pattern=pattern)).documents) == fits


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pattern": "(unclosed"}, "not a valid regular expression"),
        ({"pattern": "x*"}, "fits an empty text"),
        ({"pattern": ""}, "empty"),
        ({"text": "  "}, "empty"),
        ({"pattern": "a", "text": "b"}, "only one"),
        ({"pattern": "a", "document": "docs/a.md"}, "only one"),
    ],
)
def test_what_cannot_be_meant_is_refused(platform: Platform, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        forget(platform, by="ops", **arguments)
    assert "unclosed" not in str(caught.value)


def test_a_pattern_that_would_take_for_ever_is_stopped(platform: Platform) -> None:
    insert(platform, "INSERT INTO document_text VALUES ('\\x01', %s, 5)", "ab" * 4000 + "c")
    started = time.monotonic()
    with pytest.raises(PermanentError, match=r"more than 0\.5 s") as caught:
        forget(platform, pattern=r"^(.*)(.*)(.*)\1\2\3\1\3\2c$", by="ops", pattern_seconds=0.5)
    assert time.monotonic() - started < 20
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    with platform.database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM document_text").fetchone() == (1,)


@pytest.mark.parametrize("text", ["a.b", "1+1 (two)", "x*", "[y]", "C:\\dir", "a|b", "^$", "{3}"])
def test_literal_text_is_taken_literally(database: Database, text: str) -> None:
    with database.connect() as connection:
        matcher = Matcher(connection, literal_pattern(text), 10)
        assert matcher.fits([f"before {text} after", text.upper(), "aXb 11 two y dir 333"]) == [True, True, False]


# --- the register


def test_no_table_or_column_that_can_hold_words_is_unknown(database: Database) -> None:
    """Whoever adds a table or a column has to say in assets/governance/holdings.py what an erasure does with it."""
    with database.connect() as connection:
        columns = connection.execute(
            """SELECT c.table_name, c.column_name FROM information_schema.columns c
               JOIN information_schema.tables t USING (table_schema, table_name)
               WHERE c.table_schema = 'genaiops' AND t.table_type = 'BASE TABLE'
                 AND (c.data_type IN ('text', 'character varying', 'character', 'bytea', 'json', 'jsonb', 'xml', 'ARRAY', 'USER-DEFINED')
                      AND c.udt_name NOT IN ('vector', 'halfvec') OR c.data_type = 'tsvector')"""
        ).fetchall()
    known = {(table, column) for table, item in HOLDINGS.items() for column in (*item.words, *item.plain)}
    unknown = sorted(f"{table}.{column}" for table, column in columns if (table, column) not in known)
    assert not [name for name in unknown if not BUILD_TABLES.fullmatch(name.split(".")[0])]
    stale = sorted(f"{table}.{column}" for table, column in known - set(columns))
    assert not stale, "the register names what is not there"


def test_the_register_can_be_carried_out() -> None:
    for table, item in HOLDINGS.items():
        assert not item.words or item.key, table
        assert not set(item.words) & set(item.plain), table


# --- answers in flight


def in_flight(corpus: SeededCorpus, document: int) -> tuple[Any, Any]:
    from resources.answerer import Answer, Citation, Variant
    from resources.models import Usage
    from resources.prompt_config import PromptConfig
    from resources.vector_index import SearchHit

    prompt = PromptConfig(name="plain", system="s", user="{{ question }} {{ passages }}")
    variant = Variant("main/plain/hybrid/k1/extractive", "main", "i", prompt, "hybrid", 1, "extractive", "m")
    found = SearchHit(
        rank=1, score=0.25, document_id=document, version_id=1, source="docs", path="staff.md", title="Staff", ordinal=0,
        start=0, end=9, text=SECRET, heading_path=("Staff",), vector_rank=1, text_rank=None,
    )  # fmt: skip
    answer = Answer(
        text=f"By {NAME}. [1]", refused=False, citations=(Citation(1, document, 1, "docs", "staff.md", 0, 9),),
        hits=(found,), messages=[], usage=Usage(), retrieval_latency=0.1, generation_latency=0.1, snapshot=1,
        generation="g-late",
    )  # fmt: skip
    return answer, variant


def test_an_answer_that_comes_after_the_erasure_says_nothing_of_it(corpus: SeededCorpus) -> None:
    answer, variant = in_flight(corpus, 1)
    forget(corpus.platform, document="docs/staff.md", by="ops")
    log_interaction(corpus.platform.database, answer, variant, "Who programs the engine?", "baseline")
    with corpus.platform.database.connect() as connection:
        row = connection.execute(
            "SELECT answer, citations, retrieved, generation FROM interaction WHERE question LIKE 'Who programs%'"
        ).fetchone()
    assert row == ("(erased on request)", [], [], "")


def test_an_answer_logged_while_the_erasure_runs_waits_for_it(
    corpus: SeededCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race itself: the erasure has looked for interactions, and commits after the answer tried to be logged."""
    answer, variant = in_flight(corpus, 1)
    logged = threading.Event()
    from assets.governance import erasure

    def log() -> None:
        log_interaction(corpus.platform.database, answer, variant, "Who programs the engine?", "baseline")
        logged.set()

    thread = threading.Thread(target=log)
    clean = erasure._clean_files

    def while_files_are_cleaned(*arguments: Any) -> Any:
        thread.start()
        assert not logged.wait(1), "it waits: the erasure holds the document"
        return clean(*arguments)

    monkeypatch.setattr(erasure, "_clean_files", while_files_are_cleaned)
    forget(corpus.platform, document="docs/staff.md", by="ops")
    thread.join(10)
    assert logged.is_set()
    assert "interaction.answer" not in find_traces(corpus.platform, NAME)


def test_a_model_call_that_quotes_an_erased_document_is_not_remembered(corpus: SeededCorpus) -> None:
    from resources.generation_memo import GenerationMemo

    chat = corpus.platform.models.chat("extractive")
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": SECRET}]
    forget(corpus.platform, document="docs/staff.md", by="ops")
    memo = GenerationMemo(corpus.platform.database)
    key, _ = memo.complete(chat, messages, "run", documents={1})
    with corpus.platform.database.connect() as connection:
        assert connection.execute("SELECT 1 FROM generation WHERE fingerprint = %s", (key,)).fetchone() is None
    key, _ = memo.complete(chat, messages, "run", documents={3})
    with corpus.platform.database.connect() as connection:
        assert connection.execute("SELECT 1 FROM generation WHERE fingerprint = %s", (key,)).fetchone() == (1,)


# --- sources, state and space


def test_what_a_kind_keeps_between_refreshes_goes_with_its_documents(corpus: SeededCorpus) -> None:
    state = corpus.platform.config.data_dir.parent / ".genaiops" / "sources"
    for name in ("docs", "wiki"):
        (state / name).mkdir(parents=True)
        (state / name / "clone").write_text(SECRET)
    erasure = forget(corpus.platform, document="docs/staff.md", by="ops")
    assert erasure.proof["file:sources/docs"] == 1
    assert [path.name for path in state.iterdir()] == ["wiki"]


def test_a_document_of_a_shard_is_forgotten_by_the_name_of_its_source(platform: Platform) -> None:
    corpus = SeededCorpus(platform)
    corpus.document("docs.1", "a.md", SECRET)
    corpus.document("docs.0", "b.md", OTHER)
    assert forget(platform, document="docs/a.md", by="ops").documents == 1
    assert forget(platform, source="docs", by="ops").documents == 1
    with platform.database.connect() as connection:
        from assets.corpus.quarantine import read_state

        assert read_state(connection, "docs.7").forgotten_paths == {"a.md", "b.md"}
        assert read_state(connection, "docs2").forgotten_paths == set()


def test_deleted_rows_are_vacuumed_away(corpus: SeededCorpus) -> None:
    def vacuumed() -> int:
        with corpus.platform.database.dedicated() as connection:
            connection.execute("SELECT pg_stat_force_next_flush(), pg_stat_clear_snapshot()")
            row = connection.execute(
                "SELECT min(vacuum_count) FROM pg_stat_user_tables WHERE relname IN ('document_text', 'chunks_1')"
            ).fetchone()
        assert row is not None
        return row[0]

    forget(corpus.platform, document="docs/staff.md", by="ops", vacuum=False)
    assert vacuumed() == 0
    forget(corpus.platform, document="docs/staff.md", by="ops")
    assert vacuumed() == 1, "also by a call that finds nothing left: the one before may have been killed"
    assert forget(corpus.platform, document="docs/bikes.md", by="ops").not_vacuumed == ()
    assert vacuumed() == 2


def test_an_alert_that_names_the_path_forgets_it_and_does_not_learn_it_again(
    corpus: SeededCorpus, tmp_path: Path
) -> None:
    from pipelines.alerts import Failure, Gathered, synchronise

    platform = corpus.platform
    insert(
        platform, "INSERT INTO alert (alert_key, state, title, body) VALUES ('d', 'failing', 't', 'twice: staff.md')"
    )
    assert forget(platform, document="docs/staff.md", by="ops").proof["alert"] == 1
    gathered = Gathered()
    gathered.add(Failure("d", "Check", "twice: staff.md, x.md"))
    gathered.add(Failure("e", "Check", "nothing special"))
    synchronise(platform, gathered, time.time())
    with platform.database.connect() as connection:
        rows = dict(connection.execute("SELECT alert_key, body FROM alert WHERE alert_key IN ('d', 'e')").fetchall())
    assert rows["d"] == "(erased on request)"
    assert rows["e"].startswith("nothing special")
