"""The errors that cross rooms. What only one room raises and catches stands beside it, and derives from these where it leaves.

    PullonceError
    ├── Retryable                 the same order may succeed later; the worker gives it back with a delay
    ├── Permanent                 trying again changes nothing; becomes a fact (`….failed`) that says whom it concerns
    ├── Rejected                  a compare-and-set lost: a normal answer, not an accident
    │   ├── WrongRevision         the key has another revision than expected
    │   └── Duplicate             the very same order is queued or running already
    ├── BusError
    │   ├── BusUnavailable        no server answers (a client may tell its user; a service keeps trying)
    │   ├── ServicesMissing       the server answers, but nobody there does the work
    │   ├── BusUnsuitable         the server cannot do what pullonce needs: too old, no JetStream, no permission
    │   │   └── BusForbidden      it does not let us in: no key, a wrong one, or a certificate that nobody trusts
    │   ├── LogShortened          the log ends before a position that was read: fold it again from the beginning
    │   └── BusClosed             the connection was closed for good: the process ends
    ├── StoreTaken                a store of this name is served from another place
    ├── ReferenceInvalid          what the user gave is no image reference
    ├── PlatformInvalid           what the user gave is no platform
    ├── PullFailed                a pull ended badly; carries the code and message of `pull.failed`
    ├── LedgerRefused             the ledger has no answer to a question; carries its code
    └── PullTimeout               the requester's own deadline passed; the work goes on while anyone else waits

`str(error)` is one line: what happened, what was expected and, where the user can act, what to do.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from schemas.events import Concerns


class PullonceError(Exception):
    """Base of all errors raised on purpose."""

    usage = False
    """What somebody said cannot be used, whatever the state of things."""


class Retryable(PullonceError):
    """The order may succeed later.

    Args:
        message: one line for people.
        code: of the distribution spec where it has one, else lower-case dotted.
        after: seconds to wait before the next attempt; None leaves it to the worker.
        concerns: whom the failure concerns once the worker gives up.
        brief: it will hardly pass (a name that nobody knows, a certificate that nobody trusts): a few attempts are enough.
    """

    def __init__(
        self, message: str, *, code: str, after: float | None = None, concerns: Concerns = "source", brief: bool = False
    ) -> None:
        super().__init__(message)
        self.code = code
        self.after = after
        self.concerns: Concerns = concerns
        self.brief = brief


class Permanent(PullonceError):
    """Trying again changes nothing.

    Args:
        message: one line for people.
        code: of the distribution spec where it has one, else lower-case dotted.
        concerns: whom the failure concerns.
    """

    def __init__(self, message: str, *, code: str, concerns: Concerns = "source") -> None:
        super().__init__(message)
        self.code = code
        self.concerns: Concerns = concerns


class Rejected(PullonceError):
    """Somebody else was first."""


class WrongRevision(Rejected):
    """A compare-and-set found another revision than the expected one; the state is unchanged."""


class Duplicate(Rejected):
    """The same order is queued or running already; that guarantees the work as well as sending it would have."""


class BusError(PullonceError):
    """The bus cannot do what was asked."""


class BusUnavailable(BusError):
    """No server answers at the address.

    Attributes:
        silent: somebody is there and says nothing, as a server that stands still.
    """

    silent = False


class ServicesMissing(BusError):
    """The bus answers, but not every part of pullonce does; the message names what is missing."""


class BusUnsuitable(BusError):
    """The server answers but lacks something pullonce needs."""


class BusForbidden(BusUnsuitable):
    """The server does not let us in, or we do not trust it."""


class LogShortened(BusError):
    """The log ends before a position that was already read: the server lost its tail, or another log is served."""


class BusClosed(BusError):
    """The connection was closed for good."""


class StoreTaken(PullonceError):
    """A store of this name is served from another place: neither would find what the other one fetches."""


class ReferenceInvalid(PullonceError):
    """The text is no image reference."""


class PlatformInvalid(PullonceError):
    """The text is no platform."""


class PullFailed(PullonceError):
    """A pull ended badly.

    Attributes:
        code: machine-readable reason, as in `pull.failed`.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class LedgerRefused(PullonceError):
    """The ledger has no answer.

    Attributes:
        code: machine-readable reason: `pull.unknown`, `sql.refused`…
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class PullTimeout(PullonceError):
    """The requester's own deadline passed before its pull ended."""
