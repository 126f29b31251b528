"""What a pull or a push shows on a terminal: one bar a layer, redrawn in place. Pure but for its stream and the clock."""

import os
import time

from pullonce.cli import units
from pullonce.printable import printable
from pullonce.pulling.layers import LayerUpdate, LayerView

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TextIO

REDRAW = 0.1
"""Seconds between two drawings at the least."""
_BAR, _SHORT = 30, 8
"""Characters inside a bar: at most, and the fewest that say anything."""


MOVING = ("fetching", "unpacking", "pushing")
"""States in which bytes go by."""


def line(update: LayerUpdate, width: int) -> str:
    """One layer in at most `width` characters. Where there is little room, the bar goes first and the time left last."""
    head = f"{update.digest.rpartition(':')[2][:12]}  {update.state:<9}"
    if update.state in ("retrying", "aborted"):
        again = f"after attempt {update.attempts}: " if update.attempts else ""
        return f"{head}  {again}{_plain(update.error)}"[:width]
    if update.state not in MOVING:
        return f"{head}  {units.amount(update.size)}"[:width]
    done = min(update.done / update.size, 1.0) if update.size else 0.0
    rate = f"{units.amount(update.rate)}/s" if update.rate else ""
    left = units.left(update.left) if update.left is not None else ""
    figures = f"  {units.amounts(update.done, update.size):>15}  {rate:>10}  {left:>7}"
    room = min(width - len(head) - len(figures) - 4, _BAR)
    if room >= _SHORT:
        return f"{head}  [{'=' * int(room * done):<{room}}]{figures}"
    for short in (f"{head}{figures}", f"{head}  {done:4.0%}  {rate:>10}  {left:>7}", f"{head[:4]} {done:4.0%} {rate} {left}"):
        if len(short) <= width:
            return short
    return f"{head[:4]} {done:4.0%}"[:width]


def repeated(fields: "dict[str, object]") -> str:
    """A step of the whole pull that is not in its first attempt, in words; empty for one that is."""
    step = "listing" if fields.get("work") == "record" else "resolving"
    attempt, wait = fields.get("attempt"), fields.get("retry_in", 0.0)
    if fields.get("state") == "retrying":
        seconds = f"{wait:.1f} s" if isinstance(wait, int | float) else "some time"
        return f"{step} again in {seconds}: {_plain(str(fields.get('error', '')))}"
    return (
        f"{step}, attempt {attempt}: {_plain(str(fields.get('error', '')))}" if isinstance(attempt, int) and attempt > 1 else ""
    )


class Bars:
    """Draws lines of layers, redrawn in place, and above them what holds the whole up.

    Args:
        stream: a terminal.
        layers: what there is to draw, at a time of the monotonic clock.
        noun: what the layers are called where they are only counted.
    """

    def __init__(self, stream: "TextIO", layers: "Callable[[float], Sequence[LayerUpdate]]", noun: str = "layers") -> None:
        self._stream = stream
        self._layers = layers
        self._noun = noun
        self.note = ""
        """What holds the whole up; empty: nothing."""
        self._drawn = 0
        self._last = 0.0
        self._owed = False
        """Something was taken in since it was drawn last."""

    def changed(self) -> None:
        """There is news; draws if it is time."""
        self._owed = True
        self.idle()

    def idle(self) -> float:
        """Draw what is owed, if it is time; seconds until it will be."""
        now = time.monotonic()
        if not self._owed:
            return float("inf")
        if now - self._last >= REDRAW:
            self._draw(now)
            return float("inf")
        return self._last + REDRAW - now

    def say(self, words: str) -> None:
        """Print a line above the bars."""
        self._stream.write(f"{self._up()}\x1b[J{words}\n")
        self._drawn = 0
        self._draw(time.monotonic())

    def close(self) -> None:
        """Leave the last state on the screen, and the cursor below it."""
        self._draw(time.monotonic())

    def _draw(self, now: float) -> None:
        layers = self._layers(now)
        self._last, self._owed = now, False
        width, height = self._size()
        height -= bool(self.note)
        shown = layers
        if len(shown) >= height:  # more layers than lines: what is finished is only counted
            shown = [layer for layer in layers if not layer.finished][: max(height - 2, 0)]
        lines = [self.note[: width - 1]] if self.note else []
        lines += [line(layer, width - 1) for layer in shown]
        if len(shown) < len(layers):
            lines.append(f"{sum(layer.finished for layer in layers)} of {len(layers)} {self._noun} done"[: width - 1])
        # Each line is cleared to its end, and everything below the last one, where fewer are drawn than before.
        if lines:
            self._stream.write(self._up() + "".join(f"\r{each}\x1b[K\n" for each in lines) + "\x1b[J")
        self._stream.flush()
        self._drawn = len(lines)

    def _up(self) -> str:
        return f"\x1b[{self._drawn}A\r" if self._drawn else ""

    def _size(self) -> "tuple[int, int]":
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            return 80, 24
        return size.columns or 80, size.lines or 24


class ProgressView(Bars):
    """Draws the layers of one image as `LayerView` has them; `take` wants what that takes, and `pull.progress`.

    Args:
        stream: a terminal.
        flight: name of the flight that is waited for.
        unpack: the image is to be unpacked, not only fetched.
    """

    def __init__(self, stream: "TextIO", flight: str, *, unpack: bool = True) -> None:
        self._view = LayerView(unpack=unpack)
        super().__init__(stream, self._view.layers)
        self._flight = flight

    def take(self, fields: "dict[str, object]") -> None:
        """Take in one message; draws if it is time."""
        self._view.take(fields, time.monotonic())
        self._hear(fields)
        self.changed()

    def _hear(self, fields: "dict[str, object]") -> None:
        """Whether the reference is resolved, or the image listed, once more."""
        match fields.get("type"):
            case "pull.resolved":
                self.note = ""
            case "progress.now":
                works = fields.get("works")
                for work in works if isinstance(works, list) else ():
                    if isinstance(work, dict) and work.get("type") == "pull.progress":
                        self._hear(work)
            case "pull.progress" if fields.get("flight") == self._flight:
                self.note = repeated(fields)


def _plain(words: str) -> str:
    """Words of strangers in a line of bars: one column a character, so that the line's width is known."""
    return "".join(each if " " <= each <= "~" else "?" for each in printable(words))
