"""The command `pullonce` as a process, in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from pullonce.environment import redacted

LIMIT = 60


def environment(home: Path, url: str = "") -> dict[str, str]:
    """Ours without settings of pullonce but these: no mirror, whose port is the same for all; and each pull asks its
    registry, though tests push what they have just pulled."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PULLONCE_")}
    environ |= {"PULLONCE_HOME": str(home), "PULLONCE_GATEWAY_MIRROR": "off", "PULLONCE_FRESH": "0"}
    return environ | ({"PULLONCE_NATS_URL": url} if url else {})


def pullonce(
    *arguments: str, home: Path, url: str = "", more: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end. `more`: variables beside ours."""
    command = [sys.executable, "-m", "pullonce.cli.main", *arguments]
    return subprocess.run(
        command,
        env=environment(home, url) | dict(more or {}),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def start(*arguments: str, home: Path, url: str = "") -> subprocess.Popen[str]:
    """Start one command."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "pullonce.cli.main", *arguments]
    return subprocess.Popen(command, env=environment(home, url), stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)


def belonging_to(home: Path) -> dict[int, str]:
    """Every process, dead ones aside, that serves a home: by its id, what it runs."""
    found = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            environ = (directory / "environ").read_bytes().split(b"\0")
            words = (directory / "cmdline").read_bytes().decode().split("\0")
        except (OSError, ValueError):
            continue
        ours = f"PULLONCE_HOME={home}".encode() in environ or any(str(home) in word for word in words)
        if ours and words[0]:
            found[int(directory.name)] = " ".join(words).strip()
    return found


class Up:
    """`pullonce up`, from its ready line to its end."""

    def __init__(self, home: Path, *arguments: str, url: str = "", more: Mapping[str, str] | None = None) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self.log = home / "up.log"
        with self.log.open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pullonce.cli.main", "up", *arguments],
                env=environment(home, url) | dict(more or {}), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr,
                text=True,
            )  # fmt: skip
        assert self.process.stdout is not None
        self.ready = self.process.stdout.readline()
        if not self.ready:
            raise AssertionError(f"pullonce up does not start:\n{self.log.read_text()}")

    @property
    def url(self) -> str:
        return str(json.loads((self.home / "run" / "bus.json").read_text())["url"])

    @property
    def address(self) -> str:
        """The same as it is shown, without the password."""
        return redacted(self.url)

    def part(self, name: str) -> int:
        """Process id of a part, such as `services.fetcher` or `nats-server`."""
        return next(pid for pid, command in belonging_to(self.home).items() if name in command)

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.process.terminate()
        return self.process.wait(LIMIT)

    def __enter__(self) -> Up:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.stop()
        if self.process.stdout:
            self.process.stdout.close()
