"""Which way leads to a registry, and which secret opens it."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from pullonce.config import SettingInvalid, is_loopback
from pullonce.errors import Permanent
from services.fetcher.auth.credentials import Credentials
from services.fetcher.auth.secret import Secret
from services.fetcher.settings import FetcherSettings


@pytest.mark.parametrize(
    "host, answer",
    [
        ("localhost", True),
        ("registry.localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("", False),
    ],
)
def test_loopback(host: str, answer: bool) -> None:
    assert is_loopback(host) is answer


@pytest.mark.parametrize(
    "registry, plain",
    [
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("[::1]:5000", True),
        ("registry.lan:5000", True),
        ("registry.lan:5001", False),
        ("mirror.lan", True),
        ("mirror.lan:80", True),
        ("docker.io", False),
        ("ghcr.io", False),
    ],
)
def test_plain_http_only_for_loopback_and_listed_hosts(registry: str, plain: bool) -> None:
    environ = {"PULLONCE_INSECURE_REGISTRIES": "registry.lan:5000, mirror.lan,", "PULLONCE_HOME": "/h"}
    assert FetcherSettings.from_env(environ).registry.plain(registry) is plain


def test_mirrors_lie_below_the_home_unless_told_otherwise() -> None:
    assert FetcherSettings.from_env({"PULLONCE_HOME": "/h"}).registry.hosts == Path("/h/hosts")
    environ = {"PULLONCE_HOME": "/h", "PULLONCE_HOSTS_DIR": "/etc/containerd/certs.d"}
    assert FetcherSettings.from_env(environ).registry.hosts == Path("/etc/containerd/certs.d")


def test_proxies() -> None:
    environ = {"PULLONCE_HOME": "/h", "HTTPS_PROXY": "proxy:3128", "NO_PROXY": "corp.example.com,.internal"}
    settings = FetcherSettings.from_env(environ).registry
    assert settings.proxy("https", "ghcr.io") == "http://proxy:3128"
    assert settings.proxy("http", "ghcr.io") is None
    for direct in ("corp.example.com", "x.internal", "localhost", "127.0.0.1"):
        assert settings.proxy("https", direct) is None


def test_login_files_and_defaults() -> None:
    settings = FetcherSettings.from_env({"PULLONCE_HOME": "/h"})
    assert settings.configs == (Path(f"/run/containers/{os.getuid()}/auth.json"),)
    assert (settings.credentials, settings.sync) == (Path("/h/credentials"), True)


def test_the_files_of_docker_and_podman_are_searched_where_they_leave_them() -> None:
    def found(**environ: str) -> list[str]:
        return [str(path) for path in FetcherSettings.from_env(environ).configs]

    runtime = f"/run/containers/{os.getuid()}/auth.json"
    user = ["/u/.config/containers/auth.json", "/u/.dockercfg"]
    assert found(HOME="/u") == ["/u/.docker/config.json", runtime, *user]
    assert found(HOME="/u", XDG_RUNTIME_DIR="/x") == ["/u/.docker/config.json", "/x/containers/auth.json", *user]
    assert found(DOCKER_CONFIG="/d", REGISTRY_AUTH_FILE="/r/auth.json", XDG_RUNTIME_DIR="/x", XDG_CONFIG_HOME="/c") == [
        "/r/auth.json",
        "/d/config.json",
        "/x/containers/auth.json",
        "/c/containers/auth.json",
    ]


@pytest.mark.parametrize("key, value", [("PULLONCE_FETCHES", "0"), ("PULLONCE_PATIENCE", "soon"), ("PULLONCE_SYNC", "7")])
def test_settings_that_cannot_be_used(key: str, value: str) -> None:
    with pytest.raises(SettingInvalid, match=key):
        FetcherSettings.from_env({key: value})


def auth(pair: str) -> dict[str, str]:
    return {"auth": base64.b64encode(pair.encode()).decode()}


@pytest.mark.parametrize(
    "auths, registry, repository, secret",
    [
        ({"https://index.docker.io/v1/": auth("me:pw")}, "docker.io", "library/redis", Secret("me", "pw")),
        ({"docker.io": auth("me:pw")}, "docker.io", "library/redis", Secret("me", "pw")),
        ({"ghcr.io": auth("me:p:w")}, "ghcr.io", "a/b", Secret("me", "p:w")),
        ({"https://ghcr.io/v2/": auth("me:pw")}, "ghcr.io", "a/b", Secret("me", "pw")),
        ({"ghcr.io": auth("me:pw\0\0")}, "ghcr.io", "a/b", Secret("me", "pw")),
        (
            {"ghcr.io": auth("me:1"), "ghcr.io/a": auth("me:2"), "ghcr.io/a/b": auth("me:3")},
            "ghcr.io",
            "a/b",
            Secret("me", "3"),
        ),
        ({"ghcr.io": auth("me:1"), "ghcr.io/a": auth("me:2")}, "ghcr.io", "a/c", Secret("me", "2")),
        ({"ghcr.io": auth("me:1"), "ghcr.io/a": auth("me:2")}, "ghcr.io", "ab/c", Secret("me", "1")),
        ({"ghcr.io": {"username": "me", "password": "pw"}}, "ghcr.io", "a", Secret("me", "pw")),
        ({"ghcr.io": {"identitytoken": "t"}}, "ghcr.io", "a", Secret(identity_token="t")),
        ({"ghcr.io": {"registrytoken": "t"}}, "ghcr.io", "a", Secret(registry_token="t")),
        ({"ghcr.io:443": auth("me:pw")}, "ghcr.io", "a", None),
        ({"ghcr.io": {}}, "ghcr.io", "a", None),
        ({"ghcr.io": {"auth": "!"}}, "ghcr.io", "a", None),
        ({}, "ghcr.io", "a", None),
    ],
)
async def test_find(tmp_path: Path, auths: dict[str, Any], registry: str, repository: str, secret: Secret | None) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"auths": auths}))
    assert await Credentials(tmp_path, (tmp_path / "missing.json", config)).find(registry, repository) == secret


async def test_an_unreadable_file_is_named_and_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "ci.json").write_text('{"auths": {"ghcr.io": {"auth": 12345}}}')
    with pytest.raises(Permanent, match=r"ci\.json cannot be read") as failed:
        await Credentials(tmp_path).find("ghcr.io", "a", "ci")
    assert "12345" not in str(failed.value) and failed.value.__cause__ is None


@pytest.mark.parametrize("helper", ["../evil", "a b", "-x", "/bin/sh"])
async def test_a_helper_is_a_plain_name(tmp_path: Path, helper: str) -> None:
    (tmp_path / "ci.json").write_text(json.dumps({"credsStore": helper}))
    with pytest.raises(Permanent, match="no name of a credential helper"):
        await Credentials(tmp_path).find("ghcr.io", "a", "ci")


def test_a_secret_does_not_print_itself() -> None:
    assert "pw" not in repr(Secret("me", "pw", "pw", "pw"))
