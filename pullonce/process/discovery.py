"""Who serves a home, and where: what `pullonce up` writes for the commands to find. Light to import.

    <home>/run/lock         held (flock) by `pullonce up` and its nats-server: one home is served once
    <home>/run/bus.json     {url, pid, started, temporary}: written when every part is ready, 0600: the url holds the password
    <home>/run/password     what our own nats-server asks for, kept from one start to the next, 0600
    <home>/run/starting     held while somebody looks whether to start a temporary `up`, until it is ready
    <home>/run/users        held shared by whoever uses a temporary `up`; it ends when it gets the lock for itself

A process is named by its id and its start time, so that a file left by a killed `up` is never mistaken for a running one.
All locks are the kernel's: whatever dies lets go. `PULLONCE_GROUP` lets a group read what is 0600 here.
"""

import fcntl
import json
import os
import time

from pullonce import environment
from pullonce.errors import ServicesMissing

_PASSWORD = 32
"""Characters of a password: 128 bits."""


class Served:
    """A home is being served."""

    __slots__ = ("pid", "temporary", "url")

    def __init__(self, url: str, pid: int, temporary: bool = False) -> None:
        self.url = url
        self.pid = pid
        self.temporary = temporary


def run_path(home: str, name: str) -> str:
    """A file of the running service below a home."""
    return os.path.join(home, "run", name)


def make_run_directory(home: str, group: "str | None" = None) -> None:
    """Make `run/`, and the home where it is missing; both closed to others (see `private`)."""
    from pullonce import private  # here and below: who only looks who serves has no use for it

    private.home(home, group)
    private.directory(os.path.join(home, "run"), group)


def bus_password(home: str, group: str = "") -> str:
    """What the nats-server of this home asks for: made at the first start, and kept, so that clients outlive a restart."""
    from pullonce import private

    path = run_path(home, "password")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor) as file:
            kept = file.read().strip()
            if os.fstat(descriptor).st_uid != os.geteuid() or not kept.isalnum() or len(kept) < _PASSWORD:
                kept = ""  # somebody else put it there
    except FileNotFoundError:
        kept = ""
    password = kept or os.urandom(_PASSWORD // 2).hex()
    private.write(path, password + "\n", group)
    return password


def process_start(pid: int) -> str:
    """When a process started, in ticks since boot; empty where it has ended. Source: proc(5), fields 3 and 22 of stat."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name of the program stands in parentheses and may hold anything, parentheses included.
            fields = file.read().rpartition(b")")[2].split()
        # A zombie has ended too; it only waits for its parent to notice.
        return "" if fields[0] in (b"Z", b"X") else fields[19].decode()
    except (OSError, IndexError):
        return ""


def served(home: str) -> Served | None:
    """What serves this home now; None where nothing does."""
    try:
        with open(run_path(home, "bus.json"), "rb") as file:
            found = json.load(file)
        pid = int(found["pid"])
        if not found["started"] or process_start(pid) != found["started"]:
            return None
        return Served(str(found["url"]), pid, bool(found.get("temporary")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def announce(home: str, url: str, *, temporary: bool = False, group: str = "") -> None:
    """Let commands find this process; replaces what a dead one left."""
    from pullonce import private

    pid = os.getpid()
    path = run_path(home, "bus.json")
    body = json.dumps({"url": url, "pid": pid, "started": process_start(pid), "temporary": temporary})
    # The address may hold credentials, so nobody else may read it, not even for an instant.
    private.write(path, body + "\n", group)


def withdraw(home: str) -> None:
    """Not served any more. Harmless where nothing was announced."""
    try:
        os.unlink(run_path(home, "bus.json"))
    except FileNotFoundError:
        pass


class Lock:
    """An flock on a file below `run/`, let go on `close` or with the process and everybody it handed the descriptor to."""

    def __init__(self, home: str, name: str) -> None:
        make_run_directory(home)
        self._file = os.open(run_path(home, name), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def fileno(self) -> int:
        return self._file

    def take(self, *, shared: bool = False, wait: bool = True) -> bool:
        """Take the lock; without `wait`, say whether that was possible at once."""
        try:
            fcntl.flock(self._file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def use(home: str) -> tuple[Served, Lock | None] | None:
    """What serves this home, kept alive for as long as the lock that comes with it is held. None where nothing does."""
    found = served(home)
    if found is None or not found.temporary:
        return (found, None) if found else None
    users = Lock(home, "users")
    users.take(shared=True)
    # It may have ended while we waited for the lock: from here on it cannot.
    found = served(home)
    if found is None:
        users.close()
        return None
    return found, users


def bus_address(home: str) -> str:
    """Where the bus is: the configured address, else that of whatever serves this home.

    Never a usual port for luck: what answers there may serve another home, and would pull into that.

    Raises:
        ServicesMissing: none is configured, and nothing serves this home.
    """
    if url := environment.nats_url():
        return url
    if found := served(home):
        return found.url
    raise ServicesMissing(f"nothing serves {home}: start it with `pullonce up`, or set PULLONCE_NATS_URL")


def wait_until_gone(pid: int, started: str, seconds: float) -> bool:
    """Whether a process has ended within some seconds."""
    end = time.monotonic() + seconds
    while process_start(pid) == started:
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
