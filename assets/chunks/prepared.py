"""A text on its way to being cut: what several chunkers need to know of it, found once.

Belongs here: the text with its outline, tokens and structure, and the piece a chunker returns.
Does not belong here: finding them (headings.py, tokens.py, structure.py) and deciding where to cut.
"""

from functools import cached_property
from typing import NamedTuple

from assets.chunks.structure import Structure, analyse
from assets.chunks.tokens import Tokens
from assets.corpus.headings import Outline, scan


class Piece(NamedTuple):
    """One chunk before it is numbered, in characters.

    Attributes:
        core: where what is new begins; before it stands what the chunk before it also has.
        context: what to add to its heading path: the header of a table that began earlier.
    """

    core: int
    start: int
    end: int
    context: tuple[str, ...] = ()
    parent: tuple[int, int] | None = None


class Prepared:
    """A normalised text and what was found in it; everything is computed at its first use.

    Args:
        code: how much of the text is code, see ``structure.analyse``.
    """

    def __init__(self, text: str, code: str = "fenced") -> None:
        self.text = text
        self.code = code

    @cached_property
    def outline(self) -> Outline:
        """Headings; see assets/corpus/headings.py."""
        return scan(self.text)

    @cached_property
    def tokens(self) -> Tokens:
        """Positions of the tokens."""
        return Tokens(self.text)

    @cached_property
    def structure(self) -> Structure:
        """Blocks: where a cut costs little."""
        return analyse(self.text, self.outline, self.code)
