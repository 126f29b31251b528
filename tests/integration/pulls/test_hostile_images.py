"""Images that must not be had: a typed failure for whoever asked, nothing half-done visible, and the services go on."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pullonce.client import connect
from pullonce.errors import PullFailed
from tests.support.deployment import Deployment
from tests.support.images import Image, Layer, digest_of, image, layer, tar_of
from tests.support.registry import RegistryServer

TIMEOUT = 60


@pytest.fixture(scope="module")
def pullonce(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("home")).start()
    yield deployment
    deployment.stop()


def one_entry(name: str, *, kind: bytes = tarfile.REGTYPE, target: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        tar.addfile(member)
    return buffer.getvalue()


def lying_about_its_diff_id() -> Image:
    honest = layer(tar_of({"a": b"a"}))
    return image([dataclasses.replace(honest, diff_id=digest_of(b"something else"))])


def truncated() -> Image:
    whole = tar_of({"a": b"a" * 5000})
    return image([layer(whole[:1500])])


def not_a_tar() -> Image:
    return image([layer(b"this is no tar at all" * 100)])


def not_even_gzip() -> Image:
    noise = b"\x1f\x8b" + b"\xff" * 3000
    return image([Layer(noise, digest_of(b"x"))])


@pytest.mark.parametrize(
    ("name", "made", "code"),
    [
        ("dots", lambda: image([layer(one_entry("../outside"))]), "layer.escapes"),
        ("deep-dots", lambda: image([layer(one_entry("a/../../outside"))]), "layer.escapes"),
        ("hardlink", lambda: image([layer(one_entry("x", kind=tarfile.LNKTYPE, target="../../etc/passwd"))]), "layer.escapes"),
        ("diff-id", lying_about_its_diff_id, "diffid.mismatch"),
        ("truncated", truncated, "layer.invalid"),
        ("no-tar", not_a_tar, "layer.invalid"),
        ("no-gzip", not_even_gzip, "layer.invalid"),
    ],
)
async def test_a_bad_layer_is_a_typed_failure(
    registry: RegistryServer, pullonce: Deployment, name: str, made: object, code: str
) -> None:
    built: Image = made()  # type: ignore[operator]
    reference = registry.push(f"bad/{name}", "latest", built)
    async with connect(pullonce.url) as client:
        with pytest.raises(PullFailed) as failed:
            await client.pull(reference, timeout=TIMEOUT)
        assert failed.value.code == code, str(failed.value)
        assert len(str(failed.value)) > 20
        healthy = registry.push(f"good/after-{name}", "latest", image([layer(tar_of({name: b"fine"}))]))
        await client.pull(healthy, timeout=TIMEOUT)
    assert reference not in pullonce.run("images").stdout
    assert not list((pullonce.store / "staging").glob("*/*/*"))


def test_the_command_says_what_went_wrong_and_exits_with_1(registry: RegistryServer, pullonce: Deployment) -> None:
    reference = registry.push("bad/for-the-command", "latest", lying_about_its_diff_id())
    done = pullonce.run("pull", reference)
    assert done.returncode == 1
    assert "diffid.mismatch" in done.stderr and "sha256:" in done.stderr
    missing = pullonce.run("pull", f"{registry.host}/no/such:tag")
    assert missing.returncode == 1
    assert "MANIFEST_UNKNOWN" in missing.stderr


def test_what_is_in_the_store_can_be_copied_out(registry: RegistryServer, pullonce: Deployment, tmp_path: Path) -> None:
    if shutil.which("skopeo") is None:
        reason = "skopeo is not installed (Debian: apt install skopeo)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    built = image([layer(tar_of({"a": b"a"})), layer(tar_of({"b": b"b"}), "zstd")])
    reference = registry.push("to/copy", "latest", built)
    assert pullonce.run("pull", reference).returncode == 0
    out = tmp_path / "out"
    subprocess.run(["skopeo", "copy", "-q", f"oci:{pullonce.store}:{reference}", f"dir:{out}"], check=True, timeout=TIMEOUT)
    manifest = json.loads((out / "manifest.json").read_bytes())
    assert [entry["digest"] for entry in manifest["layers"]] == built.layers
    assert all((out / digest.partition(":")[2]).exists() for digest in built.layers)
