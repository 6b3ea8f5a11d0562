"""Disk: what a full disk looks like, and what is said about it.

Belongs here: recognising it in the errors of the operating system and of PostgreSQL, and the remedy in words.
Does not belong here: what is taken back after it; every stage writes in transactions or renames complete files.
"""

import errno

from resources.errors import DiskFullError

#: Why a write was refused for want of space: the disk is full, or what this user may use of it.
FULL = (errno.ENOSPC, errno.EDQUOT)
#: PostgreSQL's code for the same.
_SQLSTATE = "53100"
#: What is to be done, whatever disk it is.
REMEDY = "Free space there, then run again; nothing has to be cleaned up by hand"


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk is full: one of the operating system, or of the database's.

    PostgreSQL gives the same code when shared memory is too small for a parallel query, which is another thing.
    """
    if getattr(error, "sqlstate", None) == _SQLSTATE:
        return "shared memory" not in (error.diag.message_primary or "")  # type: ignore[attr-defined]
    return isinstance(error, OSError) and error.errno in FULL


def disk_full(error: OSError) -> DiskFullError:
    """The error to raise for one of the operating system that ``is_full``."""
    place = f" at {error.filename}" if isinstance(error.filename, str) else ""
    return DiskFullError(f"a disk of this machine is full ({error.strerror}{place}). {REMEDY}")
