"""Who serves a home: files left by dead processes, and the lock that keeps a temporary service alive."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pullonce.process import discovery

SLEEPER = "import sys; print('up', flush=True); sys.stdin.read()"
ANNOUNCER = """
import sys
from pullonce.process import discovery
discovery.make_run_directory(sys.argv[1])
discovery.announce(sys.argv[1], "nats://127.0.0.1:1", temporary=sys.argv[2] == "temporary")
print("up", flush=True)
sys.stdin.read()
"""


def announcer(home: Path, kind: str = "permanent") -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", ANNOUNCER, str(home), kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def test_nothing_serves_an_empty_home(tmp_path: Path) -> None:
    assert discovery.served(str(tmp_path)) is None
    assert discovery.use(str(tmp_path)) is None
    discovery.withdraw(str(tmp_path))


def test_a_running_process_is_found_and_a_killed_one_is_not(tmp_path: Path) -> None:
    process = announcer(tmp_path)
    found = discovery.served(str(tmp_path))
    assert found is not None and (found.url, found.pid, found.temporary) == ("nats://127.0.0.1:1", process.pid, False)
    assert (tmp_path / "run" / "bus.json").stat().st_mode & 0o777 == 0o600
    process.kill()
    process.wait()
    assert discovery.served(str(tmp_path)) is None
    end(process)


def test_another_process_with_the_same_id_is_not_mistaken_for_it(tmp_path: Path) -> None:
    process = announcer(tmp_path)
    path = tmp_path / "run" / "bus.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"started": "1"}))
    assert discovery.served(str(tmp_path)) is None
    end(process)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"url": "x", "pid": "y", "started": ""}', "\xff"])
def test_a_damaged_file_is_no_service(tmp_path: Path, content: str) -> None:
    discovery.make_run_directory(str(tmp_path))
    (tmp_path / "run" / "bus.json").write_text(content, encoding="latin-1")
    assert discovery.served(str(tmp_path)) is None


def test_a_zombie_has_ended(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", SLEEPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    started = discovery.process_start(process.pid)
    assert started
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet reaped
    assert discovery.process_start(process.pid) == ""
    assert discovery.wait_until_gone(process.pid, started, 0.0)
    end(process)


def test_a_temporary_service_stays_while_it_is_used(tmp_path: Path) -> None:
    process = announcer(tmp_path, "temporary")
    used = discovery.use(str(tmp_path))
    assert used is not None and used[1] is not None
    with discovery.Lock(str(tmp_path), "users") as users:
        assert not users.take(wait=False)
        used[1].close()
        assert users.take(wait=False)
    end(process)


def test_who_comes_while_a_temporary_service_ends_finds_nothing(tmp_path: Path) -> None:
    process = announcer(tmp_path, "temporary")
    found: list[object] = []
    with discovery.Lock(str(tmp_path), "users") as ending:
        assert ending.take()
        late = threading.Thread(target=lambda: found.append(discovery.use(str(tmp_path))))
        late.start()
        discovery.withdraw(str(tmp_path))
    late.join()
    assert found == [None]
    end(process)
