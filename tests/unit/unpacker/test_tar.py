"""Tar dialects → entries."""

from __future__ import annotations

import io
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.unpacker.tar.archive import Archive
from services.unpacker.tar.entry import DIRECTORY, FILE, HARDLINK, SYMLINK, Entry, Stretch
from services.unpacker.tar.extensions import extents, nanoseconds, records
from services.unpacker.tar.fields import number
from services.unpacker.tar.invalid import LayerError, TooLarge, Truncated
from tests.support.layers import entry, tar


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def read(data: bytes, size: int = 1 << 20, **limits: int) -> list[tuple[Entry, bytes]]:
    """All entries with their stored content."""
    archive = Archive(pieces(data, size), **limits)
    found = []
    for each in archive:
        content = b""
        while (view := archive.data()) is not None:
            content += view
        found.append((each, content))
    archive.drain()
    return found


def names(data: bytes) -> list[bytes]:
    return [each.name for each, _ in read(data)]


def header(name: bytes = b"f", flag: bytes = b"0", magic: bytes = b"ustar\x0000", **fields: bytes) -> bytes:
    """One header block, byte by byte, with the right checksum."""
    parts = {
        "mode": b"0000644\0", "uid": b"0000001\0", "gid": b"0000002\0", "size": b"00000000000\0", "mtime": b"00000000007\0",
        "link": b"", "prefix": b"", "tail": b"",
    } | fields  # fmt: skip
    block = bytearray(512)
    layout = {"name": (0, 100), "mode": (100, 8), "uid": (108, 8), "gid": (116, 8), "size": (124, 12), "mtime": (136, 12)}
    layout |= {"link": (157, 100), "prefix": (345, 155), "tail": (500, 12)}
    for key, (at, length) in layout.items():
        value = name if key == "name" else parts[key]
        block[at : at + len(value)] = value[:length]
    block[156:157] = flag
    block[257 : 257 + len(magic)] = magic
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


END = bytes(1024)


@pytest.mark.parametrize("size", [1, 7, 511, 512, 513, 4096, 1 << 20])
def test_the_size_of_the_chunks_does_not_matter(size: int) -> None:
    data = tar(entry("d/", "dir"), entry("d/f", content=b"x" * 1000), entry("d/l", "symlink", linkname="f"))
    assert [(each.name, each.kind, content) for each, content in read(data, size)] == [
        (b"d/", DIRECTORY, b""),
        (b"d/f", FILE, b"x" * 1000),
        (b"d/l", SYMLINK, b""),
    ]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("length", [1, 99, 100, 101, 155, 200, 214])
def test_names_of_every_length_in_every_dialect(form: int, length: int) -> None:
    name = ("n" * 60 + "/") * 4 + "n" * 60
    name = name[-length:].lstrip("/").rjust(length, "m")
    data = tar(entry(name, content=b"1"), entry("after", content=b"2"), form=form)
    assert [(each.name.decode(), content) for each, content in read(data)] == [(name, b"1"), ("after", b"2")]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_link_targets(form: int) -> None:
    [(found, _), (after, _)] = read(
        tar(entry("l", "symlink", linkname="t" * 300), entry("m", "symlink", linkname="t"), form=form)
    )
    assert (found.link, after.link) == (b"t" * 300, b"t")


def test_names_need_not_be_text() -> None:
    assert names(tar(entry("\udcff\udcfe.bin"), form=tarfile.GNU_FORMAT)) == [b"\xff\xfe.bin"]


def test_pax_times_owners_and_attributes() -> None:
    info, content = entry("f", content=b"x", uid=3_000_000, gid=4_000_000)
    info.mtime = -1.5  # type: ignore[assignment]
    info.pax_headers["SCHILY.xattr.user.a"] = "1=2"
    [(found, _)] = read(tar((info, content)))
    assert (found.mtime, found.uid, found.gid) == (-1_500_000_000, 3_000_000, 4_000_000)
    assert found.xattrs == {b"user.a": b"1=2"}


@pytest.mark.parametrize(
    "text, value",
    [(b"0", 0), (b"1.5", 1_500_000_000), (b"-1.5", -1_500_000_000), (b"-0.1", -100_000_000), (b"7.1234567899", 7_123_456_789)],
)
def test_times(text: bytes, value: int) -> None:
    assert nanoseconds(text) == value


@pytest.mark.parametrize("text", [b"", b"x", b"1.x", b"--1", b"1e9", b"9" * 40])
def test_what_is_no_time(text: bytes) -> None:
    with pytest.raises(LayerError):
        nanoseconds(text)


@pytest.mark.parametrize(
    "field, value",
    [
        (b"0000644\0", 0o644),
        (b"    644 ", 0o644),
        (b"00000000", 0),
        (b"\0\0\0\0\0\0\0\0", 0),
        (b"7777777\0junk", 0o7777777),
        (b"\x80\0\0\0\0\0\x01\0", 256),
        (b"\xff\xff\xff\xff\xff\xff\xff\xfe", -2),
    ],
)
def test_numbers(field: bytes, value: int) -> None:
    assert number(field, "size") == value


def test_a_size_without_terminator_uses_all_twelve_digits() -> None:
    [(found, _)] = read(header(b"d", flag=b"5", size=b"777777777777") + END)
    assert found.size == 0o777777777777


def test_star_keeps_times_behind_a_shorter_prefix() -> None:
    prefix = b"p" * 10 + bytes(121) + b"00000000001\0" + b"00000000002\0"
    assert names(header(prefix=prefix, tail=bytes(8) + b"tar\0") + END) == [b"p" * 10 + b"/f"]


def test_gnu_has_times_where_ustar_has_a_prefix() -> None:
    assert names(header(magic=b"ustar  \0", prefix=b"00000000001\0") + END) == [b"f"]
    assert names(header(magic=b"ustar  \0", prefix=b"old/go") + END) == [b"old/go/f"]


def test_v7_marks_directories_by_a_slash() -> None:
    assert [each.kind for each, _ in read(header(b"d/", flag=b"\0", magic=b"") + header(b"f/", magic=b"") + END)] == [
        DIRECTORY,
        FILE,
    ]


def test_links_have_no_content_whatever_their_size_says() -> None:
    data = header(b"l", flag=b"1", link=b"t", size=b"00000001000\0") + header(b"next") + END
    assert [(each.name, each.kind) for each, _ in read(data)] == [(b"l", HARDLINK), (b"next", FILE)]


def test_global_headers_change_nothing() -> None:
    body = b"11 path=xx\n"
    data = header(b"g", flag=b"g", size=b"%011o\0" % len(body)) + body.ljust(512, b"\0") + header(b"f") + END
    assert names(data) == [b"f"]


def test_the_end() -> None:
    one, two = header(b"one"), header(b"two")
    zero = bytes(512)
    assert names(one + two) == [b"one", b"two"], "the two zero blocks may be missing"
    assert names(one + zero) == [b"one"]
    assert names(one + zero + two + zero + zero) == [b"one", b"two"], "a lone zero block says nothing"
    assert names(one + zero + zero + two) == [b"one"], "what follows two of them is none of ours"


@pytest.mark.parametrize("cut", [1, 100, 511, 513, 700, 1023])
def test_cut_off(cut: int) -> None:
    data = header(size=b"00000001000\0") + b"x" * 512
    with pytest.raises(Truncated):
        read(data[:cut])


def test_a_wrong_checksum_names_the_entry() -> None:
    broken = bytearray(header(b"victim"))
    broken[3] ^= 1
    with pytest.raises(LayerError, match=r"'vicuim'.*checksum"):
        read(bytes(broken) + END)


def test_old_tars_summed_signed_bytes() -> None:
    block = bytearray(header(b"\xe9\xe9"))
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(struct.unpack("512b", block))
    assert names(bytes(block) + END) == [b"\xe9\xe9"]


@pytest.mark.parametrize("flag", [b"V", b"M", b"D", b"Z", b"8"])
def test_types_that_no_layer_has(flag: bytes) -> None:
    with pytest.raises(LayerError, match="type"):
        read(header(flag=flag) + END)


def test_limits() -> None:
    with pytest.raises(TooLarge, match="3 entries"):
        read(tar(*[entry(f"f{n}") for n in range(4)]), max_entries=3)
    with pytest.raises(TooLarge, match="extension"):
        read(header(flag=b"x", size=b"%011o\0" % (2 << 20)) + bytes(2 << 20))
    with pytest.raises(LayerError, match="4096"):
        read(tar(entry("n" * 5000)))


@pytest.mark.parametrize("body", [b"5 a=b\n", b"7 a=b\n", b"x a=b\n", b"6 a=b", b"6 ab\n\n", b"4 =\n", b"-6 a=b\n", b"0 a=b\n"])
def test_broken_pax_records(body: bytes) -> None:
    with pytest.raises(LayerError):
        records(body)


def test_a_zero_byte_in_a_name() -> None:
    with pytest.raises(LayerError, match="zero byte"):
        records(b"12 path=a\0b\n")


@pytest.mark.parametrize(
    "numbers, size, stored",
    [([0, 5, 3, 5], 20, 10), ([0, 30], 20, 30), ([0], 20, 0), ([0, 5], 20, 6), ([18, 3], 20, 3)],
)
def test_sparse_maps_that_do_not_fit(numbers: list[int], size: int, stored: int) -> None:
    with pytest.raises(LayerError, match="map"):
        extents(numbers, size, stored, b"f")


@pytest.mark.parametrize(
    "options", [["--format=gnu"], *(["--format=pax", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0"))]
)
def test_sparse_files_of_gnu_tar_in_all_its_forms(tmp_path: Path, options: list[str]) -> None:
    stretches = [(n * 1_000_000, b"%d" % n * 5000) for n in range(1, 31)]
    with open(tmp_path / "sparse", "wb") as file:
        for offset, content in stretches:
            file.seek(offset)
            file.write(content)
        file.truncate(40_000_000)
    packed = subprocess.run(
        ["tar", "-c", "--sparse", *options, "-C", tmp_path, "sparse", "sparse"], check=True, capture_output=True
    ).stdout
    assert len(packed) < 2_000_000
    [(found, stored), *_] = read(packed)
    assert (found.name, found.size) == (b"sparse", 40_000_000)
    rebuilt = bytearray(40_000_000)
    at = 0
    for extent in found.sparse or []:
        assert isinstance(extent, Stretch)
        rebuilt[extent.offset : extent.offset + extent.length] = stored[at : at + extent.length]
        at += extent.length
    assert rebuilt == (tmp_path / "sparse").read_bytes()


def test_what_python_writes_python_and_we_read_alike() -> None:
    data = tar(*[entry(f"d{n % 3}/f{n}", content=bytes([n]) * n * 100, mode=n) for n in range(40)])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        theirs = [(m.name.encode(), m.size, m.mode) for m in archive]
    assert [(each.name, each.size, each.mode) for each, _ in read(data)] == theirs
