"""Every kind of source through plan and commit: what changed is found, and what is unchanged is not fetched again."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resources.errors import GenaiopsError
from resources.platform import Platform
from tests.corpus_support import changes, corpus_content, identities, quarantined, refresh
from tests.source_worlds import FolderWorld, GitWorld, RowWorld, SqliteWorld, StoreWorld

KINDS = ["folder", "git", "jsonl", "csv", "parquet", "sqlite", "sqlite-watermark", "s3"]
LONG = "# Name\n\n" + "".join(f"Sentence number {number} of a longer text.\n" for number in range(40))


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    kind = request.param
    if kind == "s3":
        made: Any = StoreWorld(request.getfixturevalue("s3_endpoint"), f"b{uuid.uuid4().hex[:12]}")
    elif kind == "folder":
        made = FolderWorld(tmp_path / "place")
    elif kind == "git":
        made = GitWorld(tmp_path / "place")
    elif kind.startswith("sqlite"):
        made = SqliteWorld(tmp_path / "place.db", watermark=kind.endswith("watermark"))
    else:
        made = RowWorld(tmp_path / f"place.{kind}")
    for name, value in getattr(made, "environment", {}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GENAIOPS_STATE_DIR", str(tmp_path / "state"))
    return made


@pytest.fixture
def platform(world: Any, make_platform: Callable[..., Platform]) -> Platform:
    return make_platform(**{"sources.yaml": {"sources": [{"name": "docs", **world.settings}]}})


def test_every_kind_of_change_is_told_apart(world: Any, platform: Platform) -> None:
    world.apply({"keep": "# Keep", "edit": "# Edit", "name": "# Name", "drop": "# Drop"})
    _, first = refresh(platform)
    assert (changes(first), first.revision) == ({"added": 4}, 1)
    before = identities(platform)

    world.apply({"edit": "# Edited", "name": None, "newname": "# Name", "drop": None, "add": "# Add"})
    plan, second = refresh(platform)

    assert changes(second) == {"added": 1, "changed": 1, "renamed": 1, "deleted": 1}
    after = identities(platform)
    assert after["edit.md"] == before["edit.md"]
    assert after["newname.md"] == before["name.md"]
    vouches = plan.memory.put or plan.memory.drop
    assert plan.fetches == (3 if vouches else 4)


def test_nothing_changed_fetches_nothing_from_a_source_that_vouches(world: Any, platform: Platform) -> None:
    world.apply({"a": "# A", "b": "# B", "empty": ""})
    _, first = refresh(platform)
    assert quarantined(platform) == {"empty.md": "empty"}
    plan, second = refresh(platform)
    assert not second.committed
    assert (second.data_version, plan.work.parses) == (first.data_version, 0)
    assert quarantined(platform) == {"empty.md": "empty"}
    assert (plan.fetches, plan.bytes_read) == ((3, 6) if world.settings["kind"] == "folder" else (0, 0))


def test_ends_like_a_fresh_build(
    world: Any, platform: Platform, make_database: Callable[[], Any], tmp_path: Path
) -> None:
    world.apply({"a": LONG, "b": "# B", "c": "# C"})
    refresh(platform)
    world.apply({"a": None, "a2": LONG + "and an edit", "b": "# C", "c": "# B", "d": ""})
    refresh(platform)
    world.apply({"a": "# Again", "b": None})
    refresh(platform)
    fresh = Platform(platform.config, make_database(), tmp_path)
    refresh(fresh)

    def facts(built: Platform) -> Any:
        documents, refused = corpus_content(built)
        unlike = {"provenance"}  # where a content was first found
        return [
            [{k: v for k, v in field.items() if k not in unlike} if isinstance(field, dict) else field for field in row]
            for row in documents
        ], refused

    assert facts(platform) == facts(fresh)


def test_a_document_that_grew_too_large_is_refused_and_returns(
    world: Any, make_platform: Callable[..., Platform]
) -> None:
    platform = make_platform(
        **{"sources.yaml": {"sources": [{"name": "docs", **world.settings, "maximum_bytes": 100}]}}
    )
    world.apply({"a": "# A", "b": "# B"})
    refresh(platform)
    before = identities(platform)
    world.apply({"a": "# A" + "x" * 200})
    refresh(platform)
    assert (list(identities(platform)), quarantined(platform)) == (["b.md"], {"a.md": "too_large"})
    world.apply({"a": "# A small"})
    refresh(platform)
    assert (identities(platform), quarantined(platform)) == (before, {})


def test_an_edit_back_to_an_earlier_content_is_found(world: Any, platform: Platform) -> None:
    world.apply({"a": "# One", "b": "# B"})
    _, first = refresh(platform)
    world.apply({"a": "# Two"})
    refresh(platform)
    world.apply({"a": "# One"})
    _, third = refresh(platform)
    assert (third.data_version, third.revision) == (first.data_version, 3)


def test_the_cheap_fingerprint_changes_with_the_content(world: Any, platform: Platform) -> None:
    from resources.document_sources import open_source

    world.apply({"a": "# One", "b": "# B"})
    seen = [open_source(platform.config, "docs").fingerprint()]
    assert open_source(platform.config, "docs").fingerprint() == seen[0]
    for change in ({"c": "# C"}, {"c": None}, {"a": "# Two and longer"}):
        world.apply(change)
        seen.append(open_source(platform.config, "docs").fingerprint())
    if "url_env" in world.settings and "watermark" not in world.settings:
        assert len(set(seen)) == 2  # the number of rows alone; docs/sources.md says so
    else:
        assert seen[0] != seen[1] != seen[2] != seen[3]


def test_a_changed_parser_reads_what_it_must(world: Any, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    world.apply({"a": "# A", "b": "# B"})
    refresh(platform)
    monkeypatch.setattr("assets.corpus.parsing.CODE_VERSION", "next")
    plan, revision = refresh(platform)
    assert (changes(revision), plan.work.parses, plan.fetches) == ({"changed": 2}, 2, 2)


def test_a_place_that_is_gone_is_an_error_and_deletes_nothing(world: Any, platform: Platform, tmp_path: Path) -> None:
    import shutil

    world.apply({"a": "# A", "b": "# B"})
    refresh(platform)
    if isinstance(world, StoreWorld):
        world.apply({"a": None, "b": None})
    elif isinstance(world, SqliteWorld):
        world.execute("DROP TABLE page")
    elif isinstance(world, RowWorld):
        world.file.unlink()
    else:
        shutil.rmtree(tmp_path / "place")
    with pytest.raises(GenaiopsError, match="docs"):
        refresh(platform)
    assert sorted(identities(platform)) == ["a.md", "b.md"]
