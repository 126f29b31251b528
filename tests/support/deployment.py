"""All of pullonce on this machine, started as a user would: `pullonce up` in a home of its own, on a free port."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pullonce.bus.ports import Recorded
from pullonce.client import Client, connect
from pullonce.errors import ServicesMissing
from pullonce.process import discovery
from schemas.events import Event
from schemas.ledger import AskSql
from tests.support.buses import eventually
from tests.support.programs import die_with_parent

_READY = 60.0


class Deployment:
    """One `pullonce up` and whatever it supervises.

    Args:
        home: PULLONCE_HOME; outlives the processes.
        environ: further environment of the services.
        ledger: with the ledger, as is the default; most tests need none. No test but those of a gateway needs one of these.
    """

    def __init__(self, home: Path, *, environ: dict[str, str] | None = None, ledger: bool = False, **counts: int) -> None:
        self.home = home
        self.store = home / "stores" / "default"
        self.environ = {
            **os.environ,
            "PULLONCE_RETRY": "0",
            "PULLONCE_FRESH": "0",
            **(environ or {}),
            "PULLONCE_HOME": str(home),
        }
        self.environ.pop("PULLONCE_NATS_URL", None)
        self.output: list[str] = []
        self._counts = [word for name, count in counts.items() for word in (f"--{name}", str(count))]
        self._counts += ["--no-gateway"] if ledger else ["--no-gateway", "--no-ledger"]
        self._process: subprocess.Popen[str] | None = None
        self._ready = threading.Event()

    def start(self) -> Deployment:
        """Start everything and return once all parts answer."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pullonce", "up", *self._counts],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=die_with_parent,
        )
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()
        if not self._ready.wait(_READY):
            self.stop()
            raise RuntimeError("pullonce up did not become ready:\n" + "\n".join(self.output[-30:]))
        return self

    def stop(self) -> None:
        """Ctrl-C: everything it started goes with it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_READY)
            self._process = None

    @property
    def url(self) -> str:
        found = discovery.served(str(self.home))
        assert found is not None, "nothing is served here"
        return found.url

    def start_pull(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin a `pullonce pull` in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "pullonce", "pull", *arguments],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        command = [sys.executable, "-m", "pullonce", *arguments]
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=90, check=False)

    async def events(self) -> list[Event]:
        """Everything that is in the log now."""
        found: list[Event] = []
        async with connect(self.url) as client:
            last = await client.last_sequence()
            await collect(client, last, found)
        return found

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.output.append(line.rstrip())
            if "ready at" in line:
                self._ready.set()
        self._ready.set()


async def collect(client: Client, last: int, into: list[Event]) -> None:
    """Fold the log up to a position into a list."""
    if not last:
        return
    done = asyncio.Event()

    def take(recorded: Recorded) -> None:
        if recorded.event is not None:
            into.append(recorded.event)
        if recorded.sequence >= last:
            done.set()

    async with asyncio.TaskGroup() as tasks:
        watch = tasks.create_task(client.watch(take))
        await done.wait()
        watch.cancel()


async def taken_in(client: Client, *, flights: int) -> None:
    """Return when the ledger has so many flights that ended. It may come up after everything that a pull needs."""

    async def folded() -> bool:
        try:
            found = await client.ask(AskSql(query="SELECT count(*) FROM ended_flights"))
        except ServicesMissing:
            return False
        return found.rows[0][0] == flights  # type: ignore[attr-defined, no-any-return]

    await eventually(folded)


def kinds(events: Sequence[Event]) -> Counter[str]:
    """How many events there are of each type."""
    return Counter(str(event.__struct_config__.tag) for event in events)
