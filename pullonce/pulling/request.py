"""A request for a pull and its answer, as a light client writes and reads them: JSON, without loading a schema."""

import json
import os

from schemas import subjects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pullonce.pulling.identity import Identity

LATER = 503
"""JetStream's code for what may go well in a moment: no leader yet, resources short."""
_ID_IN_PROCESS = 10158
_SUBJECT_FULL = 10077


class Wanted:
    """What is asked for: the request's fields beyond the reference, and the flight they make."""

    __slots__ = ("door", "fields", "identity", "requester", "secret", "trace")

    def __init__(self, identity: "Identity", *, requester: str = "", door: str = "", **fields: "Any") -> None:
        self.identity = identity
        self.fields: dict[str, Any] = {**subjects.FLIGHT_FIELDS, **fields, "platform": identity.platform}
        """What tells the flight apart beside its reference."""
        self.requester = requester
        self.door = door
        """By which door it comes, for the history."""
        self.secret = os.urandom(16).hex()
        """By which the request can be withdrawn."""
        self.trace = ""
        """`traceparent` that the request carries in its header."""

    @property
    def store(self) -> str:
        return str(self.fields["store"])

    @property
    def unpack(self) -> bool:
        return bool(self.fields["unpack"])

    def subject(self, verbed: str) -> str:
        return subjects.pull_subject(verbed, self.store, self.identity.reference, self.identity.flight)

    def body(self) -> bytes:
        request = {
            "type": "pull.requested", "reference": self.identity.reference, **self.fields, "requester": self.requester,
            "door": self.door, "seal": subjects.seal_of(self.secret),
        }  # fmt: skip
        return json.dumps(request).encode()

    def cancelled(self, sequence: int) -> bytes:
        """The event that withdraws the request which is stored at a sequence."""
        event = {
            "type": "pull.cancelled", "store": self.store, "reference": self.identity.reference,
            "flight": self.identity.flight, "request": sequence, "secret": self.secret,
        }  # fmt: skip
        return json.dumps(event).encode()

    def news(self) -> "tuple[str, ...]":
        """Subjects of what tells how far things are in the store."""
        return subjects.progress_filter(self.store), f"blob.fetched.{self.store}.*", f"layer.unpacked.{self.store}.*"

    def names(self, resolved: "dict[str, object]") -> "list[str]":
        """What workers are asked how far they are with: the layers of a `pull.resolved`, or, before it is there, resolving."""
        layers = resolved.get("layers")
        if not isinstance(layers, list):
            return [self.identity.flight]
        names = [each.get("chain_id") for each in layers] + [each["blob"]["digest"] for each in layers]
        return [name for name in names if name]


def read_ack(body: bytes) -> "tuple[int, str, bool]":
    """What a stream says of a request: its sequence; or 0, why it is not stored, and whether it may be in a moment."""
    try:
        ack = json.loads(body)
        error = ack.get("error")
        if not error:
            return int(ack["seq"]), "", False
        later = (error.get("code") == LATER and error.get("err_code") != _SUBJECT_FULL) or error.get(
            "err_code"
        ) == _ID_IN_PROCESS
        return 0, str(error.get("description") or error), later
    except (ValueError, TypeError, KeyError, AttributeError):
        return 0, "it was answered by something that is no stream", False


class Ending:
    """The event that answered the request: its body as stored, and read.

    Raises:
        ValueError: it is none.
    """

    __slots__ = ("body", "fields")

    def __init__(self, body: bytes) -> None:
        self.body = body
        fields = json.loads(body)
        if not isinstance(fields, dict) or fields.get("type") not in ("pull.completed", "pull.failed"):
            raise ValueError("no ending")
        self.fields: dict[str, object] = fields

    @property
    def covers(self) -> int:
        covers = self.fields.get("covers", 0)
        return covers if isinstance(covers, int) else 0

    @property
    def completed(self) -> bool:
        return self.fields.get("type") == "pull.completed"
