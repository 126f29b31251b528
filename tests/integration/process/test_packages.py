"""What is built of the project: a wheel and a source archive that work outside the clone, and what shells are given."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import environment
from tests.support.images import image, layer, tar_of
from tests.support.nats_server import binary
from tests.support.registry import RegistryServer

ROOT = Path(__file__).parents[3]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def run(*command: str | Path, cwd: Path, environ: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stderr[-3000:]}{done.stdout[-1000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with the source archive, and the wheel made of that: nothing but the archive is needed."""
    pytest.importorskip("hatchling", reason="needs hatchling, which requirements-dev.txt brings")
    place = tmp_path_factory.mktemp("built")
    source = place / "clone"
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", place, cwd=source)
    shutil.rmtree(source)
    pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", place)
    run(*pip, place / f"pullonce-{VERSION}.tar.gz", cwd=place)
    yield place


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment in which the wheel is installed, as pip and pipx do it; its dependencies are lent by ours."""
    place = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", place, cwd=built)
    packages = next(place.glob("lib/python3*/site-packages"))
    wheel = next(built.glob("*.whl"))
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        place / "bin/python",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=built,
    )
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (place / "bin/nats-server").symlink_to(binary())
    return place / "bin"


def test_the_wheel_holds_the_code_and_what_it_reads(built: Path) -> None:
    names = zipfile.ZipFile(next(built.glob("*.whl"))).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"pullonce", "services", "schemas", f"pullonce-{VERSION}.dist-info"}
    tracked = run("git", "ls-files", "pullonce", "services", "schemas", cwd=ROOT).split()
    assert {name for name in tracked if (ROOT / name).is_file()} <= set(names)


def test_the_source_archive_holds_what_a_clone_does(built: Path) -> None:
    with tarfile.open(built / f"pullonce-{VERSION}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("README.md", "CHANGELOG.md", "compose.yaml", "Dockerfile", "dev", "docs/architecture.md", "tests/conftest.py"):
        assert name in names, name


def test_it_works_outside_the_clone(installed: Path, tmp_path: Path) -> None:
    registry = RegistryServer(tmp_path / "registry").start()
    environ = environment(tmp_path / "home")
    try:
        reference = registry.push("some/image", "1", image([layer(tar_of({"file": b"content"}))]))
        assert run(installed / "pullonce", "--version", cwd=tmp_path, environ=environ) == f"pullonce {VERSION}\n"
        where = run(installed / "python", "-c", "import pullonce; print(pullonce.__file__)", cwd=tmp_path, environ=environ)
        assert Path(where.strip()).is_relative_to(installed.parent)
        pulled = run(installed / "pullonce", "pull", "--timeout", "60", reference, cwd=tmp_path, environ=environ)
        assert "1 unpacked" in pulled
    finally:
        registry.stop()


def complete(words: str, tmp_path: Path) -> list[str]:
    """What bash offers at the end of a line."""
    script = tmp_path / "completion"
    script.write_text(run(sys.executable, "-m", "pullonce", "completion", "bash", cwd=ROOT))
    split = words.split(" ")
    ask = f"source {script}; COMP_WORDS=({' '.join(f'{word!r}' for word in split)}); COMP_CWORD={len(split) - 1}; _pullonce; "
    return run("bash", "-c", ask + 'printf "%s\\n" "${COMPREPLY[@]}"', cwd=tmp_path).split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("pullonce pu", ["pull"]),
        ("pullonce pull --po", ["--policy"]),
        ("pullonce pull --policy ", ["always", "if-not-present"]),
        ("pullonce completion ", ["bash", "zsh", "fish"]),
        ("pullonce bus s", ["setup"]),
        ("pullonce up --temp", []),
        ("pullonce gateway d", ["doctor"]),
        ("pullonce gateway config k", ["kubelet", "k3s"]),
        ("pullonce gateway config --door m", ["mirror"]),
    ],
)
def test_bash_completes(words: str, offered: list[str], tmp_path: Path) -> None:
    found = complete(words, tmp_path)
    assert set(offered) <= set(found) and all(word.startswith(words.split(" ")[-1]) for word in found)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_a_script_too(shell: str, tmp_path: Path) -> None:
    script = run(sys.executable, "-m", "pullonce", "completion", shell, cwd=ROOT)
    assert "pullonce" in script and "if-not-present" in script
    if found := shutil.which(shell):
        (tmp_path / "script").write_text(script)
        run(found, "-n", tmp_path / "script", cwd=tmp_path, environ=dict(os.environ))
