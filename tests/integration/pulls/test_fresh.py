"""What a registry said a moment ago answers who asks next, with the same credential."""

from __future__ import annotations

from pathlib import Path

from tests.support.deployment import Deployment
from tests.support.images import image, layer, tar_of
from tests.support.registry import RegistryServer


def test_commands_one_after_the_other_ask_once(tmp_path: Path) -> None:
    registry = RegistryServer(tmp_path / "registry").start()
    reference = registry.push("app", "latest", image([layer(tar_of({"file": b"content"}))]))
    deployment = Deployment(tmp_path / "home", environ={"PULLONCE_FRESH": "60"})
    deployment.start()
    try:
        for _ in range(8):
            assert deployment.run("pull", reference).returncode == 0
        assert registry.counts() == {"HEAD manifests": 1, "GET manifests": 1, "GET blobs": 2}
        (deployment.home / "credentials").mkdir(exist_ok=True)
        (deployment.home / "credentials" / "other.json").write_text("{}")
        assert deployment.run("pull", "--credential", "other", reference).returncode == 0
        assert registry.counts()["HEAD manifests"] == 2, "another credential asks for itself"
        assert deployment.run("pull", "--credential", "nobody", reference).returncode == 1
    finally:
        deployment.stop()
        registry.stop()
