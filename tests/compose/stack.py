"""compose.yaml, brought up by docker-compose as a project of its own, and what one sees of it from outside."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.compose.engine import Engine
from tests.support.images import Image, push
from tests.support.machines import ROOT
from tests.support.nats_server import free_port

_REQUEST = re.compile(r'"(?P<method>GET|HEAD) /v2/(?P<name>\S+)/(?P<kind>manifests|blobs)/\S+ HTTP')
_ENOUGH = 120.0
_numbers = itertools.count(1)


class Stack:
    """`with Stack(engine, keys) as stack:`

    Attributes:
        registry: address of the registry, as this machine sees it; containers call it `registry:5000`.
        bus: address of the bus.
        parts: what is brought up; everything, where it is empty.
        keys: directory of the key and the authority's certificate of a client.
    """

    def __init__(self, engine: Engine, keys: Path, *parts: str, environ: dict[str, str] | None = None) -> None:
        self.engine = engine
        self.parts = parts
        self.project = f"pullonce{os.getpid()}x{next(_numbers)}"
        ports = {name: str(free_port()) for name in ("NATS_PORT", "REGISTRY_PORT", "LEDGER_PORT")}
        self.environ = (
            engine.environ | (environ or {}) | ports | {"COMPOSE_PROJECT_NAME": self.project, "COMPOSE_PARALLEL_LIMIT": "20"}
        )
        self.registry = f"127.0.0.1:{ports['REGISTRY_PORT']}"
        self.bus = f"tls://127.0.0.1:{ports['NATS_PORT']}"
        self.ledger = f"http://127.0.0.1:{ports['LEDGER_PORT']}"
        self.keys = keys

    def __enter__(self) -> Stack:
        self.compose("up", "-d", *self.parts)
        self.until_healthy()
        # All that a client has to be given: its key, and whom to trust.
        (self.keys / "client").mkdir(parents=True)
        for name in ("nkey", "ca.pem"):
            said = self.compose("run", "--rm", "-T", "--entrypoint", "cat", "client", f"/bus/client/{name}")
            (self.keys / "client" / name).write_text(said)
        return self

    def __exit__(self, *_: object) -> None:
        self.compose("down", "-v", "--remove-orphans", "-t", "10")

    def compose(self, *words: str, check: bool = True) -> str:
        """Run docker-compose and return what it wrote to stdout."""
        command = ["docker-compose", "-f", str(ROOT / "compose.yaml"), *words]
        done = subprocess.run(
            command, env=self.environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd=ROOT
        )
        if check and done.returncode:
            raise RuntimeError(f"docker-compose {' '.join(words)}: {done.stderr[-4000:]}\n{self.told()}")
        return done.stdout

    def told(self) -> str:
        """The last lines of all containers."""
        return self.compose("logs", "--no-color", "--tail", "15", check=False)[-8000:]

    def containers(self, service: str = "", *, all: bool = False) -> list[dict[str, Any]]:
        """The containers of a service, or of all, as docker describes them."""
        filters = [f"label=com.docker.compose.project={self.project}", "label=com.docker.compose.oneoff=False"]
        if service:
            filters.append(f"label=com.docker.compose.service={service}")
        words = [word for each in filters for word in ("--filter", each)]
        ids = self.engine.docker("ps", "-q", *(["-a"] if all else []), *words).split()
        return json.loads(self.engine.docker("inspect", *ids)) if ids else []

    def until_healthy(self) -> None:
        """Wait until no container is starting or unwell."""
        end = time.monotonic() + _ENOUGH
        while unwell := [each["Name"] for each in self.containers() if _health(each) != "healthy"]:
            if time.monotonic() > end:
                raise RuntimeError(f"unwell: {unwell}\n{self.told()}")
            time.sleep(0.2)

    def kill(self, container: dict[str, Any]) -> None:
        """End a container's process as a crash would: docker, which did not ask for it, starts it again."""
        os.kill(container["State"]["Pid"], signal.SIGKILL)

    def push(self, name: str, image: Image) -> str:
        """Put an image into the registry; returns its reference as containers see it."""
        push(self.registry, name, "1", image)
        return f"registry:5000/{name}:1"

    def asked(self, name: str) -> Counter[str]:
        """What the registry was asked about an image, by kind of request, by its access log."""
        lines = self.compose("logs", "--no-color", "registry").splitlines()
        found = (_REQUEST.search(line) for line in lines)
        # Uploads ask for blobs too, by HEAD; a pull never does.
        return Counter(f"{each['method']} {each['kind']}" for each in found if each and each["name"] == name)


def _health(container: dict[str, Any]) -> str:
    state = container["State"]
    return str(state["Health"]["Status"] if "Health" in state else "healthy" if state["Running"] else "stopped")
