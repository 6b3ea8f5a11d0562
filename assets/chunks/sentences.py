"""Sentences: where they begin, in any script, by rules.

Belongs here: sentence ends (``.``, ``!``, ``?``, ``。``, ``؟``, ``।`` and others), abbreviations, and lines that are
sentences of their own (list items, headings, table rows).
Does not belong here: packing sentences into chunks (packing.py).

The rules need no model and no download. They are cautious: where a full stop may belong to an abbreviation, an
initial or a number, the sentence goes on. Languages without sentence marks (Thai) have the ends of their lines only.
"""

import re

_OPENING = "\"'“”‘’«‹„(\\[{¿¡*_「『（【《"
_CLOSING = "\"'”’»›)\\]}*_"
_WIDE_CLOSING = "」』”’）】》〉"
#: Marks that end a sentence wherever they stand.
_WIDE = "。！？｡．؟۔।॥։።፧။៖។᙮"
_END = re.compile(
    rf"""
      (?<![{_WIDE}])[{_WIDE}]++[{_WIDE_CLOSING}{_CLOSING}]*+\s*+
    | (?<![.!?…])(?P<mark>[.!?…‼⁇⁈⁉]++)[{_CLOSING}]*+\s++
    | \n\s*\n\s*+                                             # a blank line
    | \n(?=\s*(?:[-*+•‣◦]\s|\d{{1,3}}[.)]\s|\#{{1,6}}\s|[|>]))    # an item, a heading, a row, a quotation
    | \n(?=[`~]{{3}})
    """,
    re.VERBOSE,
)
_WORD_BEFORE = re.compile(r"[^\s(\[\"'“„«]*$")
_ITEM_NUMBER = re.compile(r"\d{1,3}|[a-zA-Z]|[ivxIVX]{1,4}")
_LOOK_BACK = 40
_HEADING = re.compile(r"#{1,6} ")
_UNDERLINE = re.compile(r"([=\-~^\"'`*+.:_])\1{2,}")
_TITLE = 500

#: Words that a full stop may follow in mid-sentence, lower-cased and without their last stop.
_ABBREVIATION_LIST = """
    mr mrs ms mx dr prof rev hon st sr jr fr gen col lt sgt capt cmdr adm gov sen rep pres supt vs etc al e.g
    i.e eg ie cf viz approx dept est inc ltd co corp bros univ assn no nos vol vols fig figs eq eqs sec secs ch
    chap pp pg ed eds art ref refs op cit ibid ca min max avg tel ext ave blvd rd mt ft u.s u.k u.n e.u ph.d
    b.sc m.sc a.m p.m jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun z.b d.h u.a
    u.ä o.ä usw bzw ggf evtl vgl inkl exkl zzgl abs nr str hr dipl ing bspw sog s.o s.u i.d.r v.a m.e n.chr
    v.chr geb gest jh jhd mio mrd tsd mme mlle mm env p.ex c.-à-d av bd sra srta dña ud uds ee.uu pág págs núm
    aprox p.ej sig sigg dott ecc pag es dhr mevr bijv nl m.b.t o.a t.a.v d.w.z г гг др т.е т.д т.п и.о ул стр
    рис см руб тыс млн млрд np tzn itd itp tj ul mgr inż bl.a t.ex d.v.s osv f.eks
    """
_ABBREVIATIONS = frozenset(_ABBREVIATION_LIST.split())
#: Of these, the ones that are words of their own, and abbreviations before a number only ("No. 5").
_BEFORE_NUMBERS = frozenset({"no", "nos", "art", "sat", "sun", "mon", "min", "max", "mar", "es", "rep", "ul", "av"})
#: Of these, the ones that often stand last.
_LAST_WORDS = frozenset(
    {"etc", "al", "usw", "ecc", "osv", "итд", "т.д", "т.п", "inc", "ltd", "co", "corp", "a.m", "p.m"}
)


def sentence_starts(text: str, start: int, end: int) -> list[int]:
    """Positions inside ``(start, end)`` where a sentence begins, in order; ``start`` itself is not among them.

    Linear in ``end - start``: no rule looks back further than a line's beginning or 40 characters.
    """
    found = []
    for match in _END.finditer(text, start, end):
        position = match.end()
        if position >= end:
            break
        if match["mark"]:
            if not _ends_sentence(text, match.start("mark"), match["mark"], position, start):
                continue
        elif text[match.start()] == "\n" and _after_heading(text, match.start(), start):
            continue
        found.append(position)
    return found


def _ends_sentence(text: str, mark: int, marks: str, following: int, floor: int) -> bool:
    """Whether the marks at ``mark`` end a sentence, seen from the word before and the character that follows."""
    first = text[following]
    if first in _OPENING:
        first = next((char for char in text[following + 1 : following + 4] if char not in _OPENING), first)
    if first.islower():
        return False
    if "\n" in text[mark:following] and _blank_line(text, mark, following):
        return True
    if marks != ".":
        return True
    begin = max(floor, mark - _LOOK_BACK)
    before = text[begin:mark]
    found = _WORD_BEFORE.search(before)
    word = (found[0] if found else "").strip("*_").lower()
    if word in _BEFORE_NUMBERS:
        return not first.isdigit()
    if word in _ABBREVIATIONS:
        return word in _LAST_WORDS and first.isupper()
    if len(word) == 1 and word.isalpha() and before[-1:].isupper():
        return False  # an initial
    line = text.rfind("\n", begin, mark) + 1 or (floor if begin == floor else -1)
    if line >= 0 and _ITEM_NUMBER.fullmatch(text[line:mark].strip()):
        return False  # "3." at the beginning of a line numbers an item
    # "am 3. Oktober": a day; "in 2019. The": an end
    return not (word.isdigit() and len(word) <= 2 and first.isupper() and _is_german_month(text, following))


_MONTHS = re.compile(
    r"(?:Jan|Jän|Feb|März|Mär|April|Apr|Mai|Juni|Juli|Aug|Sept|Okt|Nov|Dez|Jahrhundert|Klasse|Auflage)[a-zäöü]*\b"
)


def _is_german_month(text: str, position: int) -> bool:
    return _MONTHS.match(text, position) is not None


def _blank_line(text: str, start: int, end: int) -> bool:
    return text.count("\n", start, end) > 1


def _after_heading(text: str, newline: int, floor: int) -> bool:
    """Whether the line that ends at ``newline`` is a heading or underlines one: it belongs to what follows."""
    line = max(text.rfind("\n", max(floor, newline - _TITLE), newline) + 1, floor)
    if newline - line > _TITLE:
        return False
    return _HEADING.match(text, line, newline) is not None or _UNDERLINE.fullmatch(text, line, newline) is not None
