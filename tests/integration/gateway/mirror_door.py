"""A home that is served with its mirror, on a port of its own, and a client that asks it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.command import Up, pullonce
from tests.support.images import Image, image, layer, push, tar_of
from tests.support.nats_server import free_port
from tests.support.registry import RegistryServer

USER, PASSWORD = "ali", "open-sesame"
HTPASSWD = "ali:$2y$05$abcdefghijklmnopqrstuutXu9KzOt.1yBoZUeFWoT/914/JfszCO"
"""bcrypt of that password."""
_SECONDS = 30.0
_numbers = count(1)


@dataclass(frozen=True)
class Answer:
    """What was answered; names of headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def ask(host: str, path: str, *, method: str = "GET", headers: Mapping[str, str] = {}) -> Answer:
    """Ask once."""
    connection = http.client.HTTPConnection("localhost" if host.startswith("unix:") else host, timeout=_SECONDS)
    if host.startswith("unix:"):
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(host.removeprefix("unix://"))
    try:
        connection.request(method, path, headers=dict(headers))
        response = connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


def basic(username: str, password: str) -> dict[str, str]:
    """The header of a login."""
    return {"Authorization": "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()}


class MirrorDoor:
    """All of it. `with MirrorDoor(home, registry) as door:`

    Attributes:
        repository: that of the image pushed last.
    """

    def __init__(self, home: Path, registry: RegistryServer, **settings: str) -> None:
        self.home = home
        self.registry = registry
        place = settings.get("PULLONCE_GATEWAY_MIRROR", "")
        self.host = place or f"127.0.0.1:{free_port()}"
        self.repository = ""
        self._tls = "PULLONCE_GATEWAY_MIRROR_CERT" in settings
        more = {
            "PULLONCE_GATEWAY_MIRROR": self.host,
            "PULLONCE_GATEWAY_SNAPSHOTTER": "off",
            "PULLONCE_GATEWAY_CRI": "off",
            **settings,
        }
        self.up = Up(home, "--no-ledger", "--gateway", more=more)
        try:
            self.until_answered()
        except BaseException:
            self.up.stop()
            raise

    @property
    def store(self) -> Path:
        return self.home / "stores" / "default"

    def push(self, layers: int = 2, *, size: int = 2000, made: Image | None = None) -> tuple[str, Image]:
        """A fresh image, or that one, in a fresh repository: its reference and itself."""
        number = next(_numbers)
        stack = [layer(tar_of({f"{number}.{depth}": os.urandom(size)})) for depth in range(layers)]
        made = made or image(stack)
        self.repository = f"mirrored/{number}"
        return self.registry.push(self.repository, "1", made), made

    def ask(self, path: str, *, method: str = "GET", headers: Mapping[str, str] = {}, ns: bool = True) -> Answer:
        """Ask the mirror, as containerd does, about the registry."""
        if ns and "ns=" not in path:
            path += f"{'&' if '?' in path else '?'}ns={self.registry.host}"
        return ask(self.host, path, method=method, headers=headers)

    def until(self, met: Callable[[], bool]) -> None:
        """Wait until something is so."""
        until = time.monotonic() + _SECONDS
        while not met():
            assert time.monotonic() < until, self.told()[-4000:]
            time.sleep(0.02)

    def until_answered(self) -> None:
        """Wait until the mirror answers, and its bus is there."""

        def answers() -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException):
                there = self._tls or ask(self.host, "/v2/").status == 200
                return there and "gateway" in pullonce("ping", home=self.home).stdout
            return False

        self.until(answers)

    def kill(self) -> None:
        """End the gateway's process at once, and wait for the next one."""
        os.kill(self.gateway, signal.SIGKILL)
        self.until_answered()

    @property
    def gateway(self) -> int:
        """Its process."""
        return self.up.part("services.gateway")

    def told(self) -> str:
        """All that was logged."""
        return self.up.log.read_text()

    def flights(self) -> list[dict[str, Any]]:
        """What is in flight."""
        found: list[dict[str, Any]] = json.loads(pullonce("status", "--json", home=self.home).stdout).get("flights", [])
        return found

    @contextlib.contextmanager
    def silent_registry(self) -> Iterator[str]:
        """A host that takes connections and says nothing."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            yield f"127.0.0.1:{listening.getsockname()[1]}"

    @contextlib.contextmanager
    def private_registry(self, place: Path) -> Iterator[PrivateRegistry]:
        """A registry that wants a login (`USER`, `PASSWORD`), with an image `secret/app:1`."""
        made = image([layer(tar_of({"secret": os.urandom(5000)}))])
        open_to_all = RegistryServer(place).start()
        push(open_to_all.host, "secret/app", "1", made)
        open_to_all.stop()
        server = RegistryServer(place, htpasswd=HTPASSWD).start()
        try:
            yield PrivateRegistry(server, made)
        finally:
            server.stop()

    def __enter__(self) -> MirrorDoor:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.up.stop()


@dataclass(frozen=True)
class PrivateRegistry:
    """One that wants a login, and the image in it."""

    server: RegistryServer
    image: Image

    @property
    def host(self) -> str:
        return self.server.host
