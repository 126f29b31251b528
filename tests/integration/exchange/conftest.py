"""A store with two images, and the archive that `pullonce export` makes of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pullonce.cli.main import main
from pullonce.store.content import ContentStore, open_store
from pullonce.store.images import ImageRecord
from schemas.oci import Descriptor, Digest
from services.fetcher.documents.manifest import in_oci_types
from tests.support.images import OCI_MANIFEST, Image, digest_of, image, layer, tar_of

NAME = "registry.example/team/app:1"
OTHER = "docker.io/library/tool:latest"


@pytest.fixture
def app() -> Image:
    return image(
        [layer(tar_of({"etc/app": b"one", "big": os.urandom(3_000_000)})), layer(tar_of({"etc/app": b"two"}), "plain")]
    )


@pytest.fixture
def home(tmp_path: Path, app: Image) -> Path:
    """A home whose store holds two images that share a layer."""
    home = tmp_path / "home"
    content = open_store(home / "stores" / "default")
    list_image(content, NAME, app)
    list_image(content, OTHER, image([layer(tar_of({"tool": b"sharp"}))]))
    return home


def list_image(content: ContentStore, reference: str, given: Image) -> None:
    for blob in (given.content, *given.blobs.values()):
        path = content.blob_path(Digest(digest_of(blob)))
        path.write_bytes(blob)
    manifest = Descriptor(media_type=given.media_type, digest=Digest(given.digest), size=len(given.content))
    config = Digest(given.document["config"]["digest"])
    listed = None
    if (translated := in_oci_types(given.content)) is not None:
        listed = Descriptor(media_type=OCI_MANIFEST, digest=Digest(digest_of(translated)), size=len(translated))
        content.blob_path(listed.digest).write_bytes(translated)
    content.images.record(
        ImageRecord(
            reference=reference,
            platform=given.platform,
            digest=manifest.digest,
            manifest=manifest,
            image_id=config,
            listed=listed,
        )
    )


@pytest.fixture
def archive(home: Path, tmp_path: Path) -> Path:
    path = tmp_path / "images.tar"
    assert main(["export", "--home", str(home), NAME, "tool", "-o", str(path)]) == 0
    return path
