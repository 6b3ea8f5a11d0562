"""Decoding, normalisation and language detection."""

import codecs
import re
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.corpus.failures import ParseFailure
from assets.corpus.text import decode, detect_language, language_code, normalise


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        ("Größe".encode(), "utf-8"),
        (codecs.BOM_UTF8 + "Größe".encode(), "utf-8"),
        ("Größe und Gewicht".encode("utf-16"), "utf-16-le"),
        (codecs.BOM_UTF16_BE + "Größe".encode("utf-16-be"), "utf-16-be"),
        (codecs.BOM_UTF32_LE + "Größe".encode("utf-32-le"), "utf-32-le"),
        ("Größe und Gewicht".encode("utf-16-le"), "utf-16-le"),
        ("Größe und Gewicht".encode("utf-16-be"), "utf-16-be"),
        ("Größe und Gewicht: 10 – 20 €".encode("cp1252"), "cp1252"),
        ("déjà vu, comme on dit à l’été de la vie".encode("cp1252"), "cp1252"),
    ],
)
def test_decodes_what_files_are_really_in(data: bytes, encoding: str) -> None:
    text, found = decode(data)
    assert found == encoding
    assert "\ufeff" not in text
    assert text.startswith(("Größe", "déjà"))


def test_declared_encoding_is_used_where_utf8_does_not_fit() -> None:
    assert decode("Привет, мир".encode("koi8-r"), "KOI8-R") == ("Привет, мир", "koi8-r")


@pytest.mark.parametrize(
    "data",
    [
        "Привет, мир, это длинное предложение".encode("koi8-r"),
        "日本語の文章です。これはテストです".encode("shift-jis"),
        bytes(range(256)) * 4,
        codecs.BOM_UTF8 + b"\xff\xfe",
    ],
)
def test_bytes_that_fit_no_encoding_are_refused(data: bytes) -> None:
    with pytest.raises(ParseFailure) as raised:
        decode(data)
    assert raised.value.code == "encoding"


def test_normalising_unifies_line_ends_and_removes_what_no_text_holds() -> None:
    raw = "\ufeffa\u0308 b  \r\nc\x00\x07d\re\x0cf\ud800\n\n"
    assert normalise(raw) == "ä b\ncd\ne\nf"


def test_normalising_keeps_indentation_tabs_and_inner_blank_lines() -> None:
    assert normalise("    code\n\n\n\tmore") == "    code\n\n\n\tmore"


@given(st.text(alphabet=st.characters()))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "The battery of the bike is charged in four hours and can be used with any charger from the list you have."),
        ("de", "Der Akku ist nach vier Stunden voll und kann auch mit einem anderen Ladegerät von der Liste geladen werden, wenn es sein muss."),
        ("fr", "La batterie du vélo est chargée en quatre heures et elle peut être utilisée avec les chargeurs de la liste pour les vélos."),
        ("es", "La batería de la bicicleta se carga en cuatro horas y se puede usar con los cargadores que están en la lista del taller."),
        ("nl", "De accu van de fiets is in vier uur vol en kan ook met een andere lader van de lijst worden geladen als dat nodig is."),
        ("ru", "Аккумулятор заряжается за четыре часа."),
        ("ja", "これはペンです。日本語の文章。"),
        ("zh", "电池在四小时内充满。"),
        (None, "E11 E12 E13"),
        (None, "12 34 56"),
    ],
)  # fmt: skip
def test_language_is_told_or_left_open(language: str | None, text: str) -> None:
    assert detect_language(text) == language


@pytest.mark.parametrize(("tag", "code"), [("de-AT", "de"), ("en_US", "en"), ("EN", "en"), ("x", None), (None, None)])
def test_language_tags_are_reduced_to_the_language(tag: str | None, code: str | None) -> None:
    assert language_code(tag) == code


def test_the_short_way_for_clean_text_gives_what_the_long_way_gives() -> None:
    """Every character there is, inside a line and at the end of one, against the rules as they are written down."""
    removed = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")

    def by_the_rules(text: str) -> str:
        text = unicodedata.normalize("NFC", removed.sub("", re.sub("\r\n?|[\x0b\x0c\x85]", "\n", text)))
        return "\n".join(line.rstrip() for line in text.split("\n")).strip("\n")

    codes = [*range(0x3100), *range(0xD700, 0x10000), *range(0x10000, sys.maxunicode + 1, 977)]
    for code in codes:
        for text in (f"a{chr(code)}b", f"a{chr(code)}\nb {chr(code)}"):
            assert normalise(text) == by_the_rules(text), hex(code)


@given(st.text(alphabet="ab \t\n\r\x0b\x7f\x00é\u00a0\u2028", max_size=12))
def test_normalising_follows_the_rules_in_any_order(text: str) -> None:
    lines = re.sub("\r\n?|\x0b", "\n", text).replace("\x7f", "").replace("\x00", "").split("\n")
    assert normalise(text) == "\n".join(line.rstrip() for line in lines).strip("\n")


def test_a_language_is_the_same_with_and_without_a_character_beyond_ascii() -> None:
    english = "The size of it is 3 x_y, and to the end of this-or-that it is as you can see. " * 3
    german = "Das ist nicht die Seite, auf der es bei dem Text mit den Worten ist; sie wird auch von der. " * 3
    for text, language in ((english, "en"), (german, "de")):
        assert detect_language(text) == detect_language(f"{text} café") == language
