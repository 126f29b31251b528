"""What the property tests of layers share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.layers import UnpackerService


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UnpackerService]:
    """An unpacker for all examples of a module."""
    with UnpackerService(tmp_path_factory.mktemp("unpacker") / "store") as running:
        yield running
