"""Servers that took a request and said nothing: asked again by one at a time, so that the next ones wait for nothing. Pure."""

from dataclasses import dataclass

REST = 5.0
"""Seconds for which a server that was silent is not asked at all."""
_MOST = 1000
"""Servers that are remembered: whoever makes us ask others must not fill our memory."""


@dataclass(slots=True)
class _Silent:
    until: float
    """On the caller's clock: when it may be asked again."""


class Silence:
    """Remembers who is silent. Times in seconds, on any clock that only goes forward.

    Args:
        patience: seconds in which a server must say something.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._silent: dict[str, _Silent] = {}

    def rests(self, origin: str, now: float) -> bool:
        """Whether a server is not to be asked now. Once it has rested, the first who asks here is let through and finds out."""
        known = self._silent.get(origin)
        if known is None:
            return False
        if now < known.until:
            return True
        known.until = now + self._patience
        return False

    def missed(self, origin: str, now: float) -> None:
        """It said nothing in time."""
        if origin not in self._silent and len(self._silent) >= _MOST:
            del self._silent[next(iter(self._silent))]
        self._silent[origin] = _Silent(now + REST)

    def heard(self, origin: str) -> None:
        """It said something, whatever it was."""
        self._silent.pop(origin, None)
