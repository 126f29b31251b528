"""Parts under a supervisor that is not ours: systemd's units, and what a part tells it when it begins its work."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import environment
from tests.support.machines import unable

UNITS = Path(__file__).parents[3] / "deploy" / "systemd"
ROLES = ("coordinator", "fetcher", "unpacker", "ledger", "gateway")


def unit(role: str) -> str:
    return next(UNITS.glob(f"pullonce-{role}*")).read_text()


def test_systemd_understands_every_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        unable("needs systemd-analyze (Debian: apt install systemd)")
    for path in UNITS.iterdir():
        # What they start is not installed here.
        (tmp_path / path.name).write_text(re.sub(r"/opt/pullonce/bin/\S+", "/bin/true", path.read_text()))
    names = [path.name for path in tmp_path.iterdir()]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(f"./{name}" for name in names)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if "pullonce" in line]
    assert done.returncode == 0 and not ours, done.stderr


@pytest.mark.parametrize("role", ROLES)
def test_a_unit_has_the_key_of_its_role_and_no_other(role: str) -> None:
    assert set(re.findall(r"/etc/pullonce/bus/([a-z]+)", unit(role))) == {role}
    assert f"-m services.{role}" in unit(role)


@pytest.mark.parametrize("role", ROLES)
def test_only_those_who_write_for_others_have_capabilities(role: str) -> None:
    bounds = re.search(r"^CapabilityBoundingSet=(.*)$", unit(role), re.MULTILINE)
    assert bounds and bool(bounds[1]) == (role in ("unpacker", "gateway"))
    assert ("User=root" in unit(role)) == (role in ("unpacker", "gateway"))
    assert role == "unpacker" or not bounds[1] or {"CAP_SYS_ADMIN", "CAP_MKNOD"}.isdisjoint(bounds[1].split())


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.bind(str(tmp_path / "notify"))
        found.settimeout(60)
        yield found


@pytest.mark.parametrize("role", ["coordinator", "fetcher", "gateway"])
def test_a_part_says_when_it_has_begun_its_work(role: str, nats_url: str, listener: socket.socket, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    environ = environment(tmp_path / "home", nats_url)
    environ |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "PULLONCE_READY_FILE": str(ready)}
    command = [sys.executable, "-m", f"services.{role}"]
    with subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            assert listener.recv(100) == b"READY=1"
        finally:
            process.terminate()
    assert ready.exists()
