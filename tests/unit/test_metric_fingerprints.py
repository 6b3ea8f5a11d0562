"""Fingerprints of metrics: another one for whatever can change a value, the same for everything else."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from assets.evaluation.metrics import answers, catalogue, code_version, grounding, retrieval
from assets.evaluation.metrics.base import METRICS, metric_fingerprint

ROOT = Path(__file__).resolve().parents[2]
SOURCE = '''
"""A module."""

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

LIMIT = 3
WORDS = frozenset({"a", "b"})
PATTERN = re.compile("[0-9]+")
UNUSED = 1


@dataclass(frozen=True)
class Thing:
    """A class."""

    text: str

    @property
    def size(self):
        return helper(self.text)

    @cached_property
    def kept(self):
        return remembered(self.text)


def helper(text):
    """Doc."""
    return len(text) + LIMIT


@lru_cache(maxsize=5)
def remembered(text):
    return PATTERN.findall(text)


def bystander(text):
    return UNUSED


def used(text):
    # a comment
    return Thing(text).size, [word for word in text.split() if word in WORDS]


TABLE = {"one": partial(helper, LIMIT), "two": helper}


def through_table(text):
    return TABLE["one"](text)
'''


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Write the module anew and give its version of ``name``."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(code_version, "_OWN", ("sample_code",))

    def version(source: str, name: str = "used") -> str:
        (tmp_path / "sample_code.py").write_text(source)
        code_version._syntax.cache_clear()
        sys.modules.pop("sample_code", None)
        importlib.invalidate_caches()
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        try:
            module: ModuleType = importlib.import_module("sample_code")
        finally:
            sys.dont_write_bytecode = before
        return code_version.code_version(getattr(module, name))

    yield version
    sys.modules.pop("sample_code", None)
    code_version._syntax.cache_clear()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("len(text) + LIMIT", "len(text) - LIMIT"),
        ("LIMIT = 3", "LIMIT = 4"),
        ('frozenset({"a", "b"})', 'frozenset({"a", "c"})'),
        ("text.split()", "text.rsplit()"),
        ("findall(text)", "findall(text, 1)"),
        ('"[0-9]+"', '"[0-8]+"'),
    ],
)
def test_an_edit_of_anything_that_is_used_changes_it(write: Any, before: str, after: str) -> None:
    assert before in SOURCE
    assert write(SOURCE) != write(SOURCE.replace(before, after))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# a comment", "# another comment"),
        ('"""Doc."""', '"""Other words."""'),
        ('"""A class."""', '"""Another text."""'),
        ("UNUSED = 1", "UNUSED = 2"),
        ("return UNUSED", "return -UNUSED"),
        ("len(text) + LIMIT", "(len(text) +\n            LIMIT)"),
    ],
)
def test_comments_formatting_and_what_is_not_used_do_not(write: Any, before: str, after: str) -> None:
    assert before in SOURCE
    assert write(SOURCE) == write(SOURCE.replace(before, after))


def test_tables_of_functions_are_followed(write: Any) -> None:
    first = write(SOURCE, "through_table")
    assert first != write(SOURCE.replace("len(text) + LIMIT", "len(text) * LIMIT"), "through_table")
    assert first == write(SOURCE.replace("findall(text)", "findall(text, 1)"), "through_table")


def test_every_metric_has_its_own() -> None:
    assert len({metric_fingerprint(metric) for metric in METRICS}) == len(METRICS)


def test_it_is_the_same_in_another_process() -> None:
    code = (
        "from assets.evaluation.metrics.base import METRICS, metric_fingerprint\n"
        "print([metric_fingerprint(metric) for metric in METRICS])"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str([metric_fingerprint(metric) for metric in METRICS])


@pytest.mark.parametrize(
    ("module", "name", "changed"),
    [
        (retrieval, "COVERED_SHARE", {"recall", "map", "ndcg", "precision", "mrr", "iou"}),
        (grounding, "_CONTRADICTED", {"groundedness_lexical", "utilization_lexical", "support_lexical"}),
        (answers, "_METEOR_TOKEN", {"meteor_exact_stem"}),
    ],
)
def test_editing_a_constant_changes_exactly_the_metrics_that_use_it(
    module: ModuleType, name: str, changed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {metric: metric_fingerprint(metric) for metric in METRICS}
    monkeypatch.setattr(module, name, 0.123)
    catalogue.metric_fingerprint.cache_clear()
    try:
        after = {metric: metric_fingerprint(metric) for metric in METRICS}
    finally:
        catalogue.metric_fingerprint.cache_clear()
    moved = {metric.split(".")[1].split("/")[0].split("@")[0] for metric in METRICS if before[metric] != after[metric]}
    assert moved >= changed
    assert not moved & ({"f1", "exact_match", "bleu", "refusal_f1"} | ({"recall", "iou"} - changed))
