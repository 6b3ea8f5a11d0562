"""Problems of chunks: every way in which the chunks of a text can be wrong.

Belongs here: measuring the chunks of one text against the text and the chunker; messages say positions, never words.
Does not belong here: cutting (chunkers.py) and what a problem leads to (checks.py).
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

from assets.chunks.chunkers import Chunk, heading_paths, length_in
from resources.chunker_config import ChunkerConfig, CodeChunker, LayoutChunker, ParentChildChunker, is_partial
from resources.fingerprint import text_hash

#: A chunk inside a table ends its path with the header of the table, which stands before it at most this far.
_TITLES_AT_MOST = 1


def coverage_problems(text: str, chunks: Sequence[Chunk], config: ChunkerConfig | None = None) -> list[str]:
    """Where chunks do not reproduce the text they claim, or leave out characters other than white space.

    Args:
        config: a partial chunker may leave out whatever it likes.
    """
    problems = []
    partial = config is not None and is_partial(config)
    covered = 0
    for number, chunk in enumerate(chunks):
        shown = text[chunk.start : chunk.end]
        if chunk.ordinal != number:
            problems.append(f"chunk {number} has ordinal {chunk.ordinal}")
        if not 0 <= chunk.start < chunk.end <= len(text):
            problems.append(f"chunk {number}: range [{chunk.start}, {chunk.end}) is not inside the text")
        elif text_hash(shown) != chunk.hash:
            problems.append(f"chunk {number}: its hash is not that of characters [{chunk.start}, {chunk.end})")
        elif not shown.strip():
            problems.append(f"chunk {number} is white space only")
        if not partial and chunk.start > covered and text[covered : chunk.start].strip():
            problems.append(f"characters [{covered}, {chunk.start}) are in no chunk")
        covered = max(covered, chunk.end)
    if not partial and text[covered:].strip():
        problems.append(f"characters [{covered}, {len(text)}) are in no chunk")
    return problems


def size_problems(text: str, chunks: Sequence[Chunk], config: ChunkerConfig) -> list[str]:
    """Which chunks are larger than configured."""
    if config.unit == "characters":
        sizes = [min(chunk.end, len(text)) - chunk.start for chunk in chunks]
    else:
        sizes = [length_in(config, text[chunk.start : chunk.end]) for chunk in chunks]
    return [
        f"chunk {chunk.ordinal} has {size} {config.unit}, allowed are {config.size}"
        for chunk, size in zip(chunks, sizes, strict=True)
        if size > config.size
    ]


def overlap_problems(text: str, chunks: Sequence[Chunk], config: ChunkerConfig) -> list[str]:
    """Which chunks begin no later than the one before, or share more with it than configured.

    Sentences that overlap are bounded by the size alone, a custom function by nothing.
    """
    problems = []
    cutter = config.child if isinstance(config, ParentChildChunker) else config
    overlap = getattr(cutter, "overlap", None)
    if overlap is None:
        free = cutter.kind == "custom" or getattr(cutter, "overlap_sentences", 0) > 0
        overlap = None if free else 0
    for before, after in pairwise(chunks):
        if after.start <= before.start or (after.end <= before.end and cutter.kind != "custom"):
            problems.append(f"chunk {after.ordinal} does not begin and end after chunk {before.ordinal}")
        elif overlap is not None and after.start < before.end:
            shared = length_in(config, text[after.start : before.end])
            if shared > overlap:
                problems.append(
                    f"chunk {after.ordinal} shares {shared} {config.unit} with the one before, allowed are {overlap}"
                )
    return problems


def heading_problems(text: str, chunks: Sequence[Chunk], config: ChunkerConfig) -> list[str]:
    """Which chunks do not carry the path of a section they are in, followed at most by the header of a table."""
    sections = heading_paths(text, config)
    starts = [start for start, _ in sections]
    items = (config.parent, config.child) if isinstance(config, ParentChildChunker) else (config,)
    extra = _TITLES_AT_MOST if any(isinstance(item, LayoutChunker | CodeChunker) for item in items) else 0
    problems = []
    for chunk in chunks:
        first, last = bisect_right(starts, chunk.start) - 1, bisect_right(starts, chunk.end - 1) - 1
        for section in range(last, first - 1, -1):
            path = sections[section][1] if section >= 0 else ()
            if chunk.heading_path[: len(path)] == path and len(chunk.heading_path) - len(path) <= extra:
                break
        else:
            problems.append(f"chunk {chunk.ordinal} carries the titles of a section it is not in")
    return problems


def parent_problems(text: str, chunks: Sequence[Chunk], config: ChunkerConfig) -> list[str]:
    """Which chunks are not inside their parent, and which parents are too large, overlap or are out of order."""
    problems = []
    if not isinstance(config, ParentChildChunker):
        return [f"chunk {chunk.ordinal} has a parent, its chunker makes none" for chunk in chunks if chunk.parent]
    before: tuple[int, int] | None = None
    for chunk in chunks:
        if chunk.parent is None:
            problems.append(f"chunk {chunk.ordinal} has no parent")
            continue
        start, end = chunk.parent
        if not 0 <= start <= chunk.start < chunk.end <= end <= len(text):
            problems.append(f"chunk {chunk.ordinal} is not inside its parent [{start}, {end})")
        if chunk.parent == before:
            continue
        if before is not None and start < before[1]:
            problems.append(f"the parent of chunk {chunk.ordinal} begins inside the one before")
        size = length_in(config.parent, text[start:end])
        if size > config.parent.size:
            problems.append(
                f"the parent of chunk {chunk.ordinal} has {size} {config.parent.unit}, allowed are {config.parent.size}"
            )
        before = chunk.parent
    return problems
