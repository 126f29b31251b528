"""The embedded default for the time of a pull: started by the first who finds nothing running, ended by the kernel's locks.

Twenty pulls that start at once on an idle machine share one: the lock `run/starting` lets one of them start it while the
others wait, and the shared lock `run/users` that each holds keeps it alive until the last of them is done, however they end.
"""

import os
import subprocess
import sys

from pullonce.errors import ServicesMissing
from pullonce.process import discovery

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LOG_LINES = 8


def start(home: str, store: str, say: "Callable[[str], None]") -> "tuple[discovery.Served, discovery.Lock | None]":
    """Start `pullonce up` for this home until nobody uses it, or use the one that somebody else has started meanwhile.

    Returns:
        Who serves, and the lock to hold for as long as it is used.

    Raises:
        ServicesMissing: it does not come up; the message holds the end of its log.
    """
    with discovery.Lock(home, "starting") as starting:
        starting.take()
        if found := discovery.use(home):
            return found
        say("nothing is running and PULLONCE_NATS_URL is not set: starting the embedded default for the time of this pull")
        users = discovery.Lock(home, "users")
        users.take(shared=True)
        log = discovery.run_path(home, "up.log")
        _spawn(home, store, log)
        served = discovery.served(home)
        if served is None:
            raise ServicesMissing(f"the embedded default does not start; its log {log} ends with:\n{_tail(log)}")
        return served, users


def _spawn(home: str, store: str, log: str) -> None:
    """Start it apart from our terminal, and return when it says that it is ready or has ended."""
    command = [sys.executable, "-m", "pullonce.cli.main", "up", "--temporary", "--home", home, "--store", store]
    with open(log, "wb") as stderr:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True, cwd="/",
            env={key: value for key, value in os.environ.items() if key != "PULLONCE_NATS_URL"},
        )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()


def _tail(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return "".join(file.readlines()[-LOG_LINES:]).rstrip()
    except OSError:
        return ""
