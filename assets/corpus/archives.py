"""Archives: what is inside a compressed file, judged before a parser unpacks it.

Belongs here: telling a container by its first bytes, limits on what unpacks, and the safe reading of single entries.
Does not belong here: what the entries mean (word.py, workbook.py, parsing.py).

The directory of a ZIP file may lie. So sizes are taken from it only where compression could not hide more, and are
counted by unpacking in pieces elsewhere; nothing is ever written to disk.
"""

import io
import lzma
import posixpath
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass

from assets.corpus.failures import ParseFailure


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may hold.

    Attributes:
        entries: files inside, nested archives included.
        total_bytes: all of it unpacked.
        ratio: unpacked to packed bytes, judged from ``ratio_from_bytes`` on: small files of repeated XML compress well.
        depth: archives inside of archives; 1: a workbook inside a presentation.
    """

    entries: int = 20_000
    total_bytes: int = 768 << 20
    ratio: int = 200
    ratio_from_bytes: int = 64 << 20
    depth: int = 2


LIMITS = ArchiveLimits()

#: DEFLATE cannot make a byte into more than this.
_DEFLATE_MOST = 1_032
_PIECE = 1 << 18
_END = struct.Struct("<4s4H2LH")
_LOCAL = struct.Struct("<4s5H3L2H")
_END_MAGIC, _ZIP_MAGIC, _OLE_MAGIC = b"PK\x05\x06", b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OTHER_ARCHIVES = (".rar", ".7z", ".bz2", ".xz", ".zst", ".gz", ".tgz", ".tar", ".cab")
_DRIVE = re.compile(r"[A-Za-z]:")


def is_zip(data: bytes) -> bool:
    """Whether the bytes begin as a ZIP file, which all modern office formats are."""
    return data.startswith((_ZIP_MAGIC, _END_MAGIC))


def is_ole(data: bytes) -> bool:
    """Whether the bytes begin as an OLE container: older office formats, Outlook, and encrypted modern ones."""
    return data.startswith(_OLE_MAGIC)


def is_encrypted_ole(data: bytes) -> bool:
    """Whether an OLE container holds an encrypted modern office file; names in it are UTF-16."""
    return "EncryptedPackage".encode("utf-16-le") in data or "EncryptionInfo".encode("utf-16-le") in data


def open_archive(data: bytes, limits: ArchiveLimits = LIMITS) -> zipfile.ZipFile:
    """Open a ZIP file that has passed all limits.

    Raises:
        ParseFailure: ``damaged``, ``password``, ``too_large_inside`` or ``unsafe_archive``.
    """
    budget = _Budget(limits)
    return _inspect(data, budget, 1)


def unpack_gzip(data: bytes, limits: ArchiveLimits = LIMITS) -> bytes:
    """Unpack a gzip file, all of its members.

    Raises:
        ParseFailure: ``damaged`` or ``too_large_inside``.
    """
    budget = _Budget(limits)
    parts: list[bytes] = []
    rest = data
    while rest:
        unpacker = zlib.decompressobj(wbits=31)
        position = 0
        piece = memoryview(rest)
        try:
            while not unpacker.eof:
                feed = unpacker.unconsumed_tail or bytes(piece[position : position + _PIECE])
                if not unpacker.unconsumed_tail:
                    position += len(feed)
                if not feed:
                    raise ParseFailure("damaged", "the gzip file ends too early")
                part = unpacker.decompress(feed, _PIECE)
                budget.spend(len(part), len(data))
                parts.append(part)
        except zlib.error as error:
            raise ParseFailure("damaged", "not a readable gzip file") from error
        rest = unpacker.unused_data + bytes(piece[position:])
        if not rest.startswith(b"\x1f\x8b"):
            break  # padding after the last member
    return b"".join(parts)


def read_entry(archive: zipfile.ZipFile, name: str) -> bytes | None:
    """The bytes of an entry by its name, whatever its case and slashes; None where it does not exist.

    Raises:
        ParseFailure: ``damaged``.
    """
    wanted = name.replace("\\", "/").lstrip("/")
    found = archive.NameToInfo.get(wanted)
    if found is None:
        folded = wanted.casefold()
        for info in archive.infolist():
            if info.filename.replace("\\", "/").lstrip("/").casefold() == folded:
                found = info
                break
    if found is None:
        return None
    try:
        return archive.read(found)
    except _UNREADABLE as error:
        raise ParseFailure("damaged", "an entry of the archive cannot be unpacked") from error


#: What zipfile and its decompressors raise for damaged data; it is read from memory, so OSError is never the disk's.
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, NotImplementedError, RuntimeError,
)  # fmt: skip


class _Budget:
    """What is left of the limits over an archive and those inside it."""

    def __init__(self, limits: ArchiveLimits) -> None:
        self.limits = limits
        self.entries = 0
        self.total = 0

    def count(self, entries: int) -> None:
        self.entries += entries
        if self.entries > self.limits.entries:
            raise ParseFailure(
                "too_large_inside", f"{self.entries:,} files inside, allowed are {self.limits.entries:,}"
            )

    def spend(self, unpacked: int, packed: int) -> None:
        self.total += unpacked
        if self.total > self.limits.total_bytes:
            raise ParseFailure(
                "too_large_inside", f"unpacks to more than the {self.limits.total_bytes:,} bytes allowed"
            )
        if self.total > max(self.limits.ratio_from_bytes, self.limits.ratio * max(packed, 1)):
            raise ParseFailure(
                "too_large_inside",
                f"{packed:,} bytes unpack to {self.total:,} or more: over {self.limits.ratio} times, as in a bomb",
            )


def _inspect(data: bytes, budget: _Budget, depth: int) -> zipfile.ZipFile:
    # The count stands at the end of the file: a directory of millions is refused before it is built in memory.
    end = data.rfind(_END_MAGIC, max(0, len(data) - _END.size - 65_536))
    if end >= 0 and len(data) - end >= _END.size:
        declared = _END.unpack_from(data, end)
        if declared[4] != 0xFFFF:
            budget.count(declared[4])
            budget.entries -= declared[4]
        if declared[5] // 46 > budget.limits.entries and declared[5] != 0xFFFFFFFF:
            budget.count(declared[5] // 46)
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except _UNREADABLE as error:
        raise ParseFailure("damaged", "begins as a ZIP file but has no readable directory") from error
    entries = archive.infolist()
    budget.count(len(entries))
    _judge_layout(entries)
    declared_total = sum(info.file_size for info in entries)
    if declared_total > budget.limits.total_bytes:
        budget.spend(declared_total, len(data))
    # Where even the highest compression could not pass the limit, the declared sizes need no proof.
    most = sum(
        info.compress_size * _DEFLATE_MOST if info.compress_type == zipfile.ZIP_DEFLATED else info.compress_size
        for info in entries
    )
    for info in entries:
        if info.compress_type not in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
            raise ParseFailure("unsupported", "an entry is compressed in a way that is not supported")
        is_archive = _is_nested(info)
        if is_archive or most > budget.limits.total_bytes:
            content = _unpack(data, info, budget, keep=is_archive)
            if is_archive and is_zip(content):
                if depth >= budget.limits.depth:
                    raise ParseFailure("too_large_inside", f"archives nested more than {budget.limits.depth} deep")
                _inspect(content, budget, depth + 1).close()
        else:
            budget.spend(info.file_size, len(data))
    return archive


def _judge_layout(entries: list[zipfile.ZipInfo]) -> None:
    """Refuse what no honest program writes: escapes from the archive, entries over each other, encrypted ones."""
    end = -1
    for info in sorted(entries, key=lambda item: item.header_offset):
        name = info.filename.replace("\\", "/")
        if ".." in name.split("/") or _DRIVE.match(name):
            raise ParseFailure("unsafe_archive", "an entry has a path that leads out of the archive")
        if info.flag_bits & 0x1:
            raise ParseFailure("password", "entries of the file are encrypted")
        if info.header_offset < end:
            raise ParseFailure("unsafe_archive", "entries of the archive overlap, as in a bomb")
        end = info.header_offset + info.compress_size


def _is_nested(info: zipfile.ZipInfo) -> bool:
    extension = posixpath.splitext(info.filename.lower())[1]
    if extension in _OTHER_ARCHIVES:
        return False  # never unpacked
    return extension in _ZIP_EXTENSIONS and info.file_size > 0


_ZIP_EXTENSIONS = frozenset(
    {".zip", ".docx", ".docm", ".dotx", ".xlsx", ".xlsm", ".xltx", ".xlsb", ".pptx", ".pptm", ".ppsx", ".odt", ".ods",
     ".odp", ".odg", ".epub", ".jar", ".apk"}
)  # fmt: skip


def _unpack(data: bytes, info: zipfile.ZipInfo, budget: _Budget, *, keep: bool) -> bytes:
    """Unpack an entry in pieces, whatever size its directory declares.

    Returns:
        Its content where ``keep``; nothing of an entry that is broken: its reader says whether it minds.
    """
    header = data[info.header_offset : info.header_offset + _LOCAL.size]
    if len(header) < _LOCAL.size or not header.startswith(_ZIP_MAGIC):
        return b""
    begin = info.header_offset + _LOCAL.size + sum(_LOCAL.unpack(header)[-2:])
    packed = memoryview(data)[begin : begin + info.compress_size]
    if info.compress_type == zipfile.ZIP_STORED:
        budget.spend(len(packed), len(data))
        return bytes(packed) if keep else b""
    parts: list[bytes] = []
    unpacker = zlib.decompressobj(wbits=-15)
    unpacked = position = 0
    try:
        while not unpacker.eof:
            feed: bytes | memoryview = unpacker.unconsumed_tail
            if not feed:
                feed = packed[position : position + _PIECE]
                position += len(feed)
            part = unpacker.decompress(feed, _PIECE)
            if not part and not feed:
                break
            unpacked += len(part)
            budget.spend(len(part), len(data))
            if unpacked > info.file_size:
                raise ParseFailure("unsafe_archive", "an entry unpacks to more than the archive says, as in a bomb")
            if keep:
                parts.append(part)
    except zlib.error:
        return b""
    return b"".join(parts)
