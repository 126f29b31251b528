"""The layers of one image while it is pulled: where each stands, how fast it gets on, how long it still takes. Pure.

The fetch and the unpack of a layer are one line, whoever ordered them, and so are all layers with the same blob.
"""

from typing import NamedTuple

HALF_LIFE = 2.0
"""Seconds after which a byte counts half as much in the rate."""
FINISHED = ("present", "unpacked", "pushed", "mounted", "there", "left")
"""Of a pull, and of a push."""
_BROKEN = ("retrying", "aborted")


class LayerUpdate(NamedTuple):
    """Where one layer of an image stands."""

    digest: str
    """Of its blob."""
    chain_id: str
    """Of its snapshot; empty where it is not to be unpacked."""
    state: str
    """`waiting`, `fetching`, `fetched`, `unpacking`, `unpacked`, `present` (nothing was to do), `retrying` or `aborted`."""
    done: int
    """Bytes of the blob that came in, or that are unpacked while it is `unpacking`."""
    size: int
    """Bytes of the blob."""
    rate: float
    """Bytes a second of late; 0 where nothing moves."""
    left: float | None
    """Seconds until `done` is `size`, at this rate; None where nobody can tell."""
    attempts: int
    """Attempts that were or will be repeated, as far as they were heard of."""
    error: str
    """Why the last of them did."""
    retry_in: float
    """Seconds from that word to the next attempt."""

    @property
    def finished(self) -> bool:
        """Nothing more is to do for it."""
        return self.state in FINISHED or (self.state == "fetched" and not self.chain_id)


class Rate:
    """Bytes a second of a number that grows, the latest seconds counting most."""

    __slots__ = ("_bytes", "_done", "_seconds", "_when")

    def __init__(self) -> None:
        self._done = -1
        self._when = self._bytes = self._seconds = 0.0

    def grown(self, done: int, now: float) -> None:
        """The number is `done` now. Where it shrank, somebody began anew, and so does this."""
        if self._done < 0 or done < self._done:
            self._bytes = self._seconds = 0.0
        else:
            fade = 0.5 ** ((now - self._when) / HALF_LIFE)
            self._bytes = self._bytes * fade + done - self._done
            self._seconds = self._seconds * fade + now - self._when
        self._done, self._when = done, now

    def at(self, now: float) -> float:
        """The rate; it sinks while nothing is said."""
        gap = max(now - self._when, 0.0)
        fade = 0.5 ** (gap / HALF_LIFE)
        seconds = self._seconds * fade + gap
        return self._bytes * fade / seconds if self._bytes and seconds > 0 else 0.0


class _Step:
    """The fetch or the unpack of one layer."""

    __slots__ = ("attempts", "done", "error", "rate", "retry_in", "state")

    def __init__(self, state: str, done: int = 0) -> None:
        self.state = state
        """`waiting`, `moving`, `done`, `retrying` or `aborted`."""
        self.done = done
        self.rate = Rate()
        self.attempts = 0
        self.error = ""
        self.retry_in = 0.0

    def take(self, said: str, fields: "dict[str, object]", now: float) -> None:
        """One word of progress; whatever comes after the last one is late."""
        if self.state == "done":
            return
        # Before it is retrying, a fetch also says that this attempt is aborted. Who joins late hears which attempt this is.
        repeated, attempt = said == "retrying", int(_number(fields.get("attempt")))
        self.attempts = max(self.attempts, attempt - (not repeated)) if attempt else self.attempts + repeated
        self.error = str(fields.get("error", "")) or self.error
        if said in _BROKEN:
            self.retry_in = _number(fields.get("retry_in"))
            self.state = said
            return
        if said == "waiting":
            self.state = said
            return
        self.state = "done" if said in ("verified", "committed") else "moving"
        self.done = int(_number(fields.get("done")))
        self.rate.grown(self.done, now)


class _Layer:
    __slots__ = ("chain", "digest", "fetch", "present", "size", "unpack")

    def __init__(self, digest: str, chain: str, size: int, fetched: bool, unpacked: bool) -> None:
        self.digest, self.chain, self.size = digest, chain, size
        self.fetch = _Step("done" if fetched else "waiting", size if fetched else 0)
        self.unpack = _Step("done" if unpacked else "waiting")
        self.present = unpacked or (fetched and not chain)

    def update(self, now: float) -> LayerUpdate:
        state, step = self._merged()
        rate = step.rate.at(now) if step.state == "moving" else 0.0
        left = (self.size - step.done) / rate if rate and self.size >= step.done else None
        broken = self.unpack if self.unpack.error else self.fetch
        return LayerUpdate(
            self.digest, self.chain, state, self.size if state in FINISHED else step.done, self.size, rate, left,
            self.fetch.attempts + self.unpack.attempts, broken.error, broken.retry_in,
        )  # fmt: skip

    def _merged(self) -> "tuple[str, _Step]":
        """The one state of both steps, and the step that it is about."""
        fetch, unpack = self.fetch, self.unpack
        if unpack.state == "done":
            return "present" if self.present else "unpacked", unpack
        for step in (fetch, unpack):
            if step.state in _BROKEN:
                return step.state, step
        if unpack.state == "moving":
            return "unpacking", unpack
        if fetch.state == "done":
            return "present" if self.present else "fetched", fetch
        return "fetching" if fetch.state == "moving" else "waiting", fetch


class LayerView:
    """The layers of one image and where each stands.

    `take` accepts the JSON objects of `pull.resolved`, `progress.now`, `blob.progress`, `layer.progress`, `blob.fetched` and
    `layer.unpacked`; what concerns other images is passed over. The clock is the caller's.

    Args:
        unpack: the image is to be unpacked, not only fetched.
    """

    def __init__(self, *, unpack: bool = True) -> None:
        self._unpack = unpack
        self._layers: list[_Layer] = []
        self._told: dict[int, LayerUpdate] = {}

    def take(self, fields: "dict[str, object]", now: float) -> None:
        """Take in one message."""
        match fields.get("type"):
            case "progress.now":
                works = fields.get("works")
                for work in works if isinstance(works, list) else ():
                    if isinstance(work, dict) and work.get("type") != "progress.now":
                        self.take(work, now)
            case "pull.resolved":
                self._resolved(fields.get("layers"))
            case "blob.progress" | "blob.fetched" as kind:
                said = "verified" if kind == "blob.fetched" else str(fields.get("state", "fetching"))
                for layer in self._named("digest", fields):
                    layer.fetch.take(said, {**fields, "done": layer.size} if kind == "blob.fetched" else fields, now)
            case "layer.progress" | "layer.unpacked" as kind:
                said = "committed" if kind == "layer.unpacked" else str(fields.get("state", "unpacking"))
                for layer in self._named("chain_id", fields):
                    layer.unpack.take(said, fields, now)

    def layers(self, now: float) -> "list[LayerUpdate]":
        """Every layer, the lowest first; none before the image is resolved."""
        return [layer.update(now) for layer in self._layers]

    def news(self, now: float) -> "list[LayerUpdate]":
        """The layers of which something else is to be said than the last time this was asked."""
        found = []
        for place, update in enumerate(self.layers(now)):
            told = self._told.get(place)
            # A rate that only sinks because time passes is no news.
            if told is None or told._replace(rate=0.0, left=None) != update._replace(rate=0.0, left=None):
                self._told[place] = update
                found.append(update)
        return found

    def _resolved(self, layers: object) -> None:
        self._layers = [
            _Layer(
                each["blob"]["digest"], each.get("chain_id", "") if self._unpack else "", each["blob"]["size"],
                each.get("fetched", False), self._unpack and each.get("unpacked", False),
            )
            for each in (layers if isinstance(layers, list | tuple) else ())
        ]  # fmt: skip

    def _named(self, key: str, fields: "dict[str, object]") -> "list[_Layer]":
        name = fields.get(key)
        return [layer for layer in self._layers if name and name == (layer.digest if key == "digest" else layer.chain)]


def _number(value: object) -> float:
    return value if isinstance(value, int | float) else 0
