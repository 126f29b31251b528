"""`pullonce push`: have the store's fetchers push an image, and show how far they are."""

import argparse
import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from typing import TextIO

import msgspec

from pullonce.cli import units
from pullonce.cli.bars import Bars
from pullonce.cli.caretaking import served
from pullonce.cli.pull import say
from pullonce.client import connect
from pullonce.errors import PullFailed
from pullonce.oci.platform import normalise
from pullonce.oci.reference import parse
from pullonce.printable import printable, terminal
from pullonce.pulling.layers import LayerUpdate, Rate
from pullonce.pushing import PushFailed
from schemas.push import PushedBlob, PushStatus

_AGAIN = re.compile(r"again in [\d.]+ s: ")


def push(args: argparse.Namespace) -> int:
    """Carry out `pullonce push`."""
    reference, target = str(parse(args.reference)), str(parse(args.target)) if args.target else ""
    platform = normalise(args.platform) if args.platform else ""
    shows = not (args.quiet or args.json) and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    view = PushView(terminal(sys.stderr)) if shows else None
    take = view.take if view else PushLines(say).take

    async def carry_out() -> PushStatus:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        async with connect(url, name="pullonce push") as client:
            return await client.push(
                reference, target, told=take,
                store=args.store, platform=platform, all_platforms=args.all_platforms, nondistributable=args.nondistributable,
                credential=args.credential, requester=f"pullonce push, process {os.getpid()} on {os.uname().nodename}"[:128],
            )  # fmt: skip

    with served(args) as url:
        try:
            status = asyncio.run(carry_out())
        except PushFailed as exc:
            raise PullFailed(str(exc), code=exc.code) from exc
        except asyncio.CancelledError:
            return 128 + signal.SIGTERM
        finally:
            if view:
                view.close()
    print(json.dumps(msgspec.to_builtins(status)) if args.json else "\n".join(summary(status)))
    return 0


def summary(status: PushStatus) -> list[str]:
    """What came of a push, in lines for people."""

    def told(state: str, words: str) -> str:
        found = [each for each in status.blobs if each.state == state]
        return f"{len(found)} {words}" + (f" ({units.amount(sum(each.size for each in found))})" if found else "")

    lines = [
        printable(status.target),
        f"digest    {status.digest}",
        f"pushed    {status.platform or 'the index, with all its platforms'}",
        f"blobs     {told('pushed', 'pushed')}, {told('mounted', 'taken over')}, {told('there', 'there already')}",
    ]
    left = [each for each in status.blobs if each.state == "left"]
    if left:
        lines.append(f"left out  {len(left)} layers that registries may not pass on; --nondistributable pushes them too")
    return lines


class PushLines:
    """Says why a push does not go on, each reason once, where no bars are drawn."""

    def __init__(self, line: Callable[[str], None]) -> None:
        self._line = line
        self._said = set[str]()

    def take(self, status: PushStatus) -> None:
        """Take in how it stands."""
        note = _AGAIN.sub("", status.note)
        for reason in (note, *(blob.error for blob in status.blobs)):
            if reason and reason not in self._said:
                self._said.add(reason)
                self._line(f"tried again: {reason}")


class PushView(Bars):
    """Draws the blobs of a push; `take` wants its status."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream, self._lines, "blobs")
        self._status: PushStatus | None = None
        self._rates: dict[str, Rate] = {}

    def take(self, status: PushStatus) -> None:
        """Take in how it stands; draws if it is time."""
        self._status, self.note = status, printable(status.note)
        now = time.monotonic()
        for blob in status.blobs:
            self._rates.setdefault(blob.digest, Rate()).grown(blob.done, now)
        self.changed()

    def _lines(self, now: float) -> list[LayerUpdate]:
        return [self._line(blob, now) for blob in self._status.blobs] if self._status else []

    def _line(self, blob: PushedBlob, now: float) -> LayerUpdate:
        rate = self._rates[blob.digest].at(now)
        left = (blob.size - blob.done) / rate if rate else None
        return LayerUpdate(
            digest=blob.digest, chain_id="", state=blob.state, done=blob.done, size=blob.size, rate=rate, left=left,
            attempts=0, error=blob.error, retry_in=0.0,
        )  # fmt: skip
