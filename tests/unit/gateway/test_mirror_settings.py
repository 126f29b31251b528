"""Where the mirror is reached, and what it takes to be reached from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from pullonce.config import SettingInvalid, mirror_place
from services.gateway.mirror.settings import MirrorSettings

NAME = "PULLONCE_GATEWAY_MIRROR"


def test_off_and_default() -> None:
    assert mirror_place({NAME: "off"}) == "" and MirrorSettings.from_env({NAME: "off"}) is None
    made = MirrorSettings.from_env({})
    assert made is not None
    assert (made.place.host, made.place.port in (577, 5770), made.asked_for) == ("127.0.0.1", True, False)
    assert (made.default, made.credential, made.password) == ("docker.io", "anonymous", "")


def test_what_is_said() -> None:
    made = MirrorSettings.from_env(
        {NAME: "[::1]:8080", f"{NAME}_DEFAULT": "registry.lan:5000", f"{NAME}_CREDENTIAL": "own", f"{NAME}_PASSWORD": "s3cret"}
    )
    assert made is not None
    assert (made.place.host, made.place.port, made.asked_for) == ("::1", 8080, True)
    assert (made.default, made.credential, made.password) == ("registry.lan:5000", "", "s3cret")
    assert "s3cret" not in repr(made)
    for given in ("unix:///run/m.sock", "/run/m.sock"):
        made = MirrorSettings.from_env({NAME: given})
        assert made is not None and made.place.path == Path("/run/m.sock")


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({NAME: "0.0.0.0:577"}, f"{NAME}_CERT and {NAME}_KEY.*{NAME}_PASSWORD"),
        ({NAME: "0.0.0.0:577", f"{NAME}_PASSWORD": "x"}, f"{NAME}_CERT and {NAME}_KEY"),
        ({NAME: "[::]:577"}, f"{NAME}_PASSWORD"),
        ({NAME: "mirror.example:577"}, f"{NAME}_PASSWORD"),
        ({NAME: "577"}, "host:port"),
        ({NAME: "unix:relative"}, "unix:///path"),
        ({f"{NAME}_CERT": "/c.pem"}, f"{NAME}_KEY"),
        ({f"{NAME}_CERT": "/none/c.pem", f"{NAME}_KEY": "/none/k.pem"}, "cannot be used"),
        ({f"{NAME}_DEFAULT": "https://docker.io"}, f"{NAME}_DEFAULT"),
        ({f"{NAME}_DEFAULT": "library"}, f"{NAME}_DEFAULT"),
        ({f"{NAME}_CREDENTIAL": "../x"}, f"{NAME}_CREDENTIAL"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_set(environ: dict[str, str], named: str) -> None:
    with pytest.raises(SettingInvalid, match=named):
        MirrorSettings.from_env(environ)
