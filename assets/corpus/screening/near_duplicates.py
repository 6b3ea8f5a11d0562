"""Near duplicates: documents that share most of their text.

Belongs here: sketches of texts (MinHash), the search for texts worth comparing, the comparison itself, and which of two
documents stays. Does not belong here: equal texts as such (checks.py reports them), and the other detectors, which need
one document only.

A text is the set of its runs of five words. Its sketch is the 128 smallest values of that set under 128 permutations,
bit for bit what datasketch computes with its scheme ``affine32`` (a test compares); sketches that agree in one of 16
bands of 8 values are candidates, and a pair is what an exact comparison of the two sets confirms. Two texts of Jaccard
similarity 0.9 share a band with probability 0.9999, of 0.8 with 0.95, of 0.5 with 0.06. Work is proportional to the texts that
are new: each is looked up in an index, and compared with the oldest few texts of every band it shares.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from resources.platform import Platform
from resources.policy_config import NearDuplicateRule
from resources.postgres import Connection, Lease

if TYPE_CHECKING:
    import numpy as np

VERSION = "1"
RUN = 5  # words
PERMUTATIONS, BANDS = 128, 16
SEED = 1
#: A text of fewer runs is too short for its similarity to mean anything.
MINIMUM_RUNS = 20
#: So many texts of a band, the oldest, a new text is compared with: many alike are joined through these.
COMPARED = 4
_BATCH = 200
_BLOCK = 1024
_MULTIPLIER = 0x9E3779B97F4A7C15
_BASE = 0xD6E8FEB86659FD93  # odd, so that it has an inverse
_TABLE = 1 << 17


@dataclass(frozen=True)
class Candidate:
    """A document that may enter, or is in: ``document_id`` orders by age, None comes last, then by path."""

    path: str
    text_hash: bytes
    document_id: int | None


@dataclass(frozen=True)
class Duplicate:
    """A document that shares most of its text with an older one.

    Attributes:
        path: of the later one.
        of: the older one, as ``source/path``.
        similarity: Jaccard.
        equal: the texts are the same.
    """

    path: str
    of: str
    similarity: float
    equal: bool = False


# --- sketches ---------------------------------------------------------------------------------------------


def runs(text: str) -> "np.ndarray":
    """Distinct 32-bit hashes of the runs of ``RUN`` words of a text, in order.

    A word is a run of letters and digits, in lower case. Its hash is that of the polynomial of its characters, taken
    from sums over the whole text, so that no word is ever looked at by itself.
    """
    import numpy as np

    codes = np.frombuffer(text.lower().encode("utf-32-le", "surrogatepass"), dtype="<u4")
    inside = np.concatenate(([False], _is_word(codes), [False]))
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    starts, ends = edges[0::2], edges[1::2]
    count = len(starts) - RUN + 1
    if count < 1:
        return np.empty(0, dtype=np.uint32)
    powers, inverses = _powers(len(codes))
    sums = np.concatenate(
        ([np.uint64(0)], np.cumsum((codes.astype(np.uint64) + np.uint64(1)) * powers, dtype=np.uint64))
    )
    hashes = (sums[ends] - sums[starts]) * inverses[starts]
    hashes ^= hashes >> np.uint64(31)
    multiplier = np.uint64(_MULTIPLIER)
    combined = hashes[:count].copy()
    for offset in range(1, RUN):
        combined *= multiplier
        combined += hashes[offset : offset + count]
        combined ^= combined >> np.uint64(29)
    combined *= multiplier
    return np.unique((combined >> np.uint64(32)).astype(np.uint32))


def _is_word(codes: "np.ndarray") -> "np.ndarray":
    """Whether characters are part of a word: ASCII letters and digits, and beyond ASCII all but the usual punctuation."""
    import numpy as np

    ascii_words = np.array([chr(code).isalnum() for code in range(128)])
    words = ascii_words[np.minimum(codes, 127)]
    beyond = codes > 127
    if beyond.any():
        signs = (codes < 0xC0) | ((codes >= 0x2000) & (codes < 0x2070)) | ((codes >= 0x3000) & (codes < 0x3040))
        signs |= (codes >= 0xFF00) & (codes < 0xFF10)
        words = np.where(beyond, ~signs, words)
    return words


@cache
def _power_table(length: int) -> "tuple[np.ndarray, np.ndarray]":
    import numpy as np

    def powers(base: int) -> "np.ndarray":
        return np.cumprod(np.full(length, base, dtype=np.uint64), dtype=np.uint64)

    return powers(_BASE), powers(pow(_BASE, -1, 1 << 64))


def _powers(length: int) -> "tuple[np.ndarray, np.ndarray]":
    """Powers of the base and of its inverse modulo 2**64; small tables are kept."""
    if length <= _TABLE:
        powers, inverses = _power_table(_TABLE)
    else:
        powers, inverses = _power_table.__wrapped__(length)
    return powers[:length], inverses[:length]


def sketch(hashes: "np.ndarray") -> "np.ndarray":
    """The MinHash of a set of 32-bit hashes: ``PERMUTATIONS`` values (datasketch's ``affine32``)."""
    import numpy as np

    mixed = hashes ^ (hashes >> np.uint32(16))
    mixed = mixed * np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    factors, offsets = _permutations()
    values = np.full(PERMUTATIONS, 0xFFFFFFFF, dtype=np.uint32)
    for start in range(0, len(mixed), _BLOCK):  # what fits a processor's cache
        block = factors[:, None] * mixed[None, start : start + _BLOCK]
        block += offsets[:, None]
        np.minimum(values, block.min(axis=1), out=values)
    return values


@cache
def _permutations() -> "tuple[np.ndarray, np.ndarray]":
    import numpy as np

    generator = np.random.RandomState(SEED)
    factors = generator.randint(0, 1 << 31, PERMUTATIONS, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return factors, generator.randint(0, 1 << 32, PERMUTATIONS, dtype=np.uint32)


def bands(values: "np.ndarray") -> list[int]:
    """Keys of the bands of a sketch, as signed 64-bit numbers."""
    raw = values.astype("<u4").tobytes()
    width = len(raw) // BANDS
    return [
        int.from_bytes(
            hashlib.blake2b(raw[band * width : (band + 1) * width], digest_size=8, salt=bytes([band])).digest(),
            "big",
            signed=True,
        )
        for band in range(BANDS)
    ]


def similarity(first: "np.ndarray", second: "np.ndarray") -> float:
    """Jaccard similarity of two sets of hashes."""
    import numpy as np

    both = len(np.intersect1d(first, second, assume_unique=True))
    return both / (len(first) + len(second) - both) if both else 0.0


# --- the corpus -------------------------------------------------------------------------------------------


def compare(
    platform: Platform, source: str, candidates: Sequence[Candidate], new: Collection[bytes], lease: Lease
) -> list[Duplicate]:
    """Sketch the texts that are new, compare them with the live documents of all sources, and tell the duplicates.

    Args:
        candidates: what the source is going to hold.
        new: texts among them that have to be compared; pairs of others are known.

    Returns:
        Of every pair the later document, in order of path; each once, with the older document it is most like.
    """
    rule = platform.config.policies.screening.near_duplicate
    texts = {item.text_hash for item in candidates}
    wanted = sorted(texts & set(new))
    for start in range(0, len(wanted), _BATCH):
        with platform.database.connect() as connection:
            lease.check(connection)
            _write_sketches(connection, wanted[start : start + _BATCH])
    for start in range(0, len(wanted), _BATCH):
        with platform.database.connect() as connection:
            lease.check(connection)
            _write_pairs(connection, wanted[start : start + _BATCH], texts, source)
    with platform.database.connect() as connection:
        pairs = _read_pairs(connection, sorted(texts), rule.similarity)
        involved = {text for pair in pairs for text in pair}
        elsewhere = _elsewhere(connection, source, sorted(involved | texts)) if rule.enabled else {}
    return _later_ones(source, candidates, pairs, elsewhere)


def _later_ones(
    source: str,
    candidates: Sequence[Candidate],
    pairs: Mapping[tuple[bytes, bytes], float],
    elsewhere: Mapping[bytes, tuple[int, str]],
) -> list[Duplicate]:
    """Of every pair the later one, given that what is later itself makes no other one later."""
    similar: dict[bytes, dict[bytes, float]] = defaultdict(dict)
    for (first, second), value in pairs.items():
        similar[first][second] = similar[second][first] = value
    kept: dict[bytes, tuple[float, str]] = {text: (age, name) for text, (age, name) in elsewhere.items()}
    found = []
    for item in sorted(candidates, key=lambda item: (item.document_id is None, item.document_id or 0, item.path)):
        age = float("inf") if item.document_id is None else item.document_id
        older = [
            (-value, kept[other][1], other == item.text_hash)
            for other, value in {item.text_hash: 1.0, **similar.get(item.text_hash, {})}.items()
            if other in kept and kept[other][0] <= age
        ]
        if older:
            value, name, equal = min(older, key=lambda one: (one[0], not one[2], one[1]))
            found.append(Duplicate(item.path, name, round(-value, 3), equal))
        else:
            kept[item.text_hash] = (age, f"{source}/{item.path}")
    return sorted(found, key=lambda item: item.path)


def _write_sketches(connection: Connection, texts: Sequence[bytes]) -> None:
    rows = connection.execute(
        """SELECT t.text_hash, t.text FROM document_text t
           WHERE t.text_hash = ANY(%s)
             AND NOT EXISTS (SELECT 1 FROM near_duplicate_sketch s WHERE s.text_hash = t.text_hash AND s.version = %s)
           ORDER BY 1""",
        (list(texts), VERSION),
    ).fetchall()
    if not rows:
        return
    sketches = []
    for text_hash, text in rows:
        hashes = runs(text)
        if len(hashes) >= MINIMUM_RUNS:
            sketches.append((text_hash, sketch(hashes), len(hashes)))
        else:
            sketches.append((text_hash, None, len(hashes)))
    connection.execute(
        """INSERT INTO near_duplicate_sketch (text_hash, sketch, shingles, version)
           SELECT *, %s FROM unnest(%s::bytea[], %s::bytea[], %s::integer[])
           ON CONFLICT (text_hash) DO UPDATE SET sketch = EXCLUDED.sketch, shingles = EXCLUDED.shingles,
               version = EXCLUDED.version""",
        (
            VERSION,
            [item[0] for item in sketches],
            [b"" if item[1] is None else item[1].astype("<u4").tobytes() for item in sketches],
            [item[2] for item in sketches],
        ),
    )
    keyed = sorted((band, text) for text, values, _ in sketches if values is not None for band in bands(values))
    connection.execute(
        """INSERT INTO near_duplicate_band (band, text_hash) SELECT * FROM unnest(%s::bigint[], %s::bytea[])
           ON CONFLICT DO NOTHING""",
        ([band for band, _ in keyed], [text for _, text in keyed]),
    )


def _write_pairs(connection: Connection, new: Sequence[bytes], present: Collection[bytes], source: str) -> None:
    """Confirm the candidates of some texts, among the live documents of other sources and what this one will hold."""
    rows = connection.execute(
        """SELECT DISTINCT least(wanted.text_hash, other.text_hash), greatest(wanted.text_hash, other.text_hash)
           FROM (SELECT b.band, b.text_hash FROM near_duplicate_band b WHERE b.text_hash = ANY(%(new)s)) wanted
           CROSS JOIN LATERAL (
               SELECT b.text_hash FROM near_duplicate_band b
               WHERE b.band = wanted.band AND b.text_hash <> wanted.text_hash
                 AND (b.text_hash = ANY(%(present)s)
                      OR EXISTS (SELECT 1 FROM document_version v
                                 WHERE v.text_hash = b.text_hash AND v.rev_to = 2147483647 AND v.source <> %(source)s))
               ORDER BY b.text_hash LIMIT %(compared)s) other
           WHERE NOT EXISTS (SELECT 1 FROM near_duplicate p
                             WHERE p.first = least(wanted.text_hash, other.text_hash)
                               AND p.second = greatest(wanted.text_hash, other.text_hash))
           ORDER BY 1, 2""",
        {"new": list(new), "present": list(present), "source": source, "compared": COMPARED},
    ).fetchall()
    if not rows:
        return
    hashes = _Hashes(connection)
    confirmed = [(first, second, similarity(hashes[first], hashes[second])) for first, second in rows]
    confirmed = [row for row in confirmed if row[2] >= _lowest_similarity()]
    connection.execute(
        """INSERT INTO near_duplicate (first, second, similarity)
           SELECT * FROM unnest(%s::bytea[], %s::bytea[], %s::real[]) ON CONFLICT DO NOTHING""",
        [list(column) for column in zip(*confirmed, strict=True)] if confirmed else ([], [], []),
    )


def _lowest_similarity() -> float:
    """Pairs from the lowest similarity a policy may name are kept, so that another threshold needs no comparing."""
    limits = NearDuplicateRule.model_fields["similarity"].metadata
    return next(float(item.ge) for item in limits if hasattr(item, "ge"))


class _Hashes:
    """Sets of hashes by text, the last few of them kept."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._kept: dict[bytes, np.ndarray] = {}

    def __getitem__(self, text_hash: bytes) -> "np.ndarray":
        if text_hash not in self._kept:
            if len(self._kept) >= 64:
                del self._kept[next(iter(self._kept))]
            row = self._connection.execute(
                "SELECT text FROM document_text WHERE text_hash = %s", (text_hash,)
            ).fetchone()
            self._kept[text_hash] = runs(row[0] if row else "")
        return self._kept[text_hash]


def _read_pairs(connection: Connection, texts: Sequence[bytes], lowest: float) -> dict[tuple[bytes, bytes], float]:
    rows = connection.execute(
        """SELECT first, second, similarity FROM near_duplicate WHERE first = ANY(%(texts)s) AND similarity >= %(lowest)s
           UNION SELECT first, second, similarity FROM near_duplicate
           WHERE second = ANY(%(texts)s) AND similarity >= %(lowest)s""",
        {"texts": list(texts), "lowest": lowest - 1e-6},
    ).fetchall()
    return {(row[0], row[1]): row[2] for row in rows}


def _elsewhere(connection: Connection, source: str, texts: Sequence[bytes]) -> dict[bytes, tuple[int, str]]:
    """The oldest live document of other sources for each of some texts: its id and its name."""
    rows = connection.execute(
        """SELECT DISTINCT ON (text_hash) text_hash, document_id, source || '/' || path FROM document_version
           WHERE text_hash = ANY(%s) AND rev_to = 2147483647 AND source <> %s ORDER BY text_hash, document_id""",
        (list(texts), source),
    ).fetchall()
    return {row[0]: (row[1], row[2]) for row in rows}


def clusters(duplicates: Iterable[Duplicate], source: str) -> list[list[str]]:
    """Groups of documents that are joined by duplicates: ``source/path`` of each, largest group first."""
    groups: dict[str, set[str]] = {}
    for item in duplicates:
        names = {f"{source}/{item.path}", item.of}
        for name in list(names):
            names |= groups.get(name, set())
        for name in names:
            groups[name] = names
    distinct = {id(group): sorted(group) for group in groups.values()}
    return sorted(distinct.values(), key=lambda group: (-len(group), group))
