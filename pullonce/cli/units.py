"""Amounts and durations as people read them, and as they write them. Without imports: `pullonce pull` loads this each time."""

_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_SHOWN = 0.99995
"""Of a unit is 1.0 when it is rounded: 999,960 bytes are 1.0 MB and not 1000.0 kB."""


def amount(count: float) -> str:
    """Bytes: `12.3 MB`."""
    size, name = _unit(count)
    return f"{_in(count, size)} {name}"


def amounts(done: float, whole: float) -> str:
    """Two counts of bytes, by the unit of the greater one: `5.0/20.0 MB`."""
    size, name = _unit(max(done, whole))
    return f"{_in(done, size)}/{_in(whole, size)} {name}"


def left(seconds: float) -> str:
    """What is left of a wait, rounded up: `6s`, `1m05s`, `2h07m`."""
    whole = int(seconds + 0.999)
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m{whole % 60:02}s" if whole < 3600 else f"{min(whole // 3600, 999)}h{whole // 60 % 60:02}m"


def took(seconds: float) -> str:
    """What was measured: `340 ms`, `2.5 s`, `3.1 min`."""
    if abs(seconds) < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if abs(seconds) < 120 else f"{seconds / 60:.1f} min"


def _unit(count: float) -> "tuple[float, str]":
    return next(((size, name) for size, name in _UNITS if count >= size * _SHOWN), _UNITS[-1])


def _in(count: float, size: float) -> str:
    return f"{count / size:.1f}" if size > 1 else f"{count:.0f}"
