"""Cleaning: the text of a chunk, or of a question, without what is typography or markup rather than words.

Belongs here: ``clean_text``, which the enrichment step ``clean`` applies to chunks, and ``clean_query``, which applies
the same to a question, so that both sides of a search are cleaned alike.
Does not belong here: the chunk that is returned and cited, which nobody cleans, and what may enter a corpus at all.

Letters keep their case, and no word is dropped or changed, except that a word that was divided at the end of a line
is put together again.
"""

import html
import re
import unicodedata

from resources.index_config import EnrichmentConfig, Use

#: Raised by hand when ``clean_text`` would give another result; part of the fingerprint of whatever uses it.
CODE_VERSION = "1"

# Compatibility forms that stand for the same letters. Superscripts, subscripts and fractions are left: m² is not m2.
_SAME_LETTERS = frozenset({"<compat>", "<wide>", "<narrow>", "<font>", "<noBreak>", "<initial>", "<medial>", "<final>",
                           "<isolated>", "<small>"})  # fmt: skip
_PLAIN = {
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033", '"'),
    **dict.fromkeys("\u2010\u2011\u2212", "-"),
    # invisible: soft hyphen, zero-width space, word joiner, byte order mark, directions
    **dict.fromkeys("\u00ad\u200b\u2060\ufeff\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069", ""),
}
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
#: Beyond this many letters the piece before a hyphen is taken for a word of its own only where the text says so.
_DIVIDED = re.compile(r"([^\W\d_]{2,})-[ \t]*\n[ \t]*([^\W\d_]{2,})")
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_TAG = re.compile(r"</?[A-Za-z][A-Za-z0-9-]*(?:\s[^<>]*)?/?>")
_IMAGE_OR_LINK = re.compile(r"!?\[([^\[\]]*)\]\((?:[^()\s]|\([^()]*\))*(?:\s+[\"'][^\"'\n]*[\"'])?\)")
_REFERENCE = re.compile(r"!?\[([^\[\]]+)\]\[[^\[\]]*\]")
_FOOTNOTE = re.compile(r"\[\^[^\[\]\s]+\]:?")
_LINK_TARGET = re.compile(r"^ {0,3}\[[^\[\]^]+\]:[ \t]+\S+.*$", re.MULTILINE)
_FENCE = re.compile(r"^[ \t]*(?:`{3,}|~{3,})[^`\n]*$", re.MULTILINE)
_RULE = re.compile(r"^[ \t]*(?:[-*_=~][ \t]*){3,}$", re.MULTILINE)
_TABLE_RULE = re.compile(r"^[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$", re.MULTILINE)
_LINE_START = re.compile(
    r"^[ \t]*(?:>[ \t]?)*(?:(?:[-*+•‣▪●○◦·–—][ \t]+(?:\[[ xX]\][ \t]+)?)|#{1,6}[ \t]+)?", re.MULTILINE
)
_HEADING_END = re.compile(r"[ \t]+#+[ \t]*$", re.MULTILINE)
_CODE = re.compile(r"(?<!`)(`{1,3})(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
_STRONG = re.compile(r"(?<![\\*])(\*{1,3}|~~)(?=\S)([^*~\n]+?)(?<=[^\s\\])\1")
_UNDERSCORES = re.compile(r"(?<![\w\\])(_{1,3})(?=\S)([^_\n]+?)(?<=\S)\1(?!\w)")
_AUTOLINK = re.compile(r"<((?:https?://|mailto:)[^<>\s]+)>")
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")
_CELL = re.compile(r"[ \t]*(?<!\\)\|[ \t]*")
_BLANKS = re.compile(r"[ \t\u00a0]+")
_LINES = re.compile(r" ?\n ?")
_GAPS = re.compile(r"\n{3,}")


def clean_text(text: str) -> str:
    """The words of a text: without Markdown and HTML syntax, one form for each letter, divided words put together.

    Ligatures and full-width letters become plain letters, typographic quotes and hyphens ASCII ones, invisible
    characters go, entities are resolved. Links keep their words, images their description, tables their cells, code
    its content. A text that holds nothing but syntax is returned as it is, so that there is something to embed.
    """
    cleaned = _letters(text)
    cleaned = _BLANKS.sub(" ", cleaned)  # first: long runs of blanks would make the patterns below slow
    cleaned = _join_divided(cleaned)
    if "<" in cleaned:
        cleaned = _TAG.sub(" ", _AUTOLINK.sub(r"\1", _COMMENT.sub(" ", cleaned)))
    if "[" in cleaned:
        cleaned = _REFERENCE.sub(r"\1", _IMAGE_OR_LINK.sub(r"\1", _LINK_TARGET.sub("", cleaned)))
        cleaned = _IMAGE_OR_LINK.sub(r"\1", _FOOTNOTE.sub(" ", cleaned))  # an image inside a link
    cleaned = _RULE.sub("", _FENCE.sub("", cleaned))
    if "|" in cleaned:
        cleaned = _table_cells(cleaned)
    cleaned = _HEADING_END.sub("", _LINE_START.sub("", cleaned))
    if "`" in cleaned:
        cleaned = _CODE.sub(r"\2", cleaned)
    if "*" in cleaned or "~" in cleaned:
        cleaned = _STRONG.sub(r"\2", _STRONG.sub(r"\2", cleaned))
    if "_" in cleaned:
        cleaned = _UNDERSCORES.sub(r"\2", cleaned)
    if "\\" in cleaned:
        cleaned = _ESCAPE.sub(r"\1", cleaned)
    if "&" in cleaned:  # last: what is written as an entity is no markup
        cleaned = _letters(html.unescape(cleaned))
    cleaned = _GAPS.sub("\n\n", _LINES.sub("\n", _BLANKS.sub(" ", cleaned))).strip()
    return cleaned or text


def clean_query(question: str, config: EnrichmentConfig, use: Use = "embed") -> str:
    """A question as the chunks of an index were cleaned; unchanged where the index has no step ``clean`` for this use.

    Args:
        config: the enrichment of the build that is searched, so that an older snapshot keeps its own cleaning.
        use: whether the question is going to be embedded, or matched word by word.
    """
    step = config.step("clean")
    return clean_text(question) if step and use in step.use else question


def _letters(text: str) -> str:
    return text if text.isascii() else _NOT_ASCII.sub(_letter, text)


def _letter(match: re.Match[str]) -> str:
    character = match[0]
    known = _KNOWN.get(character)
    if known is None:
        known = _KNOWN[character] = _plain_form(character)
    return known


#: At most one entry for each character of Unicode.
_KNOWN: dict[str, str] = dict(_PLAIN)


def _plain_form(character: str) -> str:
    parts = unicodedata.decomposition(character).split()
    if parts and parts[0] in _SAME_LETTERS:
        return "".join(_PLAIN.get(part, part) for part in unicodedata.normalize("NFKC", character))
    return character


def _join_divided(text: str) -> str:
    """``exam-`` + ``ple`` becomes ``example``, unless the text also has ``exam-ple`` within a line.

    Only a continuation in lower case counts: ``Spandau-`` + ``Berlin`` stays as it is.
    """
    if "-" not in text or not _DIVIDED.search(text):
        return text

    def join(match: re.Match[str]) -> str:
        if not match[2][0].islower():
            return match[0]
        compound = f"{match[1]}-{match[2]}"
        return compound if compound in text else match[1] + match[2]

    return _DIVIDED.sub(join, text)


def _table_cells(text: str) -> str:
    """Rows of Markdown tables as their cells, separated by commas."""
    lines = []
    for line in text.split("\n"):
        if line.count("|") >= 2 or line.lstrip().startswith("|"):
            if _TABLE_RULE.fullmatch(line):
                continue
            line = ", ".join(cell for cell in _CELL.split(line.strip()) if cell)
        lines.append(line)
    return "\n".join(lines)
