"""What pullonce needs of nats-py's insides is named in one module, and looked for at the start."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from nats.aio.client import Client

from pullonce.bus.nats import insides
from pullonce.errors import BusUnsuitable

BUS = Path(insides.__file__).parent


def test_the_installed_one_has_all() -> None:
    insides.check(Client())


@pytest.mark.parametrize("name", insides._METHODS)
def test_a_method_that_is_gone_or_takes_something_else_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(Client, name, lambda self: None)
    if insides._METHODS[name]:
        with pytest.raises(BusUnsuitable, match=rf"lacks {name}: pip install 'nats-py=="):
            insides.check(Client())
    monkeypatch.delattr(Client, name)
    with pytest.raises(BusUnsuitable, match=rf"lacks {name}: pip install 'nats-py=="):
        insides.check(Client())


@pytest.mark.parametrize("name", insides._ATTRIBUTES)
def test_an_attribute_that_is_gone_is_named(name: str) -> None:
    client = Client()
    delattr(client, name)
    with pytest.raises(BusUnsuitable, match=f"nats-py .* lacks {name}: pip install"):
        insides.check(client)


def test_nobody_else_reaches_into_nats_py() -> None:
    """Private names of clients, subscriptions and parsers stand in `insides` alone, and all that stand there are looked for."""
    reached = re.compile(r"\b(?:client|nc|subscription)\._(\w+)")
    found = {path.name: reached.findall(path.read_text()) for path in BUS.glob("*.py")}
    assert {name for name, names in found.items() if names} == {"insides.py"}
    looked_for = {*insides._ATTRIBUTES, *insides._METHODS, *insides._OF_SUBSCRIPTION}
    assert {f"_{name}" for name in found["insides.py"]} <= looked_for
