"""Root file systems of bare Debian machines, made by debootstrap and kept below `.cache/`: for the tests that need a machine of
their own, and for stand-ins of images that cannot be pulled where tests run."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache"

BARE = ("python3", "git", "ca-certificates")
"""What a machine has that the README's commands are run on."""


def unable(reason: str) -> None:
    """Skip with the reason; where nothing may be skipped, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def need(*programs: str) -> None:
    """The tests cannot run without root and these programs."""
    if os.geteuid() != 0:
        unable("needs root")
    path = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin{os.pathsep}/sbin"
    missing = [program for program in programs if shutil.which(program, path=path) is None]
    if missing:
        unable(f"needs {', '.join(missing)}")


def suite() -> str:
    """The Debian release of this machine, whose Python ours resembles; else the present stable one's predecessor."""
    lines = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    return lines["VERSION_CODENAME"] if lines.get("ID") == "debian" else "bookworm"


def bare_root() -> Path:
    """A minimal Debian with Python and git. Never changed: copy it."""
    made = CACHE / "roots" / f"bare-{suite()}"
    if made.is_dir():
        return made
    building = made.with_name(f"{made.name}.{os.getpid()}")
    try:
        _run("debootstrap", "--variant=minbase", f"--include={','.join(BARE)}", suite(), str(building))
        shutil.rmtree(building / "var/cache/apt/archives")
        building.rename(made)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return made


def python_root() -> Path:
    """A bare machine with all that the official `python` images have and we use: `python` with venv, openssl."""
    made = CACHE / "roots" / f"python-{suite()}"
    if made.is_dir():
        return made
    building = made.with_name(f"{made.name}.{os.getpid()}")
    try:
        copy(bare_root(), building)
        with entered(building):
            inside(building, "apt-get", "-qq", "update")
            inside(building, "apt-get", "-qq", "install", "-y", "--no-install-recommends", "python3-venv", "openssl")
        (building / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        for rubbish in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc"):
            shutil.rmtree(building / rubbish, ignore_errors=True)
        building.rename(made)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return made


def copy(root: Path, to: Path) -> None:
    """Copy a root with everything that belongs to it."""
    to.parent.mkdir(parents=True, exist_ok=True)
    _run("cp", "-a", "--reflink=auto", str(root), str(to))


@contextmanager
def entered(root: Path, mounts: dict[Path, str] | None = None) -> Iterator[None]:
    """A root that programs can run in: with /proc, /dev, name resolution, and further directories mounted below it."""
    for name in ("resolv.conf", "hosts"):
        shutil.copy(Path("/etc", name), root / "etc" / name)
    for proxy in Path("/etc/apt/apt.conf.d").glob("*proxy*"):
        shutil.copy(proxy, root / "etc/apt/apt.conf.d")
    done: list[Path] = []
    try:
        for source, target in {
            Path("/proc"): "proc",
            Path("/dev"): "dev",
            Path("/dev/pts"): "dev/pts",
            **(mounts or {}),
        }.items():
            (root / target).mkdir(parents=True, exist_ok=True)
            _run("mount", "--bind", str(source), str(root / target))
            done.append(root / target)
        yield
    finally:
        for target in reversed(done):
            _run("umount", "--lazy", str(target))


def inside(root: Path, *command: str, environ: dict[str, str] | None = None, cwd: str = "/") -> str:
    """Run something in a root, with nothing of our environment, and return what it wrote."""
    bare = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    words = ["chroot", str(root), "env", "--chdir", cwd, *command]
    return _run(*words, environ=bare | quiet | (environ or {}))


def wheels(*names: str) -> Path:
    """A directory with every package of some requirement files, for machines that reach no index."""
    files = [ROOT / name for name in names]
    key = hashlib.sha256(b"".join(file.read_bytes() for file in files) + sys.version.encode()).hexdigest()[:16]
    made = CACHE / "wheels" / key
    if not made.is_dir():
        building = made.with_name(f"{key}.{os.getpid()}")
        listed = [word for file in files for word in ("-r", str(file))]
        try:
            _run(sys.executable, "-m", "pip", "download", "-q", "--require-hashes", "-d", str(building), *listed, environ=None)
            building.rename(made)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return made


def _run(*command: str, environ: dict[str, str] | None = None) -> str:
    environ = dict(os.environ) if environ is None else environ
    environ["PATH"] = f"{environ['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run(
        command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-4000:]}")
    return done.stdout
