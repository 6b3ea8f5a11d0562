"""A commit's files are unpacked where they belong, and nothing an archive holds is written anywhere else."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.git_state import find_repository, unpack_tar
from resources.errors import PermanentError
from tests.git_world import commit, git, make_repository


def archive(*members: tuple[str, str | bytes | None, bytes]) -> io.BytesIO:
    """A tar stream of (name, content or link target or None, type)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content, kind in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == tarfile.REGTYPE:
                assert isinstance(content, bytes)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            else:
                member.linkname = str(content or "")
                tar.addfile(member)
    stream.seek(0)
    return stream


def test_files_folders_and_inner_links_are_unpacked(tmp_path: Path) -> None:
    unpack_tar(
        archive(
            ("data/prompts/a.yaml", b"name: a\n", tarfile.REGTYPE),
            ("data/empty", None, tarfile.DIRTYPE),
            ("data/prompts/b.yaml", "a.yaml", tarfile.SYMTYPE),
        ),
        tmp_path / "out",
    )
    assert (tmp_path / "out/data/prompts/b.yaml").read_text() == "name: a\n"
    assert (tmp_path / "out/data/empty").is_dir()


@pytest.mark.parametrize(
    "members",
    [
        [("../evil", b"x", tarfile.REGTYPE)],
        [("data/../../evil", b"x", tarfile.REGTYPE)],
        [("/tmp/evil-of-the-arena", b"x", tarfile.REGTYPE)],
        [("data\\..\\evil", b"x", tarfile.REGTYPE)],
        [("data/link", "../../evil", tarfile.SYMTYPE)],
        [("data/link", "/etc/passwd", tarfile.SYMTYPE)],
        [("data/hard", "/etc/passwd", tarfile.LNKTYPE)],
        [("data/device", None, tarfile.CHRTYPE)],
        [("data/pipe", None, tarfile.FIFOTYPE)],
        [("data/a", ".", tarfile.SYMTYPE), ("data/b", "a/../..", tarfile.SYMTYPE)],
    ],
)
def test_a_hostile_path_or_link_is_refused_and_nothing_is_written_outside(
    members: list[tuple[str, str | bytes | None, bytes]], tmp_path: Path
) -> None:
    target = tmp_path / "deep" / "out"
    with pytest.raises(PermanentError, match=r"leads out of it|neither file nor folder"):
        unpack_tar(archive(*members), target)
    assert sorted(path.name for path in tmp_path.rglob("*") if "evil" in path.name) == []
    assert not Path("/tmp/evil-of-the-arena").exists()


def steps(count: int, leads: Callable[[int], str]) -> list[tuple[str, str | bytes | None, bytes]]:
    return [(f"data/z{number}", leads(number), tarfile.SYMTYPE) for number in range(count)]


@pytest.mark.parametrize(
    "later",
    [
        steps(12, lambda number: "."),
        steps(12, lambda number: "." if number % 2 else f"z{number + 1}"),
    ],
    ids=["each leads to its folder", "every other one by the next"],
)
def test_a_link_that_leads_out_by_way_of_later_ones_is_refused_and_nothing_is_left(
    later: list[tuple[str, str | bytes | None, bytes]], tmp_path: Path
) -> None:
    secret = tmp_path / "secret.yaml"
    secret.write_text("key: hidden\n")
    target = tmp_path / "out"
    down = "/".join(f"z{number}" for number in range(12))
    # Twelve folders down and up again is where it started, unless each of them is that folder itself.
    hostile = f"{down}/{'../' * 12}{str(secret).lstrip('/')}"
    (tmp_path / "plain/data").mkdir(parents=True)
    for name, leads, _ in [("data/a.yaml", hostile, None), *later]:
        (tmp_path / "plain" / name).symlink_to(str(leads))
    assert (tmp_path / "plain/data/a.yaml").read_text() == "key: hidden\n", "it would be read if it were let through"
    with pytest.raises(PermanentError, match=r"holds the link 'data/a\.yaml', which leads out of it; commit the file"):
        unpack_tar(archive(("data/a.yaml", hostile, tarfile.SYMTYPE), *later), target)
    assert not target.exists()
    assert secret.read_text() == "key: hidden\n"


def test_a_link_to_a_link_that_leads_out_and_a_circle_are_refused(tmp_path: Path) -> None:
    out = ("data/a", "b", tarfile.SYMTYPE), ("data/b", "../../evil", tarfile.SYMTYPE)
    circle = ("data/a", "b/x", tarfile.SYMTYPE), ("data/b", "a/x", tarfile.SYMTYPE)
    for number, members in enumerate((out, circle)):
        with pytest.raises(PermanentError, match="leads out of it"):
            unpack_tar(archive(*members), tmp_path / str(number))
        assert not (tmp_path / str(number)).exists()


def test_no_link_is_made_through_another_one(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    later = [("data/z", ".", tarfile.SYMTYPE), ("data/y", "z/../../outside", tarfile.SYMTYPE)]
    through = ("data/y/deep/evil.yaml", "a.yaml", tarfile.SYMTYPE)
    with pytest.raises(PermanentError, match=r"'data/y/deep/evil\.yaml', which leads out of it"):
        unpack_tar(archive(*later, through), tmp_path / "out")
    assert list(outside.iterdir()) == []


def test_links_among_the_files_of_a_commit_may_lead_through_each_other_in_any_order(tmp_path: Path) -> None:
    unpack_tar(
        archive(
            ("data/current/a.yaml", "../latest/b.yaml", tarfile.SYMTYPE),
            ("data/latest", "v2", tarfile.SYMTYPE),
            ("data/v2/b.yaml", b"name: b\n", tarfile.REGTYPE),
        ),
        tmp_path / "out",
    )
    assert (tmp_path / "out/data/current/a.yaml").read_text() == "name: b\n"


def test_no_file_is_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    stream = archive(("data/x", str(outside), tarfile.SYMTYPE), ("data/x/evil.yaml", b"x", tarfile.REGTYPE))
    with pytest.raises((PermanentError, OSError)):
        unpack_tar(stream, tmp_path / "out")
    assert list(outside.iterdir()) == []


def test_a_commit_is_read_without_touching_the_work_tree(tmp_path: Path) -> None:
    first = make_repository(tmp_path / "repo", {"data/a.yaml": "old\n", "code.py": "x\n"})
    commit(tmp_path / "repo", {"data/a.yaml": "new\n"}, day=2)
    (tmp_path / "repo/data/a.yaml").write_text("edited\n")
    (tmp_path / "repo/data/b.yaml").write_text("untracked\n")
    before = (tmp_path / "repo/.git/index").read_bytes()
    repository = find_repository(tmp_path / "repo" / "data")
    assert (repository.prefix, repository.uncommitted()) == ("data/", 2)
    assert repository.commit("main~1") == repository.commit(first[:10]) == first
    assert repository.changed(first) == ["a.yaml"]
    unpacked = repository.unpack(first, tmp_path / "out")
    assert (unpacked / "a.yaml").read_text() == "old\n"
    assert not (tmp_path / "out/code.py").exists()
    assert (tmp_path / "repo/data/a.yaml").read_text() == "edited\n"
    assert (tmp_path / "repo/.git/index").read_bytes() == before


def test_commits_of_the_base_that_the_head_lacks_are_counted(tmp_path: Path) -> None:
    first = make_repository(tmp_path / "repo", {"data/a.yaml": "1\n"})
    commit(tmp_path / "repo", {"data/a.yaml": "2\n"}, day=2)
    commit(tmp_path / "repo", {"other.txt": "3\n"}, day=3)
    git(tmp_path / "repo", "checkout", "--quiet", "-b", "change", first)
    assert find_repository(tmp_path / "repo/data").missing_commits("main") == 1


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda one: one.commit("absent"), "fetch it first"),
        (lambda one: one.commit("--exec=x"), "names no commit"),
        (lambda one: one.commit("  "), "names no commit"),
    ],
)
def test_what_names_no_commit_is_refused_with_the_remedy(
    ask: Callable[[object], object], said: str, tmp_path: Path
) -> None:
    make_repository(tmp_path / "repo", {"data/a.yaml": "1\n"})
    with pytest.raises(PermanentError, match=said):
        ask(find_repository(tmp_path / "repo/data"))


def test_a_base_without_the_data_directory_is_told(tmp_path: Path) -> None:
    first = make_repository(tmp_path / "repo", {"readme.md": "1\n"})
    (tmp_path / "repo/data").mkdir()
    with pytest.raises(PermanentError, match="has no data/"):
        find_repository(tmp_path / "repo/data").unpack(first, tmp_path / "out")
