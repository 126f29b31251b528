"""`pullonce up`: everything on one machine, supervised, and nothing left behind."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import pytest

from pullonce.demo.registry import DemoImage, DemoRegistry
from tests.support.command import Up, belonging_to, pullonce, start
from tests.support.nats_server import NatsServer

LIMIT = 60


def wait_until_dead(pids: list[int]) -> None:
    """Wait for processes that are not our children."""
    for pid in pids:
        try:
            watch = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        assert select.select([watch], [], [], LIMIT)[0], f"process {pid} still runs"
        os.close(watch)


def test_up_serves_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    with Up(tmp_path) as up:
        assert up.ready == f"pullonce is ready at {up.address} (store default, home {tmp_path})\n"
        commands = " ".join(belonging_to(tmp_path).values())
        assert all(part in commands for part in ("nats-server", "coordinator", "fetcher", "unpacker"))
        answered = pullonce("ping", home=tmp_path)
        assert answered.returncode == 0, answered.stderr
        found = [line.split()[0] for line in answered.stdout.splitlines()]
        # Nothing waits for the ledger or for a gateway, so they may be there already or not.
        assert [service for service in found if service not in ("ledger", "gateway")] == ["coordinator", "fetcher", "unpacker"]
        assert pullonce("status", home=tmp_path).stdout.startswith("nothing is in flight")
        assert up.stop() == 0
    assert belonging_to(tmp_path) == {}
    assert not (tmp_path / "run" / "bus.json").exists()


def test_a_home_is_served_once(tmp_path: Path) -> None:
    with Up(tmp_path) as up:
        second = pullonce("up", home=tmp_path)
        assert second.returncode == 1
        assert f"{tmp_path} is served already, by process {up.process.pid} at {up.address}" in second.stderr
        assert pullonce("ping", home=tmp_path).returncode == 0


def test_several_of_each_on_a_server_that_runs_already(tmp_path: Path, nats_server: NatsServer) -> None:
    many = ("--nats-url", nats_server.url, "--coordinators", "3", "--fetchers", "2", "--unpackers", "2", "--store", "other")
    with Up(tmp_path, *many) as up:
        assert nats_server.url in up.ready
        answered = pullonce("ping", "--store", "other", home=tmp_path)
        assert answered.returncode == 0
        services = [line.split()[:2] for line in answered.stdout.splitlines() if not line.startswith(("ledger", "gateway"))]
        assert services == [["coordinator", "-"]] * 3 + [["fetcher", "other"]] * 2 + [["unpacker", "other"]] * 2
        missing = pullonce("ping", home=tmp_path)
        assert missing.returncode == 3
        assert "missing: the fetcher of store default, the unpacker of store default" in missing.stderr
        assert up.stop() == 0
    assert pullonce("status", home=tmp_path, url=nats_server.url).returncode == 3  # the server runs on, and nobody answers


@pytest.mark.parametrize("part", ["services.coordinator", "services.fetcher", "services.unpacker", "nats-server"])
def test_a_part_that_dies_is_started_again(tmp_path: Path, part: str) -> None:
    with DemoRegistry(DemoImage()) as registry, Up(tmp_path) as up:
        before = up.part(part)
        os.kill(before, signal.SIGKILL)
        done = pullonce("pull", registry.reference, home=tmp_path)
        assert done.returncode == 0, done.stderr
        assert up.part(part) != before
        name = part.removeprefix("services.")
        assert f"the {name} ended with signal SIGKILL; starting it again" in up.log.read_text()


def test_nothing_outlives_a_killed_up_and_the_next_one_goes_on(tmp_path: Path) -> None:
    with DemoRegistry(DemoImage()) as registry:
        with Up(tmp_path) as up:
            assert pullonce("pull", registry.reference, home=tmp_path).returncode == 0
            parts = [pid for pid in belonging_to(tmp_path) if pid != up.process.pid]
            assert len(parts) >= 4
            up.process.kill()
            up.process.wait()
            wait_until_dead(parts)
        registry.counts.clear()
        with Up(tmp_path):
            assert pullonce("pull", registry.reference, home=tmp_path).returncode == 0
        assert dict(registry.counts) == {"HEAD manifest": 1}


def test_a_pull_starts_what_it_needs_for_as_long_as_it_needs_it(tmp_path: Path) -> None:
    with DemoRegistry(DemoImage()) as registry:
        done = pullonce("pull", registry.reference, home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "starting the embedded default for the time of this pull" in done.stderr
    assert belonging_to(tmp_path) == {}
    assert pullonce("images", home=tmp_path).stdout.count(registry.reference) == 1


def test_pulls_at_once_on_an_idle_machine_share_what_one_of_them_starts(tmp_path: Path) -> None:
    with DemoRegistry(DemoImage()) as registry:
        pulls = [start("pull", registry.reference, home=tmp_path) for _ in range(8)]
        ends = [(*each.communicate(timeout=LIMIT), each.returncode) for each in pulls]
    assert [code for _, _, code in ends] == [0] * 8, ends
    assert sum("starting the embedded default" in err for _, err, _ in ends) == 1
    assert registry.counts["GET layer"] == 4 and registry.counts["GET config"] == 1
    wait_until_dead(list(belonging_to(tmp_path)))


def test_a_temporary_service_ends_even_when_its_users_are_killed(tmp_path: Path) -> None:
    with DemoRegistry(DemoImage()) as registry:
        pull = start("pull", registry.reference, home=tmp_path)
        assert pull.stderr is not None and "starting the embedded default" in pull.stderr.readline()
        pull.kill()
        pull.communicate()
        wait_until_dead(list(belonging_to(tmp_path)))
    assert belonging_to(tmp_path) == {}


def test_a_service_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "stores").mkdir()
    (tmp_path / "stores" / "default").write_text("in the way")
    failed = pullonce("up", home=tmp_path)
    assert failed.returncode in (1, 70) and failed.stderr
    assert belonging_to(tmp_path) == {}
    pulled = pullonce("pull", "localhost:1/x", home=tmp_path)
    assert pulled.returncode == 3 and "does not start; its log" in pulled.stderr
