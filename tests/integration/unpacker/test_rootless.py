"""An ordinary user unpacks: the same tree with what such a user may do, and a count of the rest."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pullonce.store.snapshots import Snapshots
from schemas.oci import ChainID
from tests.support.awkward import BASE, UPPER
from tests.support.layers import Image, tar, unpack_all, unpacker
from tests.support.trees import read_tree

NOBODY = 65534
REPOSITORY = Path(__file__).parents[3]

LAYERS = [
    BASE,
    *(tar(*UPPER[what]) for what in (
        "special files", "set-id bits, capabilities, attributes", "an opaque directory", "a hard link to a file below",
        "names through links of the layer below", "whiteouts of nothing", "times",
    )),
]  # fmt: skip


def unpack_here(root: Path) -> dict[str, object]:
    """Unpack the layers as whoever runs this; what was left out, and the ChainIDs."""
    image = Image(LAYERS)

    async def run() -> None:
        async with unpacker(root) as running:
            image.store(running.content)
            await unpack_all(running, image.orders())

    asyncio.run(run())
    snapshots = list(Snapshots(root).chain(image.top))
    return {
        "left_out": [snapshot.left_out for snapshot in snapshots],
        "userxattr": [snapshot.userxattr for snapshot in snapshots],
        "chain": image.chain,
    }


class Ordinary:
    """How to run something as an ordinary user, and a directory of that user's."""

    def __init__(self, prefix: list[str], place: Path) -> None:
        self.prefix = prefix
        self.place = place
        self.python = ""

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONDONTWRITEBYTECODE": "1"}
        command = (*self.prefix, *command)
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, env=environment)

    def find_python(self) -> bool:
        """A Python that this user may run, itself and as a child of its own."""
        child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import tests.support.layers'], check=True)"
        for self.python in (sys.executable, "/usr/bin/python3"):
            if os.access(self.python, os.X_OK) and self.run(self.python, "-c", child).returncode == 0:
                return True
        return False


@pytest.fixture
def ordinary() -> Iterator[Ordinary]:
    """An ordinary user, whoever runs the tests."""
    prefix = []
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("setpriv is not installed: apt-get install util-linux")
        prefix = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    with tempfile.TemporaryDirectory() as place:
        os.chown(place, *(2 * (NOBODY,) if os.geteuid() == 0 else (-1, -1)))
        user = Ordinary(prefix, Path(place))
        if not user.find_python():
            pytest.skip("an ordinary user may not run this Python or read this checkout")
        yield user


def test_the_same_tree_as_far_as_an_ordinary_user_may(ordinary: Ordinary, tmp_path: Path) -> None:
    store = ordinary.place / "store"
    done = ordinary.run(ordinary.python, "-m", "tests.integration.unpacker.test_rootless", str(store))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert set(said["userxattr"]) == {True}
    totals = {key: sum(each.get(key, 0) for each in said["left_out"]) for key in ("owners", "devices", "xattrs")}
    assert totals["devices"] == 2
    assert totals["xattrs"] == 2, "a capability and a trusted attribute"
    assert totals["owners"] > 10
    if os.geteuid() != 0:
        return
    unpack_here(tmp_path / "root")
    for chain_id in said["chain"]:
        ours = read_tree(Snapshots(store).path(ChainID(chain_id)), owners=False)
        theirs = read_tree(Snapshots(tmp_path / "root").path(ChainID(chain_id)), owners=False)
        devices = {
            path for path, node in theirs.items() if node.what and stat.S_IFMT(node.kind) in (stat.S_IFCHR, stat.S_IFBLK)
        }
        assert ours.keys() == theirs.keys() - devices
        for path, node in ours.items():
            if stat.S_ISCHR(node.kind):
                continue  # a whiteout: its time is the clock's
            allowed = tuple(x for x in theirs[path].xattrs if x[0].startswith("user."))
            assert node == theirs[path]._replace(xattrs=allowed), path


def test_a_user_mounts_what_a_user_unpacked(ordinary: Ordinary) -> None:
    inside = ["unshare", "--user", "--map-root-user", "--mount"]
    if ordinary.run(*inside, "true").returncode:
        pytest.skip("this system lets no ordinary user make a user namespace")
    done = ordinary.run(*inside, ordinary.python, "-c", MOUNTING, str(ordinary.place))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["only"], "the directory is opaque"


MOUNTING = """
import sys
from pathlib import Path
from pullonce.store.mounting import mount
from pullonce.store.snapshots import Snapshots
from schemas.oci import ChainID
from tests.integration.unpacker.test_rootless import unpack_here

root = Path(sys.argv[1])
top = unpack_here(root / "store")["chain"][-1]
(root / "m").mkdir()
mount(Snapshots(root / "store").overlay(ChainID(top)), root / "m")
print(*sorted(path.name for path in (root / "m/opt").iterdir()))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can unpack into the store of another user")
def test_whoever_owns_the_store_sees_what_root_unpacked_there(ordinary: Ordinary) -> None:
    store = ordinary.place / "store"
    store.mkdir()
    os.chown(store, NOBODY, NOBODY)
    chain = unpack_here(store)["chain"]
    assert isinstance(chain, list)
    imports = "from pathlib import Path; from pullonce.store.snapshots import Snapshots"
    look = f"{imports}; print(Snapshots(Path({str(store)!r})).has({chain[-1]!r}))"
    assert ordinary.run(ordinary.python, "-c", look).stdout == "True\n"
    directory = Snapshots(store).directory(chain[-1])
    assert stat.S_IMODE(directory.stat().st_mode) == 0o710 and directory.stat().st_uid == 0


if __name__ == "__main__":
    print(json.dumps(unpack_here(Path(sys.argv[1]))))
