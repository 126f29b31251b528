"""Images out of a store and into one, as archives, beside whatever else does that: `./dev bench exchange`.

    ./dev bench exchange                                  images made of this machine's packages, of the shape of golang and ml
    ./dev bench exchange --storage DIR --images golang,ml --peers pullonce,skopeo --repetitions 3

Export: from a store that holds the image to a file on the same disk. Import: the archive that pullonce wrote, which all of
them read, into a store that lacks it, with the layers unpacked where that is what the program does (docker, podman), and
without (skopeo into a layout); `ctr` and pullonce both ways. Every run has a fresh ext4 in memory; peers take turns. Wall: of
the client. CPU: client and daemons. MB: of the archive.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.pulls import alone
from bench.tools import images
from bench.tools.containerd import Containerd
from bench.tools.disk import fresh_disk, warm_memory
from bench.tools.peer import Peer
from bench.tools.peers import Docker, Ours, Podman
from bench.tools.registry import Registry, serving
from bench.tools.results import Row, keep, median, show
from bench.tools.usage import Group, come_first, machine_busy

OUT = "written.tar"


class Exchanging:
    """What one program is told.

    Attributes:
        unpacks: the image's layers are made into trees by its import.
    """

    unpacks = True

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.archive = peer.place / OUT

    def fill(self, image: str) -> list[str]:
        """Bring an image in from the registry."""
        return self.peer.pull(image)

    def export(self, image: str) -> list[str]:
        raise NotImplementedError

    def load(self, archive: Path) -> list[str]:
        raise NotImplementedError


class OursWhole(Exchanging):
    def export(self, image: str) -> list[str]:
        return [*self._script(), "export", f"{self.peer.host}/{image}", "-o", str(self.archive)]

    def load(self, archive: Path) -> list[str]:
        return [*self._script(), "import", str(archive), *([] if self.unpacks else ["--no-unpack"])]

    def _script(self) -> list[str]:
        return [str(Path(sys.executable).parent / "pullonce")]


class OursPlain(OursWhole):
    unpacks = False


class DockerExchange(Exchanging):
    def export(self, image: str) -> list[str]:
        return [*self._docker(), "save", f"{self.peer.host}/{image}", "-o", str(self.archive)]

    def load(self, archive: Path) -> list[str]:
        return [*self._docker(), "load", "-q", "-i", str(archive)]

    def _docker(self) -> list[str]:
        return ["docker", "-H", f"unix://{self.peer.place}/d.sock"]


class PodmanExchange(Exchanging):
    def export(self, image: str) -> list[str]:
        return [*self._podman(), "save", "-q", "--format", "oci-archive", "-o", str(self.archive), f"{self.peer.host}/{image}"]

    def load(self, archive: Path) -> list[str]:
        return [*self._podman(), "load", "-q", "-i", str(archive)]

    def _podman(self) -> list[str]:
        place = self.peer.place
        return ["podman", "--root", f"{place}/root", "--runroot", f"{place}/runroot", "--storage-driver", "overlay"]


class CtrWhole(Exchanging):
    def export(self, image: str) -> list[str]:
        return [*self._ctr(), "images", "export", str(self.archive), f"{self.peer.host}/{image}"]

    def load(self, archive: Path) -> list[str]:
        return [*self._ctr(), "images", "import", *([] if self.unpacks else ["--no-unpack"]), str(archive)]

    def _ctr(self) -> list[str]:
        return ["ctr", "-a", f"{self.peer.place}/c.sock", "-n", "k8s.io"]


class CtrPlain(CtrWhole):
    unpacks = False


class Skopeo(Peer):
    """skopeo between an image layout and an archive of one."""

    name = "skopeo"

    @classmethod
    def present(cls) -> bool:
        return bool(shutil.which("skopeo"))

    def pull(self, image: str) -> list[str]:
        return [*self.copy(), "--src-tls-verify=false", f"docker://{self.host}/{image}", f"oci:{self.place}/layout:1"]

    def copy(self) -> list[str]:
        return ["skopeo", "copy", "-q", "--insecure-policy"]


class SkopeoExchange(Exchanging):
    unpacks = False

    def export(self, image: str) -> list[str]:
        copy = ["skopeo", "copy", "-q", "--insecure-policy"]
        return [*copy, f"oci:{self.peer.place}/layout:1", f"oci-archive:{self.archive}:1"]

    def load(self, archive: Path) -> list[str]:
        return ["skopeo", "copy", "-q", "--insecure-policy", f"oci-archive:{archive}", f"oci:{self.peer.place}/loaded:1"]


ALL: dict[str, tuple[type[Peer], type[Exchanging]]] = {
    "pullonce": (Ours, OursWhole),
    "pullonce, not unpacked": (Ours, OursPlain),
    "docker": (Docker, DockerExchange),
    "podman": (Podman, PodmanExchange),
    "ctr": (Containerd, CtrWhole),
    "ctr, not unpacked": (Containerd, CtrPlain),
    "skopeo": (Skopeo, SkopeoExchange),
}


def run(name: str, image: str, how: str, registry: Registry, archive: Path) -> Row:
    """One measured run."""
    kind, exchange = ALL[name]
    with alone(), fresh_disk(6 << 30) as place:
        warm_memory(1 << 30)
        daemons, used = Group("daemons"), Group("clients")
        peer = kind(place, registry.host, daemons)
        told = exchange(peer)
        try:
            peer.start()
            if how == "export":
                subprocess.run(told.fill(image), check=True, env=peer.environ, capture_output=True)
                command = told.export(image)
            else:
                here = place / "given.tar"
                shutil.copyfile(archive, here)
                command = told.load(here)
            os.sync()
            before, busy = daemons.cpu() + used.cpu(), machine_busy()
            start = time.monotonic()
            with used.inside(), (place / "client.log").open("wb") as log:
                client = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=peer.environ)
            failed = int(client.wait() != 0)
            wall = time.monotonic() - start
            cpu = daemons.cpu() + used.cpu() - before
            other = machine_busy() - busy - cpu
            if failed:
                print((place / "client.log").read_text(errors="replace")[-800:], file=sys.stderr)
            size = told.archive.stat().st_size if how == "export" and not failed else 0
        finally:
            peer.stop()
            daemons.close()
            used.close()
    row: Row = {"peer": name, "image": image, "how": how, "wall": wall, "cpu": cpu, "cpu_other": other}
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()} | {
        "bytes": size, "failed": failed,
    }  # fmt: skip


def measure(given: argparse.Namespace, registry: Registry, home: Path) -> Iterator[Row]:
    archives = {image: _archive(image, registry, home) for image in given.images}
    for repetition in range(given.repetitions):
        for image in given.images:
            for how in given.ways:
                for name in given.peers:
                    if how == "export" and "not unpacked" in name:
                        continue  # the same as with its layers unpacked
                    row = run(name, image, how, registry, archives[image]) | {"repetition": repetition}
                    print(row, file=sys.stderr, flush=True)
                    yield row


def _archive(image: str, registry: Registry, home: Path) -> Path:
    """An image as pullonce exports it."""
    path = home / f"{image.replace(':', '-')}.tar"
    with fresh_disk(6 << 30) as place:
        group = Group("given")
        peer = Ours(place, registry.host, group)
        try:
            peer.start()
            subprocess.run([*peer.pull(image), "--no-unpack"], check=True, env=peer.environ, capture_output=True)
            told = OursWhole(peer)
            subprocess.run(told.export(image), check=True, env=peer.environ, capture_output=True)
            shutil.copyfile(told.archive, path)
        finally:
            peer.stop()
            group.close()
    return path


def table(rows: list[Row]) -> None:
    lines = []
    order = list(ALL)
    rows = sorted(rows, key=lambda row: (row["how"], row["image"], order.index(row["peer"])))
    for (how, image, name), some in groupby(rows, lambda row: (row["how"], row["image"], row["peer"])):
        of_peer = list(some)
        wall, cpu = median(of_peer, lambda row: row["wall"]), median(of_peer, lambda row: row["cpu"])
        other = max(row["cpu_other"] / row["wall"] for row in of_peer)
        size = f"{of_peer[-1]['bytes'] / 1e6:.0f}" if of_peer[-1]["bytes"] else ""
        failed = sum(row["failed"] for row in of_peer)
        figures = [f"{wall:.2f}", f"{cpu:.2f}", size, f"{other:.2f}", str(failed), str(len(of_peer))]
        lines.append([f"{how} {image}", name, *figures])
    show(["", "program", "wall s", "CPU s", "MB", "others' cores", "failed", "runs"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words = lambda text: [word if ":" in word else f"{word}:latest" for word in text.split(",")]  # noqa: E731
    present = [name for name, (kind, _) in ALL.items() if kind.present()]
    parser.add_argument("--storage", type=Path, help="a registry's storage directory to serve, instead of images made here")
    parser.add_argument("--images", type=words, default=words("large,single"))
    parser.add_argument("--peers", type=lambda text: text.split(","), default=present)
    parser.add_argument("--ways", type=lambda text: text.split(","), default=["export", "import"])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--out", type=Path, help="keep the rows here, as JSON lines")
    given = parser.parse_args()
    come_first()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as home:
        storage = given.storage or Path(home) / "content"
        with serving(storage, Path(home)) as registry:
            if given.storage is None:
                for image in given.images:
                    images.push_all(registry.host, image)
            rows = list(measure(given, registry, Path(home)))
    if given.out:
        keep(given.out, rows)
    table(rows)


if __name__ == "__main__":
    main()
