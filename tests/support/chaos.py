"""Services as processes that are killed, stopped, frozen and started again, and the dice that decide which and when."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from pullonce.client import connect
from tests.support.nats_server import NatsServer
from tests.support.programs import die_with_parent

READY = 60.0
ORDERED = (0, -signal.SIGKILL, -signal.SIGTERM)
"""How processes end that are told to, one way or the other."""
LEASE = 5.0
"""Seconds of a coordinator's hold on a claim; the longest lease there is when `PULLONCE_ACK_WAIT` is shorter."""


class Member:
    """One process, started anew whenever it ends. What it says goes to a file."""

    def __init__(self, name: str, module: str, environ: dict[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self.deaths: list[int] = []
        """How each of its processes ended: exit code, or the negative number of a signal."""
        self._command = [sys.executable, "-m", module]
        self._environ = environ
        self._process: subprocess.Popen[bytes] | None = None
        self._ending = threading.Event()
        self._started = threading.Event()
        # The thread that starts a process must outlive it: PDEATHSIG looks at the thread.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        self._started.wait()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def output(self) -> str:
        """All that its processes have said."""
        return self.log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def freeze(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after some time; returns at once."""
        process = self._process
        self.signal(signal.SIGSTOP)
        timer = threading.Timer(seconds, lambda: process and process.poll() is None and process.send_signal(signal.SIGCONT))
        timer.daemon = True
        timer.start()

    def end(self) -> int:
        """SIGTERM, for good. Returns how it ended."""
        self._ending.set()
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        self._thread.join(20)
        self.kill()
        self._thread.join()
        return self.deaths[-1]

    def _run(self) -> None:
        with open(self.log, "ab") as log:
            while not self._ending.is_set():
                self._process = subprocess.Popen(
                    self._command,
                    env=self._environ,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    preexec_fn=die_with_parent,
                )
                self._started.set()
                self.deaths.append(self._process.wait())
                if self.deaths[-1] not in ORDERED:
                    self._ending.wait(0.5)  # what cannot start shall not be started without a breath between


class Crew:
    """The services of one store and their bus: `with Crew(home, url, coordinator=2, fetcher=2, unpacker=2) as crew`.

    Args:
        home: PULLONCE_HOME of all of them.
        url: of the bus.
        environ: further environment.
        mark: tells the members of several crews in one home apart.
        counts: how many of each service.
    """

    def __init__(self, home: Path, url: str, *, environ: dict[str, str] | None = None, mark: str = "", **counts: int) -> None:
        self.url = url
        self._mark = mark
        self.home = home
        self.store = home / "stores" / "default"
        self.armed = home / "failpoints"
        self.armed.mkdir(parents=True, exist_ok=True)
        self.environ = {
            **os.environ,
            "PULLONCE_RETRY": "0",
            "PULLONCE_HOME": str(home),
            "PULLONCE_NATS_URL": url,
            "PULLONCE_ACK_WAIT": "2",
            "PULLONCE_UNPACK_WORKERS": "1",
            "PULLONCE_FAILPOINTS": str(self.armed),
            **(environ or {}),
        }
        self.members: list[Member] = []
        self._counts = counts
        self._told = 0

    def __enter__(self) -> Crew:
        try:
            self.start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end()

    def start(self) -> None:
        """Start everything and return when all answer."""
        for service, count in self._counts.items():
            for number in range(1, count + 1):
                name = f"{service}-{self._mark}{number}"
                self.members.append(Member(name, f"services.{service}", self.environ, self.home / f"{name}.log"))
        self.wait_until_ready()

    def end(self) -> None:
        """SIGTERM to all of them at once."""
        threads = [threading.Thread(target=member.end) for member in self.members]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.members = []

    def named(self, service: str) -> list[Member]:
        """The members that do one kind of work."""
        return [member for member in self.members if member.name.startswith(service)]

    def wait_until_ready(self) -> None:
        """Return when the present process of every member answers."""
        with ThreadPoolExecutor(1) as thread:  # whoever calls may run an event loop already
            thread.submit(asyncio.run, self._until_ready()).result()

    async def _until_ready(self) -> None:
        async with asyncio.timeout(READY), connect(self.url, patience=READY) as client:
            while {pong.pid for pong in await client.ping(0.3)} < {member.pid for member in self.members}:
                pass

    def arm(self, step: str, how: str = "kill") -> None:
        """The next process that reaches a step of `pullonce.failpoints` dies there; `stop`: stands still."""
        draft = self.home / step
        draft.write_text(how)
        draft.rename(self.armed / step)

    def stopped(self) -> list[Member]:
        """Those that stand still."""
        return [member for member in self.members if Path(f"/proc/{member.pid}/stat").read_text().rpartition(")")[2][1] == "T"]

    def is_armed(self, step: str) -> bool:
        return (self.armed / step).exists()

    def unforeseen(self) -> list[str]:
        """Deaths that nobody ordered: a service that gave up or met a defect. Each is told once."""
        found = [(member, code) for member in self.members for code in member.deaths if code not in ORDERED]
        fresh, self._told = found[self._told :], len(found)
        return [f"{member.name} ended with {code}:\n{member.output[-3000:]}" for member, code in fresh]


class Trouble:
    """What happens to a crew for some seconds, drawn from a seed. Each deed is written down in words."""

    def __init__(self, crew: Crew, server: NatsServer | None, dice: random.Random) -> None:
        self.deeds: list[str] = []
        self._crew = crew
        self._server = server
        self._dice = dice
        self._frozen: dict[str, float] = {}

    def make(self, seconds: float) -> None:
        """Make trouble for a while."""
        deeds: list[tuple[Callable[[], str], int]] = [
            (self._kill_one, 5),
            (self._kill_several, 2),
            (self._terminate, 2),
            (self._freeze, 2),
        ]
        if self._server is not None:
            deeds.append((self._end_the_bus, 1))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(self._dice.uniform(0.05, 0.6))
            deed = self._dice.choices([each for each, _ in deeds], [weight for _, weight in deeds])[0]
            self.deeds.append(deed())

    def _kill_one(self) -> str:
        return self._to("kill -9", [self._dice.choice(self._crew.members)], Member.kill)

    def _kill_several(self) -> str:
        members = self._dice.sample(self._crew.members, self._dice.randint(2, len(self._crew.members)))
        return self._to("kill -9", members, Member.kill)

    def _terminate(self) -> str:
        return self._to("SIGTERM", [self._dice.choice(self._crew.members)], lambda m: m.signal(signal.SIGTERM))

    def _freeze(self) -> str:
        member, seconds = self._dice.choice(self._crew.members), self._dice.uniform(0.5, LEASE + 2.0)
        return self._to(f"SIGSTOP for {seconds:.1f} s", [member], lambda m: m.freeze(seconds))

    def _end_the_bus(self) -> str:
        assert self._server is not None
        crash = self._dice.random() < 0.5
        self._server.kill() if crash else self._server.stop()
        time.sleep(self._dice.uniform(0.0, 0.5))
        self._server.start()
        return f"{'kill -9' if crash else 'SIGTERM'} nats-server, started again"

    def _to(self, what: str, members: Iterable[Member], do: Callable[[Member], None]) -> str:
        chosen = list(members)
        for member in chosen:
            do(member)
        return f"{what} {' '.join(member.name for member in chosen)}"
