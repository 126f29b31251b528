"""`pullonce gateway doctor` beside a gateway and a containerd that run, and beside sockets of all kinds."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pullonce.runtimes.probing import devices, doors, processes
from tests.integration.gateway.conftest import Door
from tests.support.command import environment
from tests.support.nats_server import NatsServer
from tests.support.runtime_files import OFFER


def run(home: Path, *words: str, url: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pullonce.cli.main", "gateway", "doctor", *words]
    environ = environment(home, url) | {"PULLONCE_GATEWAY_MIRROR": "off"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environ, check=False)


def doctor(home: Path, *words: str) -> tuple[int, list[dict[str, Any]]]:
    done = run(home, *words, "--json")
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)["findings"]


def test_nothing_keeps_a_containerd_that_uses_us(door: Door) -> None:
    config = door.containerd.place / "config.toml"
    code, findings = doctor(door.home, "containerd", "--config", str(config), "--containerd-version", "1.6")
    assert code == 0, findings
    assert not [each for each in findings if each["severity"] != "note"]


def test_what_keeps_it_is_said_with_its_line(door: Door, tmp_path: Path) -> None:
    text = (door.containerd.place / "config.toml").read_text()
    changed = tmp_path / "config.toml"
    changed.write_text(text.replace('snapshotter = "pullonce"', 'snapshotter = "overlayfs"'))
    line = next(number for number, each in enumerate(changed.read_text().splitlines(), 1) if '"overlayfs"' in each)
    code, findings = doctor(door.home, "containerd", "--config", str(changed), "--containerd-version", "1.6")
    assert code == 1 and (str(changed), line) in [(each["path"], each["line"]) for each in findings]


def test_a_home_that_nothing_serves_is_said(tmp_path: Path) -> None:
    code, findings = doctor(tmp_path, "containerd")
    said = [each["what"] for each in findings if each["runtime"] == "gateway" and each["severity"] == "blocks"]
    assert (
        code == 1 and any("nothing is at" in each for each in said) and any("the bus does not answer" in each for each in said)
    )


def test_a_bus_to_which_we_have_no_key_is_said_not_to_be_known(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats", more='authorization { user: "a", password: "b" }').start()
    try:
        said = {}
        for url in (server.url, server.url.replace("//", "//a:wrong@")):
            done = run(tmp_path, "containerd", "--json", url=url)
            said[url] = [(each["severity"], each["what"]) for each in json.loads(done.stdout)["findings"]]
    finally:
        server.stop()
    without, wrong = said.values()
    assert any(severity == "note" and "whether the bus answers is not known" in what for severity, what in without), without
    assert not any("bus does not answer" in what for _, what in without)
    assert any(severity == "blocks" and "the bus does not answer" in what for severity, what in wrong), wrong


def test_the_root_of_another_machine_is_judged_by_its_files(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc" / "containerd").mkdir(parents=True)
    (root / "etc" / "containerd" / "config.toml").write_text("version = 2\n[plugins\n")
    done = run(tmp_path, "--root", str(root))
    assert done.returncode == 1 and "blocks: containerd: /etc/containerd/config.toml:2: this is no TOML" in done.stdout
    assert "gateway:" not in done.stdout, "nobody is asked for another machine"


@pytest.fixture
def answering() -> Iterator[str]:
    """A listener that says something that is neither HTTP/2 nor a registry."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)

        def answer() -> None:
            with server.accept()[0] as one:
                one.recv(100)
                one.sendall(b"HTTP/1.1 404 Not Found\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def test_each_way_in_which_a_door_does_not_answer(tmp_path: Path, answering: str) -> None:
    gone = tmp_path / "gone.sock"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(gone))
    assert doors(replace(OFFER, snapshotter=str(gone), cri=str(tmp_path / "none"), mirror=f"http://{answering}")) == {
        "snapshotter": "refused", "cri": "absent", "mirror": "silent"
    }  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    assert doors(replace(OFFER, snapshotter="", cri="", mirror=f"http://127.0.0.1:{free}")) == {"mirror": "refused"}


def test_a_door_that_answers(door: Door) -> None:
    assert doors(replace(OFFER, snapshotter=str(door.socket), cri="", mirror="")) == {"snapshotter": "answers"}


def test_processes_and_file_systems_are_found(door: Door, tmp_path: Path) -> None:
    ours = [each for each in processes()["containerd"] if str(door.containerd.place / "config.toml") in each.words]
    assert len(ours) == 1 and 0 < time.time() - ours[0].started < 3600
    assert devices([str(tmp_path), str(tmp_path / "none")]) == {str(tmp_path): tmp_path.stat().st_dev}
