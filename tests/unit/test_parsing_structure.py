"""Structure that survives parsing: headings, lists, code, tables, sheets, pages; and formats under the wrong name."""

import email.message
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from assets.corpus import parsing
from assets.corpus.extraction import plain_words
from assets.corpus.failures import ParseFailure
from assets.corpus.parsing import ParsedDocument, format_of, parse, parser_fingerprint
from assets.corpus.pdf import render_pages
from assets.corpus.recognisers import recogniser
from assets.corpus.tables import from_separated, to_markdown
from assets.corpus.text import detect_language, mend
from assets.corpus.workbook import display
from resources.errors import ConfigError
from resources.source_config import FolderSource
from tests.office_files import packed, paragraph, pdf, word, word_style, workbook

SOURCE = FolderSource(name="docs", path="docs")


def _parse(name: str, data: bytes | str, **settings: object) -> ParsedDocument:
    source = SOURCE.model_copy(update=settings)
    form = format_of(name, source)
    assert form is not None
    return parse(data if isinstance(data, bytes) else data.encode(), form, source)


def _failure(name: str, data: bytes, **settings: object) -> ParseFailure:
    with pytest.raises(ParseFailure) as raised:
        _parse(name, data, **settings)
    return raised.value


def _word(*paragraphs: str, styles: str = "", numbering: str = "", footnotes: str = "") -> str:
    return _parse("a.docx", word("".join(paragraphs), styles, numbering, footnotes)).text


# --- Word ---------------------------------------------------------------------------------------------------

STYLES = (
    word_style("H1", "heading 1", '<w:outlineLvl w:val="0"/>')
    + word_style("Mine", "Our section", based_on="H1")
    + word_style("HeadA", "HeadA")
    + word_style("ChapterTitle", "ChapterTitle")
    + word_style("Code", "Code")
    + word_style("Bullet", "List Bullet")
)


def test_headings_are_told_by_outline_level_inheritance_and_name() -> None:
    text = _word(
        paragraph("Chapter", "ChapterTitle"),
        paragraph("One", "H1"),
        paragraph("Two", "Mine"),
        paragraph("Three", "HeadA"),
        paragraph("Four", properties='<w:outlineLvl w:val="3"/>'),
        paragraph("words"),
        styles=STYLES,
    )
    assert text == "# Chapter\n\n# One\n\n# Two\n\n## Three\n\n#### Four\n\nwords"


def test_lines_of_code_are_one_block_with_their_indentation_and_no_headings() -> None:
    document = _parse(
        "a.docx",
        word(paragraph("# make", "Code") + paragraph("    x = 1", "Code") + paragraph("# text"), STYLES),
    )
    assert document.text == "```\n# make\n    x = 1\n```\n\n\\# text"
    assert document.headings == ()


def test_lists_keep_their_marks_and_levels() -> None:
    numbering = (
        '<w:abstractNum w:abstractNumId="0"><w:lvl w:ilvl="0"><w:numFmt w:val="decimal"/></w:lvl>'
        '<w:lvl w:ilvl="1"><w:numFmt w:val="bullet"/></w:lvl></w:abstractNum>'
        '<w:num w:numId="7"><w:abstractNumId w:val="0"/></w:num>'
    )

    def item(text: str, level: int) -> str:
        return paragraph(text, properties=f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="7"/></w:numPr>')

    text = _word(item("a", 0), item("b", 1), item("c", 0), paragraph("d", "Bullet"), styles=STYLES, numbering=numbering)
    assert text == "1. a\n  - b\n2. c\n- d"


def test_deleted_text_goes_and_inserted_text_stays() -> None:
    change = (
        "<w:p><w:r><w:t>kept </w:t></w:r><w:del><w:r><w:delText>deleted</w:delText></w:r></w:del>"
        "<w:ins><w:r><w:t>inserted</w:t></w:r></w:ins><w:moveFrom><w:r><w:t>moved</w:t></w:r></w:moveFrom></w:p>"
    )
    assert _word(change) == "kept inserted"


def test_notes_are_cited_and_follow_the_text() -> None:
    cited = '<w:p><w:r><w:t>Claim</w:t></w:r><w:r><w:footnoteReference w:id="2"/></w:r></w:p>'
    note = '<w:footnote w:id="2"><w:p><w:r><w:t>Evidence</w:t></w:r></w:p></w:footnote>'
    assert _word(cited, paragraph("End"), footnotes=note) == "Claim[^1]\n\nEnd\n\n[^1]: Evidence"


def _table(*rows: list[str]) -> str:
    cells = "".join("<w:tr>" + "".join(f"<w:tc>{cell}</w:tc>" for cell in row) + "</w:tr>" for row in rows)
    return f"<w:tbl>{cells}</w:tbl>"


def test_tables_stay_tables_and_merged_cells_are_not_doubled() -> None:
    merged = '<w:tcPr><w:gridSpan w:val="2"/></w:tcPr>' + paragraph("wide")
    begun = '<w:tcPr><w:vMerge w:val="restart"/></w:tcPr>' + paragraph("tall")
    more = "<w:tcPr><w:vMerge/></w:tcPr>" + paragraph("hidden")
    text = _word(_table([paragraph("a|b"), paragraph("c")], [merged], [begun, paragraph("x")], [more, paragraph("y")]))
    assert text == "| a\\|b | c |\n| --- | --- |\n| wide |  |\n| tall | x |\n|  | y |"


def test_a_table_of_one_column_is_a_frame() -> None:
    assert _word(_table([paragraph("Note")], [paragraph("words")])) == "Note\n\nwords"


def test_a_million_columns_claimed_are_not_made() -> None:
    wide = '<w:tcPr><w:gridSpan w:val="99999999"/></w:tcPr>' + paragraph("a")
    assert len(_word(_table([wide, paragraph("b")], [paragraph("c"), paragraph("d")]))) < 5_000


def test_a_word_file_of_pictures_is_no_empty_file() -> None:
    empty = word("<w:p/>")
    assert _failure("a.docx", empty).code == "empty"
    assert _failure("a.docx", word("<w:p/>", more={"word/media/image1.png": b"x"})).code == "no_text"


def test_xml_that_declares_entities_is_refused() -> None:
    bomb = '<!DOCTYPE d [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><d>&b;</d>'
    failure = _failure("a.docx", word("", more={"word/document.xml": bomb}))
    assert (failure.code, "entities" in failure.reason) == ("damaged", True)
    deep = word("<w:sdt>" * 5_000 + "</w:sdt>" * 5_000)
    assert "nested too deeply" in _failure("a.docx", deep).reason


# --- workbooks and separated values ---------------------------------------------------------------------------


def test_sheets_are_headed_tables_of_displayed_values() -> None:
    data = workbook(
        {
            "Prices": [["item", "price", "since"], ["bolt", (1234.5, 44), (45000, 14)]],
            "Secret": [["a", "b"], ["c", "d"]],
            "Empty": [],
        },
        {44: '_("$"* #,##0.00_);_("$"* \\(#,##0.00\\)'},
        hidden=("Secret",),
    )
    document = _parse("a.xlsx", data)
    assert document.text == (
        "## Prices\n\n| item | price | since |\n| --- | --- | --- |\n| bolt | $1,234.50 | 2023-03-15 |\n\n"
        "## Secret\n\n| a | b |\n| --- | --- |\n| c | d |"
    )
    assert [heading.text for heading in document.headings] == ["Prices", "Secret"]
    assert document.metadata["modality"] == "table"
    assert document.metadata["sheet_names"] == ["Prices", "Secret", "Empty"]
    assert document.metadata["hidden_sheets"] == ["Secret"]


@pytest.mark.parametrize(
    ("stored", "form", "shown"),
    [
        ("0.453", "0%", "45%"),
        ("0.4567", "0.0%", "45.7%"),
        ("1234567.891", "#,##0.00", "1,234,567.89"),
        ("-1234.5", '"$"#,##0_);[Red]\\("$"#,##0\\)', "($1,235)"),
        ("1500", '_("$"* #,##0_)', "$1,500"),
        ("12", "0000", "0012"),
        ("3.10", "0.0##", "3.1"),
        ("12345678", '0,," M"', "12 M"),
        ("99.5", '#,##0.00\\ "€"', "99.50 €"),
        ("5", "[$£-809]0.00", "£5.00"),
        ("41796", "m/d/yy", "2014-06-06"),
        ("41796.75", "yyyy\\-mm\\-dd hh:mm", "2014-06-06 18:00"),
        ("0.5", "h:mm AM/PM", "12:00"),
        ("1.5", "[h]:mm:ss", "36:00:00"),
        ("41796", "mmm-yy", "2014-06-06"),
        ("0.1", "General", "0.1"),
        ("0.30000000000000004", "General", "0.3"),
        ("11.666666666666666", "General", "11.66666667"),
        ("1E+20", "General", "1.00000E+20"),
        ("5551234", "000\\-0000", "5551234"),  # digits around a literal are not understood
        ("7", "[<10]0;[>=10]00", "7"),
        ("-0.001", "0.00", "0.00"),
        ("text", "0.00", "text"),
        ("nan", "0.00", "nan"),
        ("9e99", "yyyy-mm-dd", "9.00000E+99"),
        ("0", '0;-0;"none"', ""),
    ],
)
def test_numbers_are_shown_as_the_sheet_shows_them(stored: str, form: str, shown: str) -> None:
    found = display(stored, form)
    assert found == shown if shown else found in ("none", "0")


def test_dates_of_the_1904_calendar_begin_later() -> None:
    assert display("0", "yyyy-mm-dd", datetime(1904, 1, 1)) == "1904-01-01"


def test_separated_values_become_a_table_whatever_separates_them() -> None:
    for separator in ",;\t|":
        text = f"name{separator}note\nbolt{separator}\"a{separator} 'b'\nc\"\n"
        assert from_separated(text) == [["name", "note"], ["bolt", f"a{separator} 'b'\nc"]]
    document = _parse("a.csv", 'name,note\nbolt,"two\nlines | bar"\n')
    assert document.text == "| name | note |\n| --- | --- |\n| bolt | two lines \\| bar |"
    assert (document.metadata["modality"], document.headings) == ("table", ())


def test_ragged_and_empty_rows_make_an_even_table() -> None:
    assert to_markdown([["", "a"], [], ["", "b", "c"], ["", ""]]) == "| a |  |\n| --- | --- |\n| b | c |"
    assert to_markdown([["", ""]]) == ""


# --- pages ----------------------------------------------------------------------------------------------------


def test_pages_of_a_pdf_begin_where_their_text_begins() -> None:
    document = _parse("a.pdf", pdf(["First page words", "Second page", "Third page here"]))
    starts = document.metadata["pages"]
    assert [number for number, _ in starts] == [1, 2, 3]
    ends = [start for _, start in starts[1:]] + [len(document.text)]
    pages = [document.text[start:end].strip().lstrip("# ") for (_, start), end in zip(starts, ends, strict=True)]
    assert pages == ["First page words", "Second page", "Third page here"]
    assert document.metadata["modality"] == "text"


def test_a_page_without_text_begins_where_the_next_does() -> None:
    document = _parse("a.pdf", pdf(["One", None, "Three"]))
    (_, first), (_, second), (_, third) = document.metadata["pages"]
    assert (first, second) == (0, third)


def test_positions_hold_in_the_normal_form() -> None:
    raw = parsing._Raw(pages=[(1, "\r\nA\u0308 b  \n\n"), (2, "  "), (3, "\x00c"), (4, "")])
    form = format_of("a.pdf")
    assert form is not None
    text, pages = parsing._assemble(raw, form)
    assert (text, pages) == ("Ä b\n\nc", [[1, 0], [2, 5], [3, 5], [4, 6]])
    assert parsing.normalise(text) == text


def test_a_pdf_without_text_is_a_scan_or_is_empty() -> None:
    scan, empty = _failure("a.pdf", pdf([None, None])), _failure("a.pdf", pdf([""]))
    assert (scan.code, scan.reason) == ("no_text", "2 pages without text, as in a scan; recognise its text first")
    assert empty.code == "empty"


def test_what_looks_like_a_heading_by_its_font_has_to_read_like_one() -> None:
    def block(kind: str, text: str, page: int = 1) -> dict[str, object]:
        return {"content": {"node_type": kind, "text": text, "level": 2}, "page": page}

    nodes = [
        block("heading", "1 Introduction"),
        block("heading", "and so this is where it"),
        block("heading", "=+-"),
        block("paragraph", "long hy\x02\r\nphenated state-\nof-the-art\nline", 2),
        block("list_item", "• item", 2),
        block("list_item", "• other", 2),
        block("code", "x = 1\n  y", 3),
        block("paragraph", "# no heading", 3),
    ]
    assert render_pages(nodes, 4) == [
        (1, "## 1 Introduction\n\nand so this is where it\n\n=+-"),
        (2, "long hyphenated state-of-the-art line\n\n- item\n- other"),
        (3, "```\nx = 1\n  y\n```\n\n\\# no heading"),
        (4, ""),
    ]


def test_headings_that_are_half_of_the_words_are_layout() -> None:
    def block(kind: str, words: int) -> dict[str, object]:
        return {"content": {"node_type": kind, "text": "Word " * words, "level": 1}, "page": 1}

    assert render_pages([block("heading", 5), block("paragraph", 100)], 1)[0][1].startswith("# Word")
    assert "#" not in render_pages([block("heading", 10), block("paragraph", 10)] * 10, 1)[0][1]


def test_slides_are_pages(shared_data: Path) -> None:
    path = shared_data / "parser-files" / "files" / "markitdown" / "test.pptx"
    document = _parse("a.pptx", path.read_bytes())
    starts = dict(document.metadata["pages"])
    assert sorted(starts) == [1, 2, 3, 4, 5, 6]
    assert document.text[starts[3] :].startswith("## A table to test parsing:\n\n| ColA | ColB |")
    assert "media/" not in document.text


@pytest.mark.slow
def test_pages_hold_what_another_library_finds_on_them(shared_data: Path) -> None:
    import logging
    import re

    pypdf = pytest.importorskip("pypdf")
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    words = re.compile(r"\w+")
    right = compared = 0
    overlaps = []
    for path in sorted((shared_data / "parser-files" / "files").rglob("*.pdf")):
        try:
            document = _parse(path.name, path.read_bytes(), language="und")
            reader = pypdf.PdfReader(path)
            assert len(document.metadata["pages"]) == len(reader.pages), path.name
            # the first of a long document: it takes pypdf half a minute
            theirs = [Counter(words.findall(page.extract_text().lower())) for page in reader.pages[:30]]
        except (ParseFailure, pypdf.errors.PyPdfError):
            continue  # damaged files are another test's business
        starts = [start for _, start in document.metadata["pages"]]
        assert starts == sorted(starts)
        ends = [*starts[1:], len(document.text)]
        ours = [
            Counter(words.findall(document.text[start:end].lower())) for start, end in zip(starts, ends, strict=True)
        ]
        for number, page in enumerate(theirs):
            # two halves of one spread: pypdf finds the words of both on each, whatever of them can be seen
            if page.total() < 30 or (theirs.count(page) > 1 and path.name == "reliance.pdf"):
                continue
            shares = [(mine & page).total() / max(mine.total(), page.total()) for mine in ours]
            compared += 1
            right += shares[number] == max(shares)
            overlaps.append(shares[number])
    assert compared > 90
    assert right == compared
    assert sum(overlaps) / compared > 0.9


# --- mail, web pages, wrong names -------------------------------------------------------------------------------


def test_mail_keeps_its_lines_and_what_is_attached() -> None:
    message = email.message.EmailMessage()
    message["Subject"], message["From"], message["To"] = "Recall", "Ann <a@example.com>", "b@example.com"
    message.set_content("Dear all,\n\ncheck the bolts.\n")
    message.add_attachment(b"name,size\nbolt,8\n", maintype="text", subtype="csv", filename="../sizes.csv")
    message.add_attachment(b"\x89PNG", maintype="image", subtype="png", filename="logo.png")
    document = _parse("a.eml", bytes(message))
    assert document.text == (
        "Subject: Recall\nFrom: Ann <a@example.com>\nTo: b@example.com\n\nDear all,\n\ncheck the bolts.\n\n"
        "Attachment: sizes.csv\n\n| name | size |\n| --- | --- |\n| bolt | 8 |"
    )
    assert [(item["name"], item["outcome"]) for item in document.metadata["attachments"]] == [
        ("sizes.csv", "parsed"),
        ("logo.png", "unsupported"),
    ]


def test_mail_of_html_alone_is_read_and_noise_is_no_mail() -> None:
    message = email.message.EmailMessage()
    message["Subject"] = "x"
    message.set_content("<p>Hello <b>you</b></p>", subtype="html")
    assert "Hello **you**" in _parse("a.eml", bytes(message)).text
    assert _failure("a.eml", b"just some words\nand more").code == "damaged"
    assert _parse("a.eml", "Subject: Größe\n\nwords".encode("utf-16")).title == "Größe"


_PARAGRAPHS = "".join(
    f"<p>Der Akku Nummer {number} ist nach {number} Stunden voll geladen und reicht für eine Fahrt durch die Berge.</p>"
    for number in range(1, 9)
)
PAGE = f"""<html lang="de"><head><title>Der Titel | Site</title><meta name="author" content="Ann Autor">
<meta property="article:published_time" content="2023-04-05"></head><body>
<div class="menu"><ul><li><a href="/">Start</a></li><li><a href="/x">Produkte</a></li></ul></div>
<div id="content"><article><h1>Der Titel</h1>{_PARAGRAPHS}<h2>Mehr</h2><ul><li>eins</li><li>zwei</li></ul>
<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table></article></div>
<div class="footer"><p>Impressum und Cookies und Datenschutz</p></div></body></html>"""


def test_main_content_of_a_page_keeps_its_structure_and_facts() -> None:
    whole, article = _parse("a.html", PAGE), _parse("a.html", PAGE, main_content=True)
    assert "Produkte" in whole.text
    assert "Produkte" not in article.text
    assert "Impressum" not in article.text
    assert [(heading.level, heading.text) for heading in article.headings] == [(1, "Der Titel"), (2, "Mehr")]
    assert "- eins" in article.text
    assert "| a | b |" in article.text
    assert (article.language, article.title) == ("de", "Der Titel")
    assert article.metadata["author"] == "Ann Autor"
    assert article.origin_time is not None
    assert article.origin_time.year == 2023


def test_a_page_without_an_article_is_kept_whole() -> None:
    page = "<html><body><div><a href='/a'>One</a> <a href='/b'>Two</a> words</div></body></html>"
    document = _parse("a.html", page, main_content=True)
    assert "words" in document.text
    assert document.metadata["main_content"] in (True, False)


def test_main_content_is_in_the_fingerprint_of_web_pages_alone() -> None:
    html, markdown = format_of("a.html"), format_of("a.md")
    assert html is not None
    assert markdown is not None
    article = SOURCE.model_copy(update={"main_content": True})
    assert parser_fingerprint(article, html) != parser_fingerprint(SOURCE, html)
    assert parser_fingerprint(article, markdown) == parser_fingerprint(SOURCE, markdown)


def test_limits_are_in_no_fingerprint() -> None:
    html = format_of("a.html")
    assert html is not None
    assert parser_fingerprint(SOURCE.model_copy(update={"timeout_seconds": 1.0}), html) == parser_fingerprint(
        SOURCE, html
    )


def test_the_first_bytes_win_over_the_name() -> None:
    assert _parse("a.doc", word(paragraph("Words in it"))).text == "Words in it"
    assert _parse("a.xls", workbook({"S": [["a", "b"], ["c", "d"]]})).text.startswith("## S\n\n| a | b |")
    assert "| 1 |" in _parse("a.xls", "<html><table><tr><td>1</td><td>2</td></tr></table></html>").text
    assert "Page words" in _parse("a.docx", pdf(["Page words"])).text


def test_an_encrypted_office_file_needs_a_password() -> None:
    ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500) + "EncryptedPackage".encode("utf-16-le") + bytes(500)
    assert _failure("a.xlsx", ole).code == "password"
    assert _failure("a.docx", ole).code == "password"


def test_words_lose_the_backslashes_of_markdown_and_code_keeps_its_own() -> None:
    assert plain_words("snake\\_case println\\! \\<a@b.c\\> a\\|b \\# no") == "snake_case println! <a@b.c> a\\|b \\# no"
    assert plain_words("```\na\\_b\n```\nc\\_d `e\\_f`") == "```\na\\_b\n```\nc_d `e\\_f`"


def test_a_web_page_nested_without_end_is_not_called_empty() -> None:
    page = b"<div>" * 100_000 + b"words" + b"</div>" * 100_000
    failure = _failure("a.html", page)
    assert (failure.code, "nested" in failure.reason) == ("damaged", True)


# --- text -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        ("cafÃ© fÃ¼r alle", "café für alle"),
        ("1990â€“91 for Â£275,000", "1990–91 for £275,000"),
        ("Ã la carte, Ångström, São Paulo", "Ã la carte, Ångström, São Paulo"),
        ("plain text", "plain text"),
        ("déjà vu “quoted” – dash", "déjà vu “quoted” – dash"),
    ],
)
def test_mojibake_is_mended_and_nothing_else(broken: str, mended: str) -> None:
    assert mend(broken) == mended


def test_characters_of_markdown_are_kept_even_where_they_look_broken() -> None:
    assert _parse("a.md", "cafÃ© is how UTF-8 looks in Latin-1").text == "cafÃ© is how UTF-8 looks in Latin-1"
    assert _parse("a.txt", "cafÃ© is broken").text == "café is broken"


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("tr", "Hangi hayvanlar kış uykusuna yatar ve bunu neden yaparlar?"),
        ("hi", "बैटरी चार घंटे में चार्ज हो जाती है और लंबे समय तक चलती है।"),
        ("uk", "Хлопець йшов до школи і співав пісню про рідний край."),
        ("pl", "Gdzie znajduje się najbliższa stacja ładowania rowerów?"),
        ("de", "Wo steht das Fahrrad von gestern Abend?"),
        (None, "E11 E12 E13 X-99 B2"),
        (None, "OK"),
    ],
)
def test_short_texts_and_more_languages_are_told(language: str | None, text: str) -> None:
    assert detect_language(text) == language


def test_the_language_model_is_not_loaded_for_ordinary_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    def never() -> None:
        raise AssertionError("the model was asked")

    monkeypatch.setattr("assets.corpus.text._identifier", never)
    english = "The battery of the bike is charged in four hours and it can be used with any of the chargers you have."
    assert detect_language(english) == "en"
    assert detect_language("電池は四時間で充電されます。これは日本語です。") == "ja"


# --- recognisers ------------------------------------------------------------------------------------------------

PLUGIN = """
class Reader:
    name, version, modalities = "test reader", "%s", ("ocr",)

    def recognise(self, data, media_type):
        if media_type == "application/pdf":
            return [(1, "first recognised"), (2, "second recognised"), (3, "third recognised")]
        if b"broken" in data:
            raise ValueError("quoting SECRET")
        return [(1, f"words in {media_type}")]

captioner = Reader()
captioner.modalities = ("caption",)
wrong = object()
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "plugins"
    (folder / "reader-1.0.dist-info").mkdir(parents=True)
    (folder / "test_reader_plugin.py").write_text(PLUGIN % "1.0")
    (folder / "reader-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: reader\nVersion: 1.0\n")
    (folder / "reader-1.0.dist-info" / "entry_points.txt").write_text(
        "[genaiops.recognisers]\nreader = test_reader_plugin:Reader\n"
        "captioner = test_reader_plugin:captioner\nwrong = test_reader_plugin:wrong\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "test_reader_plugin", raising=False)
    recogniser.cache_clear()
    yield folder
    recogniser.cache_clear()


def test_pictures_are_read_only_where_a_recogniser_is_switched_on(plugins: Path) -> None:
    assert format_of("a.png", SOURCE) is None
    document = _parse("a.png", b"picture", recognise=["reader"])
    assert (document.text, document.metadata["modality"]) == ("words in image/png", "ocr")
    assert document.metadata["recogniser"] == "test reader 1.0"
    assert document.metadata["pages"] == [[1, 0]]
    assert _parse("a.png", b"picture", recognise=["captioner"]).metadata["modality"] == "caption"


def test_a_scan_is_recognised_and_text_of_its_own_is_kept(plugins: Path) -> None:
    scan = _parse("a.pdf", pdf([None, None, None]), recognise=["reader"])
    assert (scan.metadata["modality"], scan.text.split("\n\n")[1]) == ("ocr", "second recognised")
    mixed = _parse("a.pdf", pdf(["Own words", None, "Own end"]), recognise=["reader"])
    assert "second recognised" in mixed.text
    assert "first recognised" not in mixed.text
    assert (mixed.metadata["modality"], mixed.metadata["ocr_pages"]) == ("text", [2])
    assert _failure("a.pdf", pdf([None])).code == "no_text"


def test_a_failing_recogniser_costs_one_document_and_is_not_quoted(plugins: Path) -> None:
    failure = _failure("a.png", b"broken", recognise=["reader"])
    assert failure.reason == "the recogniser reader failed with ValueError"


def test_a_recogniser_and_its_version_are_in_the_fingerprint(plugins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    form = format_of("a.pdf")
    assert form is not None
    source = SOURCE.model_copy(update={"recognise": ["reader"]})
    first = parser_fingerprint(source, form)
    assert first != parser_fingerprint(SOURCE, form)
    monkeypatch.setattr(sys.modules["test_reader_plugin"].Reader, "version", "2.0")
    assert parser_fingerprint(source, form) != first


def test_a_recogniser_that_is_missing_or_is_none_is_a_mistake_of_the_configuration(plugins: Path) -> None:
    form = format_of("a.pdf")
    assert form is not None
    with pytest.raises(ConfigError, match="installed: captioner, reader, wrong"):
        parser_fingerprint(SOURCE.model_copy(update={"recognise": ["other"]}), form)
    with pytest.raises(ConfigError, match="must have name, version, modalities"):
        parser_fingerprint(SOURCE.model_copy(update={"recognise": ["wrong"]}), form)


def test_a_packed_file_of_another_kind_is_read_by_what_is_in_it() -> None:
    assert _failure("a.docx", packed({"readme.txt": "words"})).code == "damaged"
