"""Archives that tools read differently, byte by byte, each under a name that says what is odd about it.

To add one: a row whose names nobody else uses. `READ` are those that containerd unpacks, `REFUSED` those that it does not.
"""

from __future__ import annotations

END = bytes(1024)
_LAYOUT = {"name": (0, 100), "mode": (100, 8), "uid": (108, 8), "gid": (116, 8), "size": (124, 12), "mtime": (136, 12)}
_LAYOUT |= {"link": (157, 100), "major": (329, 8), "minor": (337, 8), "prefix": (345, 155), "tail": (500, 12)}


def header(name: bytes = b"f", flag: bytes = b"0", magic: bytes = b"ustar\x0000", **fields: bytes) -> bytes:
    """One header block, byte by byte, with the right checksum."""
    numbers = {"mode": b"0000644\0", "uid": b"0000001\0", "gid": b"0000002\0", "size": b"00000000000\0"}
    block = bytearray(512)
    for key, value in {"name": name, "mtime": b"00000000007\0", **numbers, **fields}.items():
        at, length = _LAYOUT[key]
        block[at : at + len(value)] = value[:length]
    block[156:157] = flag
    block[257 : 257 + len(magic)] = magic
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def file(name: bytes, content: bytes, **fields: bytes) -> bytes:
    return header(name, size=octal(len(content)), **fields) + padded(content)


def octal(number: int) -> bytes:
    return b"%011o\0" % number


def binary(number: int, length: int = 12) -> bytes:
    """A number in base 256."""
    if number < 0:
        return number.to_bytes(length, "big", signed=True)
    return b"\x80" + number.to_bytes(length - 1, "big")


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def extension(flag: bytes, body: bytes) -> bytes:
    """An extension header of any kind."""
    return header(b"extension", flag, size=octal(len(body))) + padded(body)


def long_name(name: bytes) -> bytes:
    return extension(b"L", name)


def record(key: bytes, value: bytes) -> bytes:
    """One pax record: its length counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    return b"%d %s=%s\n" % (rest + len(str(length)), key, value)


def pax(flag: bytes = b"x", **records: bytes) -> bytes:
    return extension(flag, b"".join(record(key.encode(), value) for key, value in records.items()))


def sparse(flag: bytes = b"x", **records: bytes) -> bytes:
    """The same for keys below `GNU.sparse.`, in order."""
    return extension(flag, b"".join(record(b"GNU.sparse." + key.encode(), value) for key, value in records.items()))


_ENTRY = file(b"inside", b"hello")

READ: dict[str, bytes] = {
    "a long name over a truncated one that ends in a slash, whose content is an entry": long_name(
        b"d" * 50 + b"/" + b"e" * 48 + b"/file\0"
    )
    + header(b"d" * 50 + b"/" + b"e" * 48 + b"/", b"\0", size=octal(len(_ENTRY)))
    + _ENTRY,
    "a long name with a slash at its end, flag NUL": long_name(b"one/dir/\0") + header(b"short", b"\0"),
    "the same with a size": long_name(b"two/dir/\0") + header(b"short", b"\0", size=octal(5)),
    "a pax name with a slash at its end, flag NUL": pax(path=b"three/dir/") + header(b"short", b"\0"),
    "a long name with a slash at its end, flag 0": long_name(b"four/") + file(b"short", b"hello"),
    "a short name with a slash under a long one without": long_name(b"five\0") + header(b"dir/", b"\0", size=octal(5))
    + padded(b"hello"),
    "a pax header, then a global one": pax(path=b"lost") + pax(b"g", comment=b"c") + header(b"six"),
    "a long name, then a global header": long_name(b"lost\0") + pax(b"g", comment=b"c") + header(b"seven"),
    "a global header that gives a time": pax(b"g", mtime=b"5") + header(b"eight"),
    "a long name that is empty": long_name(b"\0") + header(b"nine"),
    "a long name with garbage behind it": long_name(b"ten\0garbage") + header(b"short"),
    "a pax header, then another": pax(path=b"lost", mtime=b"9") + pax(mtime=b"8") + header(b"eleven"),
    "a long name and a pax one": pax(path=b"lost") + long_name(b"twelve\0") + header(b"short"),
    "the last octal second, in 2242": header(b"thirteen", mtime=b"77777777777\0"),
    "a time after 2262": header(b"fourteen", mtime=binary(1 << 40)),
    "Go's zero time": header(b"fifteen", mtime=binary(-62135596800)),
    "a second before the epoch": header(b"sixteen", mtime=binary(-1)),
    "a fraction before the epoch": pax(mtime=b"-0.5") + header(b"seventeen"),
    "a time with a sign": pax(mtime=b"+5.25") + header(b"eighteen"),
    "a directory's time before the epoch": header(b"nineteen/", b"5", mtime=binary(-86400)),
    "user 4294967295": header(b"twenty", uid=binary((1 << 32) - 1, 8)),
    "user and group -1": pax(uid=b"-1", gid=b"-1") + header(b"twentyone/", b"5"),
    "user and group -2": header(b"twentytwo", uid=binary(-2, 8), gid=binary(-2, 8)),
    "user 4294967296 of a link": header(b"twentythree", b"2", link=b"somewhere", uid=binary(1 << 32, 8)),
    "a sparse name without a map": sparse(name=b"lost") + header(b"twentyfour"),
    "a sparse version that nobody knows": sparse(major=b"2", minor=b"0", name=b"lost", realsize=b"9")
    + file(b"twentyfive", b"hello"),
    "a sparse name over a long one": sparse(map=b"2,5", numblocks=b"1", name=b"twentysix", size=b"9")
    + long_name(b"lost\0")
    + file(b"short", b"hello"),
    "digits in place of the times of a GNU header": header(b"twentyseven", magic=b"ustar  \0", prefix=b"123abc/def"),
    "times in place of a prefix": header(b"twentyeight", magic=b"ustar  \0", prefix=b"123"),
    "a directory with a negative size": header(b"twentynine/", b"5", size=b"\xff" * 12),
    "a device 0/0 that hides": header(b"thirty", b"3") + header(b"thirtyone/", b"5") + header(b"thirtyone/x", b"3"),
    "an attribute without a value": extension(b"x", record(b"SCHILY.xattr.user.empty", b"")) + header(b"thirtytwo"),
}  # fmt: skip
"""Without the zero blocks at the end."""

ENDINGS: dict[str, bytes] = {
    "a last file without its padding, and no end": file(b"thirtythree", b"hello")[:517],
    "a last file with some of its padding": file(b"thirtyfour", b"hello")[:600],
    "an extension header without its padding": header(b"thirtyfive") + pax(path=b"lost")[:530],
    "no zero blocks": header(b"thirtysix"),
    "one zero block": header(b"thirtyseven") + bytes(512),
}

REFUSED: dict[str, bytes] = {
    "one byte behind the last pax record": extension(b"x", record(b"path", b"a") + b"\0") + header() + END,
    "a newline behind the last pax record": extension(b"x", record(b"path", b"a") + b"\n") + header() + END,
    "a pax record of no length": extension(b"x", record(b"path", b"a") + b"0 p=b\n") + header() + END,
    "a pax record that ends in its own length": extension(b"x", b"3 a=b\n") + header() + END,
    "a global header that is broken": extension(b"g", record(b"path", b"a") + b"\0") + header() + END,
    "a pax key with a zero byte": extension(b"x", record(b"SCHILY.xattr.user.a\0b", b"1")) + header() + END,
    "a time that no 64 bits hold": header(mtime=binary(1 << 64)) + END,
    "a size as Python writes numbers": header(size=b"1_0\0") + padded(b"12345678") + END,
    "a size with a sign": header(size=b"+10\0") + padded(b"12345678") + END,
    "a negative size of a file": pax(size=b"-512") + header() + END,
    "a pax user as Python writes numbers": pax(uid=b"1_0") + header() + END,
    "a header cut short": file(b"f", b"hello") + b"x" * 100,
    "content cut short": file(b"f", b"h" * 600)[:-500],
    "a sparse directory": sparse(map=b"2,5", numblocks=b"1", size=b"9") + header(b"d/", b"5") + END,
    "a sparse map in another order": sparse(numbytes=b"5", offset=b"2", size=b"9") + file(b"f", b"hello") + END,
}
