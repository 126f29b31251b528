"""What the environment says where it is read lightly."""

import pytest

from pullonce import environment
from pullonce.config import SettingInvalid, StoreSettings


@pytest.mark.parametrize(
    "url, shown",
    [("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"), ("nats://me:se@cret@host:1", "nats://host:1"),
     ("tls://token@a:1, tls://me:secret@b:2", "tls://a:1,tls://b:2"), ("me:secret@host", "host"), ("", "")],
)  # fmt: skip
def test_secrets_are_never_shown(url: str, shown: str) -> None:
    assert environment.redacted(url) == shown


@pytest.mark.parametrize(
    "environ, home",
    [({"PULLONCE_HOME": "/a/../b"}, "/b"), ({"PULLONCE_HOME": "/a", "XDG_DATA_HOME": "/x"}, "/a")],
)
def test_home(environ: dict[str, str], home: str) -> None:
    assert environment.home(environ) == home


def test_home_of_an_ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert environment.home({"XDG_DATA_HOME": "/x"}) == "/x/pullonce"
    monkeypatch.setenv("HOME", "/home/me")
    assert environment.home({}) == "/home/me/.local/share/pullonce"


def test_home_of_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert environment.home({"XDG_DATA_HOME": "/x"}) == "/var/lib/pullonce"


def test_store_and_address() -> None:
    assert environment.store({}) == "default" and environment.store({"PULLONCE_STORE": "a"}) == "a"
    assert environment.store({"PULLONCE_STORE": "a", "PULLONCE_NODE": "b"}) == "a"
    assert environment.nats_url({}) == "" and environment.nats_url({"PULLONCE_NATS_URL": "nats://a"}) == "nats://a"


def test_a_machine_of_a_cluster_has_a_store_of_its_own() -> None:
    assert StoreSettings.from_env({"PULLONCE_NODE": "worker-1"}).name == "worker-1"
    assert (
        StoreSettings.from_env({"PULLONCE_NODE": "ip-10-0-1-5.eu.compute.internal"}).name == "ip-10-0-1-5_eu_compute_internal"
    )
    long = [f"{'a' * 60}.{zone}" for zone in ("eu-central-1a.example", "eu-central-1b.example")]
    names = {StoreSettings.from_env({"PULLONCE_NODE": node}).name for node in long}
    assert len(names) == 2 and all(len(name) == 64 for name in names)


@pytest.mark.parametrize("variable", ["PULLONCE_STORE", "PULLONCE_NODE"])
@pytest.mark.parametrize("value", ["a b", "a/b", "ä", "*", "a>"])
def test_a_store_that_cannot_be_says_which_setting_named_it(variable: str, value: str) -> None:
    with pytest.raises(SettingInvalid, match=f"^{variable} is "):
        StoreSettings.from_env({variable: value})
