"""Who may read the ledger over HTTP."""

import base64

import pytest

from pullonce.config import SettingInvalid
from pullonce.hostnames import is_named_plainly
from services.ledger.settings import LedgerSettings
from services.ledger.web.access import authorized


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("header", "may"),
    [
        ("Bearer geheim ü", True), ("bearer geheim ü", True), (basic("anybody:geheim ü"), True), (basic(":geheim ü"), True),
        ("", False), ("geheim ü", False), ("Bearer ", False), ("Bearer geheim", False), (basic("geheim ü:"), False),
        (basic("geheim ü"), False), ("Basic !!!", False), ("Basic /w==", False), ("Digest geheim ü", False),
    ],
)  # fmt: skip
def test_the_token_comes_as_bearer_or_as_a_password(header: str, may: bool) -> None:
    assert authorized(header, "geheim ü") == may


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("localhost", True), ("LOCALHOST:80", True), ("127.0.0.1:4280", True), ("[::1]:4280", True), ("10.0.0.7", True),
        ("evil.example", False), ("127.0.0.1.evil.example:4280", False), ("", False), ("[::1].evil.example", False),
        ("localhost.evil.example", False),
    ],
)  # fmt: skip
def test_without_a_token_only_addresses_are_answered_for(host: str, plain: bool) -> None:
    assert is_named_plainly(host) == plain


@pytest.mark.parametrize("more", [{}, {"PULLONCE_LEDGER_OPEN": "no"}, {"PULLONCE_LEDGER_OPEN": "perhaps"}])
def test_beyond_loopback_somebody_must_guard_it(more: dict[str, str]) -> None:
    with pytest.raises(SettingInvalid):
        LedgerSettings.from_env({"PULLONCE_LEDGER_HTTP": "0.0.0.0:0", **more})


@pytest.mark.parametrize("more", [{"PULLONCE_LEDGER_TOKEN": "x"}, {"PULLONCE_LEDGER_OPEN": "yes"}])
def test_a_token_or_a_guard_lets_it_be_reached(more: dict[str, str]) -> None:
    assert LedgerSettings.from_env({"PULLONCE_LEDGER_HTTP": "[::]:7", **more}).host == "::"
