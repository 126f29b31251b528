"""A request for a pull and its answer, as a light client writes and reads them: JSON, without loading a schema."""

import json

from schemas import subjects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pullonce.pulling.identity import Identity


class Wanted:
    """What is asked for: the request's fields beyond the reference, and the flight they make."""

    __slots__ = ("credential", "identity", "policy", "requester", "store", "trace", "unpack")

    def __init__(
        self, identity: "Identity", *, store: str, credential: str = "", policy: str = "always", unpack: bool = True,
        requester: str = "",
    ) -> None:  # fmt: skip
        self.identity = identity
        self.store = store
        self.credential = credential
        self.policy = policy
        self.unpack = unpack
        self.requester = requester
        self.trace = ""
        """`traceparent` that the request carries in its header."""

    def subject(self, verbed: str) -> str:
        return subjects.pull_subject(verbed, self.store, self.identity.reference, self.identity.flight)

    def body(self) -> bytes:
        request = {
            "type": "pull.requested", "store": self.store, "reference": self.identity.reference,
            "platform": self.identity.platform, "credential": self.credential, "policy": self.policy,
            "unpack": self.unpack, "requester": self.requester,
        }  # fmt: skip
        return json.dumps(request).encode()


class Ending:
    """The event that answered the request: its body as stored, and read."""

    __slots__ = ("body", "fields")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.fields: dict[str, object] = json.loads(body)

    @property
    def covers(self) -> int:
        covers = self.fields.get("covers", 0)
        return covers if isinstance(covers, int) else 0

    @property
    def completed(self) -> bool:
        return self.fields.get("type") == "pull.completed"
