"""The extractive answerer: answers a question with sentences of the passages it was given, word for word.

Belongs here: reading the rendered messages, choosing sentences, abstaining. Does not belong here: rendering
(prompt_store.py) and anything random or learned: the same messages always give the same answer.

It reads this form, which prompt_store.py guarantees for passages and which real models read as well:

* in the last user message each passage starts with a line ``[1] document — heading > heading``; the lines of its
  text follow, each beginning with ``> ``, so that no text can end its own frame;
* the last line that begins with ``Question:`` is the question (without one, the last line outside all passages).

In the system message it obeys these instructions, and nothing else:

* ``reply exactly: "SENTENCE"`` — the answer when the passages do not seem to hold one; without this instruction it
  never refuses;
* ``one sentence``, ``at most three sentences``, ``up to 2 sentences`` — the most sentences to give (else two);
* ``exact words`` or ``short answer`` — the shortest span that answers, instead of its sentence.

Every answer ends its sentences with the number of their passage: ``The belt lasts 30 000 km. [2]``.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from resources.offline_languages import ENGLISH, Language, language_of
from resources.offline_text import words

#: Covers this module and offline_languages.py; part of the fingerprint of the extractive model.
CODE_VERSION = "2"


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# How a sentence is scored; chosen on half of the SQuAD 2.0 questions: of the other half the best
# sentence holds the answer in 86 %.
_HEADING_CREDIT = 0.6
_NEIGHBOUR_CREDIT = 0.4
_PAIR_BONUS = 0.1
_KIND_BONUS = 0.06
_KIND_MISSING = 0.1
_RANK_BONUS = 0.04
_LENGTH_PENALTY = 0.05
#: In a question, a word that names a thing counts this many times: another product's sentence is no answer.
_NAME_WEIGHT = 2.0
#: A further sentence must come this near to the best one.
_FURTHER_SHARE = 0.8
_DEFAULT_SENTENCES = 2

_PASSAGE = re.compile(r"\[(\d{1,4})\](?: (.*))?")
_REFUSAL = re.compile(r"reply exactly:?\s*[\"“](.+?)[\"”]", re.IGNORECASE | re.DOTALL)
_NUMBER_WORDS = {"one": 1, "a single": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
_SENTENCE_LIMIT = re.compile(rf"\b({'|'.join(_NUMBER_WORDS)}|\d{{1,2}}) sentences?\b", re.IGNORECASE)
_SHORT = re.compile(r"\b(?:exact words|short answer)\b", re.IGNORECASE)

_BOUNDARY = re.compile(
    r"(?<=[.!?])[\"'”’)\]]*\s+(?=[\"'“‘(\[*_`]*[^\W_a-z])|(?<=[。！？])[”’」』）]*|(?<=[।॥؟۔])[\"'”’)\]]*\s+"
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:[A-Za-z]|e\.g|i\.e|approx|ca|cf|Dr|Mr|Mrs|Ms|St|No|Nr|vs|Fig|Prof|Jr|Sr|Inc|Ltd|etc))\.$"
)
_TABLE_RULE = re.compile(r"\|?(?:\s*:?-+:?\s*\|)+\s*:?-*:?\s*")
_LIST_ITEM = re.compile(r"\s*(?:[-*+]|\d{1,3}[.)])\s+")
_NUMBER = re.compile(r"\d")
_SMALL_NUMBERS = _word_set(
    "one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred thousand "
    "million billion twice once half no none"
)
_TIME_WORDS = _word_set(
    "january february march april may june july august september october november december monday tuesday "
    "wednesday thursday friday saturday sunday century year years month months week weeks day days hour hours "
    "minute minutes after before until every annually daily weekly"
)
_QUESTION_WORDS = _word_set(
    "what which who whom whose when where why how many much long often do does did is are was were can could "
    "should would will may must i my we our you your me the a an of to in on for at by with from and or it its "
    "be been have has had there this that as than if type kind name old far happen happens am not get need "
    "someone one"
)

#: Words of a question that name a thing: capitals inside it, or digits.
_NAME = re.compile(r"(?<=[^.?!] )\b[A-ZÄÖÜ][\w-]*|\b\w*\d\w*\b")
_SPAN_TOKEN = re.compile(r"[€$£]?[^\W_]+(?:[.,:'’/-][^\W_]+)*(?:\s?[%°€]C?)?")
#: The same where no spaces are set: one character, or a number or Latin word whole.
_SPAN_CHARACTER = re.compile(r"[€$£]?\d+(?:[.,:/]\d+)*\s?[%°]?|[A-Za-z]+|[^\W_]")
_CLAUSE_END = re.compile(r"[,;:()\"“”—–|，；：（）、。！？।،؛؟]")
_SPAN_WORDS = 6
_LEADING = (_QUESTION_WORDS - {"one"}) | _word_set("so but then they he she their his her into")
_LIMITING = _word_set(
    "up to at most least about around over under more less than every after within no between from in"
)
_JOINING = _word_set("to and or of")
_TRAILING = _LEADING | {"which", "who", "also", "not"}


@dataclass(frozen=True)
class _Sentence:
    passage: int
    rank: int
    text: str
    context: str
    neighbour: str
    cells: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _Question:
    text: str
    stems: tuple[str, ...]
    kind: str
    names: frozenset[str]
    language: Language = ENGLISH


def answer(messages: Sequence[Mapping[str, str]]) -> str:
    """Answer the question of the last user message from its passages; see the module docstring for the form."""
    system = "\n".join(message["content"] for message in messages if message["role"] == "system")
    user = next((message["content"] for message in reversed(messages) if message["role"] == "user"), "")
    refusal = _REFUSAL.search(system)
    limit = _SENTENCE_LIMIT.search(system)
    most = _DEFAULT_SENTENCES
    if limit:
        most = _NUMBER_WORDS.get(limit[1].lower()) or int(limit[1])
    question, sentences = _read(user)
    scored = score_sentences(question, sentences)
    if not scored:
        return refusal[1] if refusal else "There is nothing to answer from."
    best = scored[0][0]
    if refusal and support(question, scored[0][1]) < question.language.enough:
        return refusal[1]
    if _SHORT.search(system):
        sentence = scored[0][1]
        return f"{_span(question, sentence)} [{sentence.passage}]"
    chosen = [sentence for score, sentence in scored[:most] if score >= best * _FURTHER_SHARE]
    chosen.sort(key=sentences.index)
    return " ".join(f"{_shown(question, sentence)} [{sentence.passage}]" for sentence in chosen)


# --- reading the messages -------------------------------------------------------------------------------


def _read(user: str) -> tuple[_Question, list[_Sentence]]:
    question = ""
    outside = ""
    passages: list[tuple[int, str, list[str]]] = []
    for line in user.split("\n"):
        if line.startswith(">"):
            if passages:
                passages[-1][2].append(line[2:] if line.startswith("> ") else line[1:])
        elif found := _PASSAGE.fullmatch(line.rstrip()):
            passages.append((int(found[1]), found[2] or "", []))
        elif line.startswith("Question:"):
            question = line.removeprefix("Question:").strip()
        elif line.strip():
            outside = line.strip()
    sentences: list[_Sentence] = []
    for rank, (number, heading, lines) in enumerate(passages):
        sentences.extend(_sentences(number, rank, heading, lines))
    return _parse_question(question or outside), sentences


def _parse_question(text: str) -> _Question:
    language = language_of(text)
    if language is ENGLISH:
        lower = words(text)
        stems = tuple(dict.fromkeys(language.stem(word) for word in lower if word not in _QUESTION_WORDS))
        names = frozenset(language.stem(word.lower()) for word in _NAME.findall(text))
        return _Question(text, stems or tuple(dict.fromkeys(map(language.stem, lower))), _kind(lower), names)
    lower = language.words(text)
    stems = tuple(dict.fromkeys(language.stem(word) for word in lower if not language.tells_nothing(word)))
    named = [word for word in text.split()[1:] if word[0].isupper()] if language.capitals else []
    names = {stem for word in named for stem in language.stems(word)}
    names |= {language.stem(word) for word in lower if _NUMBER.search(word)}
    stems = stems or tuple(dict.fromkeys(map(language.stem, lower)))
    return _Question(text, stems, language.kind(text), frozenset(names), language)


def _kind(lower: list[str]) -> str:
    joined = " ".join(lower)
    if re.search(r"\bhow (?:many|much|far|old|fast|heavy|high|deep|wide|big|large|tall)\b", joined):
        return "number"
    if re.search(
        r"\b(?:what|which) (?:percent\w*|number|amount|price|torque|weight|share|fee|limit|size|range)\b", joined
    ):
        return "number"
    if re.search(
        r"\bwhen\b|\bhow (?:long|often|soon)\b|\b(?:what|which) (?:year|date|day|month|century|decade|time)\b", joined
    ):
        return "time"
    if re.search(r"\bwho\b|\bwhom\b|\bwhose\b", joined):
        return "name"
    if re.search(r"\bwhere\b|\b(?:what|which) (?:city|country|place|state|town)\b", joined):
        return "place"
    return ""


def _sentences(number: int, rank: int, heading: str, lines: list[str]) -> list[_Sentence]:
    """Cut a passage into sentences; a table row is a sentence, its header cells and headings its context."""
    found: list[tuple[str, str, tuple[tuple[str, str], ...]]] = []
    local = ""
    lead = ""
    paragraph: list[str] = []
    header: list[str] = []

    def close() -> None:
        nonlocal lead
        if paragraph:
            text = " ".join(" ".join(paragraph).split())
            parts = _split(text)
            found.extend((part, local, ()) for part in parts)
            lead = parts[-1] if parts and parts[-1].endswith(":") else ""
            paragraph.clear()

    for position, line in enumerate(lines):
        stripped = line.strip()
        if not stripped:
            close()
            header = []
        elif stripped.startswith("#"):
            close()
            local, lead = stripped.strip("# "), ""
        elif stripped.startswith("|") and stripped.count("|") > 1:
            close()
            cells = _cells(stripped)
            following = lines[position + 1].strip() if position + 1 < len(lines) else ""
            if _TABLE_RULE.fullmatch(stripped):
                continue
            if _TABLE_RULE.fullmatch(following):
                header = cells
            else:
                named = [*header, *[""] * len(cells)]
                pairs = tuple((name, cell) for name, cell in zip(named, cells, strict=False) if cell)
                if pairs:
                    found.append((stripped.strip("| "), " ".join([local, *header]), pairs))
        elif item := _LIST_ITEM.match(line):
            close_lead = lead
            close()
            lead = lead or close_lead
            text = " ".join(line[item.end() :].split())
            found.extend((part, f"{local} {lead}", ()) for part in _split(text))
        else:
            paragraph.append(stripped)
    close()
    texts = [text for text, _, _ in found]
    return [
        _Sentence(
            passage=number,
            rank=rank,
            text=text,
            context=f"{heading} {context}",
            neighbour=texts[at - 1] if at else "",
            cells=cells,
        )
        for at, (text, context, cells) in enumerate(found)
    ]


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip().removeprefix("|").removesuffix("|"))]


def _split(text: str) -> list[str]:
    parts: list[str] = []
    start = 0
    for boundary in _BOUNDARY.finditer(text):
        if _ABBREVIATION.search(text, start, boundary.start()):
            continue
        parts.append(text[start : boundary.end()].strip())
        start = boundary.end()
    parts.append(text[start:].strip())
    return [part for part in parts if part]


# --- choosing -------------------------------------------------------------------------------------------


def score_sentences(question: _Question, sentences: Sequence[_Sentence]) -> list[tuple[float, _Sentence]]:
    """Score every sentence against the question, best first; ties keep the order of the passages.

    The score is the share of the question's words that the sentence has (each weighted by how much it tells), with
    partial credit for words of its headings and of the sentence before it, and small bonuses for adjacent pairs,
    for holding the kind of thing asked for, and for the rank of its passage.
    """
    language = question.language
    stems = [language.stems(sentence.text) for sentence in sentences]
    sets = [set(own) for own in stems]
    frequency = Counter(item for own in sets for item in own)
    weights = {
        item: language.weight(item) * math.log(1 + (len(sentences) + 1) / (0.5 + frequency[item]))
        for item in question.stems
    }
    total = math.fsum(weights.values()) or 1.0
    pairs = list(zip(question.stems, question.stems[1:], strict=False))
    scored: list[tuple[float, int]] = []
    for at, sentence in enumerate(sentences):
        context = set(language.stems(sentence.context))
        neighbour = set(language.stems(sentence.neighbour))
        matched = 0.0
        for item, weight in weights.items():
            if item in sets[at]:
                matched += weight
            elif item in context:
                matched += weight * _HEADING_CREDIT
            elif item in neighbour:
                matched += weight * _NEIGHBOUR_CREDIT
        score = matched / total
        adjacent = set(zip(stems[at], stems[at][1:], strict=False))
        if pairs:
            score += _PAIR_BONUS * sum(pair in adjacent for pair in pairs) / len(pairs)
        if question.kind and matched:
            score += _KIND_BONUS if _has_kind(question, sentence.text) else -_KIND_MISSING
        score += _RANK_BONUS / (1 + sentence.rank)
        score -= _LENGTH_PENALTY * math.log(max(len(stems[at]), 1) / 12) if len(stems[at]) > 12 else 0.0
        scored.append((max(score, 1e-6) if matched else 0.0, at))
    scored.sort(key=lambda item: (-item[0], item[1]))
    return [(score, sentences[at]) for score, at in scored]


def support(question: _Question, sentence: _Sentence) -> float:
    """Share of what the question tells that the sentence, its headings and the one before it speak of; 0 to 1."""
    language = question.language
    own, context, neighbour = (
        set(language.stems(text)) for text in (sentence.text, sentence.context, sentence.neighbour)
    )
    total = matched = 0.0
    for item in question.stems:
        weight = language.weight(item) * (_NAME_WEIGHT if item in question.names else 1.0)
        total += weight
        if item in own:
            matched += weight
        elif item in context:
            matched += weight * _HEADING_CREDIT
        elif item in neighbour:
            matched += weight * _NEIGHBOUR_CREDIT
    missing = _KIND_MISSING if question.kind and not _has_kind(question, sentence.text) else 0.0
    return max(0.0, matched / total - missing) if total else 0.0


def _has_kind(question: _Question, text: str) -> bool:
    lower = set(words(text))
    if question.kind in ("number", "time"):
        if _NUMBER.search(text) or not lower.isdisjoint(_counting(question)):
            return True
        return not question.language.small_numbers.isdisjoint(text) if question.language.code == "zh" else False
    asked = set(words(question.text))
    return any(word.lower() not in asked for word in re.findall(r"(?<!^)(?<![.!?] )\b[^\W\d_a-z]\w+", text))


def _counting(question: _Question) -> frozenset[str]:
    """Words that count, or that tell a time where one is asked for."""
    if question.language is ENGLISH:
        return _SMALL_NUMBERS if question.kind == "number" else _TIME_WORDS
    return question.language.small_numbers


def _shown(question: _Question, sentence: _Sentence) -> str:
    """The sentence itself; of a table row its name and the cells the question asks about."""
    if not sentence.cells:
        return sentence.text
    (_, name), *rest = sentence.cells
    asked = [pair for pair in rest if _overlap(question, pair[0])] or rest
    return f"{name}: " + ", ".join(f"{header} {cell}".strip() for header, cell in asked) if rest else name


def _overlap(question: _Question, text: str) -> float:
    language = question.language
    return math.fsum(language.weight(item) for item in set(language.stems(text)) & set(question.stems))


def _span(question: _Question, sentence: _Sentence) -> str:
    """The part of the sentence that answers.

    Candidates are the runs of words between punctuation and words of the question, without function words at their
    ends. The best one holds the kind of thing asked for, stands near the question's words and tells much.
    """
    if sentence.cells:
        rest = sentence.cells[1:] or sentence.cells
        return max(rest, key=lambda pair: _overlap(question, pair[0]))[1]
    tokens, known = _tokens(question, sentence.text)
    if not known or len(known) == len(tokens):
        return sentence.text
    best, best_score = sentence.text, -math.inf
    for first, last in _runs(question, sentence.text, tokens, set(known)):
        score = _span_score(question, tokens, known, first, last)
        if score > best_score:
            first, last = _narrowed(question, tokens, first, last)
            best, best_score = sentence.text[tokens[first].start() : tokens[last].end()], score
    return best


def _tokens(question: _Question, text: str) -> tuple[list[re.Match[str]], list[int]]:
    """What spans are made of, and which of them the question has."""
    language = question.language
    if language.code != "zh":
        tokens = list(_SPAN_TOKEN.finditer(text) if language is ENGLISH else language.tokens(text))
        return tokens, [at for at, token in enumerate(tokens) if language.stem(token[0].lower()) in question.stems]
    tokens = list(_SPAN_CHARACTER.finditer(text))
    single = [token[0].lower() for token in tokens]
    known = {at for at, token in enumerate(single) if token in question.stems}
    for at, pair in enumerate(pairwise(single)):
        if "".join(pair) in question.stems:
            known |= {at, at + 1}
    return tokens, sorted(known)


def _runs(question: _Question, text: str, tokens: list[re.Match[str]], known: set[int]) -> Iterator[tuple[int, int]]:
    leading = _LEADING if question.language is ENGLISH else question.language.function
    trailing = _TRAILING if question.language is ENGLISH else question.language.function
    start = 0
    for at in range(len(tokens) + 1):
        closed = at == len(tokens) or at in known
        gap = at > start and not closed and re.search(_CLAUSE_END, text[tokens[at - 1].end() : tokens[at].start()])
        if not (closed or gap):
            continue
        first, last = start, at - 1
        while first <= last and tokens[first][0].lower() in leading:
            first += 1
        while last >= first and tokens[last][0].lower() in trailing:
            last -= 1
        if first <= last:
            yield first, last
        start = at + 1 if closed else at


def _narrowed(question: _Question, tokens: list[re.Match[str]], first: int, last: int) -> tuple[int, int]:
    """Of a run that answers "how many" or "when": the number with its unit and what limits it ("up to 60 W")."""

    def counts(at: int) -> bool:
        word = tokens[at][0].lower()
        if question.language is not ENGLISH:
            return bool(_NUMBER.search(word)) or word in question.language.small_numbers
        return bool(_NUMBER.search(word)) or word in _SMALL_NUMBERS or (question.kind == "time" and word in _TIME_WORDS)

    numbers = [at for at in range(first, last + 1) if counts(at)] if question.kind in ("number", "time") else []
    if not numbers:
        return first, last
    start = end = numbers[0]
    while start > first and tokens[start - 1][0].lower() in _LIMITING:
        start -= 1
    while end < last and (counts(end + 1) or (end + 2 <= last and counts(end + 2) and tokens[end + 1][0] in _JOINING)):
        end += 1
    if end < last and tokens[end + 1][0].lower() not in (_TRAILING | question.language.function):
        end += 1
    return start, end


def _span_score(question: _Question, tokens: list[re.Match[str]], known: list[int], first: int, last: int) -> float:
    language = question.language
    numbers = _SMALL_NUMBERS | language.small_numbers
    inside = [token[0] for token in tokens[first : last + 1]]
    near = math.fsum(
        language.weight(language.stem(tokens[at][0].lower())) / (1 + min(abs(at - first), abs(at - last)))
        for at in known
    )
    tells = max(language.weight(language.stem(word.lower())) for word in inside)
    score = near + 0.5 * tells - 0.05 * max(0, len(inside) - _SPAN_WORDS)
    if question.kind in ("number", "time"):
        score += 1.5 * any(_NUMBER.search(word) or word.lower() in numbers for word in inside)
        score += 0.5 * (question.kind == "time" and any(word.lower() in _TIME_WORDS for word in inside))
    elif question.kind in ("name", "place"):
        score += 1.0 * any(word[0].isupper() for at, word in enumerate(inside) if first + at > 0)
    return score
