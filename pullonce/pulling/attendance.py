"""Who is there: when a client calls the roll, and what the answers, or their lack, come to. Pure.

The bus echoes behind each roll call. Without the echo nobody can be said to be missing: the bus stands still, and once it goes
on, all that was sent is dealt with. With it, what has not answered in time is missing, and where the bus says that nobody
listens at all, that is certain at once.
"""

from pullonce.pulling.parts import listed, missing_parts
from pullonce.pulling.timings import NEVER, Timings

DOUBTS = 2
"""How often it is asked again before nobody means nobody."""


class Attendance:
    """The roll calls of one conversation.

    Args:
        seen: parts (service, store) that this client has heard of before; shared by its conversations.

    Attributes:
        missing: names of the parts that did not answer the last call.
        missing_since: since when some are missing.
    """

    CALL, SILENT, STALE, BACK, COMPLETE, MISSING, NOBODY = (
        "call", "silent", "stale", "back", "complete", "missing", "nobody",
    )  # fmt: skip
    """What `tick` finds: call the roll; the bus stands still; it has done so for too long; it goes on; all are there; some are
    missing; nobody is there, nor ever was."""

    def __init__(self, store: str, unpack: bool, seen: "set[tuple[str, str]]", times: Timings) -> None:
        self._store, self._unpack, self._times = store, unpack, times
        self._seen = seen
        self._present: set[tuple[str, str]] = set()
        self._call_at = self._judge_at = NEVER
        self._called_at = 0.0
        self._silent_since = NEVER
        self._echoed = self._nobody = self._stale = False
        self._doubts = 0
        self.missing: list[str] = []
        self.missing_since = NEVER

    @property
    def due(self) -> float:
        return min(self._call_at, self._judge_at)

    @property
    def silent(self) -> bool:
        """The bus stands still."""
        return self._silent_since != NEVER

    @property
    def known(self) -> bool:
        """All that are needed were there at some time."""
        return not missing_parts(self._seen, self._store, self._unpack)

    @property
    def listed(self) -> str:
        """The missing ones, as people say it."""
        return listed(self.missing)

    @property
    def all(self) -> str:
        """All that are needed, as people say it."""
        return listed(missing_parts(set(), self._store, self._unpack))

    def begin(self, at: float) -> None:
        """Call the roll at this time, on a connection that is sound."""
        self._call_at, self._judge_at, self._silent_since = at, NEVER, NEVER
        self._stale = False

    def stop(self) -> None:
        """There is no connection."""
        self._call_at = self._judge_at = self._silent_since = NEVER

    def present(self, service: str, store: str) -> None:
        """A part has answered."""
        self._present.add((service, store))
        self._seen.add((service, store))
        if not missing_parts(self._present, self._store, self._unpack):
            self._hasten()

    def nobody(self) -> None:
        """The bus says that nobody listens."""
        self._nobody = True
        self._hasten()

    def echoed(self) -> None:
        """The bus has dealt with the roll call."""
        self._echoed = True
        if self.silent:
            self._hasten()

    def _hasten(self) -> None:
        """Nothing is to be waited for any more."""
        self._echoed = True
        if self._judge_at != NEVER:
            self._judge_at = self._called_at

    def tick(self, now: float) -> str:
        """Do what is due; empty where nothing is."""
        if now >= self._judge_at:
            return self._judge(now)
        if now >= self._call_at:
            self._present.clear()
            self._echoed = self._nobody = False
            self._called_at, self._call_at, self._judge_at = now, NEVER, now + self._times.answer
            return self.CALL
        return ""

    def _judge(self, now: float) -> str:
        self._judge_at = NEVER
        if not self._echoed:
            return self._stand_still(now)
        if self.silent:
            self.begin(now)
            return self.BACK
        self.missing = missing_parts(self._present, self._store, self._unpack)
        if not self.missing:
            self.missing_since, self._doubts = NEVER, 0
            return self.COMPLETE
        self._call_at = now + self._times.again
        self.missing_since = min(self.missing_since, now)
        if self._nobody and not self._present and not self._seen:
            self._doubts += 1
            return self.NOBODY if self._doubts > DOUBTS else ""  # they may be between two lives
        return self.MISSING

    def _stand_still(self, now: float) -> str:
        """Nothing more is sent to a bus that does not answer: it would have to deal with all of it when it goes on."""
        self._judge_at = now + self._times.answer
        if not self.silent:
            self._silent_since = self._called_at
            return self.SILENT
        if not self._stale and now - self._silent_since >= self._times.stale:
            self._stale = True
            return self.STALE
        return ""
