"""Chunkers: from a text to the exact character ranges of its chunks.

Belongs here: the one entrance to all kinds of chunkers, and what a chunk is.
Does not belong here: the database and batching (chunking.py), what is embedded for a chunk (enrichment.py), and the
kinds that need more than a few lines (splitter.py, semantic.py, custom.py; packing.py and structure.py below them).

All kinds are pure functions of a text but two: ``semantic`` asks an embedding model, ``custom`` a function of the user.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from assets.chunks.code_structure import looks_like_code
from assets.chunks.custom import custom_pieces
from assets.chunks.packing import Measure, clause_cuts, divide, fixed_cuts, prose_cuts, sentence_cuts
from assets.chunks.prepared import Piece, Prepared
from assets.chunks.semantic import semantic_pieces
from assets.chunks.splitter import split
from assets.chunks.structure import SUBHEADING
from assets.chunks.tokens import count_tokens
from assets.corpus.headings import paths_at
from resources.chunker_config import (
    ChunkerConfig,
    CodeChunker,
    FixedChunker,
    LayoutChunker,
    ParentChildChunker,
    SemanticChunker,
    SentenceChunker,
    embedders_of,
)
from resources.fingerprint import text_hash
from resources.models import Usage

if TYPE_CHECKING:
    import numpy as np

    from resources.models import Models

__all__ = ["Chunk", "ChunkTools", "chunk_text", "chunk_texts", "count_tokens", "heading_paths", "length_in"]


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk: ``text[start:end]`` of its text, without white space at either end.

    Attributes:
        hash: content address of those characters.
        heading_path: titles of the sections it begins in, outermost first; inside a table whose header is in an
            earlier chunk, the header comes last.
        tokens: how many, as ``count_tokens`` counts.
        parent: characters [start, end) of the larger chunk it is read in, if it has one.
    """

    ordinal: int
    start: int
    end: int
    hash: bytes
    heading_path: tuple[str, ...]
    tokens: int
    parent: tuple[int, int] | None = None


@dataclass
class ChunkTools:
    """What a chunker may need besides the text.

    Attributes:
        models: for ``semantic``.
        usage: what was asked of the models so far.
        windows: how many windows of sentences were embedded.
    """

    models: "Models | None" = None
    usage: Usage = field(default_factory=Usage)
    windows: int = 0

    def embed(self, name: str, texts: Sequence[str]) -> "np.ndarray":
        """Vectors of shape (len(texts), dimensions) from the embedding model ``name``."""
        if self.models is None:
            raise ValueError("a semantic chunker needs the models: pass ChunkTools(models)")
        batch = self.models.embedder(name).embed(texts)
        self.usage = self.usage + batch.usage
        self.windows += len(texts)
        return batch.vectors


def chunk_text(text: str, config: ChunkerConfig, tools: ChunkTools | None = None) -> list[Chunk]:
    """Cut a normalised text into chunks of at most ``config.size`` units.

    Together the chunks hold every character that is not white space, unless ``config`` is partial. With an overlap a
    chunk begins before the end of the one before it.

    Args:
        tools: needed by ``semantic`` alone.

    Raises:
        PermanentError: a custom function failed, or an embedding model refused.
    """
    return next(chunk_texts([text], config, tools))


def chunk_texts(texts: Iterable[str], config: ChunkerConfig, tools: ChunkTools | None = None) -> Iterator[list[Chunk]]:
    """``chunk_text`` for each text; where a model is asked, the texts share its batches and are held at once."""
    tools = tools or ChunkTools()
    if embedders_of(config):
        items = [Prepared(text, _code(text, config)) for text in texts]
        jobs = [(item, 0, len(item.text)) for item in items]
        for item, pieces in zip(items, _pieces(jobs, config, tools), strict=True):
            yield _chunks(item, pieces)
        return
    for text in texts:
        item = Prepared(text, _code(text, config))
        yield _chunks(item, _pieces([(item, 0, len(text))], config, tools)[0])


def heading_paths(text: str, config: ChunkerConfig) -> list[tuple[int, tuple[str, ...]]]:
    """Where each section of a text begins and its path of titles; of code, classes and functions are the sections."""
    return _paths(Prepared(text, _code(text, config)))


def length_in(config: ChunkerConfig, text: str) -> int:
    """Length of a text in the unit of the configuration."""
    return len(text) if config.unit == "characters" else count_tokens(text)


def _paths(item: Prepared) -> list[tuple[int, tuple[str, ...]]]:
    return paths_at(item.structure.definitions if item.code == "whole" else item.outline.headings)


def _chunks(item: Prepared, pieces: Sequence[Piece]) -> list[Chunk]:
    paths = _paths(item)
    starts = [start for start, _ in paths]
    counts = item.tokens.counts([piece.start for piece in pieces], [piece.end for piece in pieces])
    chunks: list[Chunk] = []
    text = item.text
    for ordinal, (piece, count) in enumerate(zip(pieces, counts, strict=True)):
        section = bisect_right(starts, piece.core) - 1
        path = paths[section][1] if section >= 0 else ()
        shown = text[piece.start : piece.end]
        chunks.append(
            Chunk(
                ordinal,
                piece.start,
                piece.end,
                text_hash(shown),
                (*path, *piece.context) if piece.context else path,
                count_tokens(shown) if count is None else count,
                piece.parent,
            )
        )
    return chunks


def _code(text: str, config: ChunkerConfig) -> str:
    """How much of a text is code, as far as the chunker cares."""
    items = [config.parent, config.child] if isinstance(config, ParentChildChunker) else [config]
    for item in items:
        if isinstance(item, CodeChunker) and item.text != "prose" and (item.text == "code" or looks_like_code(text)):
            return "whole"
    return "fenced"


# --- the kinds ----------------------------------------------------------------------------------------------

_Job = tuple[Prepared, int, int]


def _pieces(jobs: Sequence[_Job], config: ChunkerConfig, tools: ChunkTools) -> list[list[Piece]]:
    """Cut characters [start, end) of each text."""
    if isinstance(config, ParentChildChunker):
        return _nested(jobs, config, tools)
    if isinstance(config, SemanticChunker):
        return semantic_pieces(jobs, config, lambda texts: tools.embed(config.embedder, texts))
    cut: Callable[[Prepared, int, int, object], list[Piece]] = _CUT[config.kind]
    return [cut(item, start, end, config) for item, start, end in jobs]


def _fixed(item: Prepared, start: int, end: int, config: FixedChunker) -> list[Piece]:
    """Windows of the size; the next one begins the overlap before the end, or later where it would add nothing."""
    tokens = item.tokens
    measure = Measure(tokens, config.unit)
    first, last = tokens.at(start), tokens.at(end)
    joined = tokens.joined(first, last)
    core = begin = first
    pieces = []
    while core < last:
        stop = min(measure.reach(begin, config.size), last)
        back = stop
        while back < last and back > core + 1 and joined[back - first]:
            back -= 1
        # where all of it is joined, it is cut all the same
        stop = back if back == last or not joined[back - first] else stop
        if stop <= core:
            begin += 1  # a long word follows: less overlap
            continue
        pieces.append(_piece(item, core, begin, stop))
        core, begin = stop, stop
        if config.overlap and stop < last:
            begin = max(measure.reach_back(stop, config.overlap), tokens.at(pieces[-1].start) + 1)
            while begin < stop and joined[begin - first]:
                begin += 1
    return pieces


def _sentences(item: Prepared, start: int, end: int, config: SentenceChunker) -> list[Piece]:
    tokens = item.tokens
    measure = Measure(tokens, config.unit)
    first, last = tokens.at(start), tokens.at(end)
    levels = [sentence_cuts(item), *clause_cuts(item)]
    if not config.overlap_sentences or first >= last:
        return [_piece(item, one, one, two) for one, two in divide(measure, first, last, levels, config.size)]
    edges = [first]
    for stop in [*levels[0](first, last).tolist(), last]:
        edges += [two for _, two in divide(measure, edges[-1], stop, levels[1:], config.size)]
    pieces = []
    core = begin = 0
    while core < len(edges) - 1:
        begin = max(core - config.overlap_sentences, begin + 1) if pieces else 0
        while begin < core and measure.size(edges[begin], edges[core + 1]) > config.size:
            begin += 1
        reach = measure.reach(edges[begin], config.size)
        stop = max(bisect_right(edges, reach) - 1, core + 1)
        pieces.append(_piece(item, edges[core], edges[begin], edges[stop]))
        core = stop
    return pieces


def _layout(item: Prepared, start: int, end: int, config: LayoutChunker | CodeChunker) -> list[Piece]:
    tokens, structure = item.tokens, item.structure
    found = [fixed_cuts(item, positions) for positions in structure.cuts]
    sentences, *smaller = prose_cuts(item)
    levels = [*found[:SUBHEADING], sentences, found[SUBHEADING], *smaller]
    pieces = []
    for first, last in divide(Measure(tokens, config.unit), tokens.at(start), tokens.at(end), levels, config.size):
        piece = _piece(item, first, first, last)
        pieces.append(piece._replace(context=structure.header_at(piece.start)))
    return pieces


def _nested(jobs: Sequence[_Job], config: ParentChildChunker, tools: ChunkTools) -> list[list[Piece]]:
    """Parents first, then children inside each; neither overlaps its neighbour's parent."""
    parents = _pieces(jobs, config.parent, tools)
    inner: list[_Job] = []
    places: list[tuple[int, Piece, int]] = []  # text, parent, where the text of the inner job begins
    for number, ((item, _, _), found) in enumerate(zip(jobs, parents, strict=True)):
        for parent in found:
            if item.tokens.whole(parent.start, parent.end):
                inner.append((item, parent.start, parent.end))
                places.append((number, parent, 0))
            else:  # a word of several tokens was cut: seen from inside, it begins here
                alone = Prepared(item.text[parent.start : parent.end], item.code)
                inner.append((alone, 0, len(alone.text)))
                places.append((number, parent, parent.start))
    results: list[list[Piece]] = [[] for _ in jobs]
    headed = isinstance(config.parent, LayoutChunker | CodeChunker)
    for (number, parent, shift), children in zip(places, _pieces(inner, config.child, tools), strict=True):
        for child in children:
            context = child.context
            if headed and not shift and not context:
                context = jobs[number][0].structure.header_at(child.start)
            results[number].append(
                Piece(child.core + shift, child.start + shift, child.end + shift, context, (parent.start, parent.end))
            )
    return results


def _piece(item: Prepared, core: int, first: int, last: int) -> Piece:
    start, end = item.tokens.span(first, last)
    return Piece(int(item.tokens.starts[core]), start, end)


_CUT: dict[str, Callable[..., list[Piece]]] = {
    "markdown": split,
    "recursive": split,
    "fixed": _fixed,
    "sentence": _sentences,
    "layout": _layout,
    "code": _layout,
    "custom": custom_pieces,
}
