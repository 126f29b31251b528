"""A served home, a registry, and a podman that reads what the home exposes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

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
        """How a command ended, and all that it said. It looks for podman's own storage where this podman has it."""
        done = pullonce(*arguments, home=self.home, more=self.variables)
        return done.returncode, done.stdout + done.stderr

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


@pytest.fixture(scope="module")
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
