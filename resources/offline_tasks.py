"""Offline stand-ins for tasks without documents: deterministic, in this process, and no language model.

Belongs here: reading the rendered messages, and the four models ``classifier``, ``summarizer``, ``translator`` and
``extractor``. Does not belong here: rendering (prompt_store.py), the transport (offline_models.py), reading an answer
(task_output.py).

They read this form, which prompt_store.py guarantees for inputs and which real models read as well:

* lines that begin with ``> `` are data; the last such block of the last user message is the input;
* every earlier block is the input of a worked example when its answer follows on the next line that is not blank, with or
  without a cue such as ``Label:`` in front (the cue that ends the user message);
* ``Labels: a, b, c`` or ``Fields: a, b`` on one line, or one ``- name: what it means`` per line below it;
* ``two sentences``, ``at most 30 words``: how long a summary may be;
* ``word = translation`` on a line of its own: a dictionary.

What each does is in its docstring and in docs/tasks.md. None of them understands a text: they let an experiment be tried
out, and show whether worked examples, labels or a dictionary reach the model.
"""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from resources.offline_text import commonness_weight, stem, words

#: Covers this module; part of the fingerprints of its models.
CODE_VERSION = "1"
#: What stands before a text that could not be translated at all.
UNTRANSLATED = "[no translation]"

_NUMBERS = {"one": 1, "a single": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
_SENTENCES = re.compile(rf"\b({'|'.join(_NUMBERS)}|\d{{1,2}}) (?:short )?sentences?\b", re.IGNORECASE)
_WORDS = re.compile(r"\b(\d{1,4}) words?\b", re.IGNORECASE)
_LISTED = r"\b[^:.]{0,60}:(.*)$"
_LABELS = re.compile(
    rf"(?:^\W*|[.!?]\s+)(?:the )?(?:labels?|categor(?:y|ies)|classes){_LISTED}|\bone of{_LISTED}", re.I
)
_FIELDS = re.compile(rf"(?:^\W*|[.!?]\s+)(?:the )?(?:fields?|keys?){_LISTED}", re.IGNORECASE)
_BULLET = re.compile(r"^\s*[-*•]\s+(.+)$")
_DICTIONARY = re.compile(r"^\s*(?:[-*•]\s+)?([^=→]{1,80}?)\s*(?:=>?|→|->)\s*([^=→]{1,80}?)\s*$")
#: A word that tells less is a function word.
_TELLING = 0.3
_TOKEN = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]|\s+")


@dataclass(frozen=True)
class Request:
    """A prompt taken apart.

    Attributes:
        input: the text to work on.
        examples: (input, answer) of the worked examples, in order.
        lines: everything that is no data, system message first.
    """

    input: str
    examples: tuple[tuple[str, str], ...]
    lines: tuple[str, ...]

    @property
    def instructions(self) -> str:
        """Everything that is no data, as one text."""
        return "\n".join(self.lines)


def answer(model: str, messages: Sequence[Mapping[str, str]]) -> str:
    """What one of ``MODELS`` says to these messages; the same ones always get the same answer."""
    return MODELS[model](read(messages))


def read(messages: Sequence[Mapping[str, str]]) -> Request:
    """Take the messages apart; see the module docstring for the form."""
    system = [message["content"] for message in messages if message["role"] == "system"]
    user = next((message["content"] for message in reversed(messages) if message["role"] == "user"), "")
    cue = next((line.strip() for line in reversed(user.split("\n")) if line.strip()), "")
    cue = cue if cue.endswith(":") and not cue.startswith(">") else ""
    shown, plain = _blocks("\n".join(system), cue)
    asked, more = _blocks(user, cue)
    if not asked:  # nothing is marked as data: the last line is all there is
        asked = [(more[-1] if more else "", "")]
    data = asked.pop()[0]
    examples = [(text, said) for text, said in (*shown, *asked) if said]
    return Request(data, tuple(examples), tuple(plain + more))


def _blocks(text: str, cue: str) -> tuple[list[tuple[str, str]], list[str]]:
    """The blocks of data with the line that follows each, and all lines that are none."""
    blocks: list[tuple[list[str], str]] = []
    plain: list[str] = []
    inside, waiting = False, False
    for line in text.split("\n"):
        if line.startswith(">"):
            if not inside:
                blocks.append(([], ""))
            inside, waiting = True, True
            blocks[-1][0].append(line[2:] if line.startswith("> ") else line[1:])
            continue
        inside = False
        if waiting and line.strip():
            waiting = False
            said = line.strip()
            said = said[len(cue) :].strip() if cue and said.casefold().startswith(cue.casefold()) else said
            if said and not said.endswith(":"):
                blocks[-1] = (blocks[-1][0], said)
                continue
        plain.append(line)
    return [("\n".join(lines).strip(), said) for lines, said in blocks], plain


def _named(lines: Sequence[str], pattern: re.Pattern[str]) -> dict[str, str]:
    """The names a prompt lists after a heading, each with what is said of it."""
    found: dict[str, str] = {}
    listing = False
    for line in lines:
        bullet = _BULLET.match(line)
        if listing and bullet:
            name, _, meaning = bullet[1].partition(":")
            found.setdefault(name.strip(" \"'`*."), meaning.strip())
            continue
        if line.strip():
            listing = False
        if heading := pattern.search(line):
            rest = next((group for group in heading.groups() if group is not None), "").strip()
            rest = re.split(r"[.!?]\s", rest)[0]
            listing = not rest
            for name in re.split(r"[,;|]|\bor\b", rest) if rest else ():
                if plain := name.strip(" \"'`*.[]"):
                    found.setdefault(plain, "")
    return found


# --- likeness -------------------------------------------------------------------------------------------


def _features(text: str) -> dict[str, float]:
    """Weights of stems and, for likeness across inflection and compounds, of their character 4-grams."""
    weights: dict[str, float] = defaultdict(float)
    for word in words(text):
        stemmed = stem(word)
        weight = commonness_weight(stemmed)
        weights[stemmed] += weight
        if len(stemmed) > 4 and weight > 0.35:
            for at in range(len(stemmed) - 3):
                weights[f"#{stemmed[at : at + 4]}"] += 0.3 * weight
    return weights


def _cosine(left: Mapping[str, float], right: Mapping[str, float]) -> float:
    shared = math.fsum(left[key] * right[key] for key in sorted(left.keys() & right.keys()))
    return shared / (_norm(left) * _norm(right)) if shared else 0.0


def _norm(weights: Mapping[str, float]) -> float:
    return math.sqrt(math.fsum(weights[key] ** 2 for key in sorted(weights)))


# --- classifier -----------------------------------------------------------------------------------------

#: How sharply likeness becomes probability, and the share that is spread over all labels.
_SHARPNESS, _SPREAD = 8.0, 0.02


def _classify(request: Request) -> str:
    """The label whose examples are most alike, with the words of labels and of what is said of them counting as well.

    The likeness of a label is that of its two nearest examples, and half of that of its own words. Probabilities are those
    of a softmax over the labels, and given as a JSON object when the prompt asks for probabilities; otherwise the label
    alone is the answer.
    """
    listed = _named(request.lines, _LABELS)
    by_key = {name.casefold(): name for name in listed} or {said.casefold(): said for _, said in request.examples}
    if not by_key:
        return "There are no labels to choose from."
    asked = _features(request.input)
    near: dict[str, list[float]] = defaultdict(list)
    for text, said in request.examples:
        if (name := by_key.get(_label_in(said))) is not None:
            near[name].append(_cosine(asked, _features(text)))
    scores = {
        name: math.fsum(sorted(near[name], reverse=True)[:2])
        + 0.5 * _cosine(asked, _features(f"{re.sub(r'[_-]', ' ', name)} {listed.get(name, '')}"))
        for name in by_key.values()
    }
    top = max(scores.values())
    raised = {name: math.exp(_SHARPNESS * (score - top)) for name, score in scores.items()}
    total = math.fsum(raised.values())
    probabilities = {
        name: round((1 - _SPREAD) * value / total + _SPREAD / len(raised), 6) for name, value in raised.items()
    }
    best = max(probabilities, key=lambda name: (probabilities[name], -list(by_key.values()).index(name)))
    if "probabilit" not in request.instructions.casefold():
        return best
    return json.dumps({"label": best, "probabilities": probabilities}, ensure_ascii=False)


def _label_in(said: str) -> str:
    """The label of an example's answer, which may be given as the JSON object that is asked for."""
    if said.startswith("{"):
        try:
            said = str(json.loads(said).get("label", ""))
        except ValueError:
            return ""
    return said.strip(" \"'`.").casefold()


# --- summarizer -----------------------------------------------------------------------------------------


def _summarize(request: Request) -> str:
    """Sentences of the text, word for word and in their order: those with most of what the text speaks of, early ones first.

    As many as the prompt asks for, and as few words. Without either, as long as the worked examples' summaries are on
    average, and without those two sentences.
    """
    from resources.context import sentences

    text = request.input
    parts = [" ".join(text[start:end].split()) for start, end in sentences(text)]
    parts = [part for part in parts if part]
    if not parts:
        return ""
    most, limit = _length_asked(request)
    spoken = Counter(word for part in parts for word in {stem(one) for one in words(part)})
    scored: list[tuple[float, int]] = []
    for at, part in enumerate(parts):
        stems = sorted({stem(word) for word in words(part)})
        told = math.fsum(spoken[word] * commonness_weight(word) for word in stems)
        scored.append((told / math.sqrt(len(stems) or 1) * (1 + 0.5 / (1 + at)), at))
    chosen: list[int] = []
    left = limit
    for _, at in sorted(scored, key=lambda item: (-round(item[0], 9), item[1])):
        size = len(parts[at].split())
        if len(chosen) == most:
            break
        if left is None or size <= left:
            chosen.append(at)
            left = None if left is None else left - size
    if not chosen and limit:  # not one sentence is that short
        return " ".join(parts[max(scored)[1]].split()[:limit])
    return " ".join(parts[at] for at in sorted(chosen))


def _length_asked(request: Request) -> tuple[int, int | None]:
    """Most sentences and most words."""
    sentences, limit = _SENTENCES.search(request.instructions), _WORDS.search(request.instructions)
    if sentences:
        most = _NUMBERS.get(sentences[1].lower()) or int(sentences[1])
        return most, int(limit[1]) if limit else None
    if limit:
        return 99, int(limit[1])
    if request.examples:
        lengths = [len(said.split()) for _, said in request.examples]
        return 99, max(1, round(sum(lengths) / len(lengths)))
    return 2, None


# --- translator -----------------------------------------------------------------------------------------


def _translate(request: Request) -> str:
    """What the prompt itself translates: whole texts of examples, then words and phrases, one by one and in their order.

    Words are looked up in the dictionary lines, then among the examples: the word that stands in the translations of just
    those examples that have the source word. Everything else is copied. If nothing at all was found, the text is given
    back behind ``[no translation]``.
    """
    memory = {_plain(source): target for source, target in request.examples}
    if (known := memory.get(_plain(request.input))) is not None:
        return known
    dictionary = _dictionary(request)
    learned = _learned(request.examples, _content(request.input))
    longest = max((len(key.split()) for key in dictionary), default=1)
    tokens = _TOKEN.findall(request.input)
    said: list[str] = []
    found = at = 0
    while at < len(tokens):
        phrase, width = _phrase(tokens, at, longest, dictionary)
        if phrase is None and tokens[at].strip() and tokens[at][0].isalpha():
            phrase, width = learned.get(tokens[at].casefold()), 1
        if phrase is None:
            said.append(tokens[at])
            at += 1
            continue
        said.append(phrase[:1].upper() + phrase[1:] if tokens[at][:1].isupper() else phrase)
        found += 1
        at += width
    text = "".join(said).strip()
    return text if found else f"{UNTRANSLATED} {text}".strip()


def _plain(text: str) -> str:
    return " ".join(words(text))


def _content(text: str) -> list[str]:
    return [token.casefold() for token in _TOKEN.findall(text) if token[0].isalpha()]


def _dictionary(request: Request) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in request.lines:
        if pair := _DICTIONARY.match(line):
            found.setdefault(" ".join(pair[1].casefold().split()), pair[2])
    return found


def _phrase(tokens: Sequence[str], at: int, longest: int, dictionary: Mapping[str, str]) -> tuple[str | None, int]:
    """The longest entry that begins here, and how many tokens it takes."""
    if not tokens[at].strip():
        return None, 1
    for width in range(min(2 * longest - 1, len(tokens) - at), 0, -1):
        key = " ".join("".join(tokens[at : at + width]).casefold().split())
        if key in dictionary:
            return dictionary[key], width
    return None, 1


def _learned(examples: Sequence[tuple[str, str]], wanted: Iterable[str]) -> dict[str, str]:
    """Words of ``wanted`` with the one target word that goes with them best by Dice's coefficient; ties teach nothing.

    Function words stand beside too many words to be learned so.
    """
    sources = [set(_content(source)) for source, _ in examples]
    targets = [{token for token in _TOKEN.findall(target) if token[0].isalpha()} for _, target in examples]
    frequency = Counter(word for target in targets for word in target)
    learned: dict[str, str] = {}
    for word in dict.fromkeys(wanted):
        if commonness_weight(stem(word)) < _TELLING:
            continue
        holding = [at for at, source in enumerate(sources) if word in source]
        together = Counter(other for at in holding for other in targets[at])
        ranked = sorted(
            ((2 * count / (len(holding) + frequency[other]), other) for other, count in together.items()), reverse=True
        )
        if len(holding) > 1 and ranked and ranked[0][0] > 0.6 and (len(ranked) < 2 or ranked[1][0] < ranked[0][0]):
            learned[word] = ranked[0][1]
    return learned


# --- extractor ------------------------------------------------------------------------------------------

_MONTH = r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sep(?:t(?:ember)?)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)"  # fmt: skip
_CURRENCY = r"(?:€|\$|£|EUR|USD|GBP|CHF|euros?|dollars?|pounds?)"
_AMOUNT = rf"(?:{_CURRENCY}\s?\d[\d.,]*\d|{_CURRENCY}\s?\d|\d[\d.,]*\s?{_CURRENCY})"
_NAME = r"[A-ZÄÖÜ][\w'’-]+(?: [A-ZÄÖÜ][\w'’-]+){1,2}"
#: By words in the name of a field: what its value looks like. The first that fits the name counts.
_SHAPES: tuple[tuple[str, str], ...] = (
    (r"e-?mail|mail", r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    (r"url|website|link|web", r"https?://[^\s<>\"']+[^\s<>\"'.,;)]|www\.[^\s<>\"']+[^\s<>\"'.,;)]"),
    (r"phone|telephone|mobile|fax", r"\+?\d[\d ()/-]{5,}\d"),
    (
        r"date|day|due|deadline|birthday|since|until",
        rf"\d{{4}}-\d{{2}}-\d{{2}}|\d{{1,2}}\.\d{{1,2}}\.\d{{2,4}}|\d{{1,2}}/\d{{1,2}}/\d{{2,4}}"
        rf"|\d{{1,2}}(?:st|nd|rd|th)? (?:of )?{_MONTH}(?:,? \d{{4}})?|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?(?:,? \d{{4}})?",
    ),
    (r"time|hour", r"\d{1,2}[:.]\d{2}(?: ?[ap]\.?m\.?)?|\d{1,2} ?[ap]\.?m\.?"),
    (r"currency", _CURRENCY),
    (r"amount|price|total|cost|sum|fee|salary", _AMOUNT),
    (r"quantity|count|pieces|units|how many", r"(?<![\w.,-])\d{1,5}(?![\w.,-]*\d)"),
    (r"version", r"\d+(?:\.\d+)+"),
    (r"postcode|zip", r"\b\d{4,5}\b"),
    (r"number|id|order|invoice|ticket|reference|code|serial|case|account|sku|part", r"(?=[\w/-]*\d)[A-Z0-9][\w/-]{2,}"),
    (r"name|customer|person|contact|author|sender|recipient|employee|who", _NAME),
    (r"city|country|place|location|town|company|organi[sz]ation|vendor|product", r"[A-ZÄÖÜ][\w'’&-]+(?: [A-ZÄÖÜ][\w'’&-]+)*"),
)  # fmt: skip


def _extract(request: Request) -> str:
    """A JSON object with a value, or null, for every field the prompt names.

    In this order: what stands after ``field:``; what stands after the words that stand before this field's value in the
    worked examples; the first text that looks as values of a field of such a name do (dates, amounts, addresses, numbers,
    names), nearest to the field's own words.
    """
    fields = list(_named(request.lines, _FIELDS)) or list(
        dict.fromkeys(key for _, said in request.examples for key in _object(said))
    )
    return json.dumps({field: _value(request, field) for field in fields}, ensure_ascii=False)


def _object(said: str) -> dict[str, object]:
    try:
        value = json.loads(said)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _value(request: Request, field: str) -> str | None:
    text = request.input
    own = [re.escape(word) for word in re.split(r"[\s_-]+", field)]
    if found := re.search(rf"(?im)^\W*{'[ _-]?'.join(own)}(?: no\.?| number)?\s*[:=]\s*(.+?)\s*$", text):
        return found[1]
    shape = next((pattern for names, pattern in _SHAPES if re.search(rf"(?i)(?:^|[^a-z])(?:{names})", field)), None)
    for before, looks in _taught(request.examples, field):
        if found := re.search(rf"(?i:\b{before})\s+((?:{shape or looks}))", text):
            return found[1]
    if shape is None:
        return None
    places = [found.start() for word in own for found in re.finditer(rf"(?i){word}", text)]
    candidates = [(_away(found.start(), places), found.start(), found[0]) for found in re.finditer(shape, text)]
    return min(candidates)[2] if candidates else None


def _away(at: int, places: Sequence[int]) -> int:
    """Characters to the nearest of some places; the same for all where there is none."""
    return min((abs(at - place) for place in places), default=0)


def _taught(examples: Sequence[tuple[str, str]], field: str) -> list[tuple[str, str]]:
    """The word before a field's value in each example, most frequent first, and what such values look like."""
    before: Counter[tuple[str, str]] = Counter()
    for text, said in examples:
        value = _object(said).get(field)
        at = text.find(value) if isinstance(value, str) and value else -1
        if at > 0 and (lead := re.search(r"([\w#]+)[\s:]*$", text[:at])):
            before[re.escape(lead[1].casefold()), _looks(str(value))] += 1
    return [pair for pair, _ in sorted(before.items(), key=lambda item: (-item[1], item[0]))]


def _looks(value: str) -> str:
    """A pattern for values like this one: as many words, of the same kind."""
    kinds = [
        r"\d[\d.,]*" if re.fullmatch(r"\d[\d.,]*", word)
        else r"[A-ZÄÖÜ][\w'’&-]*" if word[:1].isupper()
        else r"[\w'’&-]+"
        for word in value.split()
    ]  # fmt: skip
    return r"\s+".join(kinds)


MODELS: dict[str, Callable[[Request], str]] = {
    "classifier": _classify,
    "summarizer": _summarize,
    "translator": _translate,
    "extractor": _extract,
}
