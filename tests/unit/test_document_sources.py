"""The folder source: what is listed, what is refused, and what changes the cheap fingerprint."""

import io
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.document_sources import (
    DocumentTooLargeError,
    DocumentUnreadableError,
    DocumentVanishedError,
    LocalFolder,
    open_source,
)
from resources.errors import ConfigError, TransientError
from resources.platform import Platform
from resources.source_config import FolderSource
from resources.sources.base import read_limited, safe_path


def _folder(root: Path, **settings: Any) -> LocalFolder:
    return LocalFolder("docs", root, FolderSource(name="docs", path=str(root), **settings))


def _write(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"content of {path}", encoding="utf-8")


def _paths(folder: LocalFolder) -> list[str]:
    return [entry.path for entry in folder.list().entries]


def test_lists_files_of_all_depths_in_order_of_path(tmp_path: Path) -> None:
    _write(tmp_path, "b.md", "a/z.md", "a/b/c.md", "Z.md")
    assert _paths(_folder(tmp_path)) == ["Z.md", "a/b/c.md", "a/z.md", "b.md"]


def test_entry_fetches_its_bytes_and_states_its_size(tmp_path: Path) -> None:
    _write(tmp_path, "a.md")
    entry = _folder(tmp_path).list().entries[0]
    assert entry.fetch() == b"content of a.md"
    assert entry.size == 15


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        (["**/*.md"], ["a.md", "sub/b.md", "sub/deep/c.md"]),
        (["*.md"], ["a.md"]),
        (["sub/**"], ["sub/b.md", "sub/d.txt", "sub/deep/c.md"]),
        (["sub/*/c.md"], ["sub/deep/c.md"]),
        (["?.md"], ["a.md"]),
        (["**/[bc].md"], ["sub/b.md", "sub/deep/c.md"]),
        (["**/[!bc].md"], ["a.md"]),
    ],
)
def test_include_patterns_span_folders_only_with_two_stars(
    tmp_path: Path, include: list[str], expected: list[str]
) -> None:
    _write(tmp_path, "a.md", "sub/b.md", "sub/deep/c.md", "sub/d.txt")
    assert _paths(_folder(tmp_path, include=include)) == expected


def test_exclude_wins_over_include_and_prunes_whole_folders(tmp_path: Path) -> None:
    _write(tmp_path, "a.md", "drafts/b.md", "drafts/deep/c.md", "x/secret.md")
    assert _paths(_folder(tmp_path, exclude=["drafts", "**/secret.md"])) == ["a.md"]


def test_hidden_files_and_folders_are_skipped_and_counted(tmp_path: Path) -> None:
    _write(tmp_path, "a.md", ".git/config", ".hidden.md")
    listing = _folder(tmp_path).list()
    assert [entry.path for entry in listing.entries] == ["a.md"]
    assert listing.skipped["hidden"] == 2


def test_a_folder_named_like_a_document_is_a_folder(tmp_path: Path) -> None:
    _write(tmp_path, "x.md/inside.md")
    assert _paths(_folder(tmp_path)) == ["x.md/inside.md"]


def test_missing_folder_is_an_error_that_names_source_and_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"source 'docs'.*nowhere does not exist"):
        _folder(tmp_path / "nowhere").list()


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    _write(tmp_path, "file")
    with pytest.raises(ConfigError, match="is not a folder"):
        _folder(tmp_path / "file").list()


def test_symbolic_links_are_not_followed_by_default(tmp_path: Path) -> None:
    _write(tmp_path, "a.md")
    (tmp_path / "link.md").symlink_to("a.md")
    listing = _folder(tmp_path).list()
    assert [entry.path for entry in listing.entries] == ["a.md"]
    assert listing.skipped["symlinks"] == 1


def test_followed_links_do_not_loop(tmp_path: Path) -> None:
    _write(tmp_path, "a/b.md")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "again").symlink_to("a")
    assert _paths(_folder(tmp_path, follow_symlinks=True)) == ["a/b.md", "again/b.md"]


def test_followed_links_cannot_leave_the_folder(tmp_path: Path) -> None:
    _write(tmp_path, "secret.md", "docs/a.md")
    (tmp_path / "docs" / "out.md").symlink_to(tmp_path / "secret.md")
    (tmp_path / "docs" / "up").symlink_to(tmp_path)
    listing = _folder(tmp_path / "docs", follow_symlinks=True).list()
    assert [entry.path for entry in listing.entries] == ["a.md"]
    assert {item.path: item.code for item in listing.refused} == {"out.md": "outside_source", "up": "outside_source"}


def test_dangling_link_is_refused_not_fatal(tmp_path: Path) -> None:
    _write(tmp_path, "a.md")
    (tmp_path / "dangling.md").symlink_to("nothing.md")
    listing = _folder(tmp_path, follow_symlinks=True).list()
    assert [item.path for item in listing.refused] == ["dangling.md"]


def test_pipes_are_refused_without_being_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.md")
    assert [item.code for item in _folder(tmp_path).list().refused] == ["not_a_file"]


def test_paths_are_in_unicode_nfc(tmp_path: Path) -> None:
    _write(tmp_path, unicodedata.normalize("NFD", "Gerät.md"))
    assert _paths(_folder(tmp_path)) == [unicodedata.normalize("NFC", "Gerät.md")]


def test_names_equal_in_nfc_are_not_mixed_up(tmp_path: Path) -> None:
    _write(tmp_path, unicodedata.normalize("NFD", "ä.md"), unicodedata.normalize("NFC", "ä.md"))
    listing = _folder(tmp_path).list()
    assert (len(listing.entries), [item.code for item in listing.refused]) == (1, ["file_name"])


def test_file_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xe4r.md")).write_text("x")
    refused = _folder(tmp_path).list().refused
    assert [(item.path, item.code) for item in refused] == [("b\\xe4r.md", "file_name")]


def test_vanished_file_is_told_from_an_unreadable_one(tmp_path: Path) -> None:
    _write(tmp_path, "gone.md", "turned.md")
    gone, turned = _folder(tmp_path).list().entries
    (tmp_path / "gone.md").unlink()
    (tmp_path / "turned.md").unlink()
    (tmp_path / "turned.md").mkdir()
    with pytest.raises(DocumentVanishedError):
        gone.fetch()
    with pytest.raises(DocumentUnreadableError, match="IsADirectoryError"):
        turned.fetch()


def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path, "a.md", "locked/b.md")
    scan = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(TransientError, match="locked cannot be listed"):
        _folder(tmp_path).list()


def test_fingerprint_changes_with_path_size_and_modification_time(tmp_path: Path) -> None:
    _write(tmp_path, "a.md")
    os.utime(tmp_path / "a.md", ns=(1, 1))
    seen = [_folder(tmp_path).fingerprint()]
    os.utime(tmp_path / "a.md", ns=(1, 2))
    seen.append(_folder(tmp_path).fingerprint())
    (tmp_path / "a.md").write_text("longer than before, much")
    os.utime(tmp_path / "a.md", ns=(1, 2))
    seen.append(_folder(tmp_path).fingerprint())
    (tmp_path / "a.md").rename(tmp_path / "b.md")
    seen.append(_folder(tmp_path).fingerprint())
    assert len(set(seen)) == 4
    assert _folder(tmp_path).fingerprint() == seen[-1]


def test_open_source_opens_what_is_configured_and_names_what_is_not(
    make_platform: Callable[..., Platform], tmp_path: Path
) -> None:
    config = make_platform().config
    _write(tmp_path / "docs", "a.md")
    assert [entry.path for entry in open_source(config, "docs").list().entries] == ["a.md"]
    with pytest.raises(ConfigError, match="'dosc'; configured: docs"):
        open_source(config, "dosc")


# --- names and places


@pytest.mark.parametrize(
    ("raw", "path", "refused"),
    [
        ("a/b.md", "a/b.md", False),
        ("ü/日本.md", "ü/日本.md", False),
        ("u\u0308.md", "\u00fc.md", False),
        ("a...b/..c.md", "a...b/..c.md", False),
        ("", "(no name)", True),
        ("/etc/passwd", "/etc/passwd", True),
        ("../x.md", "../x.md", True),
        ("a/../../x.md", "a/../../x.md", True),
        ("a//x.md", "a//x.md", True),
        ("a/./x.md", "a/./x.md", True),
        ("a/", "a/", True),
        ("C:/x.md", "C:/x.md", True),
        ("..\\x.md", "..\\x.md", True),
        ("a\x00.md", "a\\x00.md", True),
        ("a\n.md", "a\\n.md", True),
        ("a\u202egpj.md", "a\\u202egpj.md", True),
        (b"b\xe4r.md", "b\\xe4r.md", True),
        ("b\udce4r.md", "b\\xe4r.md", True),
        ("\ud800.md", "\\xed\\xa0\\x80.md", True),
    ],
)
def test_names_become_safe_paths_or_are_refused(raw: str | bytes, path: str, refused: bool) -> None:
    shown, reason = safe_path(raw)
    assert (shown, reason is not None) == (path, refused)
    assert shown.isprintable()


def test_long_names_are_refused_and_shown_shortened() -> None:
    shown, reason = safe_path("ü" * 600)
    assert reason == "the name is longer than 1000 bytes; shorten it"
    assert len(shown) < 300
    assert safe_path("ü" * 599 + "x")[0] != shown


@given(st.one_of(st.text(), st.binary()))
def test_whatever_a_name_is_its_path_can_be_stored_and_stays_inside(raw: str | bytes) -> None:
    shown, reason = safe_path(raw)
    assert "\x00" not in shown
    assert len(shown.encode()) <= 1000
    if reason is None:
        assert not os.path.normpath(shown).startswith(("/", ".."))
        assert safe_path(shown) == (shown, None)


def test_names_with_a_backslash_or_a_newline_are_refused_in_a_folder(tmp_path: Path) -> None:
    _write(tmp_path, "a.md", "b\\c.md", "d\ne.md")
    listing = _folder(tmp_path).list()
    assert [entry.path for entry in listing.entries] == ["a.md"]
    assert {item.path: item.code for item in listing.refused} == {"b\\c.md": "file_name", "d\\ne.md": "file_name"}


def test_a_file_replaced_after_listing_is_not_followed_out_of_the_folder(tmp_path: Path) -> None:
    _write(tmp_path, "docs/a.md", "docs/in/b.md", "docs/c.md", "out/b.md")
    entries = {entry.path: entry for entry in _folder(tmp_path / "docs").list().entries}
    (tmp_path / "docs" / "a.md").unlink()
    (tmp_path / "docs" / "a.md").symlink_to(tmp_path / "out" / "b.md")
    (tmp_path / "docs" / "in").rename(tmp_path / "docs" / "was")
    (tmp_path / "docs" / "in").symlink_to(tmp_path / "out")
    (tmp_path / "docs" / "c.md").unlink()
    os.mkfifo(tmp_path / "docs" / "c.md")
    for path in entries:
        with pytest.raises(DocumentUnreadableError, match="replaced by a link or a device"):
            entries[path].fetch()


def test_a_file_that_grew_is_read_up_to_the_limit(tmp_path: Path) -> None:
    _write(tmp_path, "a.md")
    entry = _folder(tmp_path).list().entries[0]
    (tmp_path / "a.md").write_bytes(b"x" * 1000)
    with pytest.raises(DocumentTooLargeError) as caught:
        entry.fetch(999)
    assert caught.value.size == 1000
    assert entry.fetch(1000) == b"x" * 1000


def test_reading_stops_at_the_limit_although_the_file_grows_meanwhile() -> None:
    class Endless(io.RawIOBase):
        given = 0

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            self.given += size
            return b"x" * size

    stream = Endless()
    with pytest.raises(DocumentTooLargeError):
        read_limited(stream, 3_000_000)  # pyright: ignore[reportArgumentType]
    assert stream.given == 3_000_001
