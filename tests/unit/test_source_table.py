"""The kind ``table``: rows as documents, bad rows, ids as paths, files that change while they are read, and memory."""

import csv
import json
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from resources.errors import ConfigError, TransientError
from resources.platform import Platform
from resources.sources.base import (
    DocumentRefusedError,
    DocumentTooLargeError,
    DocumentVanishedError,
    Listing,
    SourceContext,
    safe_path,
)
from resources.sources.rows import quote_id
from resources.sources.table import TableFiles, TableSource
from tests.corpus_support import quarantined, refresh

COLUMNS = {"id": "id", "text": "text"}


def table(tmp_path: Path, path: str, columns: dict[str, Any] | None = None, **settings: Any) -> TableFiles:
    read = TableSource.model_validate({"name": "docs", "path": path, "columns": columns or COLUMNS, **settings})
    return TableFiles(SourceContext(tmp_path, tmp_path / "state"), read)


def jsonl(file: Path, *rows: Any) -> None:
    file.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))


def contents(listing: Listing) -> dict[str, bytes]:
    return {entry.path: entry.fetch() for entry in listing.entries}


def refusals(listing: Listing) -> dict[str, str]:
    return {item.path: item.reason for item in listing.refused}


# --- formats


def test_rows_of_jsonl_are_found_again_by_their_place(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", {"id": "b", "text": "# Ü"}, "", {"id": 7, "text": "seven\nlines"}, "  ")
    listing = table(tmp_path, "a.jsonl").list()
    assert contents(listing) == {"b.md": "# Ü".encode(), "7.md": b"seven\nlines"}
    assert [dict(entry.provenance) for entry in listing.entries] == [
        {"kind": "table", "file": "a.jsonl", "line": 1},
        {"kind": "table", "file": "a.jsonl", "line": 3},
    ]


def test_rows_of_csv_may_span_lines_and_hold_quotes(tmp_path: Path) -> None:
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8-sig") as handle:
        csv.writer(handle).writerows([("id", " text "), ("x", 'two\nlines, "quoted"'), ("y", "ü\r\nend"), ("z", "")])
    listing = table(tmp_path, "a.csv").list()
    assert contents(listing) == {"x.md": b'two\nlines, "quoted"', "y.md": "ü\r\nend".encode(), "z.md": b""}
    assert [entry.provenance["line"] for entry in listing.entries] == [2, 4, 6]


def test_tsv_delimiters_and_encodings(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("id\ttext\n1\tone, two\n")
    (tmp_path / "b.csv").write_bytes("id;text\n2;Größe\n".encode("cp1252"))
    assert contents(table(tmp_path, "a.tsv").list()) == {"1.md": b"one, two"}
    listing = table(tmp_path, "b.csv", delimiter=";", encoding="cp1252").list()
    assert contents(listing) == {"2.md": "Größe".encode()}


def test_rows_of_parquet_are_read_in_small_batches(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = {"id": [*range(1000)], "text": [f"text {number}" for number in range(1000)], "wide": ["x"] * 1000}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet", row_group_size=300)
    listing = table(tmp_path, "*.parquet").list()
    assert len(listing.entries) == 1000
    for number in (0, 1, 299, 300, 999, 5):  # forward, across groups, and back
        assert listing.entries[number].fetch() == f"text {number}".encode()
    assert listing.entries[300].provenance == {"kind": "table", "file": "a.parquet", "row": 301}


def test_several_files_are_one_source(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    jsonl(tmp_path / "deep" / "a.jsonl", {"id": 1, "text": "one"})
    (tmp_path / "b.csv").write_text("id,text\n2,two\n")
    listing = table(tmp_path, "**/*.[cj]s*").list()
    assert contents(listing) == {"2.md": b"two", "1.md": b"one"}
    assert {entry.provenance["file"] for entry in listing.entries} == {"b.csv", "deep/a.jsonl"}


# --- what a row becomes


def test_facts_stand_before_the_text_and_reach_the_document(
    tmp_path: Path, make_platform: Callable[..., Platform]
) -> None:
    row = {
        "sku": "A/1", "body": "Weighs nothing.", "name": "Feather: light", "lang": "en", "lic": "MIT",
        "at": "2024-05-06T07:08:09+00:00", "team": "birds", "tags": ["a", "b"], "price": 1.5, "none": None,
    }  # fmt: skip
    jsonl(tmp_path / "a.jsonl", row)
    columns = {
        "id": "sku", "text": "body", "title": "name", "language": "lang", "licence": "lic", "modified": "at",
        "metadata": ["team", "tags", "price", "none"],
    }  # fmt: skip
    source = {"name": "docs", "kind": "table", "path": str(tmp_path / "a.jsonl"), "columns": columns}
    platform = make_platform(**{"sources.yaml": {"sources": [source]}})
    refresh(platform)
    with platform.database.connect() as connection:
        found = connection.execute(
            """SELECT path, title, language, licence, origin_time, text, metadata -> 'front_matter'
               FROM document_version JOIN document_text USING (text_hash)"""
        ).fetchall()
    assert found[0][:5] == ("A%2F1.md", "Feather: light", "en", "MIT", datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC))
    assert found[0][5].strip() == "Weighs nothing."
    facts = found[0][6]
    assert (facts["team"], facts["tags"], facts["price"], "none" in facts) == ("birds", ["a", "b"], 1.5, False)


def test_a_template_makes_the_text(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", {"id": 1, "q": "Why <b>?", "a": "Because {{ 7*7 }}", "x": None})
    template = "# {{ q }}\n\n{{ a }}{{ x }}\n"
    assert contents(table(tmp_path, "a.jsonl", {"id": "id"}, template=template).list()) == {
        "1.md": b"# Why <b>?\n\nBecause {{ 7*7 }}\n"
    }
    every = "{% for name, value in row.items() %}{{ name }}={{ value }};{% endfor %}"
    assert contents(table(tmp_path, "a.jsonl", {"id": "id"}, template=every).list())["1.md"].startswith(b"id=1;q=Why")


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ row.update({'a': 1}) }}",
        "{{ missing }}",
        "{{ a / 0 }}",
        "{% for i in range(10**9) %}{% endfor %}",
    ],
)
def test_a_template_that_fails_refuses_the_row_without_showing_it(tmp_path: Path, template: str) -> None:
    jsonl(tmp_path / "a.jsonl", {"id": 1, "a": 5, "s": "hunter2", "missing_": 1})
    entry = table(tmp_path, "a.jsonl", {"id": "id"}, template="{{ s }}" + template).list().entries[0]
    with pytest.raises(DocumentRefusedError, match="template: ") as caught:
        entry.fetch()
    assert caught.value.code == "bad_row"
    assert "hunter2" not in str(caught.value)


def test_the_limit_counts_the_document_not_the_row(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", {"id": 1, "n": 500})
    entry = table(tmp_path, "a.jsonl", {"id": "id"}, template="{{ 'x' * n }}").list().entries[0]
    assert len(entry.fetch(500)) == 500
    with pytest.raises(DocumentTooLargeError):
        entry.fetch(499)


# --- identity


def test_identity_follows_everything_that_makes_the_document(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text,more\n1,one,x\n")

    def identity(**settings: Any) -> str | None:
        return table(tmp_path, "a.csv", **settings).list().entries[0].identity

    seen = [
        identity(),
        identity(columns={"id": "id", "text": "more"}),
        identity(columns={"id": "id"}, template="{{ text }}"),
    ]
    assert identity() == seen[0]
    (tmp_path / "a.csv").write_text("\nid,text,more\n\n1,one,x\n")
    (tmp_path / "a.csv").write_text("id,more,text\n1,one,x\n")  # the same bytes under another header
    seen.append(identity())
    assert len(set(seen)) == 4


def test_rows_that_only_moved_keep_their_identity(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", {"id": 1, "text": "one"}, {"id": 2, "text": "two"})
    before = {entry.path: entry.identity for entry in table(tmp_path, "a.jsonl").list().entries}
    jsonl(tmp_path / "a.jsonl", {"id": 3, "text": "three"}, {"id": 2, "text": "two"}, {"id": 1, "text": "one"})
    after = {entry.path: entry.identity for entry in table(tmp_path, "a.jsonl").list().entries}
    assert after.items() >= before.items()


def test_a_parquet_row_has_the_identity_of_its_values(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def identity(**columns: Any) -> str | None:
        pq.write_table(pa.table({"id": [1], "text": ["a"], **columns}), tmp_path / "a.parquet")
        return table(tmp_path, "a.parquet").list().entries[0].identity

    assert identity() == identity(unused=[2]) != identity(text=["b"])


# --- bad rows


def test_bad_rows_are_refused_by_file_and_line_and_the_others_enter(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(
        b'{"id": 1, "text": "one"}\n{"id": 2, "text": "hunter2\n[1]\n{"text": "x"}\n{"id": "", "text": "x"}\n'
        b'{"id": 3}\n{"id": 4, "text": 5}\n{"id": true, "text": "x"}\n{"id": 1.5, "text": "x"}\n\xff\xfe\n'
        b'{"id": {"a": 1}, "text": "x"}\n' + b"[" * 5000 + b'\n{"id": 9, "text": "nine"}'
    )
    listing = table(tmp_path, "a.jsonl").list()
    assert contents(listing) == {"1.md": b"one", "9.md": b"nine"}
    found = refusals(listing)
    assert [*found] == sorted(f"a.jsonl:{line}" for line in range(2, 13))
    assert "line 2: not JSON at column" in found["a.jsonl:2"]
    assert "line 3: not a JSON object" in found["a.jsonl:3"]
    assert "'id', which names the row, is empty" in found["a.jsonl:4"]
    assert "'text' is missing or null" in found["a.jsonl:6"]
    assert "'text' is no text but int" in found["a.jsonl:7"]
    assert "is a bool" in found["a.jsonl:8"]
    assert "not utf-8" in found["a.jsonl:10"]
    assert "hunter2" not in str(found)


def test_rows_of_the_same_id_are_both_refused_and_both_named(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", {"id": 1, "text": "one"}, {"id": 2, "text": "two"}, {"id": "1", "text": "uno"})
    jsonl(tmp_path / "b.jsonl", {"id": 1, "text": "eins"})
    listing = table(tmp_path, "*.jsonl").list()
    assert contents(listing) == {"2.md": b"two"}
    assert refusals(listing) == {
        "1.md": "a.jsonl line 1 and a.jsonl line 3 and b.jsonl line 1 have the same id; nobody can say which one counts"
    }


def test_a_row_with_other_cells_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,one\n2\n3,three,drei\n4,four\n")
    listing = table(tmp_path, "a.csv").list()
    assert [*contents(listing)] == ["1.md", "4.md"]
    assert refusals(listing) == {
        "a.csv:3": "line 3: 1 cells in place of 2", "a.csv:4": "line 4: 3 cells in place of 2"
    }  # fmt: skip


@pytest.mark.parametrize(
    "rows",
    ['1,"one\n2,two\n3,three\n', '1,"one\n2,"two"\n3,three\n', '1,"one\n2,two\n3,"three\n'],
)
def test_a_quote_that_is_not_closed_swallows_no_rows(tmp_path: Path, rows: str) -> None:
    """The rows it swallows would look deleted."""
    (tmp_path / "a.csv").write_text(f"id,text\n0,zero\n{rows}")
    with pytest.raises(ConfigError, match=r"a\.csv cannot be read from line 3 on"):
        table(tmp_path, "a.csv").list()


def test_a_row_of_endless_length_is_never_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resources.sources.table.MAXIMUM_ROW_BYTES", 1000)
    jsonl(tmp_path / "a.jsonl", {"id": 1, "text": "x" * 5000}, {"id": 2, "text": "two"})
    listing = table(tmp_path, "a.jsonl").list()
    assert (contents(listing), refusals(listing)) == (
        {"2.md": b"two"}, {"a.jsonl:1": "line 1: longer than 1,000 bytes"}
    )  # fmt: skip
    (tmp_path / "a.csv").write_text('id,text\n1,"' + "x\n" * 1000 + '"\n')
    with pytest.raises(ConfigError, match="longer than 1,000 bytes"):
        table(tmp_path, "a.csv").list()


def test_bad_rows_are_shown_in_quarantine(tmp_path: Path, make_platform: Callable[..., Platform]) -> None:
    jsonl(tmp_path / "a.jsonl", {"id": 1, "text": "one"}, "{", {"id": 2, "text": "{{"})
    source = {"name": "docs", "kind": "table", "path": str(tmp_path / "a.jsonl"), "columns": COLUMNS}
    platform = make_platform(**{"sources.yaml": {"sources": [source]}})
    refresh(platform)
    assert quarantined(platform) == {"a.jsonl:2": "bad_row"}


def test_when_nearly_every_row_is_bad_the_configuration_is(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", *({"key": number, "text": "x"} for number in range(1500)))
    with pytest.raises(ConfigError, match="1,001 rows cannot become documents and 0 can"):
        table(tmp_path, "a.jsonl").list()


# --- places


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("none.jsonl", None, "there is no file"),
        ("*.jsonl", None, "there is no file"),
        ("a.xlsx", b"x", "none of the endings .jsonl, .ndjson, .csv"),
        ("a.csv", b"", "it has no header"),
        ("a.csv", b"id,tekst\n1,x\n", "a.csv has no column 'text'; it has: id, tekst. Did you mean 'tekst'?"),
        ("a.csv", b"id,id,text\n", "two columns have the same name"),
        ("a.csv", b"id,text\n1,\xff\n", "it is not utf-8"),
        ("a.parquet", b"no parquet", "is not a Parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error_and_never_empty(
    tmp_path: Path, path: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / path).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        table(tmp_path, path).list()
    assert message in str(caught.value)


def test_a_file_that_is_being_written_is_read_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.jsonl"
    jsonl(file, {"id": 1, "text": "one"})
    source = table(tmp_path, "a.jsonl")
    read = source._json

    def read_and_write(raw: bytes) -> Any:
        with file.open("a") as handle:
            handle.write('{"id": 2, "te')
        return read(raw)

    monkeypatch.setattr(source, "_json", read_and_write)
    with pytest.raises(TransientError, match="changed while it was read"):
        source.list()


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_a_row_that_changed_since_it_was_listed_is_not_taken_for_it(tmp_path: Path, name: str) -> None:
    from tests.source_worlds import RowWorld

    world = RowWorld(tmp_path / name)
    world.apply({"a": "one", "b": "two"})
    entries = table(tmp_path, name).list().entries
    world.apply({"a": "uno", "b": "two"})
    with pytest.raises(TransientError, match="changed while it was read"):
        entries[0].fetch()
    if name != "a.parquet":  # which is still open
        world.file.unlink()
        with pytest.raises(DocumentVanishedError):
            entries[1].fetch()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"columns": {"id": "id"}}, "say either columns.text or template"),
        ({"columns": COLUMNS, "template": "x"}, "say either columns.text or template"),
        ({"columns": {"id": "id"}, "template": "{{ a "}, "template: line 1"),
        ({"columns": {**COLUMNS, "title": "t"}, "extension": ".txt"}, "columns.title needs extension .md"),
        ({"columns": {"id": [], "text": "t"}}, "name at least one column"),
        ({"columns": COLUMNS, "encoding": "utf-16"}, "not an encoding in which lines can be told apart"),
        ({"columns": COLUMNS, "encoding": "klingon"}, "'klingon' is not an encoding"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TableSource.model_validate({"name": "docs", "path": "a.csv", **settings})


# --- ids


@given(st.lists(st.text(min_size=1), min_size=2, max_size=6, unique=True))
def test_ids_become_safe_paths_and_different_ids_different_ones(ids: list[str]) -> None:
    quoted = [quote_id(value) for value in ids]
    assert len(set(quoted)) == len(ids)
    for value in quoted:
        path, reason = safe_path(f"{value}.md")
        assert (reason, path) == (None, f"{value}.md")
        assert "/" not in value
        assert not value.startswith(".")
        assert len(value.encode()) <= 200


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("A-1_b.c~", "A-1_b.c~"),
        ("..", "%2E."),
        ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd"),
        (".hidden", "%2Ehidden"),
        ("a b", "a%20b"),
        ("größe", "größe"),
        ("a\x00b", "a%00b"),
        ("100%", "100%25"),
    ],
)
def test_an_id_as_a_path(value: str, quoted: str) -> None:
    assert quote_id(value) == quoted


def test_an_id_of_several_columns_is_a_folder_and_a_name(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", {"region": "eu/w", "no": 1, "text": "x"})
    listing = table(tmp_path, "a.jsonl", {"id": ["region", "no"], "text": "text"}).list()
    assert [entry.path for entry in listing.entries] == ["eu%2Fw/1.md"]


# --- memory


@pytest.mark.slow
def test_a_listing_of_many_rows_needs_little_memory(tmp_path: Path) -> None:
    """100,000 rows of 2 kB: the listing stays below 400 bytes a row, and never holds their texts."""
    with (tmp_path / "a.jsonl").open("w") as handle:
        for number in range(100_000):
            handle.write(json.dumps({"id": f"document-{number}", "text": f"{number} " + "x" * 2000}) + "\n")
    source = table(tmp_path, "a.jsonl")
    tracemalloc.start()
    listing = source.list()
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(listing.entries) == 100_000
    assert held < 25_000_000
    assert peak < 40_000_000
    assert listing.entries[99_999].fetch().startswith(b"99999 x")
