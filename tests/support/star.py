"""Archives as Schilling's star wrote them, byte by byte: no packaged tool writes them any more."""

from __future__ import annotations

_LAYOUT = {
    "name": 0, "mode": 100, "uid": 108, "gid": 116, "size": 124, "mtime": 136, "flag": 156, "link": 157, "magic": 257,
    "user": 265, "group": 297, "major": 329, "minor": 337, "prefix": 345, "atime": 476, "ctime": 488, "star": 508,
}  # fmt: skip
END = bytes(1024)


def star(
    name: bytes, flag: bytes = b"0", content: bytes = b"", *, link: bytes = b"", prefix: bytes = b"", **numbers: int
) -> bytes:
    """One entry: ustar, but that access and change times lie behind a prefix of 131 bytes, and `tar` at the very end.

    Args:
        numbers: mode, uid, gid, mtime, major, minor.
    """
    numbers = {
        "mode": 0o644,
        "uid": 0,
        "gid": 0,
        "mtime": 1_500_000_000,
        "major": 0,
        "minor": 0,
        "size": len(content),
    } | numbers
    times = {"atime": b"%011o " % 1_400_000_000, "ctime": b"%011o " % 1_400_000_001}
    fields = {"name": name, "flag": flag, "link": link, "magic": b"ustar\x0000", "prefix": prefix, "star": b"tar\0", **times}
    fields |= {key: _number(value, 12 if key in ("size", "mtime") else 8) for key, value in numbers.items()}
    block = bytearray(512)
    for key, value in fields.items():
        block[_LAYOUT[key] : _LAYOUT[key] + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + content + bytes(-len(content) % 512)


def _number(value: int, width: int) -> bytes:
    """Octal where that is enough, else base-256."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o " % (width - 1, value)
    digits = bytearray((value % (1 << 8 * width)).to_bytes(width, "big"))
    digits[0] |= 0x80
    return bytes(digits)


LONG = b"/".join([b"d" * 60, b"e" * 60])
"""A directory whose name is too long for the name field."""

ARCHIVE = b"".join(
    [
        star(b"./", b"5", mode=0o751, uid=7, gid=8),
        star(b"d/", b"5", mode=0o2750, mtime=1_400_000_000),
        star(b"d/f", content=b"content" * 100, mode=0o4711, uid=1, gid=2),
        star(b"d/hard", b"1", link=b"d/f"),
        star(b"l", b"2", link=b"d/f", mode=0o777),
        star(b"pipe", b"6", mode=0o600),
        star(b"null", b"3", mode=0o666, major=1, minor=3),
        star(b"d" * 60 + b"/", b"5"),
        star(b"e" * 60 + b"/", b"5", prefix=b"d" * 60, mode=0o700),
        star(b"n" * 100, content=b"far", prefix=LONG),
        star(b"big", uid=3_000_000, gid=2_097_152),
        star(b"old", mtime=1),
        END,
    ]
)
