"""The kind ``git``: trees, provenance, renames, what is skipped and refused, URLs, and that nothing of it runs."""

import base64
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from resources.errors import ConfigError, TransientError
from resources.platform import Platform
from resources.sources.base import (
    DocumentRefusedError,
    DocumentTooLargeError,
    DocumentUnreadableError,
    Listing,
    SourceContext,
)
from resources.sources.git import GitRepository, GitSource
from tests.corpus_support import changes, identities, quarantined, refresh
from tests.git_world import GitServer, commit, git, make_repository, serving

TEXT = "".join(f"Line {number} of a text that is long enough to be known again.\n" for number in range(30))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    make_repository(tmp_path / "repo", {"docs/a.md": TEXT, "docs/deep/b.md": "# B", "top.md": "# Top"})
    return tmp_path / "repo"


def open_git(tmp_path: Path, environment: dict[str, str] | None = None, **settings: Any) -> GitRepository:
    context = SourceContext(tmp_path, tmp_path / "state", environment or {})
    return GitRepository(context, GitSource(name="docs", **settings))


def paths(listing: Listing) -> list[str]:
    return [entry.path for entry in listing.entries]


# --- trees


def test_lists_a_tree_at_a_branch_a_tag_or_a_commit(repository: Path, tmp_path: Path) -> None:
    first = git(repository, "rev-parse", "HEAD")
    git(repository, "tag", "-a", "v1", "-m", "x")
    git(repository, "branch", "feature/x")
    commit(repository, {"new.md": "# New"})
    for ref in ("v1", "feature/x", first, first[:12], "refs/tags/v1"):
        listing = open_git(tmp_path, repository=str(repository), ref=ref).list()
        assert (paths(listing), listing.state) == (["docs/a.md", "docs/deep/b.md", "top.md"], first)
    assert "new.md" in paths(open_git(tmp_path, repository="repo", ref="main").list())


def test_paths_start_at_the_folder(repository: Path, tmp_path: Path) -> None:
    listing = open_git(tmp_path, repository=str(repository), folder="docs/", exclude=["deep"]).list()
    assert (paths(listing), listing.skipped["not included"]) == (["a.md"], 1)
    assert listing.entries[0].fetch() == TEXT.encode()


def test_what_is_not_committed_is_not_listed(repository: Path, tmp_path: Path) -> None:
    (repository / "top.md").write_text("# Edited, not committed")
    (repository / "new.md").write_text("# New")
    listing = open_git(tmp_path, repository=str(repository)).list()
    assert paths(listing)[-1] == "top.md"
    assert listing.entries[-1].fetch() == b"# Top"


def test_a_bare_repository_is_read(repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--bare", str(repository), str(tmp_path / "bare.git"))
    assert len(open_git(tmp_path, repository="bare.git").list().entries) == 3


def test_a_repository_of_another_user_is_read(repository: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    for path in (repository, *repository.rglob("*")):
        os.chown(path, 12345, 12345)
    assert len(open_git(tmp_path, repository=str(repository)).list().entries) == 3


def test_the_environment_of_a_hook_does_not_lead_elsewhere(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_repository(tmp_path / "other", {"other.md": "# Other"})
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert len(open_git(tmp_path, repository=str(repository)).list().entries) == 3


def test_a_batch_is_read_by_one_process(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = open_git(tmp_path, repository=str(repository)).list()
    assert listing.prefetch
    listing.prefetch(listing.entries)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("another process"))
    assert [entry.fetch()[:5] for entry in listing.entries] == [b"Line ", b"# B", b"# Top"]


def test_binary_and_empty_blobs_are_read_as_they_are(repository: Path, tmp_path: Path) -> None:
    data = bytes(range(256)) * 20 + b"\n\n"
    commit(repository, {"data.md": data, "empty.md": b"", "z.md": "\nlast"})
    listing = open_git(tmp_path, repository=str(repository), include=["*.md"]).list()
    assert listing.prefetch
    listing.prefetch(listing.entries)
    assert {entry.path: entry.fetch() for entry in listing.entries} == {
        "data.md": data, "empty.md": b"", "top.md": b"# Top", "z.md": b"\nlast"
    }  # fmt: skip


def test_provenance_names_commit_and_blob(repository: Path, tmp_path: Path) -> None:
    entry = open_git(tmp_path, repository=str(repository), include=["top.md"]).list().entries[0]
    blob = git(repository, "rev-parse", "HEAD:top.md")
    assert entry.provenance == {
        "kind": "git",
        "repository": str(repository),
        "commit": git(repository, "rev-parse", "HEAD"),
        "blob": blob,
    }
    assert (entry.identity, entry.modified) == (f"git:{blob}", None)


def test_commit_times_are_those_of_the_last_change(repository: Path, tmp_path: Path) -> None:
    git(repository, "checkout", "--quiet", "-b", "side")
    commit(repository, {"docs/deep/b.md": "# B, on a branch"}, day=5)
    git(repository, "checkout", "--quiet", "main")
    commit(repository, {"top.md": "# Top, edited"}, day=3)
    when = "2024-02-07T00:00:00Z"
    git(repository, "merge", "--quiet", "--no-ff", "-m", "m", "side", GIT_COMMITTER_DATE=when)
    entries = open_git(tmp_path, repository=str(repository), commit_times=True).list().entries
    days = {entry.path: entry.modified.day for entry in entries if entry.modified}
    assert days == {"docs/a.md": 1, "top.md": 3, "docs/deep/b.md": 7}  # when it came to this branch
    inside = open_git(tmp_path, repository=str(repository), folder="docs", commit_times=True).list().entries
    assert [entry.modified for entry in inside] == [datetime(2024, 2, day, tzinfo=UTC) for day in (1, 7)]


# --- what is left out, and refused


def test_links_submodules_and_hidden_files_are_skipped_and_counted(repository: Path, tmp_path: Path) -> None:
    (repository / "link.md").symlink_to("/etc/passwd")
    (repository / "folder").symlink_to("docs")
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},module")
    commit(repository, {".github/x.md": "x"})
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},module")
    git(repository, "commit", "--quiet", "-m", "x")
    listing = open_git(tmp_path, repository=str(repository)).list()
    assert len(listing.entries) == 3
    assert (listing.skipped["symlinks"], listing.skipped["submodules"], listing.skipped["hidden"]) == (2, 1, 1)


def test_an_lfs_pointer_is_refused_once(repository: Path, make_platform: Callable[..., Platform]) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    commit(repository, {"big.md": pointer})
    platform = make_platform(
        **{"sources.yaml": {"sources": [{"name": "docs", "kind": "git", "repository": str(repository)}]}}
    )
    refresh(platform)
    assert quarantined(platform) == {"big.md": "lfs_pointer"}
    plan, _ = refresh(platform)
    assert (plan.fetches, quarantined(platform)) == (0, {"big.md": "lfs_pointer"})
    commit(repository, {"big.md": "# No pointer any more"})
    refresh(platform)
    assert (quarantined(platform), len(identities(platform))) == ({}, 4)


def test_names_that_could_lead_out_of_a_folder_are_refused(repository: Path, tmp_path: Path) -> None:
    blob = git(repository, "rev-parse", "HEAD:top.md")
    lines = [f"100644 blob {blob}\t{name}" for name in ("a\\b.md", "bad\x07.md", "ok.md", "rtl\u202egpj.md")]
    tree = subprocess.run(
        ["git", "-C", str(repository), "mktree", "-z"], input="\0".join(lines).encode(), capture_output=True, check=True
    ).stdout.decode().strip()  # fmt: skip
    made = git(repository, "commit-tree", tree, "-m", "x")
    listing = open_git(tmp_path, repository=str(repository), ref=made).list()
    assert paths(listing) == ["ok.md"]
    assert {item.path: item.code for item in listing.refused} == dict.fromkeys(
        ["a\\b.md", "bad\\x07.md", "rtl\\u202egpj.md"], "file_name"
    )


def test_names_equal_in_another_unicode_form_are_not_mixed_up(repository: Path, tmp_path: Path) -> None:
    commit(repository, {"a\u0308.md": "# NFD", "\u00e4.md": "# NFC"})
    listing = open_git(tmp_path, repository=str(repository), include=["?.md"]).list()
    assert (len(listing.entries), [item.code for item in listing.refused]) == (1, ["file_name"])


def test_a_blob_above_the_limit_is_not_read(repository: Path, tmp_path: Path) -> None:
    entry = open_git(tmp_path, repository=str(repository), include=["docs/a.md"]).list().entries[0]
    shutil.rmtree(repository)
    with pytest.raises(DocumentTooLargeError):
        entry.fetch(100)


# --- renames


def test_a_rename_with_edits_keeps_the_document(repository: Path, make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(
        **{
            "sources.yaml": {
                "sources": [{"name": "docs", "kind": "git", "repository": str(repository), "folder": "docs"}]
            }
        }
    )
    refresh(platform)
    before = identities(platform)
    commit(repository, {"docs/a.md": None, "docs/moved/a.md": TEXT + "One more line.\n"})
    plan, revision = refresh(platform)
    assert changes(revision) == {"renamed": 1}
    assert [(item.path, item.previous_path) for item in plan.planned] == [("moved/a.md", "a.md")]
    assert identities(platform) == {"moved/a.md": before["a.md"], "deep/b.md": before["deep/b.md"]}


def test_after_a_forced_push_a_rename_is_an_addition_and_a_deletion(
    repository: Path, tmp_path: Path, make_platform: Callable[..., Platform]
) -> None:
    platform = make_platform(
        **{"sources.yaml": {"sources": [{"name": "docs", "kind": "git", "repository": str(repository)}]}}
    )
    refresh(platform)
    shutil.rmtree(repository)
    make_repository(repository, {"moved.md": TEXT + "One more line.\n", "docs/deep/b.md": "# B", "top.md": "# Top"})
    _, revision = refresh(platform)
    assert changes(revision) == {"added": 1, "deleted": 1}


def test_the_metadata_of_a_version_names_its_commit(repository: Path, make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(
        **{"sources.yaml": {"sources": [{"name": "docs", "kind": "git", "repository": str(repository)}]}}
    )
    refresh(platform)
    with platform.database.connect() as connection:
        found = connection.execute(
            "SELECT metadata #>> '{provenance,commit}', metadata ->> 'encoding' FROM document_version"
        ).fetchall()
    assert found == [(git(repository, "rev-parse", "HEAD"), "utf-8")] * 3


# --- mistakes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"repository": "nowhere"}, "nowhere does not exist"),
        ({"repository": "plain"}, "plain is not a git repository"),
        ({"repository": "repo/docs"}, "docs is not a git repository; for a part"),
        ({"repository": "repo", "ref": "mian"}, "no branch, tag or commit 'mian'; there are: main"),
        ({"repository": "repo", "folder": "dox"}, "has no folder 'dox'"),
        ({"repository": "repo", "folder": "top.md"}, "has no folder 'top.md'"),
        ({"repository": "empty"}, "there are: none, the repository is empty"),
    ],
)
def test_a_place_that_is_not_there_is_an_error(
    repository: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "--quiet")
    with pytest.raises(ConfigError, match=rf"source 'docs'.*{message}"):
        open_git(tmp_path, **settings).list()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"repository": "https://me:hunter2@example.com/x.git"}, "credentials do not belong in this file"),
        ({"repository": "https://hunter2@example.com/x.git"}, "credentials do not belong in this file"),
        ({"repository": "ssh://git:hunter2@example.com/x.git"}, "credentials do not belong in this file"),
        ({"repository": "ext::sh -c touch% /tmp/x"}, "remote helpers"),
        ({"repository": "file:///srv/x.git"}, "without file://"),
        ({"repository": "git://example.com/x.git"}, "scheme git is not supported"),
        ({"repository": "--upload-pack=touch /tmp/x"}, "may not begin with '-'"),
        ({"repository": "x", "ref": "--output=/tmp/x"}, "not the name of a branch"),
        ({"repository": "x", "ref": "main:docs"}, "not the name of a branch"),
        ({"repository": "x", "ref": "main@{1}"}, "not the name of a branch"),
        ({"repository": "x", "ref": "a..b"}, "not the name of a branch"),
        ({"repository": "x", "folder": "../other"}, "not a path inside"),
        ({"repository": "x", "token_env": "T"}, "for https:// repositories"),
        ({"repository": "https://example.com/x", "user_env": "U"}, "user_env needs token_env"),
    ],
)
def test_settings_that_could_do_harm_are_refused_without_showing_secrets(
    make_data_dir: Callable[..., Path], settings: dict[str, str], message: str
) -> None:
    from resources.config import load_config

    with pytest.raises(ValidationError):
        GitSource(name="docs", **settings)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(make_data_dir(**{"sources.yaml": {"sources": [{"name": "docs", "kind": "git", **settings}]}}))
    assert "hunter2" not in str(caught.value)


def test_nothing_of_a_repository_runs(repository: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\ncat\n")
    trap.chmod(trap.stat().st_mode | stat.S_IXUSR)
    for key in ("core.fsmonitor", "core.sshCommand", "core.pager", "diff.external", "filter.x.smudge", "filter.x.clean",
                "diff.x.textconv", "diff.x.command", "remote.origin.uploadpack", "pager.ls-tree", "core.gitProxy",
                "credential.helper", "alias.ls-tree"):  # fmt: skip
        git(repository, "config", key, str(trap))
    git(repository, "config", "core.hooksPath", str(tmp_path))
    git(repository, "config", "extensions.partialClone", "origin")
    git(repository, "config", "remote.origin.url", f"ext::{trap}")
    for hook in ("post-checkout", "post-index-change", "reference-transaction", "fsmonitor-watchman"):
        shutil.copy(trap, repository / ".git" / "hooks" / hook)
    (repository / ".git" / "info" / "attributes").write_text("*.md filter=x diff=x\n")
    blob = git(repository, "rev-parse", "HEAD:top.md")
    (repository / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    # a partial clone would fetch what it lacks, by a program that its configuration names
    with pytest.raises(DocumentUnreadableError, match="lacks this object"):
        open_git(tmp_path, repository=str(repository), commit_times=True).list().entries[-1].fetch()
    assert not (tmp_path / "sprung").exists()
    shutil.rmtree(repository / ".git" / "objects" / blob[:2])
    git(repository, "config", "--unset", "extensions.partialClone")
    subprocess.run(["git", "hash-object", "-w", "top.md"], cwd=repository, check=True, capture_output=True,
                   env={"PATH": os.environ["PATH"], "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "filter.x.clean",
                        "GIT_CONFIG_VALUE_0": "cat"})  # fmt: skip
    (tmp_path / "sprung").unlink(missing_ok=True)
    source = open_git(tmp_path, repository=str(repository), commit_times=True)
    listing = source.list()
    assert listing.prefetch
    assert listing.renames_since
    listing.prefetch(listing.entries)
    assert [entry.fetch()[:3] for entry in listing.entries] == [b"Lin", b"# B", b"# T"]
    listing.renames_since(str(listing.state))
    source.fingerprint()
    assert not (tmp_path / "sprung").exists()


def test_a_git_that_takes_too_long_is_ended_with_its_helpers(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    slow = tmp_path / "bin" / "git"
    slow.write_text(f"#!/bin/sh\nsleep 60 &\necho $! > {tmp_path}/helper\nwait\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr("resources.sources.git._LOCAL_SECONDS", 1.0)
    with pytest.raises(TransientError, match="took longer than 1 s"):
        open_git(tmp_path, repository=str(repository)).list()
    helper = int((tmp_path / "helper").read_text())
    state = Path(f"/proc/{helper}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


# --- URLs


@pytest.fixture
def server(repository: Path, tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path) as made:
        yield made


def remote(tmp_path: Path, server: GitServer, **settings: Any) -> GitRepository:
    return open_git(tmp_path, **{"repository": f"{server.url}/repo/.git", "allow_private": True, **settings})


def test_a_url_is_mirrored_and_then_only_what_changed_is_fetched(
    repository: Path, tmp_path: Path, server: GitServer
) -> None:
    source = remote(tmp_path, server)
    assert len(source.list().entries) == 3
    mirror = next((tmp_path / "state" / "sources" / "docs").glob("git-*[!k]"))
    assert (mirror / "shallow").exists()
    assert not (mirror / "top.md").exists()  # nothing is checked out
    commit(repository, {"docs/a.md": None, "docs/a2.md": TEXT + "more\n"})
    listing = remote(tmp_path, server).list()
    assert paths(listing) == ["docs/a2.md", "docs/deep/b.md", "top.md"]
    assert listing.entries[0].fetch() == (TEXT + "more\n").encode()
    assert listing.renames_since
    assert listing.renames_since(git(repository, "rev-parse", "HEAD~1")) == {"docs/a2.md": "docs/a.md"}


def test_a_forced_push_is_followed(repository: Path, tmp_path: Path, server: GitServer) -> None:
    remote(tmp_path, server, ref="main").list()
    shutil.rmtree(repository)
    make_repository(repository, {"fresh.md": "# Fresh"})
    assert paths(remote(tmp_path, server, ref="main").list()) == ["fresh.md"]


def test_the_sensor_asks_without_fetching(repository: Path, tmp_path: Path, server: GitServer) -> None:
    source = remote(tmp_path, server, ref="main")
    before = source.fingerprint()
    assert source.fingerprint() == before
    assert not (tmp_path / "state" / "sources").exists()
    commit(repository, {"x.md": "# X"})
    assert source.fingerprint() != before
    with pytest.raises(ConfigError, match="has no 'mian'"):
        remote(tmp_path, server, ref="mian").fingerprint()


def test_commit_times_of_a_url_fetch_its_history(repository: Path, tmp_path: Path, server: GitServer) -> None:
    commit(repository, {"top.md": "# Top 2"}, day=9)
    assert [entry.modified for entry in remote(tmp_path, server).list().entries] == [None] * 3
    entries = remote(tmp_path, server, commit_times=True).list().entries
    assert [entry.modified.day for entry in entries if entry.modified] == [1, 1, 9]


def test_a_mirror_left_by_a_killed_fetch_heals(repository: Path, tmp_path: Path, server: GitServer) -> None:
    remote(tmp_path, server).list()
    mirror = next((tmp_path / "state" / "sources" / "docs").glob("git-*[!k]"))
    (mirror / "shallow.lock").write_text("")
    (mirror / "refs" / "genaiops").mkdir(parents=True, exist_ok=True)
    (mirror / "refs" / "genaiops" / "now.lock").write_text("")
    commit(repository, {"x.md": "# X"})
    assert "x.md" in paths(remote(tmp_path, server).list())
    for pack in [*mirror.rglob("*.pack"), *mirror.rglob("*.idx")]:
        pack.unlink()
    assert "x.md" in paths(remote(tmp_path, server).list())


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_in_trouble_is_no_empty_repository(tmp_path: Path, server: GitServer, status: int) -> None:
    remote(tmp_path, server).list()
    server.status = status
    for ask in ("list", "fingerprint"):
        with pytest.raises(TransientError, match="just now"):
            getattr(remote(tmp_path, server), ask)()


def test_a_repository_that_is_not_there_is_an_error_of_configuration(tmp_path: Path, server: GitServer) -> None:
    with pytest.raises(ConfigError, match="cannot be fetched"):
        remote(tmp_path, server, repository=f"{server.url}/none/.git").list()
    with pytest.raises(ConfigError, match="couldn't find remote ref mian"):
        remote(tmp_path, server, ref="mian").list()


def test_a_token_reaches_the_server_and_nothing_else(
    repository: Path, tmp_path: Path, server: GitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tls").mkdir()
    monkeypatch.setenv("GIT_SSL_CAINFO", str(server.secure(tmp_path / "tls")))
    server.login = "robot:s3cr3t-t0ken"
    commands: list[list[str]] = []
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **more: (commands.append(command), popen(command, **more))[1]
    )
    settings = {"repository": f"{server.url}/repo/.git", "allow_private": True, "user_env": "U", "token_env": "T"}

    environment = {"U": "robot", "T": "s3cr3t-t0ken"}
    source = open_git(tmp_path, environment, **settings)
    listing = source.list()
    assert len(listing.entries) == 3
    source.fingerprint()

    wrong = open_git(tmp_path, {"U": "robot", "T": "wr0ng-t0ken"}, **settings)
    errors = ""
    for ask in (wrong.list, wrong.fingerprint):
        with pytest.raises(ConfigError, match="cannot be") as caught:
            ask()
        errors += str(caught.value)
    with pytest.raises(ConfigError, match="the environment variable T is not set"):
        open_git(tmp_path, {"U": "robot"}, **settings).list()

    kept = b"".join(path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file())
    seen = f"{commands} {errors} {[dict(entry.provenance) for entry in listing.entries]} {source!r} {kept!r}"
    for secret in ("s3cr3t-t0ken", "wr0ng-t0ken", base64.b64encode(b"robot:s3cr3t-t0ken").decode()):
        assert secret not in seen


def test_private_addresses_and_redirects_are_refused(tmp_path: Path, server: GitServer) -> None:
    with pytest.raises(ConfigError, match="allow_private"):
        remote(tmp_path, server, allow_private=False).list()
    with pytest.raises(ConfigError, match="allow_private"):
        remote(tmp_path, server, allow_private=False).fingerprint()
    assert server.requests == []
    server.redirect = f"{server.url}/elsewhere"
    with pytest.raises(ConfigError, match="302"):
        remote(tmp_path, server).list()
    assert not any("elsewhere" in request for request in server.requests)


def test_a_server_that_is_down_is_transient(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="just now"):
        open_git(tmp_path, repository="http://127.0.0.1:9/x.git", allow_private=True).list()


def test_lfs_pointers_are_recognised_by_their_first_line(repository: Path, tmp_path: Path) -> None:
    commit(repository, {"about.md": "# About\n\nversion https://git-lfs.github.com/spec/v1 is a line"})
    entry = open_git(tmp_path, repository=str(repository), include=["about.md"]).list().entries[0]
    assert entry.fetch().startswith(b"# About")
    commit(repository, {"about.md": "version https://git-lfs.github.com/spec/v1\n"})
    entry = open_git(tmp_path, repository=str(repository), include=["about.md"]).list().entries[0]
    with pytest.raises(DocumentRefusedError):
        entry.fetch()
