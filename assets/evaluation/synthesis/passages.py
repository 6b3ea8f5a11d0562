"""Passages: what questions are made from, cut as no index under test cuts.

Belongs here: refusing a chunking that is under test, reading the live documents, cutting them, choosing passages by a
seed. Does not belong here: what is asked about them (cloze.py, templates.py, model_writer.py).

A question made from a chunk of an index under test asks for what fits into exactly that chunk: the index that cut it would
win by construction.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from assets.chunks.chunkers import ChunkTools, chunk_text
from assets.evaluation.heading_questions import SectionedDocument, sections
from assets.evaluation.metrics.words import sentences
from assets.evaluation.synthesis.search import PassageIndex, terms
from resources.chunk_config import chunker_fingerprint
from resources.chunker_config import ChunkerConfig, ParentChildChunker, is_partial
from resources.config import ProjectConfig
from resources.errors import ConfigError
from resources.models import Models
from resources.postgres import FOREVER, Connection
from resources.sharding import source_of
from resources.synthesis_config import KINDS, QuestionKind

#: Documents are taken, in the order of a hash, until they have so many passages; it bounds memory, 5 KB each.
MAXIMUM_PASSAGES = 20_000
#: Passages questions are made from, for each question wanted.
_SPARE = 20
_LEAST = 400
_ROWS = 50
#: An answer is shown as it stands in the document, so it must be plain.
_MARKUP = re.compile(r"[*_`\[\]|<>\n]")


@dataclass(frozen=True)
class Passage:
    """Characters ``[start, end)`` of a document.

    Attributes:
        document: ``source/path``, as evidence names it.
        headings: of the sections it begins in, outermost first.
        statements: ranges of the whole sentences in it, each of which its document has once.
        sections: (heading, range of the section's first sentence) of sections that begin in it.
    """

    document_id: int
    text_hash: bytes
    document: str
    title: str
    language: str
    ordinal: int
    start: int
    end: int
    text: str
    headings: tuple[str, ...] = ()
    statements: tuple[tuple[int, int], ...] = ()
    sections: tuple[tuple[str, int, int], ...] = ()

    @property
    def place(self) -> list[Any]:
        """What it is known by: the same in every database that has the same documents."""
        return [self.document, self.text_hash.hex(), self.start, self.end]

    @property
    def heading(self) -> str:
        """Title and headings, as a reader is shown them."""
        return " — ".join(part for part in (self.title, " > ".join(self.headings)) if part) or self.document

    def part(self, start: int, end: int) -> str:
        """Characters ``[start, end)`` of the document, which must be inside."""
        return self.text[start - self.start : end - self.start]


@dataclass
class Material:
    """The documents of a dataset as far as questions are made from them.

    Attributes:
        passages: those questions are made from; documents take turns, the order is that of a seeded hash.
        index: all passages read, to search for them; its numbers are positions in ``everything``.
        documents: how many were read; ``left_out``: how many were not, because there are too many.
    """

    passages: list[Passage]
    index: PassageIndex
    everything: list[Passage] = field(default_factory=list)
    documents: int = 0
    left_out: int = 0
    vocabulary: set[str] = field(default_factory=set)

    def passages_for(self, kind: QuestionKind) -> list[Passage]:
        """The passages in their order, each kind beginning elsewhere, so that kinds seldom ask about the same statement."""
        begin = len(self.passages) * KINDS.index(kind) // len(KINDS)
        return self.passages[begin:] + self.passages[:begin]

    def knows(self, word: str) -> bool:
        """Whether a stemmed word stands in any live document, those that were left out too."""
        return self.index.frequency(word) > 0 or word in self.vocabulary

    def around(self, number: int) -> str:
        """Text of a passage with its neighbours of the same document."""
        own = self.everything[number]
        near = self.everything[max(0, number - 1) : number + 2]
        return "\n".join(one.text for one in near if one.document_id == own.document_id)

    @property
    def complete(self) -> bool:
        """Whether every live document was read whole."""
        return not self.left_out and not self.vocabulary


@dataclass(frozen=True)
class Conflict:
    """An index of an experiment that is cut like the passages."""

    experiment: str
    index: str


def conflicts(config: ProjectConfig, dataset: str, models: Models) -> list[Conflict]:
    """Indexes of experiments on a dataset that cut as its synthetic questions' passages are cut; parents and children too."""
    synthesis = config.datasets[dataset].synthetic
    if synthesis is None:
        return []
    own = _fingerprints(synthesis.chunker, models)
    found: list[Conflict] = []
    for name, experiment in config.experiments.items():
        if experiment.dataset != dataset:
            continue
        for index in experiment.index_names:
            if index in config.indexes and not own.isdisjoint(_fingerprints(config.indexes[index].chunker, models)):
                found.append(Conflict(name, index))
    return found


def check_chunking(config: ProjectConfig, dataset: str, models: Models) -> None:
    """Refuse a chunking that an experiment on the dataset tests.

    Raises:
        ConfigError: naming the header, the experiment, the index and the remedy.
    """
    found = conflicts(config, dataset, models)
    if found:
        first = found[0]
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise ConfigError(
            f"evaluation/{dataset}.yaml: synthetic.chunker: index {first.index!r} of experiment {first.experiment!r}{more} "
            "is cut in the same way, and would win on questions made from its own chunks; give synthetic another kind, "
            "unit, size or overlap"
        )


def _fingerprints(chunker: ChunkerConfig, models: Models) -> set[str]:
    items: list[ChunkerConfig] = [chunker]
    if isinstance(chunker, ParentChildChunker):
        items += [chunker.parent, chunker.child]
    return {chunker_fingerprint(item, models) for item in items}


def read_material(
    connection: Connection, config: ProjectConfig, dataset: str, models: Models, *, most: int = MAXIMUM_PASSAGES
) -> Material:
    """Read and cut the live documents of a dataset.

    Args:
        most: documents are left out from so many passages on.
    """
    header = config.datasets[dataset]
    synthesis = header.synthetic
    assert synthesis is not None
    tools = ChunkTools(models)
    wanted = max(_LEAST, _SPARE * sum(synthesis.wanted.values()))
    chosen: list[tuple[int, bytes, Passage]] = []
    material = Material([], PassageIndex())
    for row in live_documents(connection, header.sources):
        if len(material.everything) >= most or is_partial(synthesis.chunker):
            material.vocabulary.update(terms(f"{row.title} {row.text}"))
        if len(material.everything) >= most:
            material.left_out += 1
            continue
        material.documents += 1
        own = cut(row, synthesis.chunker, tools)
        for passage in own:
            material.index.add(" ".join([passage.title, *passage.headings, passage.text]))
            material.everything.append(passage)
        usable = [passage for passage in own if passage.statements]
        ranked = sorted((seeded(synthesis.seed, passage.place), number) for number, passage in enumerate(usable))
        chosen += [(turn, digest, usable[number]) for turn, (digest, number) in enumerate(ranked)]
        if len(chosen) > 4 * wanted:
            chosen = sorted(chosen, key=lambda item: item[:2])[:wanted]
    material.passages = [item[2] for item in sorted(chosen, key=lambda item: item[:2])[:wanted]]
    return material


@dataclass(frozen=True)
class LiveDocument:
    """A live document as stored."""

    document_id: int
    source: str
    path: str
    title: str
    language: str
    headings: Sequence[dict[str, Any]]
    text_hash: bytes
    text: str


def live_documents(connection: Connection, sources: Sequence[str]) -> Iterator[LiveDocument]:
    """The live documents of some sources, in an order that looks random and is always the same."""
    with connection.cursor(name="synthesis_documents") as cursor:
        cursor.itersize = _ROWS
        cursor.execute(
            """SELECT document_id, source, path, title, coalesce(language, ''), headings, text_hash, text
               FROM document_version JOIN document_text USING (text_hash)
               WHERE source = ANY(%s) AND rev_to = %s
               ORDER BY md5(split_part(source, '.', 1) || '/' || path), source, path COLLATE "C" """,
            (list(sources), FOREVER),
        )
        for row in cursor:
            yield LiveDocument(*row)


def cut(document: LiveDocument, chunker: ChunkerConfig, tools: ChunkTools | None = None) -> list[Passage]:
    """A document's passages with the sentences that are whole in them."""
    text, place = document.text, f"{source_of(document.source)}/{document.path}"
    found = _sentences(text)
    counted = Counter(text[start:end] for start, end in found)
    whole = [(start, end) for start, end in found if counted[text[start:end]] == 1]
    first = [
        (name, at, at + len(sentence))
        for name, sentence in sections(
            SectionedDocument(document.source, document.path, document.title, text, document.headings)
        )
        if not _MARKUP.search(sentence) and (at := text.find(sentence)) >= 0
    ]
    return [
        Passage(
            document_id=document.document_id,
            text_hash=bytes(document.text_hash),
            document=place,
            title=document.title,
            language=document.language,
            ordinal=chunk.ordinal,
            start=chunk.start,
            end=chunk.end,
            text=text[chunk.start : chunk.end],
            headings=tuple(chunk.heading_path),
            statements=tuple(span for span in whole if chunk.start <= span[0] and span[1] <= chunk.end),
            sections=tuple(one for one in first if chunk.start <= one[1] and one[2] <= chunk.end),
        )
        for chunk in chunk_text(text, chunker, tools)
    ]


def _sentences(text: str) -> list[tuple[int, int]]:
    """Ranges of the sentences of a text."""
    spans: list[tuple[int, int]] = []
    position = 0
    for sentence in sentences(text):
        start = text.index(sentence, position)
        position = start + len(sentence)
        spans.append((start, position))
    return spans


def seeded(seed: int, value: Any) -> bytes:
    """A hash of something under a seed: the one source of chance here."""
    return hashlib.blake2b(f"{seed}:{value!r}".encode(), digest_size=8).digest()
