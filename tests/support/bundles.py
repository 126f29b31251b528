"""A home whose store holds unpacked images, without any service; and what runc makes of bundles."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from itertools import count
from pathlib import Path
from typing import Any

from pullonce.cli.main import main
from pullonce.oci.digest import chain_ids
from pullonce.store.content import open_store
from pullonce.store.images import ImageRecord
from schemas.oci import ChainID, Descriptor, DiffID, Digest
from schemas.orders import UnpackLayer
from tests.support.images import Image, digest_of, image, layer
from tests.support.layers import UnpackerService, entry, tar
from tests.support.programs import find

Entries = Sequence[tuple[Any, bytes]]
_numbers = count(1)


class Shelf:
    """A home with one store, and an unpacker for what is put into it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.store = home / "stores" / "default"
        self.content = open_store(self.store)
        self.unpacker = UnpackerService(self.store)
        self.runc = find("runc", "runc is not on PATH (Debian: apt install runc)")

    def put(self, reference: str, *layers: Entries, config: Mapping[str, Any] = {}, platform: str = "linux/amd64") -> Image:
        """Have an image, unpacked and listed."""
        made = image([layer(tar(*each)) for each in layers], process=config, platform=platform)
        for blob in (made.content, *made.blobs.values()):
            self.content.blob_path(Digest(digest_of(blob))).write_bytes(blob)
        chain = self._unpack(made)
        manifest = Descriptor(media_type=made.media_type, digest=Digest(made.digest), size=len(made.content))
        config_digest = Digest(made.document["config"]["digest"])
        self.content.images.record(
            ImageRecord(
                reference=reference, platform=platform, digest=manifest.digest, manifest=manifest, image_id=config_digest,
                chain_ids=tuple(chain),
            )
        )  # fmt: skip
        return made

    def _unpack(self, made: Image) -> list[ChainID]:
        config = json.loads(made.blobs[made.document["config"]["digest"]])
        diff_ids = [DiffID(each) for each in config["rootfs"]["diff_ids"]]
        chain = chain_ids(diff_ids)
        orders = [
            UnpackLayer(
                chain_id=chain_id, diff_id=diff_ids[index], revision=index + 1,
                blob=Descriptor(media_type=each["mediaType"], digest=Digest(each["digest"]), size=each["size"]),
                parent=chain[index - 1] if index else ChainID(""),
            )
            for index, (chain_id, each) in enumerate(zip(chain, made.document["layers"], strict=True))
        ]  # fmt: skip
        self.unpacker.carry_out(orders)
        return chain

    def say(self, *words: str | Path) -> tuple[int, str, str]:
        """Carry out a command of `pullonce`: its exit code, and what it says on both streams."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                code = main([str(words[0]), "--home", str(self.home), *map(str, words[1:])])
            except SystemExit as exc:
                code = exc.code if isinstance(exc.code, int) else 1
        return code, out.getvalue(), err.getvalue()

    def bundle(self, *words: str | Path) -> dict[str, Any]:
        """Make a bundle; its config."""
        code, out, err = self.say("bundle", *words)
        assert code == 0, err
        directory = Path(out.partition("--bundle ")[2].rpartition(" NAME`")[0])
        config: dict[str, Any] = json.loads((directory / "config.json").read_bytes())
        return config

    def run(self, directory: Path, *, root: Path) -> subprocess.CompletedProcess[str]:
        """Have runc run a bundle to its end."""
        name = f"b{next(_numbers)}"
        command = [self.runc, "--root", str(root), "run", "--bundle", str(directory), name]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)

    def held(self) -> list[str]:
        """Directories for which layers are kept."""
        places = (self.store / "holds" / "bundles").glob("[!.]*")
        return sorted(json.loads(json.loads(path.read_bytes())["note"])["directory"] for path in places)


APPLETS = ("sh", "cat", "id", "ls", "touch", "env", "pwd", "stat", "sleep", "hostname", "mount", "grep")


def busybox(*more: tuple[Any, bytes]) -> Entries:
    """A layer with busybox, some directories, and users."""
    program = Path(find("busybox", "busybox is not on PATH (Debian: apt install busybox-static)")).read_bytes()
    passwd = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n"
    group = b"root:x:0:\napp:x:1001:\nextra:x:1002:app\nother:x:1003:\n"
    return [
        entry("bin", "dir"), entry("bin/busybox", content=program, mode=0o755),
        *(entry(f"bin/{name}", "symlink", linkname="busybox") for name in APPLETS),
        entry("etc", "dir"), entry("etc/passwd", content=passwd), entry("etc/group", content=group),
        entry("tmp", "dir", mode=0o1777), entry("home", "dir"), entry("home/app", "dir", uid=1000, gid=1001, mode=0o750),
        *more,
    ]  # fmt: skip
