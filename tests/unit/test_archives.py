"""Archives that would unpack to more than a machine has, or that no honest program writes."""

import gzip
import io
import struct
import zipfile
import zlib

import pytest

from assets.corpus.archives import ArchiveLimits, open_archive, read_entry, unpack_gzip
from assets.corpus.failures import ParseFailure
from assets.corpus.parsing import ParseSettings, format_of, parse

SMALL = ArchiveLimits(entries=10, total_bytes=1_000_000, ratio=50, ratio_from_bytes=100_000, depth=2)


def _zip(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=method)
    return buffer.getvalue()


def _refusal(data: bytes, limits: ArchiveLimits = SMALL) -> tuple[str, str]:
    with pytest.raises(ParseFailure) as raised:
        open_archive(data, limits)
    return raised.value.code, raised.value.reason


def test_an_honest_archive_is_opened_and_its_entries_are_found_whatever_their_case() -> None:
    archive = open_archive(_zip({"word/document.xml": b"<a/>", "a b.png": bytes(1000)}), SMALL)
    assert read_entry(archive, "/Word/Document.xml") == b"<a/>"
    assert read_entry(archive, "missing.xml") is None


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_entry_is_said_to_be_damaged_however_it_is_packed(method: int) -> None:
    data = bytearray(_zip({"a.txt": bytes(range(256)) * 40}, method))
    start = 30 + len("a.txt") + 9  # past the local header, and the properties LZMA begins with
    data[start : start + 40] = b"\xff" * 40
    with pytest.raises(ParseFailure) as raised:
        read_entry(zipfile.ZipFile(io.BytesIO(bytes(data))), "a.txt")
    assert raised.value.code == "damaged"


def test_too_many_entries_are_refused_with_their_number() -> None:
    assert _refusal(_zip({f"{number}": b"" for number in range(11)})) == (
        "too_large_inside",
        "11 files inside, allowed are 10",
    )


def test_a_directory_of_millions_is_refused_before_it_is_read() -> None:
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65_000, 65_000, 65_000 * 46, 0, 0)
    assert _refusal(b"PK\x03\x04" + end) == ("too_large_inside", "65,000 files inside, allowed are 10")


def test_a_total_above_the_limit_is_refused() -> None:
    code, reason = _refusal(_zip({"a": bytes(600_000), "b": bytes(600_000)}, zipfile.ZIP_STORED))
    assert (code, "1,000,000 bytes allowed" in reason) == ("too_large_inside", True)


def test_a_ratio_above_the_limit_is_refused_from_some_size_on() -> None:
    assert open_archive(_zip({"a": bytes(90_000)}), SMALL)
    code, reason = _refusal(_zip({"a": bytes(900_000)}))
    assert (code, "over 50 times" in reason) == ("too_large_inside", True)


def test_a_directory_that_lies_about_sizes_is_found_out() -> None:
    content = bytes(50_000_000)
    data = bytearray(_zip({"a": content}))
    for magic, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):  # uncompressed size in both directories
        place = data.find(magic) + offset
        assert struct.unpack_from("<L", data, place)[0] == len(content)
        struct.pack_into("<L", data, place, 1_000)
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
        assert archive.infolist()[0].file_size == 1_000
    assert _refusal(bytes(data)) == (
        "unsafe_archive",
        "an entry unpacks to more than the archive says, as in a bomb",
    )


def test_an_unusual_compression_is_not_supported() -> None:
    assert _refusal(_zip({"a": b"x"}, zipfile.ZIP_LZMA))[0] == "unsupported"


def test_archives_inside_count_and_may_not_go_deep() -> None:
    inner = _zip({"x": bytes(900_000)}, zipfile.ZIP_STORED)
    assert _refusal(_zip({"a.xlsx": inner, "b.xlsx": inner}, zipfile.ZIP_STORED))[0] == "too_large_inside"
    sheet = _zip({"xl/workbook.xml": b"<w/>"})
    assert open_archive(_zip({"ppt/embeddings/a.xlsx": sheet}), SMALL)
    deep = _zip({"b.zip": _zip({"c.zip": _zip({"d": b"x"})})})
    assert _refusal(deep) == ("too_large_inside", "archives nested more than 2 deep")


@pytest.mark.parametrize("name", ["../evil.xml", "word/../../evil.xml", "C:/evil.xml", "..\\evil.xml"])
def test_paths_that_lead_out_are_refused(name: str) -> None:
    assert _refusal(_zip({name: b"x"}))[0] == "unsafe_archive"


def test_entries_over_each_other_are_refused() -> None:
    data = bytearray(_zip({"a": b"x" * 5_000, "b": b"y" * 5_000}, zipfile.ZIP_STORED))
    second = data.rfind(b"PK\x01\x02")
    struct.pack_into("<L", data, second + 42, 10)  # where the second entry begins
    assert _refusal(bytes(data))[0] in ("unsafe_archive", "damaged")


def test_encrypted_entries_are_a_matter_of_password() -> None:
    data = bytearray(_zip({"a": b"x"}))
    for magic, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        data[data.find(magic) + offset] |= 1
    assert _refusal(bytes(data))[0] == "password"


@pytest.mark.parametrize("data", [b"PK\x03\x04", b"PK\x03\x04" + bytes(500), _zip({"a": b"x" * 500})[:-30]])
def test_a_broken_archive_is_damaged(data: bytes) -> None:
    assert _refusal(data)[0] == "damaged"


def test_gzip_is_unpacked_with_all_its_members() -> None:
    packed = gzip.compress(b"one ") + gzip.compress(b"two") + bytes(20)
    assert unpack_gzip(packed, SMALL) == b"one two"


def test_a_gzip_bomb_is_refused_while_it_is_unpacked() -> None:
    with pytest.raises(ParseFailure) as raised:
        unpack_gzip(gzip.compress(bytes(200_000_000), 9), SMALL)
    assert raised.value.code == "too_large_inside"


@pytest.mark.parametrize(
    "data",
    [b"\x1f\x8b broken", gzip.compress(b"words and more words", mtime=0)[:-12], zlib.compress(b"x")],
    ids=["no header", "cut off", "zlib"],
)
def test_a_broken_gzip_is_damaged(data: bytes) -> None:
    with pytest.raises(ParseFailure) as raised:
        unpack_gzip(data, SMALL)
    assert raised.value.code == "damaged"


def test_packed_documents_are_read_as_what_they_hold() -> None:
    form = format_of("notes/a.MD.gz")
    assert form is not None
    assert (form.media_type, form.isolated, form.key) == ("text/markdown", True, ".md.gz")
    assert parse(gzip.compress(b"# Title\n\nwords"), form, ParseSettings()).title == "Title"
    assert format_of("a.gz") is None
    assert format_of("a.tar.gz") is None
