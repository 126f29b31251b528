"""Numbers and times as tar headers and pax records write them. Pure.

Read as Go's `strconv` reads them, and so all container tools: Python's `int` also takes `1_0`, `0o7` and signs.
"""

import re

from services.unpacker.tar.invalid import LayerError, shown

_OCTAL = re.compile(rb"[0-7]+")
_DECIMAL = re.compile(rb"[+-]?[0-9]{1,40}")
_TIME = re.compile(rb"([+-]?[0-9]{1,40})(?:\.([0-9]*))?")
MAX_ID = 0xFFFF_FFFE
_SMALLEST, _LARGEST = -(1 << 63), (1 << 63) - 1
"""What fits into 64 bits: Go refuses an archive that says more."""


def number(field: bytes, what: str) -> int:
    """Read a numeric field: octal digits, or base-256 as GNU and star write it.

    Raises:
        LayerError: it is neither, or more than 64 bits hold.
    """
    if field[0] & 0x80:
        bits = len(field) * 8 - 1
        value = int.from_bytes(field, "big") & ((1 << bits) - 1)
        return _checked(value - (1 << bits) if field[0] & 0x40 else value, field, what)
    digits = field.strip(b" \0").partition(b"\0")[0].strip()
    if not digits:
        return 0
    if not _OCTAL.fullmatch(digits):
        raise LayerError(f"{shown(digits)} is no {what}")
    return _checked(int(digits, 8), field, what)


def decimal(value: bytes, what: bytes) -> int:
    """A decimal number of 64 bits; raises LayerError."""
    if not _DECIMAL.fullmatch(value):
        raise LayerError(f"{shown(value)} is no {what.decode()}")
    return _checked(int(value), value, what.decode())


def nanoseconds(value: bytes) -> int:
    """`-12.5` seconds → nanoseconds, cut after the ninth digit; raises LayerError."""
    found = _TIME.fullmatch(value)
    if found is None:
        raise LayerError(f"{shown(value)} is no time")
    seconds = _checked(int(found[1]), value, "time")
    fraction = int((found[2] or b"")[:9].ljust(9, b"0"))
    return seconds * 1_000_000_000 + (-fraction if value[:1] == b"-" else fraction)


def owner(value: int) -> int:
    """A user or group as chown(2) reads it, and so containerd and umoci: its low 32 bits; -1, all of them set, is nobody."""
    low = value & 0xFFFF_FFFF
    return low if low <= MAX_ID else -1


def _checked(value: int, field: bytes, what: str) -> int:
    if not _SMALLEST <= value <= _LARGEST:
        raise LayerError(f"{shown(field)} is no {what}: it does not fit into 64 bits")
    return value
