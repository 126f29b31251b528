"""What is compared: a program that pulls images into a store of its own, and how one client of it asks for an image."""

from __future__ import annotations

import os
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path

from bench.tools.usage import Group

_READY = 60.0


class Peer(ABC):
    """A program that pulls images, with its daemon where it has one. Once started, `stop` must follow.

    All that it writes belongs below `place`, the root of a file system that was made for this run.
    """

    name = ""
    disk = 4 << 30
    """Bytes of the file system that a run needs."""

    def __init__(self, place: Path, host: str, group: Group) -> None:
        self.place = place
        self.host = host
        self.environ = dict(os.environ)
        self._group = group
        self._daemon: subprocess.Popen[bytes] | None = None

    @classmethod
    @abstractmethod
    def present(cls) -> bool:
        """Whether it is installed."""

    @abstractmethod
    def pull(self, image: str) -> list[str]:
        """One client."""

    def command(self) -> list[str] | None:
        """Its daemon, after whatever files that needs were written."""
        return None

    def ready(self) -> list[str] | None:
        """What succeeds once the daemon serves."""
        return None

    def start(self) -> None:
        command = self.command()
        if command is None:
            return
        with (self.place / "daemon.log").open("wb") as log, self._group.inside():
            self._daemon = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environ, start_new_session=True
            )
        end, ready = time.monotonic() + _READY, self.ready()
        while ready and subprocess.run(ready, check=False, capture_output=True, env=self.environ).returncode:
            if time.monotonic() > end or self._daemon.poll() is not None:
                raise RuntimeError(f"{self.name} does not start: {(self.place / 'daemon.log').read_text()[-800:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        if self._daemon is not None:
            self._daemon.terminate()
            try:
                self._daemon.wait(20)
            except subprocess.TimeoutExpired:
                self._daemon.kill()
                self._daemon.wait()
