"""A container with a user namespace: its layers by idmapped mounts, made as containerd makes them from what Prepare answers."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pullonce.oci.mappings import Mappings, mappings
from pullonce.store import idmapping
from pullonce.store.content import open_store
from pullonce.store.kernel import checked, libc
from pullonce.store.layout import Layout, link_to_tree, short_name
from pullonce.store.mounting import unmount
from schemas.oci import ChainID
from services.gateway.snapshotter.records import name_of
from tests.integration.gateway.test_calls import Bus, service

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
HOST, LENGTH, DEPTH = 200_000, 65_536, 60
LABELS = {f"containerd.io/snapshot/{each}mapping": f"0:{HOST}:{LENGTH}" for each in ("uid", "gid")}


@contextmanager
def idmapped(directory: Path, target: Path, mapped: Mappings) -> Iterator[None]:
    """One idmapped mount of a directory with all below it. Skips where the file system cannot have one."""
    tree = idmapping.clone(directory)
    try:
        with idmapping.user_namespace(mapped) as namespace:
            try:
                idmapping.map_ids(tree, namespace)
            except OSError as exc:
                pytest.skip(f"the file system below {directory} has no idmapped mounts: {exc.strerror}")
        idmapping.attach(tree, target)
    finally:
        os.close(tree)
    try:
        yield
    finally:
        unmount(target, lazily=True)


def stacked(root: Path) -> list[ChainID]:
    """A store with a stack of layers, bottom first, owned as images have them."""
    open_store(root)
    layout, below, made = Layout(root), "", []
    for depth in range(DEPTH):
        chain_id = ChainID(f"sha256:{depth + 1:02x}" + f"{depth:062x}")
        tree = layout.tree(chain_id)
        tree.mkdir()
        (tree / f"of-root-{depth}").touch()
        (tree / f"of-user-{depth}").touch()
        os.chown(tree / f"of-user-{depth}", 1000, 1001)
        layout.snapshot(chain_id).mkdir()
        layout.link(chain_id).symlink_to(link_to_tree(chain_id))
        told = f'"chain_id":"{chain_id}","diff_id":"{chain_id}","blob":"{chain_id}","parent":"{below}"'
        layout.record(chain_id).write_text("{" + told + "}")
        made.append(chain_id)
        below = chain_id
    return made


async def test_a_deep_stack_is_mounted_with_the_owners_of_its_namespace(tmp_path: Path) -> None:
    """Sixty layers: options within a page, real paths below one directory, and on the host the files of the mapped users."""
    chain = stacked(tmp_path / "store")
    async with service(tmp_path, Bus()) as calls:
        (mount,) = (await calls.call("Prepare", key="box", parent=name_of(chain[-1]), labels=LABELS)).mounts
    options = dict(each.partition("=")[::2] for each in mount.options)
    assert (options["uidmap"], options["gidmap"]) == (f"0:{HOST}:{LENGTH}",) * 2
    lower = [Path(each) for each in options["lowerdir"].split(":")]
    assert {each.parent for each in lower} == {tmp_path / "store" / "l"} and not any(each.is_symlink() for each in lower)
    assert [each.name for each in lower] == [short_name(each) for each in reversed(chain)]
    assert (Path(options["upperdir"]).stat().st_uid, Path(options["upperdir"]).stat().st_gid) == (HOST, HOST)
    layers, target = tmp_path / "layers", tmp_path / "target"
    layers.mkdir()
    target.mkdir()
    short = [each.name for each in lower]
    mapped = mappings([f"0:{HOST}:{LENGTH}"], [])
    assert mapped is not None
    with idmapped(lower[0].parent, layers, mapped):
        # As containerd: from within what the lower directories have in common.
        here = Path.cwd()
        os.chdir(layers)
        try:
            data = f"lowerdir={':'.join(short)},upperdir={options['upperdir']},workdir={options['workdir']},index=off"
            assert len(data) < 4096
            checked(libc.mount(b"overlay", os.fsencode(target), b"overlay", 0, data.encode()))
        finally:
            os.chdir(here)
        try:
            for depth in (0, DEPTH - 1):
                root, user = (os.stat(target / f"of-{each}-{depth}") for each in ("root", "user"))  # noqa: PTH116
                assert (root.st_uid, root.st_gid, user.st_uid, user.st_gid) == (HOST, HOST, HOST + 1000, HOST + 1001)
            (target / "of-user-0").write_text("changed")
            assert stat.S_ISREG((Path(options["upperdir"]) / "of-user-0").stat().st_mode)
        finally:
            unmount(target, lazily=True)
