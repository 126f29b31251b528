"""The states of a request, what moves it from one to the next, and the steps that a conversation asks of its driver. Pure."""

from pullonce.pulling.timings import NEVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pullonce.pulling.attendance import Attendance

WANTED, ASKED, STORED, LEAVING, ENDED = "wanted", "asked", "stored", "leaving", "ended"
"""Not said yet; said and not confirmed; stored, so that an ending answers it; not wanted any more, while it is unknown where it
lies; over."""

OPENED, OVERDUE, PUT_OFF, CONFIRMED, COVERED, REFUSED, LEFT = (
    "opened", "overdue", "put off", "confirmed", "covered", "refused", "left",
)  # fmt: skip

ASK, WITHDRAW, CHECK, WAIT, NOTHING = "ask", "withdraw", "check", "wait", ""
"""What is to be done then: say it under its id; say that its requester left; see whether its ending is there; say it soon."""

TABLE = {
    (WANTED, OPENED): (ASKED, ASK),
    (WANTED, LEFT): (ENDED, NOTHING),
    (ASKED, OPENED): (ASKED, ASK),  # under its old id, so it is stored once
    (ASKED, OVERDUE): (ASKED, ASK),
    (ASKED, PUT_OFF): (ASKED, WAIT),
    (ASKED, CONFIRMED): (STORED, CHECK),  # its ending may have come first
    (ASKED, REFUSED): (ENDED, NOTHING),
    (ASKED, LEFT): (LEAVING, ASK),  # said again it tells where it lies; only so can it be withdrawn
    (STORED, COVERED): (ENDED, NOTHING),
    (STORED, LEFT): (ENDED, WITHDRAW),
    (LEAVING, OPENED): (LEAVING, ASK),
    (LEAVING, OVERDUE): (LEAVING, ASK),
    (LEAVING, PUT_OFF): (LEAVING, WAIT),
    (LEAVING, CONFIRMED): (ENDED, WITHDRAW),
    (LEAVING, REFUSED): (ENDED, NOTHING),
}
"""(state, what happened) → (state, what to do). What is not listed changes nothing: a repetition, or too late."""


class Request:
    """One requester's wish to have the image. Made by `Conversation.ask`."""

    __slots__ = ("ask_at", "deadline", "id", "sequence", "state", "timeout")

    def __init__(self, request_id: str, timeout: "float | None", deadline: float) -> None:
        self.id = request_id
        """What the stream recognises a repetition by."""
        self.timeout = timeout
        self.deadline = deadline
        self.state = WANTED
        self.sequence = 0
        self.ask_at = NEVER


class Step:
    """Something to be done by whoever drives the conversation."""

    __slots__ = ()


class Ask(Step):
    """Append the request, under its id; `confirmed`, `put_off` or `refused` tell what came of it."""

    __slots__ = ("request",)

    def __init__(self, request: Request) -> None:
        self.request = request


class Withdraw(Step):
    """Append that the requester of the request has left, as soon as the bus can be reached: nothing follows."""

    __slots__ = ("request",)

    def __init__(self, request: Request) -> None:
        self.request = request


class Look(Step):
    """Read the last stored endings, good and bad; `ended` or `unreadable` tell what came of it."""

    __slots__ = ()


class CatchUp(Step):
    """Ask how far everything is: who joins in the middle, or comes back, has missed what was said before."""

    __slots__ = ()


class CallRoll(Step):
    """Ask who is there, then have the bus echo; tell the roll what came of it (`present`, `nobody`, `echoed`), then `tick`."""

    __slots__ = ("roll",)

    def __init__(self, roll: "Attendance") -> None:
        self.roll = roll


class Reconnect(Step):
    """The connection leads nowhere: make another one, unless something below does that by itself."""

    __slots__ = ()


class Say(Step):
    """Tell people what holds the pull up."""

    __slots__ = ("line",)

    def __init__(self, line: str) -> None:
        self.line = line


class Answer(Step):
    """These requests are answered, by what was handed to `ended`."""

    __slots__ = ("ending", "requests")

    def __init__(self, requests: "list[Request]", ending: object) -> None:
        self.requests = requests
        self.ending = ending


class Fail(Step):
    """This request is given up."""

    __slots__ = ("error", "request")

    def __init__(self, request: Request, error: Exception) -> None:
        self.request = request
        self.error = error
