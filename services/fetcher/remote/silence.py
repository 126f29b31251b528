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
    asked: float | None = None
    """When the one was let through that finds out."""


class Silence:
    """Remembers who is silent. Times in seconds, on any clock that only goes forward.

    Args:
        patience: seconds in which a server must say something.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._silent: dict[str, _Silent] = {}
        self._heard: dict[str, float] = {}
        """When each was last heard, the latest at the end."""

    def rests(self, origin: str, now: float) -> bool:
        """Whether a server is not to be asked now. Once it has rested, the first who asks here is let through and finds out."""
        known = self._silent.get(origin)
        if known is None:
            return False
        if now < known.until:
            return True
        known.until, known.asked = now + self._patience, now
        return False

    def missed(self, origin: str, sent: float, now: float) -> None:
        """It said nothing in time to a request; that counts unless it said something to anybody since that was sent."""
        heard = self._heard.get(origin)
        if heard is not None and heard > sent:
            self.let_go(origin, sent)
            return
        if origin not in self._silent and len(self._silent) >= _MOST:
            del self._silent[next(iter(self._silent))]
        self._silent[origin] = _Silent(now + REST)

    def let_go(self, origin: str, sent: float) -> None:
        """Whoever sent a request then will not find out: if that was the one to do so, the next one may."""
        known = self._silent.get(origin)
        if known is not None and known.asked == sent:
            known.until = sent

    def heard(self, origin: str, now: float) -> None:
        """It said something, whatever it was."""
        self._silent.pop(origin, None)
        self._heard.pop(origin, None)
        self._heard[origin] = now
        if len(self._heard) > _MOST:
            del self._heard[next(iter(self._heard))]
