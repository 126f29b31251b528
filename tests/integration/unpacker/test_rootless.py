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
from services.unpacker.check import check
from tests.support.awkward import BASE, UPPER
from tests.support.layers import Image, entry, mounted, tar, umoci_unpack, unpack_all, unpacker
from tests.support.trees import differences, read_tree

NOBODY = 65534
REPOSITORY = Path(__file__).parents[3]

LAYERS = [
    BASE,
    *(tar(*UPPER[what]) for what in (
        "special files", "set-id bits, capabilities, attributes", "an opaque directory", "a hard link to a file below",
        "names through links of the layer below", "whiteouts of nothing", "times",
    )),
]  # fmt: skip


CLOSED = [
    tar(
        entry("./", "dir", mode=0o555, mtime=5),
        entry("no", "dir", mode=0, xattrs={"user.a": "1"}),
        entry("no/one", content=b"one"),
        entry("no/deep/er", content=b"deeper"),
        entry("no/gone", content=b"gone"),
        entry("read", "dir", mode=0o555),
        entry("read/only", content=b"only", mode=0o444, xattrs={"user.b": "2"}),
        entry("secret", content=b"s" * 3000, mode=0, xattrs={"user.c": "3"}),
        entry("same", "hardlink", linkname="secret"),
    ),
    tar(
        entry("hard", "hardlink", linkname="secret"),
        entry("no/two", content=b"two"),
        entry("no/.wh.gone"),
        entry("no/deep/linked", "hardlink", linkname="no/deep/er"),
        entry("read/more", content=b"more", mode=0),
        entry("read/linked", "hardlink", linkname="read/only"),
    ),
    tar(entry("no", "dir", mode=0), entry("no/.wh..wh..opq"), entry("no/three", content=b"three"), entry("read/.wh.more")),
]
"""Files and directories whose modes keep their owner out, as they keep nobody out who is root."""


def unpack_here(root: Path, layers: list[bytes] = LAYERS) -> dict[str, object]:
    """Unpack layers as whoever runs this; what was left out, the ChainIDs, and what a check of each says."""
    image = Image(layers)
    checked = []

    async def run() -> None:
        async with unpacker(root) as running:
            image.store(running.content)
            await unpack_all(running, image.orders())
            checked.extend([await check(running, chain_id) for chain_id in image.chain])

    asyncio.run(run())
    snapshots = list(Snapshots(root).chain(image.top))
    return {
        "checked": [each.differences or each.unchecked for each in checked],
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


def test_modes_that_keep_their_owner_out(ordinary: Ordinary, tmp_path: Path) -> None:
    """Unpacked as umoci has it and as root does it, and compared by verify; the modes are what they were afterwards."""
    store = ordinary.place / "store"
    this = (ordinary.python, "-m", "tests.integration.unpacker.test_rootless")
    for _ in range(2):  # the second time they are there, and are checked again
        done = ordinary.run(*this, str(store), "closed")
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert not any(said["checked"]), said["checked"]
        assert not any("xattrs" in each for each in said["left_out"])
    if os.geteuid() != 0:
        return
    unpack_here(tmp_path / "root", CLOSED)
    trees = [Snapshots(store).path(ChainID(chain_id)) for chain_id in said["chain"]]
    for chain_id, tree in zip(said["chain"], trees, strict=True):
        ours = read_tree(tree, owners=False)
        theirs = read_tree(Snapshots(tmp_path / "root").path(ChainID(chain_id)), owners=False)
        marks = {path for path, node in theirs.items() if stat.S_ISCHR(node.kind)}
        assert differences(*({path: node for path, node in each.items() if path not in marks} for each in (ours, theirs))) == []
    if shutil.which("umoci"):
        with mounted(store, Image(CLOSED), tmp_path / "mounted") as merged:
            # umoci takes over what lower layers say of a directory that no entry names; its root is another matter.
            theirs = umoci_unpack(Image(CLOSED), tmp_path)
            assert theirs is not None
            assert [each.name for each in sorted((theirs / "no").iterdir())] == ["three"]
            for name in ("no", "no/three", "read", "read/only", "read/linked", "hard", "secret", "same"):
                one, two = (merged / name).lstat(), (theirs / name).lstat()
                assert (one.st_mode, one.st_size, one.st_mtime) == (two.st_mode, two.st_size, two.st_mtime), name
    (trees[0] / "no" / "one").write_bytes(b"ONE")
    os.utime(trees[0] / "no" / "one", ns=(0, 1_600_000_000 * 10**9))
    (trees[1] / "hard").chmod(0o600)
    said = json.loads(ordinary.run(*this, str(store), "closed").stdout)
    assert [each or [] for each in said["checked"]] == [
        ["no/one has other content"],
        ["hard has the mode 600 instead of 0", "secret has the mode 600 instead of 0"],
        [],
    ]


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
    print(json.dumps(unpack_here(Path(sys.argv[1]), CLOSED if sys.argv[2:] else LAYERS)))
