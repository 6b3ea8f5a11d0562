"""Kinds of sources: found by name, validated by kind, brought by other packages, and documented by what works."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from resources.config import load_config
from resources.document_sources import open_source
from resources.errors import ConfigError
from resources.platform import Platform
from resources.source_config import SourcesFile
from resources.sources import registry
from resources.sources.base import SourceSettings
from tests.corpus_support import changes, identities, refresh

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8")
EXAMPLES = [text for text in re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL) if text.startswith("sources:")]
PLUGIN = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)[0]
METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"


def install(folder: Path, name: str, entry_points: str, **modules: str) -> None:
    """Lay out a distribution as an installer does, in a folder that is on the path."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(METADATA.format(name=name))
    (info / "entry_points.txt").write_text(f"[genaiops.sources]\n{entry_points}\n")
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    registry._load.cache_clear()
    yield folder
    registry._load.cache_clear()
    for name in set(sys.modules) - before:
        del sys.modules[name]


def mistake(make_data_dir: Callable[..., Path], **source: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(make_data_dir(**{"sources.yaml": {"sources": [{"name": "docs", **source}]}}))
    return str(caught.value)


# --- errors


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        (
            {"kind": "gti"},
            ["sources.yaml: sources.0.kind: there is no kind of source named 'gti'; known: folder, git", "mean 'git'?"],
        ),
        ({"kind": 7}, ["sources.0.kind", "there is no kind of source named '7'"]),
        ({"kind": "{message}"}, ["there is no kind of source named '{message}'"]),
        ({"kind": "git"}, ["sources.0.repository: this key is required"]),
        (
            {"kind": "git", "repository": "x", "brnch": "main"},
            ["sources.0.brnch: unknown key; allowed: allow_private, commit_times", "repository", "timeout_seconds"],
        ),
        ({"kind": "git", "repository": "x", "reff": "main"}, ["Did you mean 'ref'?"]),
        ({"path": "x", "licens": "MIT"}, ["sources.0.licens: unknown key", "Did you mean 'licence'?"]),
        (
            {"kind": "table", "path": "x", "columns": {"id": "a", "texd": "b"}},
            ["sources.0.columns.texd: unknown key; allowed: id, language, licence, metadata, modified, text, title", "mean 'text'"],
        ),
        ({"path": "x", "label": "Top Secret"}, ["sources.0.label", "(value 'Top Secret')"]),
        ({"path": "x", "keep_days": 0}, ["sources.0.keep_days", "greater than or equal to 1"]),
        ({"path": "x", "include": []}, ["sources.0.include"]),
    ],
)  # fmt: skip
def test_errors_name_file_key_and_remedy_by_kind(
    make_data_dir: Callable[..., Path], source: dict[str, Any], parts: list[str]
) -> None:
    found = mistake(make_data_dir, **source)
    for part in parts:
        assert part in found


def test_the_second_source_of_the_file_is_explained_by_its_own_kind(make_data_dir: Callable[..., Path]) -> None:
    content = {"sources": [{"name": "a", "path": "x"}, {"name": "b", "kind": "remote", "url": "s3://b", "pth": "x"}]}
    with pytest.raises(ConfigError, match=r"sources\.1\.pth: unknown key; allowed: .*options.*watch"):
        load_config(make_data_dir(**{"sources.yaml": content}))


# --- common fields


def test_only_what_can_change_a_document_is_in_the_fingerprint() -> None:
    def made(**settings: Any) -> str:
        read = {"name": "docs", "path": "x", **settings}
        return SourcesFile.model_validate({"sources": [read]}).sources[0].fingerprint()

    for same in ({"owner": "me"}, {"permission": "contract 7"}, {"label": "secret"}, {"shards": 4}):
        assert made(**same) == made()
    others = (
        {"licence": "MIT"}, {"language": "de"}, {"maximum_bytes": 5}, {"keep_days": 5}, {"main_content": True},
        {"timeout_seconds": 5}, {"include": ["*.md"]}, {"exclude": ["x"]}, {"path": "y"}, {"follow_symlinks": True},
    )  # fmt: skip
    assert len({made(), *(made(**other) for other in others)}) == len(others) + 1


def test_every_field_of_every_kind_is_described() -> None:
    for kind in registry._OWN:
        model = registry.find_kind(kind).settings
        for name in SourceSettings.model_fields:
            assert name in model.model_fields
        described = {name for name, field in model.model_fields.items() if field.description}
        assert set(model.model_fields) - described <= {"kind", "name", "main_content"}, kind


def test_a_source_may_allow_larger_documents_than_the_policy(
    make_platform: Callable[..., Platform], tmp_path: Path
) -> None:
    platform = make_platform(
        **{
            "sources.yaml": {"sources": [{"name": "docs", "path": str(tmp_path / "docs"), "maximum_bytes": 1000}]},
            "policies/corpus.yaml": {"maximum_bytes": 10},
        }
    )
    (tmp_path / "docs" / "a.md").write_text("# A " + "x" * 500)
    _, revision = refresh(platform)
    assert changes(revision) == {"added": 1}


# --- lazy


def test_reading_the_configuration_imports_no_kind_it_does_not_name(tmp_path: Path) -> None:
    program = """
import sys, json
from resources.config import load_config
from pathlib import Path
load_config(Path("data"))
heavy = {"fsspec", "s3fs", "sqlalchemy", "pyarrow", "jinja2", "httpx", "botocore", "sqlalchemy"}
kinds = {f"resources.sources.{kind}" for kind in ("git", "http", "remote", "sql", "table")}
print(json.dumps(sorted((heavy | kinds) & set(sys.modules))))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("kind", ["git", "http", "remote", "sql", "table"])
def test_a_kind_imports_nothing_heavy(kind: str) -> None:
    program = f"""
import sys, json
import resources.sources.{kind}
heavy = {{"fsspec", "s3fs", "sqlalchemy", "pyarrow", "jinja2", "httpx", "botocore", "pandas", "numpy", "trafilatura"}}
print(json.dumps(sorted(heavy & set(sys.modules))))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


# --- documentation


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.split("kind: ")[1].split("\n")[0])
def test_the_examples_of_the_documentation_are_valid(example: str, make_data_dir: Callable[..., Path]) -> None:
    load_config(make_data_dir(**{"sources.yaml": example}))
    assert SourcesFile.model_validate(yaml.safe_load(example)).sources


def test_every_kind_and_every_common_field_is_documented() -> None:
    kinds = {source["kind"] for example in EXAMPLES for source in yaml.safe_load(example)["sources"]}
    assert kinds == set(registry._OWN)
    for field in SourceSettings.model_fields:
        assert f"`{field}`" in DOCS
    header = (ROOT / "data" / "sources.yaml").read_text()
    for kind in kinds:
        assert re.search(rf"^# .*\b{kind}  ", header, re.MULTILINE)


# --- plugins


def test_the_kind_of_the_documentation_works_from_an_installed_package(
    site: Path, make_platform: Callable[..., Platform], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stated = re.findall(r"```toml\n(.*?)```", DOCS, re.DOTALL)[0].splitlines()[1].replace('"', "")
    install(site, "acme-wiki", stated, wiki_source=PLUGIN)
    dump = tmp_path / "pages.txt"
    dump.write_text("a|2024-01-01|# A\nb|2024-01-02|# B\n..|2024-01-02|# X\n.hidden|2024-01-02|# X\n")
    source = {"name": "docs", "kind": "acme-wiki", "dump": str(dump), "token_env": "WIKI_TOKEN"}
    platform = make_platform(**{"sources.yaml": {"sources": [source]}})
    with pytest.raises(ConfigError, match="token_env: the environment variable WIKI_TOKEN is not set"):
        open_source(platform.config, "docs")
    monkeypatch.setenv("WIKI_TOKEN", "t")
    _, first = refresh(platform)
    assert changes(first) == {"added": 2}
    dump.write_text("a|2024-01-01|# A\nb|2024-02-02|# B, edited\n")
    plan, second = refresh(platform)
    assert (changes(second), plan.fetches) == ({"changed": 1}, 1)
    dump.unlink()
    with pytest.raises(ConfigError, match="there is no file"):
        refresh(platform)
    assert sorted(identities(platform)) == ["a.md", "b.md"]


def test_errors_of_a_plugin_are_explained_by_its_own_model(site: Path, make_data_dir: Callable[..., Path]) -> None:
    install(site, "acme-wiki", "acme-wiki = wiki_source:KIND", wiki_source=PLUGIN)
    assert "sources.0.dmp: unknown key; allowed: dump" in mistake(make_data_dir, kind="acme-wiki", dmp="x")
    assert "sources.0.dump: this key is required" in mistake(make_data_dir, kind="acme-wiki")
    assert "known: acme-wiki, folder, git" in mistake(make_data_dir, kind="acme-wikki")


def test_a_plugin_is_not_imported_before_a_source_names_it(
    site: Path, make_data_dir: Callable[..., Path], tmp_path: Path
) -> None:
    install(site, "loud", "loud = loud_source:KIND", loud_source="raise RuntimeError('imported')")
    load_config(make_data_dir())
    assert "there is no kind of source named 'lood'; known: folder" in mistake(make_data_dir, kind="lood")
    assert "'loud' cannot be loaded from loud_source:KIND: RuntimeError: imported" in mistake(
        make_data_dir, kind="loud"
    )


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("KIND = 7", "bad_source:KIND is not a SourceKind"),
        ("", "cannot be loaded from bad_source:KIND: AttributeError"),
        ("import no_such_library_here", "ModuleNotFoundError"),
        (
            "from resources.sources.base import SourceKind\nfrom pydantic import BaseModel\n"
            "class S(BaseModel):\n    pass\nKIND = SourceKind(S, print)",
            "settings derive from SourceSettings",
        ),
    ],
)
def test_a_plugin_that_does_not_work_is_named(
    site: Path, make_data_dir: Callable[..., Path], module: str, message: str
) -> None:
    install(site, "bad", "bad = bad_source:KIND", bad_source=module)
    assert message in mistake(make_data_dir, kind="bad")


def test_a_kind_of_two_packages_is_refused_and_ours_cannot_be_replaced(
    site: Path, make_data_dir: Callable[..., Path]
) -> None:
    install(site, "one", "wiki = one_source:KIND\nfolder = one_source:KIND", one_source=PLUGIN)
    install(site, "two", "wiki = two_source:KIND", two_source=PLUGIN)
    found = mistake(make_data_dir, kind="wiki")
    assert "brought by several packages (one_source:KIND, two_source:KIND)" in found
    assert type(load_config(make_data_dir()).sources["docs"]).__module__ == "resources.sources.folder"
