"""Numbers and times as tar headers and pax records write them. Pure."""

from services.unpacker.tar.invalid import LayerError, shown


def number(field: bytes, what: str) -> int:
    """Read a numeric field: octal digits, or base-256 as GNU and star write it.

    Raises:
        LayerError: it is neither.
    """
    if field[0] & 0x80:
        bits = len(field) * 8 - 1
        value = int.from_bytes(field, "big") & ((1 << bits) - 1)
        return value - (1 << bits) if field[0] & 0x40 else value
    digits = field.strip(b" \0").partition(b"\0")[0].strip()
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        raise LayerError(f"{shown(digits)} is no {what}") from None


def decimal(value: bytes, what: bytes) -> int:
    """A decimal number that is not negative; raises LayerError."""
    if not value.isdigit() or len(value) > 19:
        raise LayerError(f"{shown(value)} is no {what.decode()}")
    return int(value)


def nanoseconds(value: bytes) -> int:
    """`-12.5` seconds → nanoseconds, cut after the ninth digit; raises LayerError."""
    whole, _, fraction = value.partition(b".")
    negative = whole[:1] == b"-"
    digits = whole[1:] if negative else whole
    if not digits.isdigit() or len(digits) > 18 or (fraction and not fraction.isdigit()):
        raise LayerError(f"{shown(value)} is no time")
    total = int(digits) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
    return -total if negative else total
