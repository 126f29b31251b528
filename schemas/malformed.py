"""Reading a message that anybody may have written."""

from typing import TypeVar

import msgspec

_Message = TypeVar("_Message")


class Malformed(msgspec.MsgspecError):
    """A message that is not what it should be: the reason, in one line. A stored one is parked, never folded."""


def read(decoder: msgspec.json.Decoder[_Message], body: bytes, what: str) -> _Message:
    """Decode a message.

    Args:
        what: its name for people.

    Raises:
        Malformed: it is none: no JSON, no UTF-8, nested without end, or of another form.
    """
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise Malformed(f"not a {what}: {exc}") from exc
