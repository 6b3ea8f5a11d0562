"""A small disk for tests: a real file system of some megabytes that can be filled to the last byte and freed again.

Belongs here: finding one that works without special rights. Does not belong here: what is put on it.

| way | works |
| --- | --- |
| ``mount -t tmpfs -o size=``, as root or by ``sudo -n`` | on most machines, and in privileged containers |
| the same in a user namespace, reached through ``/proc/<pid>/root`` | without rights, where the kernel allows it |
| ``/dev/shm`` with a ballast file, where it is small | in containers, which give it 64 MiB |

A limit on the size of files (``RLIMIT_FSIZE``) is none of them: the error it gives is EFBIG, not ENOSPC.
``GENAIOPS_TEST_DISK`` names the only way to try.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from resources.disk import is_full

#: A larger /dev/shm is memory that the machine needs.
_SMALL_SHM = 256 << 20
_BALLAST = ".ballast"


@dataclass(frozen=True)
class SmallDisk:
    """A folder on a file system of its own.

    Attributes:
        path: the folder.
        way: how it was made.
        plain: whether the path may be resolved, and whether mounts of other tests see it: a whole server may live there.
    """

    path: Path
    way: str
    plain: bool = True

    def fill(self, leave: int = 0) -> None:
        """Leave so many bytes free; none by default."""
        with open(self.path / _BALLAST, "ab", buffering=0) as ballast:
            while (room := self.free - leave) > 0:
                try:
                    if not ballast.write(bytes(min(room, 1 << 20))):
                        break
                except OSError as error:
                    if not is_full(error):
                        raise
                    break

    def empty(self) -> None:
        """Give the space back."""
        (self.path / _BALLAST).unlink(missing_ok=True)

    @property
    def free(self) -> int:
        """Bytes that may still be written."""
        return shutil.disk_usage(self.path).free


@contextlib.contextmanager
def small_disk(megabytes: int, user: str | None = None) -> Iterator[SmallDisk | None]:
    """The first way that works, or None.

    Args:
        megabytes: its size; ``/dev/shm`` has its own, which must do.
        user: who must be able to write there, if not this user.
    """
    wanted = os.environ.get("GENAIOPS_TEST_DISK")
    ways: dict[str, Callable[[], contextlib.AbstractContextManager[SmallDisk | None]]] = {
        "mount": lambda: _mounted(megabytes, []),
        "sudo": lambda: _mounted(megabytes, ["sudo", "-n"]),
        "namespace": lambda: _in_namespace(megabytes, user),
        "shm": lambda: _shared_memory(megabytes),
    }
    with contextlib.ExitStack() as stack:
        for name, way in ways.items():
            if wanted in (None, name) and (disk := stack.enter_context(way())) and _writable(disk, user):
                yield disk
                return
        yield None


@contextlib.contextmanager
def _mounted(megabytes: int, prefix: list[str]) -> Iterator[SmallDisk | None]:
    folder = Path(tempfile.mkdtemp(prefix="genaiops-disk-"))
    folder.chmod(0o755)
    mounted = _run([*prefix, "mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=1777", "tmpfs", str(folder)])
    try:
        yield SmallDisk(folder, "a mounted tmpfs") if mounted else None
    finally:
        if mounted and not _run([*prefix, "umount", str(folder)]):
            _run([*prefix, "umount", "--lazy", str(folder)])
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def _in_namespace(megabytes: int, user: str | None) -> Iterator[SmallDisk | None]:
    """A process that lives in a mount namespace of its own; its root folder is seen from outside.

    Only the user who made it can write there, so the server must run as that user: not where this is root.
    """
    if user:
        yield None
        return
    script = f"mount -t tmpfs -o size={megabytes}m,mode=1777 tmpfs /mnt && echo ready && exec sleep 600"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    try:
        holder = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        yield None
        return
    try:
        assert holder.stdout is not None
        made = holder.stdout.readline() == b"ready\n"
        yield SmallDisk(Path(f"/proc/{holder.pid}/root/mnt"), "a tmpfs in a user namespace", False) if made else None
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()


@contextlib.contextmanager
def _shared_memory(megabytes: int) -> Iterator[SmallDisk | None]:
    place = Path("/dev/shm")
    usage = shutil.disk_usage(place) if place.is_dir() else None
    if usage is None or usage.total > _SMALL_SHM or usage.free < megabytes << 20:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="genaiops-disk-", dir=place))
    folder.chmod(0o777)
    try:
        yield SmallDisk(folder, "the small /dev/shm of this machine")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _writable(disk: SmallDisk, user: str | None) -> bool:
    """Whether the server's user can write there, as seen from where the server runs."""
    probe = ["sh", "-c", f"touch {disk.path}/.probe && rm {disk.path}/.probe"]
    return _run(["setpriv", f"--reuid={user}", "--clear-groups", *probe] if user else probe)


def _run(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def wait_until_gone(path: Path, seconds: float = 30) -> bool:
    """Whether a file has gone within some seconds."""
    deadline = time.monotonic() + seconds
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return not path.exists()
