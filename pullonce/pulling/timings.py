"""How long a client waits for what. Pure."""

NEVER = float("inf")
"""When what is not planned is due."""


class Timings:
    """Seconds, the same for every client. A test names those it wants otherwise."""

    quiet = 0.8
    """Without an ending, after which the client asks who is there at all."""
    answer = 1.0
    """That parts, and the bus itself, have to answer."""
    again = 0.4
    """Until the client asks once more who is there, where somebody was missing."""
    patience = 10.0
    """That a part may be missing which was never seen, while others answer."""
    away = 300.0
    """That a bus, or a part, which was there may be away: as long as a server remembers the ids of what it has stored."""
    first = 1.0
    """That a bus may take to answer for the first time."""
    stale = 20.0
    """Without a sign of the bus, after which the connection is made anew."""
    look = 30.0
    """Of silence after which the last ending is read, and the client asks again who is there."""
    ack = 5.0
    """After which an unconfirmed request is said again, under its own id."""
    settling = 5.0
    """That a server which is there may take to open its streams."""
    pause = 0.1
    """Between two attempts at what a server that has only just started does not do yet."""

    def __init__(self, **changed: float) -> None:
        self.__dict__.update(changed)
