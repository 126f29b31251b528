"""Who pulls through this machine without being its user: what `hosts.toml` lets the machine show opens nothing for them."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from aiohttp import web

from pullonce.errors import Permanent
from pullonce.store.proofs import ANYBODY, Proofs
from schemas.registry import ANONYMOUS
from services.gateway.credentials import Credentials, Login
from tests.integration.fetcher.conftest import SETTINGS, Fetcher, Opened
from tests.support.faulty import FaultyRegistry
from tests.support.images import image, layer, tar_of

IMAGE = image([layer(tar_of({"file": b"content" * 1000}))])
SHOWN = {"authorization": "Bearer by-hand", "cookie": "session=by-hand", "x-api-key": "by-hand"}


@dataclass
class Opening:
    """A registry that gives what it has to whoever shows one header."""

    name: str

    async def __call__(self, request: web.Request) -> web.Response | None:
        if request.headers.get(self.name) == SHOWN[self.name]:
            return None
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="here"'})


def say(tmp_path: Path, registry: str, more: str) -> Path:
    host, _, port = registry.partition(":")
    file = tmp_path / "hosts" / f"{host}_{port}_" / "hosts.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f'server = "http://{registry}"\n{more}\n')
    return tmp_path / "hosts"


def strangers(f: Fetcher, registry: str) -> list[str]:
    return [ANONYMOUS, Credentials(f.content.root).keep(registry, Login("eve", "made-up"))]


@pytest.mark.parametrize("name", SHOWN)
async def test_a_header_of_this_machine_opens_nothing_for_others(fetcher: Opened, tmp_path: Path, name: str) -> None:
    async with FaultyRegistry(IMAGE, guard=Opening(name)) as registry:
        hosts = say(tmp_path, registry.host, f'[header]\n{name} = "{SHOWN[name]}"')
        async with fetcher(settings=replace(SETTINGS, hosts=hosts)) as f:
            await f.pull(registry.reference)
            proofs = Proofs(f.content.root)
            assert not proofs.proved(f"{registry.host}/app", ANYBODY), "what a header opens is not public"
            before = len(registry.seen)
            for credential in strangers(f, registry.host):
                for policy in ("always", "if-not-present"):
                    with pytest.raises(Permanent) as failed:
                        await f.resolve(registry.reference, credential=credential, policy=policy)
                    assert failed.value.code == "UNAUTHORIZED"
            assert all("by-hand" not in str(each.headers) for each in registry.seen[before:])
            await f.resolve(registry.reference, policy="if-not-present")


async def test_headers_that_nothing_needs_keep_nobody_out(fetcher: Opened, tmp_path: Path) -> None:
    async with FaultyRegistry(IMAGE) as registry:
        hosts = say(tmp_path, registry.host, '[header]\nx-team = "build"')
        async with fetcher(settings=replace(SETTINGS, hosts=hosts)) as f:
            for credential in strangers(f, registry.host):
                await f.pull(registry.reference, credential=credential)
            assert not any("X-Team" in each.headers for each in registry.seen)


async def test_a_certificate_of_this_machine_is_shown_for_nobody_else(fetcher: Opened, tmp_path: Path) -> None:
    async with FaultyRegistry(IMAGE) as registry:
        hosts = say(tmp_path, registry.host, f'client = [["{tmp_path}/own.pem", "{tmp_path}/own.key"]]')
        async with fetcher(settings=replace(SETTINGS, hosts=hosts)) as f:
            for credential in strangers(f, registry.host):
                with pytest.raises(Permanent, match="certificate of this machine") as failed:
                    await f.resolve(registry.reference, credential=credential)
                assert failed.value.code == "UNAUTHORIZED"
        assert registry.seen == []


def test_what_an_older_version_took_for_public_is_asked_again(tmp_path: Path) -> None:
    proofs = Proofs(tmp_path)
    proofs.prove("r/public", ANYBODY)
    proofs.prove("r/public", "whom")
    proofs.give_to_all("r/imported", "sha256:" + "0" * 64)
    proofs.close()
    with sqlite3.connect(tmp_path / "access.sqlite") as file:
        file.execute("PRAGMA user_version = 0")
    file.close()
    again = Proofs(tmp_path)
    assert not again.proved("r/public", ANYBODY) and again.proved("r/public", "whom")
    assert again.proved("r/imported", ANYBODY, "sha256:" + "0" * 64)
    again.prove("r/public", ANYBODY)
    again.close()
    assert Proofs(tmp_path).proved("r/public", ANYBODY)
