"""What comes with a call of the CRI, and what is answered: tables."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable

import pytest
from grpclib.const import Status

from pullonce.environment import SettingInvalid
from pullonce.errors import BusUnavailable, PullFailed, PullonceError, ReferenceInvalid
from services.gateway.credentials import CredentialNotKept, Login
from services.gateway.cri import front
from services.gateway.cri.logins import AuthInvalid, login_of
from services.gateway.cri.pulls import Tell, refusal
from services.gateway.protocols.images_pb2 import AuthConfig
from services.gateway.settings import GatewaySettings


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


LOGINS: list[tuple[dict[str, str], str, Login | None]] = [
    ({}, "docker.io", None),
    ({"server_address": "docker.io"}, "docker.io", None),
    ({"username": "a", "password": "b"}, "r.example", Login("a", "b")),
    ({"username": "a"}, "r.example", Login("a")),
    ({"username": "a", "password": "b", "auth": encoded("c:d")}, "r.example", Login("a", "b")),
    ({"auth": encoded("c:d:e")}, "r.example", Login("c", "d:e")),
    ({"password": "b"}, "r.example", None),
    ({"auth": encoded(":b")}, "r.example", None),
    ({"auth": encoded("c:d\0\0")}, "r.example", Login("c", "d")),
    ({"auth": f" {encoded('c:d')}\n"}, "r.example", Login("c", "d")),
    ({"identity_token": "i"}, "r.example", Login(identity_token="i")),
    ({"registry_token": "r"}, "r.example", Login(registry_token="r")),
    ({"username": "<token>", "identity_token": "i"}, "r.example", Login("<token>", identity_token="i")),
    ({"username": "a", "server_address": "https://index.docker.io/v1/"}, "docker.io", Login("a")),
    ({"username": "a", "server_address": "registry-1.docker.io"}, "docker.io", Login("a")),
    ({"username": "a", "server_address": "https://R.example:5000/v2/"}, "r.example:5000", Login("a")),
    ({"username": "a", "server_address": "r.example/team"}, "r.example", Login("a")),
    ({"username": "a", "server_address": "r.example"}, "r.example:5000", None),
    ({"username": "a", "server_address": "r.example"}, "docker.io", None),
    ({"username": "a", "server_address": "r.example.evil.example"}, "r.example", None),
    ({"username": "a", "server_address": "https://evil.example/r.example"}, "r.example", None),
]


@pytest.mark.parametrize(("auth", "registry", "login"), LOGINS)
def test_what_is_shown_to_a_registry(auth: dict[str, str], registry: str, login: Login | None) -> None:
    assert login_of(AuthConfig(**auth), registry) == login


@pytest.mark.parametrize("auth", ["???", encoded("open-sesame"), base64.b64encode(b"\xff\xfe:x").decode()])
def test_what_is_no_login_is_refused_and_not_quoted(auth: str) -> None:
    with pytest.raises(AuthInvalid) as refused:
        login_of(AuthConfig(auth=auth), "r.example")
    assert auth not in str(refused.value) and "open-sesame" not in str(refused.value)


def failed(code: str) -> PullFailed:
    return PullFailed("why", code=code)


REFUSALS: list[tuple[PullonceError, Status, str]] = [
    (failed("MANIFEST_UNKNOWN"), Status.NOT_FOUND, "r/x:1 cannot be pulled: why (MANIFEST_UNKNOWN)"),
    (failed("NAME_UNKNOWN"), Status.NOT_FOUND, "r/x:1 cannot be pulled: why (NAME_UNKNOWN)"),
    (failed("platform.unavailable"), Status.NOT_FOUND, "r/x:1 cannot be pulled: why (platform.unavailable)"),
    (failed("UNAUTHORIZED"), Status.UNAUTHENTICATED, "r/x:1 cannot be pulled: why (UNAUTHORIZED)"),
    (failed("credential.unknown"), Status.UNAUTHENTICATED, "r/x:1 cannot be pulled: why (credential.unknown)"),
    (failed("DENIED"), Status.PERMISSION_DENIED, "r/x:1 cannot be pulled: why (DENIED)"),
    (failed("TOOMANYREQUESTS"), Status.RESOURCE_EXHAUSTED, "r/x:1 cannot be pulled: why (TOOMANYREQUESTS)"),
    (failed("disk.full"), Status.RESOURCE_EXHAUSTED, "r/x:1 cannot be pulled: why (disk.full)"),
    (failed("registry.unavailable"), Status.UNKNOWN, "RegistryUnavailable: r/x:1 cannot be pulled: why (registry.unavailable)"),
    (failed("layer.invalid"), Status.UNKNOWN, "r/x:1 cannot be pulled: why (layer.invalid)"),
    (ReferenceInvalid("no"), Status.INVALID_ARGUMENT, "no"),
    (AuthInvalid("no"), Status.INVALID_ARGUMENT, "no"),
    (BusUnavailable("away"), Status.UNAVAILABLE, "pullonce: away"),
    (CredentialNotKept("disk"), Status.UNAVAILABLE, "pullonce: disk"),
]


@pytest.mark.parametrize(("error", "status", "message"), REFUSALS)
def test_what_a_failed_pull_is_for_kubelet(error: PullonceError, status: Status, message: str) -> None:
    assert refusal("r/x:1", error) == (status, message)


async def test_a_pull_without_hope_is_given_up_and_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bus went away in the middle of it; or it is there, and nothing is heard."""
    left: list[str] = []

    def pulling(name: str) -> Callable[[Tell], Awaitable[str]]:
        async def pull(tell: Tell) -> str:
            tell("begun")
            try:
                await asyncio.Event().wait()
            finally:
                left.append(name)
            return ""

        return pull

    monkeypatch.setattr(front, "AWAY", 0.0)
    with pytest.raises(front.GaveUp, match="the bus went away"):
        await front.attend(pulling("away"), lambda: False)
    monkeypatch.setattr(front, "SILENT", 0.0)
    with pytest.raises(front.GaveUp, match="nothing was heard"):
        await front.attend(pulling("silent"), lambda: True)
    assert left == ["away", "silent"]


async def test_a_pull_that_fails_fails_as_it_is_and_who_leaves_takes_it_along() -> None:
    left = asyncio.Event()

    async def fails(tell: Tell) -> str:
        raise failed("DENIED")

    async def waits(tell: Tell) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        return ""

    with pytest.raises(PullFailed):
        await front.attend(fails, lambda: True)
    task = asyncio.create_task(front.attend(waits, lambda: True))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert left.is_set()


SOCKETS: list[tuple[dict[str, str], str | None, str | None]] = [
    ({}, "/h/run/cri.sock", None),
    ({"PULLONCE_STORE": "other"}, "/h/run/other-cri.sock", None),
    ({"PULLONCE_HOME": "/var/lib/pullonce"}, "/run/pullonce/cri.sock", None),
    ({"PULLONCE_GATEWAY_CRI": "off", "PULLONCE_GATEWAY_CRI_BEHIND": "/c.sock"}, None, "/c.sock"),
    ({"PULLONCE_GATEWAY_CRI": "unix:///x.sock", "PULLONCE_GATEWAY_CRI_BEHIND": "unix:///c.sock"}, "/x.sock", "/c.sock"),
]


@pytest.mark.parametrize(("environ", "listens", "behind"), SOCKETS)
def test_where_it_listens_and_what_is_behind(environ: dict[str, str], listens: str | None, behind: str | None) -> None:
    settings = GatewaySettings.from_env({"PULLONCE_HOME": "/h", **environ})
    assert [path and str(path) for path in (settings.cri, settings.cri_behind)] == [listens, behind]


@pytest.mark.parametrize("behind", ["containerd.sock", "/h/run/cri.sock", "tcp://127.0.0.1:1"])
def test_what_cannot_be_behind(behind: str) -> None:
    with pytest.raises(SettingInvalid, match="PULLONCE_GATEWAY_CRI_BEHIND is"):
        GatewaySettings.from_env({"PULLONCE_HOME": "/h", "PULLONCE_GATEWAY_CRI_BEHIND": behind})
