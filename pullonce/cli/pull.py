"""`pullonce pull`: find the bus, or start the embedded default for the time of the pull; wait; say what came of it."""

import os
import signal
import sys

from pullonce import environment
from pullonce.bus.nats.greeting import Access
from pullonce.bus.nats.socket import Message, Woken
from pullonce.cli import units
from pullonce.errors import PullFailed, ServicesMissing
from pullonce.printable import printable, terminal
from pullonce.process import discovery
from pullonce.pulling.blocking import BlockingPull
from pullonce.pulling.identity import identify
from pullonce.pulling.request import Ending, Wanted
from pullonce.pulling.timings import Timings
from schemas.subjects import FLIGHT_FIELDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace

    from pullonce.cli.bars import ProgressView


def pull(args: "Namespace") -> int:
    """Carry out `pullonce pull`."""
    return _report(obtain(args), as_json=args.json)


def obtain(args: "Namespace", door: str = "cli") -> Ending:
    """Have an image pulled, and show how far that is; its ending, whichever it is.

    Args:
        args: what `pullonce pull` accepts.
        door: by which the request comes.
    """
    fields = {name: getattr(args, name) for name in FLIGHT_FIELDS}
    identity = identify(args.reference, **fields)
    requester = f"pullonce pull, process {os.getpid()} on {os.uname().nodename}"[:128]
    wanted = Wanted(identity, requester=requester, door=door, **fields)
    if "TRACEPARENT" in os.environ:
        from pullonce.trace import of_environment

        wanted.trace = of_environment()
    signal.signal(signal.SIGTERM, interrupt)
    users = join_or_start(args.home, args.store)
    view = _view(args, identity.flight)
    try:
        return _wait(args.home, users, wanted, args.timeout, view)
    finally:
        if view:
            view.close()
        if users:
            let_go(args.home, users)


def _wait(
    home: str, users: "discovery.Lock | None", wanted: Wanted, timeout: "float | None", view: "ProgressView | None"
) -> Ending:
    watch, tell = (_watcher(view), _above(view)) if view else (None, say)
    if environment.nats_url().startswith(("ws://", "wss://")):
        from pullonce.cli.full import full_pull

        return full_pull(environment.nats_url(), wanted, timeout, view.take if view else None, tell)
    request = BlockingPull(
        lambda: address(home, users), wanted, timeout=timeout, watch=watch, say=tell, idle=view.idle if view else None,
        access=Access(**environment.bus_access()),
        # What serves this home starts anew what dies; of a configured bus we know nothing.
        supervised=not environment.nats_url(), times=Timings(**environment.client_times()),
    )  # fmt: skip
    signals = StopSignals()
    request.wake = signals.descriptor
    try:
        return request.wait()
    except BaseException as exc:
        request.leave()
        if isinstance(exc, Woken):
            raise SystemExit(128 + signals.number) from None
        raise
    finally:
        request.close()
        signals.close()


class StopSignals:
    """SIGINT and SIGTERM as something to wait for, until `close`.

    As exceptions they could strike between the arrival of the acknowledgement and its reading: the request's sequence would be
    lost, and with it the way to withdraw it.
    """

    def __init__(self) -> None:
        self.number = 0
        self.descriptor, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._write)
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}

    def _note(self, number: int, _: object) -> None:
        self.number = number

    def close(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        os.close(self.descriptor)
        os.close(self._write)


def _report(ending: Ending, *, as_json: bool) -> int:
    if as_json:
        print(ending.body.decode())
    check(ending)
    if not as_json:
        print("\n".join(summary(ending.fields)))
    return 0


def check(ending: Ending) -> None:
    """Raises PullFailed for a pull that ended badly."""
    if not ending.completed:
        fields = ending.fields
        reference, message = str(fields.get("reference")), str(fields.get("message"))
        raise PullFailed(message if reference in message else f"{reference}: {message}", code=str(fields.get("code")))


def summary(fields: "dict[str, object]") -> "list[str]":
    """What came of a pull, in lines for people."""
    sharing = fields.get("sharing")
    sharing = sharing if isinstance(sharing, dict) else {}
    blobs = ", ".join(
        f"{sharing.get(what, 0)} {word}"
        + (f" ({units.amount(sharing[f'{what}_bytes'])})" if sharing.get(f"{what}_bytes") else "")
        for what, word in (("fetched", "fetched"), ("reused", "reused"), ("waited", "waited for"))
    )
    layers = ", ".join(
        f"{sharing.get(what, 0)} {word}"
        for what, word in (("unpacked", "unpacked"), ("unpack_reused", "reused"), ("unpack_waited", "waited for"))
    )
    lines = [
        printable(str(fields.get("reference"))),
        f"image id  {fields.get('image_id')}",
        f"digest    {fields.get('digest')}",
    ]
    lines.append(f"blobs     {blobs}")
    if fields.get("chain_id"):
        lines += [f"layers    {layers}", f"snapshot  {fields['chain_id']}"]
    return lines


def say(line: str) -> None:
    print(f"pullonce: {printable(line)}", file=sys.stderr, flush=True)


def interrupt(number: int, _: object) -> None:
    """Handles a signal by leaving, so that what was begun is undone."""
    raise SystemExit(128 + number)


def _view(args: "Namespace", flight: str) -> "ProgressView | None":
    if args.quiet or args.json or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return None
    from pullonce.cli.bars import ProgressView

    return ProgressView(terminal(sys.stderr), flight, unpack=args.unpack)


def _above(view: "ProgressView") -> "Callable[[str], None]":
    """`say`, above the bars."""
    return lambda line: view.say(f"pullonce: {line}")


def _watcher(view: "ProgressView") -> "Callable[[Message], None]":
    import json

    def watch(message: Message) -> None:
        try:
            view.take(json.loads(message.body))
        except ValueError:
            pass  # progress informs; nothing depends on it

    return watch


# -- the bus -----------------------------------------------------------------------------------------------------------


def join_or_start(home: str, store: str) -> "discovery.Lock | None":
    """Make sure that there is a bus: the configured one; else what serves this home; else the embedded default, started for as
    long as somebody uses it. The lock that comes back keeps a temporary one alive.
    """
    if environment.nats_url():
        return None
    if found := discovery.use(home):
        return found[1]
    from pullonce.process.temporary import start

    return start(home, store, say)[1]


def address(home: str, users: "discovery.Lock | None") -> str:
    """Where the bus is now; empty where nothing serves this home at the moment.

    Raises:
        ServicesMissing: the temporary one that we used has ended, and nobody will start it again.
    """
    if url := environment.nats_url():
        return url
    if found := discovery.served(home):
        return found.url
    if users:
        raise ServicesMissing(f"the embedded default of {home} has ended in the middle of the pull; its log: run/up.log")
    return ""


def let_go(home: str, users: discovery.Lock) -> None:
    """Use the temporary service no more; where nobody else does either, wait until it is gone."""
    served = discovery.served(home)
    last = users.take(wait=False)
    started = discovery.process_start(served.pid) if served else ""
    users.close()
    if last and served and started:
        discovery.wait_until_gone(served.pid, started, 20.0)


if TYPE_CHECKING:
    from collections.abc import Callable
