"""Everything on one machine, in one command: nats-server and the services as supervised children of this process.

The services are started by module name and never imported. One home is served once: a lock says so, and the children hold it
too, so that whatever is left of a killed `up` keeps a second one away from its files until it is gone.
"""

import asyncio
import contextlib
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from pullonce import environment, private
from pullonce.config import BusSettings, gateway_socket, metrics_address, mirror_place, store_root
from pullonce.errors import PullonceError
from pullonce.process import discovery
from pullonce.process.nats_server import USER, choose_port, configuration, find_nats_server, lacks_room, log_taker, port_before
from pullonce.process.supervisor import Child, running
from schemas.malformed import Malformed
from schemas.status import STARTING, Pong, decode_pong
from schemas.subjects import HERE_SUBJECT, PING_SUBJECT

log = logging.getLogger(__name__)
log_of_server = logging.getLogger("nats-server")

LEDGER = "ledger"
GATEWAY = "gateway"
_OPTIONAL = (LEDGER, GATEWAY)
_LONGEST_SOCKET = 107
"""Bytes. Source: unix(7)."""

READY_WITHIN = 60.0
LOCK_WITHIN = 15.0
RENEW_AFTER = 5.0
"""Seconds after which a server that could not write is restarted. Until then requests wait, and none is lost."""


class HomeTaken(PullonceError):
    """Another process serves this home."""


class NotReady(PullonceError):
    """Not every part came up in time."""


@dataclass(frozen=True, slots=True)
class UpSettings:
    """What `pullonce up` starts."""

    home: Path
    store: str = "default"
    url: str = ""
    """Of a NATS server that runs already; empty: start one."""
    coordinators: int = 1
    fetchers: int = 1
    unpackers: int = 1
    ledger: bool = True
    """Keep a history. No pull needs it, so nothing waits for it, here either."""
    gateway: bool = False
    """Serve containerd and others. No pull needs it either."""
    group: str = ""
    """Whose members may use the bus and read the stores; empty: only who runs it."""
    temporary: bool = False
    """End when nobody holds `run/users` any more."""


async def up(settings: UpSettings, *, ready: Callable[[str], None], ledger: Callable[[str], None]) -> None:
    """Run everything until cancelled (or, when temporary, until unused); then stop everything, and nothing else.

    Args:
        ready: called once, with the address of the bus, when every part answers that a pull needs.
        ledger: called once, with the address of its page, when the ledger answers, where one was asked for.

    Raises:
        HomeTaken, NotReady, PullonceError: it cannot start; the message says why.
        ExceptionGroup: of such errors.
        OSError: the disk of the home refuses.
    """
    home = str(settings.home)
    discovery.make_run_directory(home, settings.group)
    with discovery.Lock(home, "lock") as lock:
        await _take(lock, home)
        root = store_root(settings.home, settings.store)
        for directory in (root.parent, root):
            private.directory(str(directory), settings.group)
        private.directory(str(settings.home / "nats"))
        async with _bus(settings, lock) as url:
            parts = services(settings, url, keep=lock.fileno())
            async with running(parts):
                await until_ready(url, [part for part in parts if part.name not in _OPTIONAL])
                discovery.announce(home, url, temporary=settings.temporary, group=settings.group)
                telling = asyncio.create_task(_tell_of_ledger(url, [part for part in parts if part.name == LEDGER], ledger))
                try:
                    ready(url)
                    await (_until_unused(home) if settings.temporary else asyncio.Event().wait())
                finally:
                    telling.cancel()
                    discovery.withdraw(home)
                    log.info("stopping all parts")


async def _take(lock: discovery.Lock, home: str) -> None:
    """Take the home's lock; what is left of a predecessor gets some time to go away."""
    for _ in range(int(LOCK_WITHIN / 0.1)):
        if lock.take(wait=False):
            return
        if other := discovery.served(home):
            raise HomeTaken(f"{home} is served already, by process {other.pid} at {environment.redacted(other.url)}")
        await asyncio.sleep(0.1)
    raise HomeTaken(f"{home} is in use by another `pullonce up` that neither becomes ready nor ends")


@contextlib.asynccontextmanager
async def _bus(settings: UpSettings, lock: discovery.Lock) -> AsyncIterator[str]:
    """The address of the bus: the one that was given, or a nats-server of our own for as long as the block lasts."""
    if settings.url:
        yield settings.url
        return
    server = _OwnServer(settings.home, discovery.bus_password(str(settings.home), settings.group))
    part = Child(
        "nats-server", server.command, environ=os.environ, keep=[lock.fileno()], line=log_taker(log_of_server, server.heard)
    )
    async with running([part]):
        await server.ready.wait()
        part.ready = True
        renewing = asyncio.create_task(_renew(part, server.broken))
        try:
            yield server.url
        finally:
            renewing.cancel()


async def _renew(server: Child, broken: asyncio.Event) -> None:
    """Restart a server that could not write to its disk, until it can. For ever."""
    while True:
        await broken.wait()
        log.error("the event log cannot be written: make room on its disk; trying again every %g s", RENEW_AFTER)
        await asyncio.sleep(RENEW_AFTER)
        broken.clear()
        server.renew()


class _OwnServer:
    """The nats-server of this home: its configuration, and its port, which it keeps once it has been ready."""

    def __init__(self, home: Path, password: str) -> None:
        self._password = password
        self.ready = asyncio.Event()
        self.broken = asyncio.Event()
        """Set when it could not write: it takes nothing more then, even when there is room again, until it is restarted."""
        self._home = home
        self._path = Path(discovery.run_path(str(home), "nats.conf"))
        self.command = [str(find_nats_server()), "--config", str(self._path)]
        self._choose()

    @property
    def url(self) -> str:
        return f"nats://{USER}:{self._password}@127.0.0.1:{self._port}"

    def heard(self, said: str) -> None:
        """Take in a line of its log."""
        if said.startswith("Server is ready"):
            self.ready.set()
        elif "address already in use" in said and not self.ready.is_set():
            self._choose()  # somebody was faster; it is about to end, and is started again
        elif lacks_room(said):
            self.broken.set()

    def _choose(self) -> None:
        self._port = choose_port(port_before(self._path))
        private.write(str(self._path), configuration(self._port, self._home / "nats", self._password))


def services(settings: UpSettings, url: str, *, keep: int) -> list[Child]:
    """One part a service process, configured by environment like anywhere else."""
    environ = {
        **os.environ,
        "PULLONCE_HOME": str(settings.home),
        "PULLONCE_STORE": settings.store,
        "PULLONCE_NATS_URL": url,
        **_metrics(settings),
    }
    counts = {"coordinator": settings.coordinators, "fetcher": settings.fetchers, "unpacker": settings.unpackers}
    parts = [
        Child(name, [sys.executable, "-m", f"services.{name}"], environ=environ, keep=[keep])
        for name, count in counts.items()
        for _ in range(count)
    ]
    for name, wanted in ((LEDGER, settings.ledger), (GATEWAY, settings.gateway)):
        if wanted:
            optional = Child(name, [sys.executable, "-m", f"services.{name}"], environ=environ, keep=[keep])
            optional.ready = True  # however often it dies, that is no reason for the others to end
            parts.append(optional)
    return parts


def gateway_can_serve(home: Path, store: str) -> bool:
    """Whether a gateway is of use here: its mirror is to anybody; containerd's snapshots are root's, and their socket has to
    have room."""
    if mirror_place():
        return True
    return os.geteuid() == 0 and len(os.fsencode(gateway_socket(home, store, "snapshots.sock"))) <= _LONGEST_SOCKET


def _metrics(settings: UpSettings) -> dict[str, str]:
    """Where the parts show their metrics: each on a free port, which its answer to a ping tells. One that serves a single pull
    is gone before anybody could read them."""
    host, _ = metrics_address() or ("127.0.0.1", 0)
    return {"PULLONCE_METRICS_ADDRESS": "" if settings.temporary else f"{f'[{host}]' if ':' in host else host}:0"}


async def _tell_of_ledger(url: str, parts: list[Child], tell: Callable[[str], None]) -> None:
    """Say where the ledger answers, once it does. Nothing waits for that, and nothing fails with it."""
    if not parts:
        return
    try:
        for pong in (await until_ready(url, parts)).values():
            if pong.service == LEDGER:
                tell(str(pong.details.get("http", "")))
    except PullonceError as exc:
        log.warning("the ledger does not answer: %s", exc)


async def until_ready(url: str, parts: list[Child], within: float = READY_WITHIN) -> dict[int, Pong]:
    """Wait until the present process of every part has said that it does its work; what all said, by their process ids.

    Args:
        within: seconds, counted anew whenever one says that it has read more of the event log.

    Raises:
        NotReady: that takes longer; the message names what is missing.
    """
    from pullonce.bus.nats.bus import connect  # here, so that the services start meanwhile

    here: dict[int, Pong] = {}
    news = asyncio.Event()
    reading = _Reading()
    loop = asyncio.get_running_loop()

    def hear(_: str, body: bytes) -> None:
        with contextlib.suppress(Malformed):
            pong = decode_pong(body)
            if STARTING in pong.details:
                if reading.advanced(pong):
                    limit.reschedule(loop.time() + within)
                return
            here[pong.pid] = pong
            news.set()

    limit = asyncio.timeout(within)
    try:
        async with (
            limit,
            connect(BusSettings.from_env("pullonce up", {**os.environ, "PULLONCE_NATS_URL": url})) as bus,
        ):
            # They say so unasked when they begin; who began before we listened answers a ping.
            await bus.signals.subscribe(HERE_SUBJECT, hear)
            patience = 0.05
            while not all(part.pid in here for part in parts):
                news.clear()
                try:
                    async with asyncio.timeout(patience):
                        await news.wait()
                except TimeoutError:
                    patience = 1.0
                    for body in await bus.signals.gather(PING_SUBJECT, b"", timeout=0.1):
                        hear(PING_SUBJECT, body)
    except TimeoutError:
        missing = ", ".join(f"{part.name} (process {part.pid})" for part in parts if part.pid not in here)
        raise NotReady(f"not ready after {within:g} s: {missing or 'the bus'}") from None
    for part in parts:
        part.ready = True
    return here


class _Reading:
    """How far those have come who read the event log before they begin; said where it takes long."""

    def __init__(self) -> None:
        self._at: dict[int, int] = {}

    def advanced(self, pong: Pong) -> bool:
        position, end = int(pong.details.get("position", 0)), int(pong.details[STARTING])
        if position <= self._at.get(pong.pid, -1):
            return False
        self._at[pong.pid] = position
        log.info("%s (process %d) reads the event log: %d of %d", pong.service, pong.pid, position, end)
        return True


async def _until_unused(home: str) -> None:
    """Return when nobody uses this temporary service any more; from then on nobody can begin to, until this process ends."""
    loop, unused = asyncio.get_running_loop(), asyncio.Event()
    users = discovery.Lock(home, "users")

    def wait() -> None:
        users.take()
        loop.call_soon_threadsafe(unused.set)

    # A thread in flock cannot be woken, so it must not keep the process from ending; the lock goes with the process.
    threading.Thread(target=wait, daemon=True).start()
    await unused.wait()
