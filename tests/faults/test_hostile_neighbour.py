"""Another user of the machine beside root's `pullonce up`: what he tries, and what becomes of it.

He may run programs, look at what is open to everybody, and connect to loopback. He is after what a registry gave only against a
password, after having an image named as he likes, and after being root. Needs root, to become somebody else.
"""

from __future__ import annotations

import io
import os
import socket
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pullonce.bus.nats.socket import Connection
from tests.support.command import Up, belonging_to, pullonce
from tests.support.images import image, layer, push
from tests.support.neighbour import NOBODY, as_nobody, open_place, opened
from tests.support.registry import RegistryServer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

STAFF = 50
"""A group that is nobody's."""

READER = 31
"""A group that the home is opened to."""


def with_a_trap() -> bytes:
    """A layer with a program that runs as root whoever starts it, and a device."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        program = tarfile.TarInfo("id")
        content = Path("/usr/bin/id").read_bytes()
        program.size, program.mode = len(content), 0o4755
        tar.addfile(program, io.BytesIO(content))
        zero = tarfile.TarInfo("zero")
        zero.type, zero.devmajor, zero.devminor, zero.mode = tarfile.CHRTYPE, 1, 5, 0o666
        tar.addfile(zero)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with open_place() as made:
        yield made


@pytest.fixture(scope="module")
def reference(registry: RegistryServer) -> str:
    push(registry.host, "private/app", "1", image([layer(with_a_trap())]))
    return f"{registry.host}/private/app:1"


@pytest.fixture(scope="module")
def up(place: Path, reference: str) -> Iterator[Up]:
    """Root's `pullonce up`, in a home whose directories were open to everybody, as earlier versions made them."""
    home = place / "home"
    for directory in (home, home / "stores", home / "stores" / "default", home / "nats", home / "ledger"):
        directory.mkdir()
        directory.chmod(0o755)
    with Up(home) as running:
        pulled = pullonce("pull", reference, home=home)
        assert pulled.returncode == 0, pulled.stderr
        yield running


def test_he_reads_nothing_of_the_home(up: Up) -> None:
    files = [path for path in up.home.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"index.json", "bus.json", "password", "nats.conf", "ledger.duckdb"} <= names
    assert sum("blobs" in path.parts for path in files) == 3
    assert opened(files) == []

    def look() -> str:
        try:
            return " ".join(os.listdir(up.home))  # noqa: PTH208
        except PermissionError:
            return ""

    assert as_nobody(look) == ""


def test_directories_that_were_open_are_closed(up: Up) -> None:
    for directory in (".", "stores", "stores/default", "run", "nats", "ledger"):
        assert stat.S_IMODE((up.home / directory).stat().st_mode) == 0o700, directory
    for file in ("run/bus.json", "run/password", "run/nats.conf"):
        assert stat.S_IMODE((up.home / file).stat().st_mode) == 0o600, file


def said_to(up: Up, login: str) -> str:
    """What the bus answers to somebody who says who he is, and then has a word for everybody's image of redis."""
    port = int(up.address.rpartition(":")[2])

    def talk() -> str:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
            answers = line.makefile("rb")
            assert b'"auth_required":true' in answers.readline()
            line.sendall(f'CONNECT {{"verbose":false{login}}}\r\nPUB record.image.default.x 2\r\n{{}}\r\nPING\r\n'.encode())
            return answers.readline().decode().strip()

    return as_nobody(talk)


@pytest.mark.parametrize(
    "login",
    ["", ',"user":"pullonce"', ',"user":"pullonce","pass":""', ',"user":"pullonce","pass":"pullonce"', ',"auth_token":"x"'],
)
def test_the_bus_does_not_let_him_in(up: Up, login: str) -> None:
    assert said_to(up, login) == "-ERR 'Authorization Violation'"


def test_the_command_line_tells_him_that_he_may_not(up: Up) -> None:
    asked = pullonce("ping", home=up.home / "his", url=up.address)
    assert asked.returncode == 3 and "refuses these credentials" in asked.stderr


def test_no_process_shows_him_the_password(up: Up) -> None:
    password = (up.home / "run" / "password").read_text().strip()
    assert password in up.url
    shown = [path for pid in belonging_to(up.home) for path in (Path(f"/proc/{pid}/environ"), Path(f"/proc/{pid}/cmdline"))]

    def look() -> list[str]:
        found = []
        for path in shown:
            try:
                if password.encode() in path.read_bytes():
                    found.append(str(path))
            except OSError:
                pass
        return found

    assert any(password.encode() in path.read_bytes() for path in shown), "root sees it, so there is something to hide"
    assert as_nobody(look) == []
    assert password not in up.ready + up.log.read_text()


def test_whoever_runs_it_gets_in_with_any_client(up: Up) -> None:
    told = pullonce("bus", "url", home=up.home)
    assert told.returncode == 0 and told.stdout.strip() == up.url
    connection = Connection(told.stdout.strip())
    subscribed = connection.subscribe("here")
    connection.publish("here", b"I am")
    message = connection.receive(20.0)
    assert message is not None and (message.sid, message.body) == (subscribed, b"I am")
    connection.close()


def test_a_program_of_an_image_does_not_make_him_root(up: Up, reference: str, place: Path) -> None:
    target = place / "mounted"
    target.mkdir()
    for options, user, zero in (((), NOBODY, False), (("--suid", "--dev"), 0, True)):
        mounted = pullonce("mount", *options, reference, str(target), home=up.home)
        assert mounted.returncode == 0, mounted.stderr
        try:
            assert int(as_nobody(lambda: subprocess.check_output([str(target / "id"), "-u"], text=True))) == user
            assert bool(opened([target / "zero"])) == zero
        finally:
            assert pullonce("umount", str(target), home=up.home).returncode == 0


@pytest.mark.parametrize(
    "name", ["stores", "run", "nats", "ledger", "stores/default", "run/lock", "run/password", "run/nats.conf"]
)
def test_what_he_left_in_a_home_that_was_open_leads_nowhere(place: Path, name: str) -> None:
    home, victim = place / f"open-{name.replace('/', '-')}", place / f"victim-{name.replace('/', '-')}"
    victim.mkdir()
    (victim / "file").write_text("untouched")
    for directory in (home, (home / name).parent):
        directory.mkdir(exist_ok=True)
        directory.chmod(0o777)
    target = victim if "/" not in name or name.startswith("stores") else victim / "file"
    as_nobody(lambda: (home / name).symlink_to(target))
    refused = pullonce("up", home=home)
    assert refused.returncode == 1
    assert f"{home / name} is a link that user {NOBODY} made" in refused.stderr
    assert [path.name for path in victim.iterdir()] == ["file"] and (victim / "file").read_text() == "untouched"


def test_a_directory_of_his_is_not_taken_for_the_store(place: Path) -> None:
    home = place / "his-store"
    home.mkdir()
    home.chmod(0o777)
    as_nobody(lambda: (home / "stores").mkdir())
    refused = pullonce("up", home=home)
    assert refused.returncode == 1 and f"is a directory of user {NOBODY}" in refused.stderr


def test_a_group_may_be_let_in_and_nobody_else(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = place / "shared"
    home.mkdir()
    with Up(home, more={"PULLONCE_GROUP": str(READER)}):
        shared = [home / "run" / "bus.json", home / "run" / "password", home / "stores" / "default" / "index.json"]
        ours = [home / "run" / "nats.conf", home / "run" / "lock"]

        def read() -> list[str]:
            found = []
            for path in shared + ours:
                try:
                    found.append(path.read_text() and path.name)
                except PermissionError:
                    pass
            return found

        assert as_nobody(read, groups=[READER]) == [path.name for path in shared]
        assert as_nobody(read, groups=[STAFF]) == []


def test_an_unknown_group_is_said(place: Path) -> None:
    with pytest.raises(AssertionError, match="PULLONCE_GROUP is 'nosuchgroup'; expected a group of this machine"):
        Up(place / "unknown", more={"PULLONCE_GROUP": "nosuchgroup"})
