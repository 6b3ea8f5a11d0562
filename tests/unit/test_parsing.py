"""What is made of one document of each format."""

import email.message
import io
import zipfile
from datetime import UTC, datetime

import pytest

from assets.corpus.failures import ParseFailure
from assets.corpus.html import reduce_html
from assets.corpus.parsing import ParsedDocument, format_of, parse, parser_fingerprint, title_from_path
from resources.source_config import FolderSource

SOURCE = FolderSource(name="docs", path="docs")


def _parse(name: str, content: str | bytes, source: FolderSource = SOURCE) -> ParsedDocument:
    form = format_of(name)
    assert form is not None
    return parse(content if isinstance(content, bytes) else content.encode(), form, source)


def _failure(name: str, content: bytes) -> ParseFailure:
    with pytest.raises(ParseFailure) as raised:
        _parse(name, content)
    return raised.value


def test_markdown_text_is_kept_character_for_character() -> None:
    text = "# Title\n\n- a\n  - b **c**\n\n<div>html</div>\n\n```py\n# no heading\n```"
    document = _parse("a.md", text)
    assert document.text == text
    assert [heading.text for heading in document.headings] == ["Title"]


def test_heading_positions_point_into_the_text() -> None:
    document = _parse("a.md", "---\ntitle: X\n---\r\nintro\r\n\r\n## Größe\r\n")
    assert document.text[document.headings[0].start :] == "## Größe"


def test_front_matter_is_read_and_removed() -> None:
    document = _parse(
        "a.md",
        "---\ntitle: Warranty\nlang: de-AT\nlicense: CC-BY-4.0\nupdated: 2025-03-01\ntags: [a, b]\n---\n\n# Other\n",
    )
    assert document.text == "# Other"
    assert (document.title, document.language, document.licence) == ("Warranty", "de", "CC-BY-4.0")
    assert document.origin_time == datetime(2025, 3, 1, tzinfo=UTC)
    assert document.metadata["front_matter"]["tags"] == ["a", "b"]


@pytest.mark.parametrize("text", ["---\n: : :\n- x: [\n---\n# T", "---\njust words\n---\n# T", "---\nno end\n\n# T"])
def test_what_is_no_front_matter_stays_text(text: str) -> None:
    assert _parse("a.md", text).text == text


def test_title_comes_from_the_first_top_heading() -> None:
    assert _parse("a.md", "intro\n\n## Two\n\n# One\n").title == "One"


def test_document_without_a_title_has_none_and_gets_it_from_its_path() -> None:
    assert _parse("a.txt", "words only").title is None
    assert title_from_path("guides/first-ride_in_winter.md") == "first ride in winter"


def test_licence_is_stated_or_found_or_the_sources() -> None:
    source = FolderSource(name="docs", path="docs", licence="MIT")
    assert _parse("a.md", "<!-- SPDX-License-Identifier: MIT OR Apache-2.0 -->\n# A").licence == "MIT OR Apache-2.0"
    assert _parse("a.md", "# A", source).licence == "MIT"
    assert _parse("a.md", "---\nlicence: CC0-1.0\n---\n# A", source).licence == "CC0-1.0"
    assert _parse("a.md", "# A").licence is None


def test_configured_language_wins() -> None:
    source = FolderSource(name="docs", path="docs", language="nl")
    assert _parse("a.md", "---\nlang: de\n---\nText", source).language == "nl"


def test_rst_keeps_its_text_and_reads_its_header_block() -> None:
    text = "PEP: 8\nTitle: Style Guide\nCreated: 05-Jul-2001\n\n\nIntro\n=====\n\nText.\n\n.. code::\n\n   # comment\n"
    document = _parse("pep.rst", text)
    assert document.title == "Style Guide"
    assert document.origin_time == datetime(2001, 7, 5, tzinfo=UTC)
    assert [heading.text for heading in document.headings] == ["Intro"]
    assert document.text == text.rstrip("\n")


HTML = """<!DOCTYPE html><html lang="en-GB"><head><title>Riding &amp; more | Site</title>
<meta property="article:modified_time" content="2024-05-06T07:08:09Z"><link rel="license" href="https://x/by/4.0"></head>
<body><header><a>Logo</a></header><nav>Menu</nav>
<main><article><header><h1>Riding</h1></header><p>Keep <b>left</b>.</p><table><tr><th>a</th></tr><tr><td>1</td></tr></table>
<aside>Related</aside></article></main><footer>Imprint</footer><script>var x = 1</script></body></html>"""


def test_html_is_reduced_to_its_content_with_the_facts_of_its_head() -> None:
    document = _parse("a.html", HTML)
    assert document.text.startswith("# Riding\n\nKeep **left**.")
    assert "| 1" in document.text
    for boilerplate in ("Logo", "Menu", "Related", "Imprint", "var x", "Site", "title:"):
        assert boilerplate not in document.text
    assert (document.title, document.language, document.licence) == ("Riding", "en", "https://x/by/4.0")
    assert document.origin_time == datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


def test_html_title_serves_where_there_is_no_heading() -> None:
    assert _parse("a.html", "<html><head><title> A\n B </title></head><body><p>x</p></body></html>").title == "A B"


def test_html_in_a_declared_encoding_is_decoded() -> None:
    page = '<html><head><meta charset="iso-8859-2"></head><body><p>Zażółć gęślą jaźń</p></body></html>'
    assert _parse("a.html", page.encode("iso-8859-2")).text == "Zażółć gęślą jaźń"


def test_unclosed_navigation_does_not_take_the_page_with_it() -> None:
    assert "content" in reduce_html("<body><nav>menu<p>content</p></body>").body


def test_page_that_is_all_boilerplate_is_kept() -> None:
    page = reduce_html("<html><head><title>T</title></head><body><header><p>words</p></header></body></html>")
    assert "words" in page.body
    assert "<title>" not in page.body


def _docx(text: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(
            "[Content_Types].xml",
            '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
            '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            '<Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.'
            'wordprocessingml.document.main+xml"/></Types>',
        )
        archive.writestr(
            "_rels/.rels",
            '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
            '<Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/'
            'officeDocument" Target="word/document.xml"/></Relationships>',
        )
        archive.writestr(
            "word/document.xml",
            '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>'
            f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:body></w:document>",
        )
    return buffer.getvalue()


def test_word_files_are_read() -> None:
    assert _parse("a.docx", _docx("Words in a Word file")).text == "Words in a Word file"


def test_mail_is_read_with_subject_and_date() -> None:
    message = email.message.EmailMessage()
    message["Subject"], message["From"], message["Date"] = "Recall", "a@example.com", "Sun, 13 Aug 2023 14:59:56 -0700"
    message.set_content("Please check the bolts.")
    document = _parse("a.eml", bytes(message))
    assert "Please check the bolts." in document.text
    assert document.title == "Recall"
    assert document.origin_time == datetime(2023, 8, 13, 21, 59, 56, tzinfo=UTC)


def test_comment_lines_of_a_table_are_no_headings() -> None:
    document = _parse("a.csv", "name,size\n# one,1\n")
    assert "# one" in document.text.replace("\\", "")
    assert document.headings == ()


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.md", b"", "empty"),
        ("a.md", b" \n\t\n", "empty"),
        ("a.md", b"---\ntitle: only front matter\n---\n", "empty"),
        ("a.html", b"<html><body></body></html>", "empty"),
        ("a.md", b"\x00\x01\x02\x03" * 50, "encoding"),
        ("a.pdf", b"%PDF-1.7 broken", "damaged"),
        ("a.docx", b"PK\x03\x04 broken", "damaged"),
    ],
)
def test_failures_say_what_kind_they_are(name: str, content: bytes, code: str) -> None:
    assert _failure(name, content).code == code


def test_failure_does_not_quote_the_document() -> None:
    assert "secret" not in _failure("a.docx", b"PK secret secret secret").reason


def test_nul_bytes_are_removed_everywhere() -> None:
    document = _parse("a.md", b"---\ntitle: a\x00b\n---\n# c\x00d and more words\n")
    assert "\x00" not in repr(document).replace("\\x00", "\x00")
    assert document.text == "# cd and more words"


def test_formats_are_told_by_name() -> None:
    assert format_of("a/B.MD") == format_of("c.markdown")
    assert format_of("README") == format_of("a.txt")
    assert format_of("photo.png") is None


def test_fingerprint_changes_with_what_can_change_the_result_and_with_nothing_else() -> None:
    markdown, html = format_of("a.md"), format_of("a.html")
    assert markdown is not None
    assert html is not None
    base = parser_fingerprint(SOURCE, markdown)
    assert parser_fingerprint(SOURCE, html) != base
    assert parser_fingerprint(FolderSource(name="docs", path="docs", licence="MIT"), markdown) != base
    assert parser_fingerprint(FolderSource(name="other", path="x", owner="me"), markdown) == base
