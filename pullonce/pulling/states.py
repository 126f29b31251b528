"""The states of a request, and what moves it from one to the next. Pure."""

NEVER = float("inf")
"""When what is not planned is due."""

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
