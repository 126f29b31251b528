"""One gateway process after another, with the listeners that a test wants."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from tests.support.command import environment
from tests.support.programs import die_with_parent

_SECONDS = 30.0
_LISTENERS = ("SNAPSHOTTER", "CRI", "MIRROR")


class GatewayProcess:
    """`python -m services.gateway` for a home whose services run already.

    Args:
        name: of its log, below the home.
        listeners: where its listeners are; those that are not named are off.
        more: further settings.
    """

    def __init__(
        self, home: Path, name: str, listeners: dict[str, str], *, url: str, more: dict[str, str] | None = None
    ) -> None:
        self.log = home / f"{name}.log"
        off = dict.fromkeys((f"PULLONCE_GATEWAY_{each}" for each in _LISTENERS), "off")
        told = {f"PULLONCE_GATEWAY_{each}": place for each, place in listeners.items()}
        self._environ = environment(home, url) | {"PULLONCE_NATS_SETUP": "no"} | off | told | (more or {})
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, told: str = "the bus is there") -> None:
        """Start one, and wait until it has told something."""
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services.gateway"], env=self._environ, stdin=subprocess.DEVNULL, stderr=log,
                preexec_fn=die_with_parent,
            )  # fmt: skip
        until = time.monotonic() + _SECONDS
        while told not in self.log.read_text():
            assert time.monotonic() < until and self._process.poll() is None, self.log.read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        """`kill -9`."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(_SECONDS)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            assert self._process.wait(_SECONDS) == 0

    def __enter__(self) -> GatewayProcess:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()
