"""Sketches of texts, and which of two similar documents is the later one."""

import random

import numpy as np
import pytest

from assets.corpus.screening.near_duplicates import (
    BANDS,
    PERMUTATIONS,
    SEED,
    Candidate,
    Duplicate,
    _later_ones,
    bands,
    clusters,
    runs,
    similarity,
    sketch,
)


def _words(seed: int, count: int = 400) -> list[str]:
    generator = random.Random(seed)
    return [f"w{generator.randrange(5000)}" for _ in range(count)]


def test_sketches_are_those_of_datasketch() -> None:
    from datasketch import MinHash

    hashes = runs(" ".join(_words(1)))
    reference = MinHash(PERMUTATIONS, seed=SEED, hashfunc=int, scheme="affine32")
    reference.update_batch([int(value) for value in hashes])
    assert np.array_equal(reference.hashvalues, sketch(hashes))


def test_sketches_estimate_the_similarity() -> None:
    errors = []
    for seed in range(40):
        words = _words(seed)
        generator = random.Random(seed)
        other = [word if generator.random() > 0.02 else "changed" for word in words]
        first, second = runs(" ".join(words)), runs(" ".join(other))
        estimate = float((sketch(first) == sketch(second)).mean())
        errors.append(estimate - similarity(first, second))
    assert abs(sum(errors) / len(errors)) < 0.02
    assert max(map(abs, errors)) < 0.2


def test_similarity_is_jaccard() -> None:
    first, second = np.array([1, 2, 3, 4], dtype=np.uint32), np.array([3, 4, 5], dtype=np.uint32)
    assert similarity(first, second) == pytest.approx(2 / 5)
    assert similarity(first, first) == 1
    assert similarity(first, np.array([9], dtype=np.uint32)) == 0


def test_texts_of_one_similarity_share_a_band_as_the_formula_says() -> None:
    shared = 0
    for seed in range(60):
        words = _words(seed, 2000)
        first = runs(" ".join(words))
        second = runs(" ".join([*words[:1900], *_words(seed + 1000, 100)]))
        assert similarity(first, second) == pytest.approx(0.905, abs=0.01)
        shared += bool(set(bands(sketch(first))) & set(bands(sketch(second))))
    assert shared == 60
    assert len(bands(sketch(first))) == BANDS


def test_case_and_punctuation_do_not_count_but_words_and_their_order_do() -> None:
    text = "The quick brown fox, it jumps over the lazy dog."
    assert np.array_equal(runs(text), runs("the QUICK brown fox it jumps -- over the lazy dog"))
    assert similarity(runs(text), runs("dog lazy the over jumps it fox brown quick the")) == 0
    assert len(runs("four words are few")) == 0


def test_the_later_one_is_told_and_makes_no_other_one_later() -> None:
    a, b, c = b"a", b"b", b"c"
    candidates = [Candidate("new.md", a, None), Candidate("old.md", b, 5), Candidate("older.md", c, 3)]
    pairs = {(a, b): 0.9, (b, c): 0.92}
    # b repeats c and is later; a repeats only b, which is no longer counted
    assert _later_ones("docs", candidates, pairs, {}) == [Duplicate("old.md", "docs/older.md", 0.92)]
    elsewhere = {a: (4, "other/a.md")}
    assert [item.of for item in _later_ones("docs", candidates, pairs, elsewhere)] == ["other/a.md", "docs/older.md"]


def test_equal_texts_are_told_apart_from_similar_ones() -> None:
    candidates = [Candidate("a.md", b"x", None), Candidate("b.md", b"x", None), Candidate("c.md", b"y", None)]
    found = _later_ones("docs", candidates, {(b"x", b"y"): 1.0}, {})
    assert [(item.path, item.equal) for item in found] == [("b.md", True), ("c.md", False)]


def test_clusters_join_what_is_connected() -> None:
    duplicates = [Duplicate("b", "s/a", 0.9), Duplicate("c", "s/b", 0.9), Duplicate("y", "t/x", 0.9)]
    assert clusters(duplicates, "s") == [["s/a", "s/b", "s/c"], ["s/y", "t/x"]]
