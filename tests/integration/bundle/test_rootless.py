"""An ordinary user with a user and a mount namespace of his own: a bundle and runc, as `unshare --user --map-root-user --mount`
would have them."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.bundle.conftest import APP
from tests.support.bundles import Shelf, busybox
from tests.support.layers import entry

USER = 1000
_NEWUSER, _NEWNS, _PR_SET_DUMPABLE = 0x10000000, 0x20000, 4


@pytest.fixture
def his(reachable: Path) -> Iterator[Shelf]:
    """A store of that user's, as his own unpacker leaves it: no owner but him, opaque directories marked for his mounts."""
    if os.geteuid() != 0:
        pytest.skip("to become another user needs root")
    made = Shelf(reachable / "home")
    with made.unpacker:
        script = "id -u; echo x > /new; cat /new /etc/own"
        made.put(APP, busybox(), [entry("etc/own", content=b"fresh")], config={"Cmd": ["sh", "-c", script]})
    warm = reachable / "warm"  # all modules are loaded: he may not be let into where they lie
    made.bundle(APP, warm)
    made.say("unbundle", warm)
    yield made


def as_user(place: Path, act: Callable[[], str]) -> str:
    """What something says that is done by that user, as root of a user namespace, in a process of its own."""
    subprocess.run(["chown", "-R", "-h", f"{USER}:{USER}", str(place)], check=True)
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(USER)
            os.setuid(USER)
            libc = ctypes.CDLL(None, use_errno=True)
            libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
            if libc.unshare(_NEWUSER | _NEWNS):
                said = f"skip: {os.strerror(ctypes.get_errno())}"
            else:
                Path("/proc/self/setgroups").write_text("deny")
                Path("/proc/self/uid_map").write_text(f"0 {USER} 1")
                Path("/proc/self/gid_map").write_text(f"0 {USER} 1")
                said = act()
        except BaseException as exc:
            said = f"{type(exc).__name__}: {exc}"
        os.write(tell, said.encode()[:60_000])
        os._exit(0)
    os.close(tell)
    with open(told) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    if said.startswith("skip: "):
        pytest.skip(f"this machine gives ordinary users no namespaces ({said[6:]})")
    return said


def test_a_bundle_of_his_own_runs(his: Shelf, reachable: Path) -> None:
    for record in his.store.glob("snapshots/*/snapshot.json"):
        record.write_text(json.dumps({**json.loads(record.read_text()), "userxattr": True}))
    place = reachable / "bundle"

    def act() -> str:
        config = his.bundle(APP, place)
        done = his.run(place, root=reachable / "runc")
        code, _, err = his.say("unbundle", place)
        return json.dumps([config["process"]["user"], done.stdout, done.stderr, code, err, his.held(), place.exists()])

    said = json.loads(as_user(reachable, act))
    assert said == [{"uid": 0, "gid": 0}, "0\nx\nfresh", "", 0, "", [], False]


def test_layers_whose_marks_count_for_root_alone_are_refused(his: Shelf, reachable: Path) -> None:
    """What an opaque directory hides would be seen again."""
    said = as_user(reachable, lambda: his.say("bundle", APP, reachable / "bundle")[2])
    assert "were unpacked by root" in said and said.count("\n") == 1
    assert not (reachable / "bundle").exists()
