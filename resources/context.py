"""The context of an answer: which passages, sentences and worked examples the model is shown, and in which order.

Belongs here: choosing and cutting within a budget, and the record of what was really supplied.
Does not belong here: finding passages (retrieval.py), rendering them (prompt_store.py), reading answers (answerer.py).

A passage keeps the number of its hit whatever its place, so that a citation means the same hit before and after. What a
model was shown of a hit is recorded as ranges of the document's text; a claim can only rest on those.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from resources.grid_config import ContextConfig
from resources.offline_text import count_tokens, stem, words
from resources.prompt_config import FewShot
from resources.prompt_store import Passage, example_text, frame_passage

if TYPE_CHECKING:
    from resources.vector_index import SearchHit

#: Covers choosing, cutting and ordering; part of the fingerprint of every variant whose context is not the default.
CODE_VERSION = "1"
#: Stands where sentences of a passage were left out.
GAP = "…"

_SENTENCE_END = re.compile(r"""([.!?…]["'”’»)\]]*)\s+(?=\S)|([。！？])|\n\s*\n|\n(?=\s*(?:[-*•|#]|\d+[.)]\s))""")


@dataclass(frozen=True)
class Supplied:
    """Characters ``start`` to ``end`` of the document of hit ``number``, which the model was shown."""

    number: int
    start: int
    end: int


@dataclass(frozen=True)
class Assembled:
    """What the model is shown.

    Attributes:
        passages: in the order in which they stand; their numbers are those of the hits.
        supplied: by number of the hit and start; the hits that are missing were left out.
        examples: drawn worked examples, in order.
        tokens: of passages and drawn examples, by our own count.
    """

    passages: tuple[Passage, ...]
    supplied: tuple[Supplied, ...]
    examples: tuple[FewShot, ...] = ()
    tokens: int = 0

    def to_json(self) -> dict[str, Any]:
        """The record of it: ranges and ids, no words."""
        return {
            "passages": [[one.number, one.start, one.end] for one in self.supplied],
            "order": [passage.number for passage in self.passages],
            "examples": [list(example.documents) for example in self.examples],
            "tokens": self.tokens,
        }


def assemble(
    hits: "Sequence[SearchHit]", context: ContextConfig, *, question: str, pool: Sequence[FewShot] = ()
) -> Assembled:
    """Choose what the model is shown of ``hits`` (best first) and of the examples in ``pool``.

    With a budget the best passages go in first. A passage that does not fit is left out, and a smaller one after it may
    still go in; if not even one fits, as much of the best as fits is shown. The budget holds for the sum of
    ``passage_tokens`` and ``example_tokens`` of everything shown.
    """
    room = context.max_tokens
    share = None if room is None else int(context.example_share * room)
    examples = choose_examples(pool, context, question, share)
    spent = sum(map(example_tokens, examples))
    room = None if room is None else room - spent
    pieces = [_Piece(number, hit) for number, hit in enumerate(hits, start=1)]
    if context.compression == "deduplicate":
        _drop_repeated(pieces)
    if context.compression == "sentences" and room is not None and sum(piece.tokens for piece in pieces) > room:
        pieces = _best_sentences(pieces, question, room)
    elif room is not None:
        pieces = _whole(pieces, room)
    shown = [piece for piece in pieces if piece.kept]
    return Assembled(
        passages=tuple(piece.passage for piece in _ordered(shown, context.order)),
        supplied=tuple(one for piece in shown for one in piece.supplied),
        examples=examples,
        tokens=spent + sum(piece.tokens for piece in shown),
    )


def passage_tokens(passage: Passage) -> int:
    """Tokens of all that a template can show of a passage, by our own count."""
    framed = frame_passage(passage)
    return count_tokens(framed.text) + count_tokens(" ".join((framed.document, framed.title, *framed.headings)))


def example_tokens(example: FewShot) -> int:
    """Tokens of a drawn example, likewise."""
    return count_tokens(example_text(example))


# --- pieces -------------------------------------------------------------------------------------------------


@dataclass
class _Piece:
    """A hit with the sentences that are kept of it."""

    number: int
    hit: "SearchHit"
    spans: list[tuple[int, int]] = field(init=False)
    kept: set[int] = field(init=False)
    cut: tuple[int, int] | None = None  # the characters that are shown, when not even one sentence fits

    def __post_init__(self) -> None:
        self.spans = sentences(self.hit.text)
        self.kept = set(range(len(self.spans)))

    @property
    def text(self) -> str:
        """What is shown: the text as it is where nothing was left out."""
        if self.cut is not None:
            return self.hit.text[self.cut[0] : self.cut[1]]
        if len(self.kept) == len(self.spans):
            return self.hit.text
        parts: list[str] = []
        before = -1
        for first, last in _runs(sorted(self.kept)):
            if first > before + 1:
                parts.append(GAP)
            parts.append(self.hit.text[self.spans[first][0] : self.spans[last][1]])
            before = last
        if before < len(self.spans) - 1:
            parts.append(GAP)
        return " ".join(parts)

    @property
    def supplied(self) -> list[Supplied]:
        """The ranges that are shown, in the document."""
        hit = self.hit
        base = hit.start if hit.read_start is None else hit.read_start
        if self.cut is not None:
            return [Supplied(self.number, base + self.cut[0], base + self.cut[1])]
        if len(self.kept) == len(self.spans):
            return [Supplied(self.number, base, base + len(hit.text))]
        return [
            Supplied(self.number, base + self.spans[first][0], base + self.spans[last][1])
            for first, last in _runs(sorted(self.kept))
        ]

    @property
    def passage(self) -> Passage:
        hit = self.hit
        return Passage(
            number=self.number,
            text=self.text,
            document=f"{hit.source}/{hit.path}",
            title=hit.title,
            headings=tuple(hit.heading_path),
            page=hit.page,
        )

    @property
    def tokens(self) -> int:
        return passage_tokens(self.passage) if self.kept else 0


def sentences(text: str) -> list[tuple[int, int]]:
    """Ranges of the sentences of a text, in order: also list items, table rows and paragraphs; without blank ones."""
    spans: list[tuple[int, int]] = []
    start = 0
    breaks = [(max(found.start(), found.end(1), found.end(2)), found.end()) for found in _SENTENCE_END.finditer(text)]
    for end, following in [*breaks, (len(text), len(text))]:
        piece = text[start:end]
        if piece.strip():
            spans.append((start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())))
        start = following
    return spans or [(0, len(text))]


def _runs(numbers: Sequence[int]) -> Iterable[tuple[int, int]]:
    """First and last of every run of consecutive numbers."""
    first = None
    for at, number in enumerate(numbers):
        first = number if first is None else first
        if at + 1 == len(numbers) or numbers[at + 1] != number + 1:
            yield first, number
            first = None


def _drop_repeated(pieces: Iterable[_Piece]) -> None:
    seen: set[str] = set()
    for piece in pieces:
        for number, (start, end) in enumerate(piece.spans):
            said = " ".join(piece.hit.text[start:end].casefold().split())
            if said in seen:
                piece.kept.discard(number)
            seen.add(said)


def _whole(pieces: Sequence[_Piece], room: int) -> list[_Piece]:
    chosen: list[_Piece] = []
    left = room
    for piece in pieces:
        if piece.kept and piece.tokens <= left:
            chosen.append(piece)
            left -= piece.tokens
    return chosen or _shortened(pieces, room)


def _shortened(pieces: Sequence[_Piece], room: int) -> list[_Piece]:
    """As much of the best passage as fits: whole sentences from its beginning, else whole words; nothing if not even one does."""
    piece = next((piece for piece in pieces if piece.kept), None)
    if piece is None:
        return []
    kept = sorted(piece.kept)
    fitting = _most(len(kept), lambda number: _with_kept(piece, kept[:number]).tokens <= room)
    if fitting:
        piece.kept = set(kept[:fitting])
        return [piece]
    start, end = piece.spans[kept[0]]
    ends = [start + found.end() for found in re.finditer(r"\S+", piece.hit.text[start:end])]

    def cut(number: int) -> _Piece:
        return _with_cut(piece, start, ends[number - 1])

    fitting = _most(len(ends), lambda number: cut(number).tokens <= room)
    return [cut(fitting)] if fitting else []


def _with_kept(piece: _Piece, kept: Iterable[int]) -> _Piece:
    """The piece with other sentences kept."""
    other = _Piece(piece.number, piece.hit)
    other.kept = set(kept)
    return other


def _with_cut(piece: _Piece, start: int, end: int) -> _Piece:
    """The piece with these characters of its text."""
    other = _Piece(piece.number, piece.hit)
    other.kept, other.cut = {0}, (start, end)
    return other


def _most(count: int, fits: Any) -> int:
    """The largest number up to ``count`` that fits, when all smaller ones do."""
    low, high = 0, count
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


# --- the sentences that share most with the question --------------------------------------------------------


def _best_sentences(pieces: Sequence[_Piece], question: str, room: int) -> list[_Piece]:
    """Keep the sentences that share most with the question, best first, as many as fit; ties by rank and place."""
    asked = set(map(stem, words(question)))
    stems = {
        (at, number): Counter(map(stem, words(piece.hit.text[start:end])))
        for at, piece in enumerate(pieces)
        for number, (start, end) in enumerate(piece.spans)
        if number in piece.kept
    }
    frequency = Counter(word for counts in stems.values() for word in counts)
    weight = {word: math.log1p(len(stems) / frequency[word]) for word in sorted(asked) if word in frequency}

    def score(key: tuple[int, int]) -> float:
        """BM25 over the sentences, without the norm of length that would prefer fragments."""
        counts = stems[key]
        return math.fsum(weight[word] * counts[word] * 2.2 / (counts[word] + 1.2) for word in weight if counts[word])

    order = sorted(stems, key=lambda key: (-round(score(key), 9), key))
    for piece in pieces:
        piece.kept = set()
    left = room
    for at, number in order:
        piece = pieces[at]
        before = piece.tokens
        piece.kept.add(number)
        more = piece.tokens - before
        if more > left:
            piece.kept.discard(number)
        else:
            left -= more
    return [piece for piece in pieces if piece.kept] or _shortened([_Piece(p.number, p.hit) for p in pieces[:1]], room)


# --- order --------------------------------------------------------------------------------------------------


def _ordered(pieces: Sequence[_Piece], order: str) -> list[_Piece]:
    """``pieces``, best first, in the order in which the model reads them."""
    match order:
        case "best_last":
            return list(reversed(pieces))
        case "edges":  # best first, second last, third second, ...: the weakest stand in the middle
            return [*pieces[0::2], *reversed(pieces[1::2])]
        case "document":
            first: dict[int, int] = {}
            for at, piece in enumerate(pieces):
                first.setdefault(piece.hit.document_id, at)
            return sorted(pieces, key=lambda piece: (first[piece.hit.document_id], piece.hit.start, piece.number))
        case _:
            return list(pieces)


# --- worked examples ----------------------------------------------------------------------------------------


def choose_examples(
    pool: Sequence[FewShot], context: ContextConfig, question: str, share: int | None
) -> tuple[FewShot, ...]:
    """The drawn examples for a question: the first of the pool, or those most alike, the nearest last.

    Args:
        share: most tokens they may take; one that does not fit is passed over.
    """
    ranked = list(pool)
    if context.select == "similar":
        near = _likeness([example.question for example in pool], question)
        ranked = [pool[at] for at in sorted(range(len(pool)), key=lambda at: (-near[at], at))]
    chosen: list[FewShot] = []
    left = share
    for example in ranked:
        if len(chosen) == context.examples:
            break
        tokens = example_tokens(example)
        if left is None or tokens <= left:
            chosen.append(example)
            left = None if left is None else left - tokens
    return tuple(reversed(chosen)) if context.select == "similar" else tuple(chosen)


def _likeness(questions: Sequence[str], question: str) -> list[float]:
    """Cosine of word counts weighted by how rare a word is among the questions; rounded, so that noise decides nothing."""
    counts = [Counter(map(stem, words(one))) for one in questions]
    asked = Counter(map(stem, words(question)))
    frequency = Counter(word for one in counts for word in one)
    rare = {word: math.log1p(len(counts) / frequency[word]) for word in frequency}

    def norm(one: Counter[str]) -> float:
        return math.sqrt(math.fsum((one[word] * rare.get(word, 0.0)) ** 2 for word in sorted(one))) or 1.0

    def dot(one: Counter[str]) -> float:
        return math.fsum(one[word] * asked[word] * rare[word] ** 2 for word in sorted(one) if word in asked)

    return [round(dot(one) / (norm(one) * norm(asked)), 9) for one in counts]
