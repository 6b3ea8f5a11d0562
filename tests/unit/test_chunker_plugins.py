"""Custom chunkers: found among entry points, judged before anything is kept, part of the fingerprint."""

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from assets.chunks.chunkers import chunk_text
from assets.chunks.problems import coverage_problems
from resources.chunk_config import chunker_fingerprint
from resources.chunker_config import CustomChunker, chunker_config
from resources.errors import ConfigError, PermanentError

DOCUMENTATION = Path(__file__).resolve().parents[2] / "docs" / "chunking.md"
TEXT = "One line.\nSecret words.\n\n  Last line.  "

SOURCE = """
def lines(text, parameters):
    at = 0
    for line in text.split("\\n"):
        if line.strip():
            yield at, at + len(line)
        at += len(line) + 1

def gap(text, parameters):
    return [(0, 5)]

def outside(text, parameters):
    return [(0, len(text) + 1)]

def backwards(text, parameters):
    return [(0, 9), (5, len(text)), (2, 4)]

def empty_range(text, parameters):
    return [(0, 0)]

def nonsense(text, parameters):
    return ["Secret words"]

def whole(text, parameters):
    return [(0, len(text))]

def failing(text, parameters):
    raise RuntimeError(text)

def nothing(text, parameters):
    return []

constant = 7
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a package that offers the functions of a module as chunkers."""

    def install(source: str = SOURCE, version: str = "1.0", package: str = "plugin_a", **names: str) -> None:
        folder = tmp_path / package
        information = folder / f"{package}-1.dist-info"
        information.mkdir(parents=True, exist_ok=True)
        (folder / f"{package}_module.py").write_text(source)
        offered = names or {name: name for name in re.findall(r"^def (\w+)", source, re.MULTILINE)}
        lines = [f"{name} = {package}_module:{target}" for name, target in offered.items()]
        (information / "entry_points.txt").write_text("[genaiops.chunkers]\n" + "\n".join(lines))
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        if str(folder) not in sys.path:
            monkeypatch.syspath_prepend(str(folder))
        sys.modules.pop(f"{package}_module", None)
        importlib.invalidate_caches()

    return install


def _config(function: str, **values: object) -> CustomChunker:
    return CustomChunker.model_validate({"function": function, **values})


def test_ranges_of_a_plugin_become_chunks(install: Callable[..., None]) -> None:
    install()
    chunks = chunk_text(TEXT, _config("lines"))
    assert [TEXT[chunk.start : chunk.end] for chunk in chunks] == ["One line.", "Secret words.", "Last line."]
    assert coverage_problems(TEXT, chunks) == []


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("gap", r"characters \[5, 39\) are in no range; set partial: true"),
        ("outside", "not inside a text of 39 characters"),
        ("backwards", "range 2 begins at 2, not after the range before it"),
        ("empty_range", r"range 0 is \[0, 0\)"),
        ("nonsense", "item 0 is no pair of whole numbers"),
        ("nothing", r"characters \[0, 39\) are in no range"),
        ("failing", "raised RuntimeError$"),
    ],
)
def test_unusable_ranges_are_refused_by_name_and_without_the_text(
    install: Callable[..., None], function: str, words: str
) -> None:
    install()
    with pytest.raises(PermanentError, match=words) as caught:
        chunk_text(TEXT, _config(function))
    assert f"'{function}'" in str(caught.value)
    assert "Secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_chunk_above_the_size_is_refused(install: Callable[..., None]) -> None:
    install()
    with pytest.raises(PermanentError, match="range 0 has 41 characters, size allows 20"):
        chunk_text(TEXT.strip() + "....", _config("whole", unit="characters", size=20))


def test_partial_chunkers_may_leave_parts_out(install: Callable[..., None]) -> None:
    install()
    config = _config("gap", partial=True)
    chunks = chunk_text(TEXT, config)
    assert [TEXT[chunk.start : chunk.end] for chunk in chunks] == ["One l"]
    assert coverage_problems(TEXT, chunks, config) == []
    assert coverage_problems(TEXT, chunks) != []
    assert chunk_text(TEXT, _config("nothing", partial=True)) == []


def test_missing_and_doubled_functions_are_named(install: Callable[..., None]) -> None:
    install()
    with pytest.raises(ConfigError, match=r"'line'.*genaiops\.chunkers.*Did you mean 'lines'"):
        chunk_text(TEXT, _config("line"))
    install(package="plugin_b", lines="whole")
    with pytest.raises(ConfigError, match=r"offered more than once: plugin_a_module:lines of plugin_a 1.0, plugin_b"):
        chunk_text(TEXT, _config("lines"))


def test_what_is_no_function_or_cannot_be_imported_is_named(install: Callable[..., None]) -> None:
    install(SOURCE, constant="constant", gone="gone")
    with pytest.raises(ConfigError, match=r"'constant' \(plugin_a_module:constant, plugin_a 1.0\) is not a function"):
        chunk_text(TEXT, _config("constant"))
    with pytest.raises(ConfigError, match=r"'gone'.*cannot be imported: AttributeError"):
        chunk_text(TEXT, _config("gone"))


def test_fingerprint_moves_with_version_code_and_parameters(install: Callable[..., None]) -> None:
    install()
    seen = [chunker_fingerprint(_config("lines")), chunker_fingerprint(_config("lines", parameters={"a": 1}))]
    install(version="1.1")
    seen.append(chunker_fingerprint(_config("lines")))
    install(SOURCE + "\n# edited\n")
    seen.append(chunker_fingerprint(_config("lines")))
    install()
    assert len(set(seen)) == 4
    assert chunker_fingerprint(_config("lines")) == seen[0]
    with pytest.raises(ConfigError, match="no installed package offers"):
        chunker_fingerprint(_config("unknown"))


def test_a_plugin_can_cut_children(install: Callable[..., None]) -> None:
    install()
    config = chunker_config(
        kind="parent_child",
        parent={"kind": "layout", "size": 20},
        child={"kind": "custom", "function": "lines", "size": 16},
    )
    text = "\n\n".join(f"Line number {number}." for number in range(12))
    chunks = chunk_text(text, config)
    assert [text[chunk.start : chunk.end] for chunk in chunks] == text.split("\n\n")
    assert all(chunk.parent for chunk in chunks)


def test_the_documented_plugin_works(install: Callable[..., None]) -> None:
    (source,) = re.findall(r"```python\n(.*?)```", DOCUMENTATION.read_text(encoding="utf-8"), re.DOTALL)
    install(source)
    config = _config("transcript", parameters={"speakers": ["Anna", "Ben"]}, size=100)
    text = "Minutes\n\nAnna: We begin.\nIt is late.\nBen: Fine.\n\nAnna: Goodbye."
    shown = [text[chunk.start : chunk.end] for chunk in chunk_text(text, config)]
    assert shown == ["Minutes", "Anna: We begin.\nIt is late.", "Ben: Fine.", "Anna: Goodbye."]


def test_every_documented_configuration_is_valid() -> None:
    examples = re.findall(r"```yaml\n(.*?)```", DOCUMENTATION.read_text(encoding="utf-8"), re.DOTALL)
    kinds = [chunker_config(**yaml.safe_load(example)["chunker"]).kind for example in examples]
    assert sorted(kinds) == sorted(
        ["markdown", "recursive", "fixed", "sentence", "layout", "code", "semantic", "parent_child", "custom"]
    )
