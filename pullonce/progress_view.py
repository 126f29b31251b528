"""What a pull shows on a terminal: one line a layer, redrawn in place. Pure but for the stream it writes to and the clock."""

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

REDRAW = 0.1
"""Seconds between two drawings at the least."""
_FINISHED = ("present", "unpacked")


class _Layer:
    __slots__ = ("chain", "digest", "done", "note", "size", "state")

    def __init__(self, digest: str, chain: str, size: int, state: str) -> None:
        self.digest = digest
        self.chain = chain
        self.size = size
        self.done = 0
        self.state = state
        self.note = ""

    def line(self) -> str:
        head = f"{self.digest[7:19]}  {self.state:<10}"
        if self.note:
            return f"{head} {self.note}"
        if self.state in ("fetching", "unpacking") and self.size:
            bar = "=" * int(20 * min(self.done / self.size, 1.0))
            return f"{head} [{bar:<20}] {_amount(self.done)} / {_amount(self.size)}"
        return f"{head} {'':22} {'':10}   {_amount(self.size)}"


def _amount(count: int) -> str:
    """Bytes for people, always ten characters."""
    return f"{count / 1e6:7.1f} MB" if count >= 100_000 else f"{count / 1e3:7.1f} kB"


class ProgressView:
    """The layers of one image and where each stands.

    `take` accepts the JSON objects of `pull.resolved`, `progress.now`, `blob.progress`, `layer.progress`, `blob.fetched` and
    `layer.unpacked`; what concerns other images is passed over.
    """

    def __init__(self, stream: "TextIO") -> None:
        self._stream = stream
        self._layers: list[_Layer] = []
        self._by_digest: dict[str, _Layer] = {}
        self._by_chain: dict[str, _Layer] = {}
        self._drawn = 0
        self._last = 0.0

    def take(self, fields: "dict[str, object]") -> None:
        """Take in one message; draws if it is time."""
        match fields.get("type"):
            case "progress.now":
                self._take_all(fields.get("works"))
            case "pull.resolved":
                self._resolved(fields)
            case "blob.progress":
                self._moved(self._by_digest, fields, "digest", {"fetching": "fetching", "verified": "fetched"})
            case "layer.progress":
                states = {"unpacking": "unpacking", "committed": "unpacked"}
                self._moved(self._by_chain, fields, "chain_id", states)
            case "blob.fetched":
                self._reached(self._by_digest.get(str(fields.get("digest"))), "fetched")
            case "layer.unpacked":
                self._reached(self._by_chain.get(str(fields.get("chain_id"))), "unpacked")
        self._draw()

    def close(self) -> None:
        """Leave the last state on the screen."""
        self._draw(now=True)

    def _take_all(self, works: object) -> None:
        """Where everything stands, for who comes late."""
        for work in works if isinstance(works, list) else ():
            if work.get("type") != "progress.now":
                self.take(work)

    def _resolved(self, fields: "dict[str, object]") -> None:
        layers = fields.get("layers")
        self._layers = []
        for each in layers if isinstance(layers, list) else ():
            state = "present" if each.get("unpacked") else "fetched" if each.get("fetched") else "waiting"
            layer = _Layer(each["blob"]["digest"], each.get("chain_id", ""), each["blob"]["size"], state)
            self._layers.append(layer)
        self._by_digest = {layer.digest: layer for layer in self._layers}
        self._by_chain = {layer.chain: layer for layer in self._layers if layer.chain}

    def _moved(self, layers: "dict[str, _Layer]", fields: "dict[str, object]", key: str, states: "dict[str, str]") -> None:
        layer = layers.get(str(fields.get(key)))
        said = str(fields.get("state", "fetching" if key == "digest" else "unpacking"))
        if layer is None or layer.state in _FINISHED or (key == "digest" and layer.state == "unpacking"):
            return
        if said in states:
            layer.state, layer.note = states[said], ""
            done = fields.get("done", 0)
            layer.done = done if isinstance(done, int) else 0
        elif said == "retrying":
            layer.state, layer.note = "retrying", str(fields.get("error", ""))[:60]

    def _reached(self, layer: "_Layer | None", state: str) -> None:
        if layer is not None and layer.state not in _FINISHED and not (state == "fetched" and layer.state == "unpacking"):
            layer.state, layer.note = state, ""

    def _draw(self, *, now: bool = False) -> None:
        if not self._layers or (not now and time.monotonic() - self._last < REDRAW):
            return
        self._last = time.monotonic()
        width, height = self._size()
        shown = self._layers
        if len(shown) >= height:  # more layers than lines: what is finished is only counted
            shown = [layer for layer in shown if layer.state not in _FINISHED][: height - 2]
        lines = [layer.line()[: width - 1] for layer in shown]
        if len(shown) < len(self._layers):
            finished = sum(layer.state in _FINISHED for layer in self._layers)
            lines.append(f"{finished} of {len(self._layers)} layers done")
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        # Each line is cleared to its end, and everything below the last one, where fewer are drawn than before.
        self._stream.write(up + "".join(f"\r{line}\x1b[K\n" for line in lines) + "\x1b[J")
        self._stream.flush()
        self._drawn = len(lines)

    def _size(self) -> "tuple[int, int]":
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            return 80, 24
        return size.columns or 80, size.lines or 24
