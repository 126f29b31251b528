"""A served home, a registry, and a podman that reads what the home exposes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from pullonce.cli.main import main
from pullonce.expose.records import file_name
from pullonce.store.content import ContentStore
from tests.integration.gateway.conftest import picture
from tests.support.command import Up, pullonce
from tests.support.images import Image
from tests.support.podman import Podman
from tests.support.registry import RegistryServer

__all__ = ("picture",)


class Place:
    """All of it."""

    def __init__(self, home: Path, registry: RegistryServer, podman: Podman) -> None:
        self.home = home
        self.registry = registry
        self.podman = podman
        self.store = home / "stores" / "default"
        self.view = self.store / "exposed"
        self.content = ContentStore(self.store)

    def tried(self, *arguments: str) -> tuple[int, str]:
        """How a command ended, and all that it said. It looks for podman's own storage where this podman has it.

        What needs no service is run in this process: a start of Python takes longer.
        """
        if arguments[0] in ("expose", "unexpose") and "--pull" not in arguments:
            return self._here(arguments)
        done = pullonce(*arguments, home=self.home, more=self.variables)
        return done.returncode, done.stdout + done.stderr

    def _here(self, arguments: tuple[str, ...]) -> tuple[int, str]:
        said = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(said):
            patch.setenv("CONTAINERS_STORAGE_CONF", self.variables["CONTAINERS_STORAGE_CONF"])
            code = main([arguments[0], "--home", str(self.home), *arguments[1:]])
        return code, said.getvalue()

    def killed_at(self, step: str, *arguments: str) -> None:
        """A command that dies at a named step, as by `kill -9`."""
        armed = self.home / "armed"
        armed.mkdir(exist_ok=True)
        (armed / step).touch()
        done = pullonce(*arguments, home=self.home, more={**self.variables, "PULLONCE_FAILPOINTS": str(armed)})
        assert done.returncode == -signal.SIGKILL and not (armed / step).exists(), done.stderr

    def holds(self) -> dict[str, str]:
        """Reference of what is held for podman → the state that it is in."""
        found = [json.loads(each.read_bytes()) for each in (self.store / "holds" / "podman").glob("[!.]*")]
        return {each["reference"]: json.loads(each["note"])["state"] for each in found}

    def shows(self) -> set[str]:
        """The names that the view lists, when all is there that they need."""
        images = self._list("images")
        layers = {each["id"]: each for each in self._list("layers")}
        names = [name for each in images for name in each["names"]]
        assert len(names) == len(set(names)), "a name comes twice, and podman would read nothing"
        for image in images:
            for key in image["big-data-names"]:
                content = (self.view / "overlay-images" / image["id"] / file_name(key)).read_bytes()
                assert f"sha256:{hashlib.sha256(content).hexdigest()}" == image["big-data-digests"][key]
            assert image["layer"] in layers
        for layer in layers.values():
            self._look_at(layer, layers)
        return set(names)

    def _list(self, what: str) -> list[dict[str, Any]]:
        try:
            return list(json.loads((self.view / f"overlay-{what}" / f"{what}.json").read_bytes()))
        except FileNotFoundError:
            return []

    def _look_at(self, layer: dict[str, Any], layers: dict[str, Any]) -> None:
        directory = self.view / "overlay" / layer["id"]
        link = (directory / "link").read_text()
        assert (self.view / "overlay" / "l" / link).samefile(directory / "diff")
        assert (self.view / "overlay-layers" / f"{layer['id']}.tar-split.gz").stat().st_size
        below = (directory / "lower").read_text().split(":") if layer.get("parent") else []
        assert [(self.view / "overlay" / each).resolve().is_dir() for each in below] == [True] * len(below)
        assert not layer.get("parent") or layer["parent"] in layers

    @property
    def variables(self) -> dict[str, str]:
        return {"CONTAINERS_STORAGE_CONF": self.podman.environment["CONTAINERS_STORAGE_CONF"]}

    def did(self, *arguments: str) -> str:
        """What a command that must succeed printed."""
        code, said = self.tried(*arguments)
        assert code == 0, said
        return said

    def pulled(self, repository: str, made: Image, tag: str = "1", *more: str) -> str:
        """Push an image and pull it; its reference."""
        reference = self.registry.push(f"expose/{repository}", tag, made)
        self.did("pull", "-q", reference, *more)
        return reference


@pytest.fixture(scope="package")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    server = RegistryServer(tmp_path_factory.mktemp("registry")).start()
    yield server
    server.stop()


@pytest.fixture(scope="package")
def place(registry: RegistryServer) -> Iterator[Place]:
    if os.geteuid() != 0:
        pytest.skip("podman mounts overlays as root only")
    home = Path(tempfile.mkdtemp(prefix="view-"))
    try:
        with Up(home, "--no-ledger", "--no-gateway"):
            view = home / "stores" / "default" / "exposed"
            with Podman(view, host=registry.host) as podman:
                yield Place(home, registry, podman)
    finally:
        shutil.rmtree(home)
