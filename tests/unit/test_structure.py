"""Blocks of a text: tables, lists, sections, code; and the cuts inside of code."""

from pathlib import Path

import pytest

from assets.chunks.code_structure import looks_like_code
from assets.chunks.structure import BLOCK, ITEM, Structure, analyse
from assets.corpus.headings import scan
from assets.corpus.text import normalise

PYTHON = '''import os


CONSTANT = 1


@decorator
class Store(Base):
    """Keeps things."""

    def get(self, key):
        if key:
            return self.values[key]

    # a comment that belongs to put
    def put(self, key, value):
        text = """
def not_a_definition():
"""
        self.values[key] = value


def main():
    Store().get("a")
'''
RUST = """use std::fs;

/// Reads it.
#[derive(Debug)]
pub struct Reader<'a> {
    path: &'a str,
}

impl<'a> Reader<'a> {
    pub fn new(path: &'a str) -> Self {
        Self { path }
    }

    fn read(&self) -> String {
        fs::read_to_string(self.path).unwrap()
    }
}

fn main() {
    println!("{}", Reader::new("a").read());
}
"""
JAVASCRIPT = """import fs from "fs";

export class Store {
  constructor(path) {
    this.path = path;
  }

  read() {
    if (this.path) {
      return fs.readFileSync(this.path);
    }
  }
}

export const load = async (path) => {
  return new Store(path).read();
};

function main() {
  load("a");
}
"""


def _structure(text: str) -> Structure:
    return analyse(text, scan(text))


def _lines(text: str, positions: list[int]) -> list[str]:
    return [text[position:].split("\n", 1)[0] for position in sorted(positions)]


def test_blocks_and_items() -> None:
    text = "Intro.\n\nA list:\n\n- one\n- two\n  - deeper\n\nAfter.\n\n```\ncode\n```\n\nEnd."
    found = _structure(text)
    assert _lines(text, found.cuts[BLOCK]) == ["A list:", "After.", "```", "End."]
    assert _lines(text, found.cuts[ITEM]) == ["- one", "- two"]  # the colon keeps the list with its introduction
    assert [text[start:end] for start, end in found.code] == ["code\n"]


def test_sections_by_level_and_headings_stay_with_what_follows() -> None:
    text = "# A\n\n## B\n\nwords\n\n### C\n\nwords\n\n## D\n\nwords\n\n# E\n\nwords"
    found = _structure(text)
    assert [_lines(text, found.cuts[level]) for level in (0, 1, 2)] == [["# E"], ["## D"], ["### C"]]
    assert found.cuts[BLOCK] == []


def test_setext_and_rst_headings() -> None:
    text = "Title\n=====\n\nwords\n\nSub\n---\n\nwords"
    assert _lines(text, _structure(text).cuts[1]) == ["Sub"]


def test_pipe_table_has_its_header() -> None:
    text = "Before\n\n| **Name** | [Age](x) |\n|---|---:|\n| a | 1 |\n| b | 2 |\n| c | 3 |\n\nAfter"
    found = _structure(text)
    (table,) = found.tables
    assert table.header == "Name | Age"
    assert text[table.body :].startswith("| b")
    assert text[table.start : table.end].strip().endswith("| c | 3 |")
    assert _lines(text, found.cuts[ITEM]) == ["| b | 2 |", "| c | 3 |"]
    assert found.header_at(table.body) == ("Name | Age",)
    assert found.header_at(table.start) == found.header_at(table.end) == ()


def test_grid_table_of_rst() -> None:
    text = "+----+----+\n| A  | B  |\n+====+====+\n| 1  | 2  |\n+----+----+\n| 3  | 4  |\n+----+----+\n\nAfter"
    (table,) = _structure(text).tables
    assert table.header == "A | B"
    assert text[table.body :].startswith("+----+----+\n| 3")


def test_header_of_a_wide_table_is_cut_at_a_cell() -> None:
    cells = " | ".join(f"column {number}" for number in range(100))
    text = f"| {cells} |\n" + "|---" * 100 + "|\n| 1 |\n| 2 |\n"
    header = _structure(text).tables[0].header
    assert len(header) <= 300
    assert header.startswith("column 0 | column 1 | ")
    assert header.split(" | ")[-1].startswith("column ")


def test_table_without_a_delimiter_row_has_no_header() -> None:
    found = _structure("| a | 1 |\n| b | 2 |\n| c | 3 |")
    assert [table.header for table in found.tables] == [""]


@pytest.mark.parametrize(
    ("text", "names", "outermost"),
    [
        (
            PYTHON,
            ["class Store", "def get", "def put", "def main"],
            ["@decorator", "def main():"],
        ),
        (
            RUST,
            ["pub struct Reader<'a>", "impl<'a> Reader<'a>", "pub fn new", "fn read", "fn main"],
            ["/// Reads it.", "impl<'a> Reader<'a> {", "fn main() {"],
        ),
        (
            JAVASCRIPT,
            ["export class Store", "constructor", "read", "export const load", "function main"],
            ["export class Store {", "export const load = async (path) => {", "function main() {"],
        ),
    ],
    ids=["python", "rust", "javascript"],
)
def test_definitions_of_code(text: str, names: list[str], outermost: list[str]) -> None:
    found = analyse(text, scan(""), "whole")
    assert [heading.text for heading in found.definitions] == names
    assert _lines(text, found.cuts[ITEM]) == outermost


def test_comments_and_decorators_stay_with_their_definition() -> None:
    found = analyse(PYTHON, scan(""), "whole")
    assert _lines(PYTHON, found.cuts[ITEM + 2]) == ["    def get(self, key):", "    # a comment that belongs to put"]


def test_the_first_function_stays_with_a_class_that_says_nothing_else() -> None:
    text = "class A:\n    def one(self):\n        pass\n\n    def two(self):\n        pass\n"
    assert _lines(text, analyse(text, scan(""), "whole").cuts[ITEM + 2]) == ["    def two(self):"]


@pytest.mark.parametrize("text", [PYTHON, RUST, JAVASCRIPT], ids=["python", "rust", "javascript"])
def test_code_is_recognised(text: str) -> None:
    assert looks_like_code(text)


@pytest.mark.slow
def test_real_code_and_real_prose_are_told_apart(shared_data: Path) -> None:
    code = sorted(Path("assets").rglob("*.py")) + sorted(Path("resources").glob("*.py"))
    wrong = [path.name for path in code if path.stat().st_size > 500 and not looks_like_code(path.read_text("utf-8"))]
    assert len(wrong) <= 0.05 * len(code), wrong
    prose = sorted((shared_data / "rust-book-history" / "base").rglob("*.md"))
    prose += sorted((shared_data / "peps-history" / "base").rglob("*.rst"))[::10]
    prose += sorted((shared_data / "chunking-eval" / "corpora").glob("*.md"))
    wrong = [path.name for path in prose if looks_like_code(normalise(path.read_text("utf-8")))]
    assert len(wrong) <= 1, wrong  # one PEP is nearly all TOML
