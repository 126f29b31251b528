"""The store as other tools see it: skopeo and umoci read images out of it by name."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.fetcher.conftest import Opened
from tests.support.images import image, index, layer, tar_of
from tests.support.registry import RegistryServer

LAYERS = [layer(tar_of({f"file-{n}": bytes([n]) * 2000})) for n in range(2)]


def tool(*command: str | Path) -> None:
    """Run a program, or skip (in CI: fail) where it is missing."""
    if shutil.which(str(command[0])) is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{command[0]} is not on PATH")
        pytest.skip(f"{command[0]} is not on PATH (Debian: apt install {command[0]})")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("docker", [False, True], ids=["oci", "schema2"])
async def test_skopeo_copies_an_image_out(registry: RegistryServer, fetcher: Opened, tmp_path: Path, docker: bool) -> None:
    pushed = image(LAYERS, docker=docker)
    reference = registry.push("team/app", "1.0", pushed)
    async with fetcher() as f:
        await f.pull(reference)
        tool("skopeo", "copy", "--insecure-policy", f"oci:{f.content.root}:{reference}", f"dir:{tmp_path / 'out'}")
    for digest in pushed.layers:
        assert (tmp_path / "out" / digest.partition(":")[2]).is_file()


async def test_umoci_unpacks_every_listed_name(registry: RegistryServer, fetcher: Opened, tmp_path: Path) -> None:
    arm, amd = image(LAYERS[:1], platform="linux/arm64"), image(LAYERS, platform="linux/amd64")
    reference = registry.push("team/app", "1.0", index([arm, amd]))
    by_digest = reference.rpartition(":")[0] + f"@{amd.digest}"
    async with fetcher() as f:
        await f.pull(reference, platform="linux/amd64")
        await f.pull(reference, platform="linux/arm64")
        await f.pull(by_digest, platform="linux/amd64")
        for number, (name, files) in enumerate(((reference, 2), (f"{reference}+linux-arm64", 1), (by_digest, 2))):
            bundle = tmp_path / f"bundle-{number}"
            tool("umoci", "unpack", "--rootless", "--image", f"{f.content.root}:{name}", bundle)
            assert len(list((bundle / "rootfs").iterdir())) == files
        assert {record.reference for record in f.content.images.all()} == {reference, by_digest}
