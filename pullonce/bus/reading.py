"""Stored bytes → `Recorded`, alike for both implementations of the bus."""

from pullonce.bus.ports import Recorded
from schemas import events


def recorded(sequence: int, time: float, subject: str, body: bytes, pending: int = 0, trace: str = "") -> Recorded:
    """Decode one message of the log; what is no event comes with its reason and its bytes instead."""
    try:
        event = events.decode(subject, body)
    except events.Malformed as exc:
        return Recorded(sequence, time, subject, None, str(exc), body, pending, trace)
    return Recorded(sequence, time, subject, event, "", b"", pending, trace)
