"""What a client process costs: `pullonce pull` of an image that is there, alone and twenty at once, plain and over TLS.

./dev bench clients
"""

import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from pullonce.bus.nats import deployment
from pullonce.demo.registry import DemoImage, DemoRegistry
from pullonce.process.nats_server import find_nats_server

ALONE = 20
MANY = 20


def cpu() -> float:
    """Processor seconds of all children so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(command: list[str], environ: dict[str, str], count: int) -> tuple[float, float]:
    """Processor and wall seconds of `count` processes at once, without those they ask."""
    before, started = cpu(), time.monotonic()
    clients = [subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL) for _ in range(count)]
    codes = [client.wait() for client in clients]
    if any(codes):
        raise SystemExit("a pull failed")
    return cpu() - before, time.monotonic() - started


@contextmanager
def secured(home: Path) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """A nats-server with TLS and a key for each role, as deployments have it: the environments of its admin and of a client."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = deployment.Plan(home / "bus", (f"tls://127.0.0.1:{port}",), monitoring="")
    deployment.write(made)
    server = subprocess.Popen(
        [find_nats_server(), "--config", home / "bus" / "server" / "nats.conf"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield _environment(home / "bus" / "admin"), _environment(home / "bus" / "client")
    finally:
        server.terminate()
        server.wait()


def _environment(directory: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (directory / "env").read_text().splitlines())


def measure(command: str, environ: dict[str, str], client: dict[str, str], reference: str) -> tuple[list[float], list[float]]:
    """Of one pull alone (median), and of many at once (best of three): processor and wall seconds."""
    up = subprocess.Popen([command, "up"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert up.stdout is not None
    try:
        if not up.stdout.readline():
            raise SystemExit("the services do not start")
        pull = [command, "pull", reference]
        measured(pull, client, 1)
        alone = [measured(pull, client, 1) for _ in range(ALONE)]
        many = min(measured(pull, client, MANY) for _ in range(3))
    finally:
        up.terminate()
        up.wait()
    return [median(each) for each in zip(*alone, strict=True)], list(many)


def main() -> None:
    command = str(Path(sys.executable).parent / "pullonce")
    with tempfile.TemporaryDirectory() as directory, DemoRegistry(DemoImage()) as registry:
        plain = {key: value for key, value in os.environ.items() if not key.startswith("PULLONCE_")}
        plain |= {"PULLONCE_HOME": f"{directory}/plain"}
        floor = median(measured([sys.executable, "-c", "pass"], plain, 1)[0] for _ in range(ALONE))
        print(f"an empty Python program              {floor * 1e3:7.1f} ms of processor time")
        found = {"plain": measure(command, plain, plain, registry.reference)}
        with secured(Path(directory)) as (admin, client):
            base = plain | {"PULLONCE_HOME": f"{directory}/secured"}
            found["over TLS with a key"] = measure(command, base | admin, base | client, registry.reference)
    for name, (one, many) in found.items():
        print(f"one pull of what is there, {name:20} {one[0] * 1e3:7.1f} ms, {one[1] * 1e3:.1f} ms wall")
        print(f"{MANY} of them at once,      {name:20} {many[0] * 1e3:7.1f} ms, {many[1] * 1e3:.1f} ms wall")


if __name__ == "__main__":
    main()
