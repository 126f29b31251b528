"""The README's commands as they stand, on a bare Debian with nothing but Python and git. Run by `./dev test-fresh`.

Python packages come from a directory, so that no index is asked twice for what the tests above have fetched already; Debian
packages come from where the machine's own come from.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machines import CACHE, ROOT, bare_root, copy, entered, inside, need, wheels

pytestmark = pytest.mark.timeout(900)

SOME = "tests/unit/oci/test_reference.py"
"""What `./dev test` is limited to here: all of them have just run, on a machine like this one."""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bare machine with a clone of this commit in /root/pullonce."""
    need("debootstrap", "chroot", "git")
    root = tmp_path_factory.mktemp("machine") / "root"
    copy(bare_root(), root)
    (root / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")  # a chroot is no place to start daemons in
    (root / "usr/sbin/policy-rc.d").chmod(0o755)
    subprocess.run(["git", "clone", "-q", f"file://{ROOT}", str(root / "root/pullonce")], check=True)
    debs = CACHE / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    with entered(root, {debs: "var/cache/apt/archives", wheels("requirements-dev.txt"): "wheels"}):
        yield root
        assert not [pid for pid in Path("/proc").glob("[0-9]*") if _root_of(pid) == root], "processes are left behind"


def _root_of(process: Path) -> Path | None:
    try:
        return (process / "root").readlink()
    except OSError:
        return None


def commands() -> list[str]:
    """The commands of the README's first steps."""
    start = (ROOT / "README.md").read_text().split("## Start")[1].split("\n## ")[0]
    return [found[1].strip() for found in re.finditer(r"^    (\./dev [^#\n]*)", start, re.MULTILINE)]


def run(machine: Path, command: str) -> str:
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels"}
    return inside(machine, "sh", "-c", command, environ=offline, cwd="/root/pullonce")


def test_the_machine_is_bare(machine: Path) -> None:
    for program in ("pip3", "pip", "nats-server", "docker-registry", "skopeo", "gcc"):
        assert not any((machine / directory / program).exists() for directory in ("usr/bin", "usr/sbin", "usr/local/bin"))


def test_the_demonstration_runs(machine: Path) -> None:
    assert commands()[0] == "./dev demo"
    said = run(machine, commands()[0])
    assert "20 pulls cost exactly the work of one" in said
    assert (machine / "root/pullonce/.venv/bin/pullonce").exists()


def test_the_tests_run(machine: Path) -> None:
    assert "./dev test" in commands()
    said = run(machine, f"./dev test {SOME}")
    assert "[100%]" in said


def test_a_second_run_needs_no_network(machine: Path) -> None:
    stamp = machine / "root/pullonce/.venv/stamp"
    before = stamp.stat().st_mtime_ns
    assert "[100%]" in run(machine, f"unshare --net ./dev test {SOME}")
    assert stamp.stat().st_mtime_ns == before
