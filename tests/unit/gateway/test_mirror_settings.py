"""What the mirror reads from its environment."""

from __future__ import annotations

import pytest

from services.gateway.mirror.settings import MirrorSettings


@pytest.mark.parametrize(
    "given, asked_for",
    [({}, False), ({"PULLONCE_GATEWAY_MIRROR": ""}, False), ({"PULLONCE_GATEWAY_MIRROR": "127.0.0.1:5000"}, True)],
)
def test_a_place_that_nobody_named_is_not_asked_for(given: dict[str, str], asked_for: bool) -> None:
    """A port that is taken then costs a warning, and not the gateway."""
    settings = MirrorSettings.from_env(given)
    assert settings is not None and settings.asked_for is asked_for


def test_off_is_off() -> None:
    assert MirrorSettings.from_env({"PULLONCE_GATEWAY_MIRROR": "off"}) is None
