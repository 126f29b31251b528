"""Mirrors by `hosts.toml`: who is asked for what, who is asked next, and what nobody else is told."""

from __future__ import annotations

import base64
import http.client
import json
import logging
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from pullonce.errors import Permanent, Retryable
from schemas.oci import Digest
from services.fetcher.servers.hosts import Host
from services.fetcher.servers.mirrors import Mirrors
from tests.integration.fetcher.conftest import SETTINGS, Opened
from tests.support.faulty import FaultyRegistry, answers, breaks_after, sends, streams
from tests.support.images import Image, image, layer, tar_of
from tests.support.nats_server import free_port
from tests.support.registry import RegistryServer

PASSWORD = "open-sesame"
HTPASSWD = "ali:$2y$05$abcdefghijklmnopqrstuutXu9KzOt.1yBoZUeFWoT/914/JfszCO"
BASIC = "Basic " + base64.b64encode(f"ali:{PASSWORD}".encode()).decode()


def an_image(mark: str = "") -> Image:
    return image([layer(tar_of({"file": f"{mark}{number}".encode() * 50_000})) for number in range(3)])


IMAGE = an_image()


class HostsDir:
    """The directory of the settings, and what it says of one registry."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings = replace(SETTINGS, hosts=path)

    def say(self, registry: str, *mirrors: str, head: str = "", capabilities: str = '["pull"]', more: str = "") -> Path:
        """Mirrors with these capabilities, in this order; `more` belongs to the last one."""
        host, _, port = registry.partition(":")
        file = self.path / f"{host}_{port}_" / "hosts.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        tables = (f'[host."{each}"]\ncapabilities = {capabilities}\n' for each in mirrors)
        file.write_text(f"{head}\n{''.join(tables)}{more}\n")
        return file


@pytest.fixture
def hosts(tmp_path: Path) -> HostsDir:
    return HostsDir(tmp_path / "hosts")


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[RegistryServer]:
    server = RegistryServer(tmp_path / "mirror").start()
    yield server
    server.stop()


def paths(server: RegistryServer, method: str = "GET") -> list[str]:
    return [request.path for request in server.requests() if request.method == method]


def remove_blob(server: RegistryServer, repository: str, digest: str) -> None:
    connection = http.client.HTTPConnection(server.host, timeout=10)
    connection.request("DELETE", f"/v2/{repository}/blobs/{digest}")
    assert connection.getresponse().status == 202
    connection.close()
    server.forget()


async def test_a_mirror_serves_what_it_has_and_is_told_for_whom(
    fetcher: Opened, hosts: HostsDir, registry: RegistryServer, mirror: RegistryServer
) -> None:
    reference = registry.push("some/app", "1", IMAGE)
    mirror.push("some/app", "1", IMAGE)
    hosts.say(registry.host, f"http://{mirror.host}")
    async with fetcher(settings=hosts.settings) as f:
        resolved = await f.pull(reference)
    assert resolved.source.registry == registry.host, "events name the registry that the reference names"
    assert registry.counts() == {"HEAD manifests": 1}, "what a tag is, only the registry itself may say"
    assert mirror.counts() == {"GET manifests": 1, "GET blobs": 4}
    assert all(path.endswith(f"?ns={registry.host}") for path in paths(mirror))


async def test_what_a_mirror_lacks_comes_from_the_registry(
    fetcher: Opened, hosts: HostsDir, registry: RegistryServer, mirror: RegistryServer
) -> None:
    reference = registry.push("some/app", "1", IMAGE)
    mirror.push("some/app", "1", IMAGE)
    lacking = IMAGE.layers[1]
    remove_blob(mirror, "some/app", lacking)
    hosts.say(registry.host, f"http://{mirror.host}")
    async with fetcher(settings=hosts.settings) as f:
        await f.pull(reference)
    assert paths(registry) == [f"/v2/some/app/blobs/{lacking}"]
    assert mirror.counts() == {"GET manifests": 1, "GET blobs": 4}


async def test_mirrors_are_asked_in_their_order(
    fetcher: Opened, hosts: HostsDir, registry: RegistryServer, mirror: RegistryServer
) -> None:
    """The first one lacks everything, the second one all but the config; by digest, so the registry is asked for that alone."""
    registry.push("some/app", "1", IMAGE)
    mirror.push("some/app", "1", IMAGE)
    config = next(digest for digest in IMAGE.blobs if digest not in IMAGE.layers)
    remove_blob(mirror, "some/app", config)
    async with FaultyRegistry(an_image("other")) as empty, fetcher(settings=hosts.settings) as f:
        hosts.say(registry.host, f"http://{empty.host}", f"http://{mirror.host}")
        await f.pull(f"{registry.host}/some/app@{IMAGE.digest}")
        assert len(empty.seen) == 5
    assert mirror.counts() == {"GET manifests": 1, "GET blobs": 4}
    assert registry.counts() == {"GET blobs": 1}


async def test_a_dead_mirror_is_missed_once(
    fetcher: Opened, hosts: HostsDir, registry: RegistryServer, caplog: pytest.LogCaptureFixture
) -> None:
    reference = registry.push("some/app", "1", IMAGE)
    dead = f"http://127.0.0.1:{free_port()}"
    hosts.say(registry.host, dead, capabilities='["pull", "resolve"]')
    async with fetcher(settings=hosts.settings) as f:
        with caplog.at_level(logging.WARNING):
            await f.pull(reference)
    assert registry.counts() == {"HEAD manifests": 1, "GET manifests": 1, "GET blobs": 4}
    said = [record.getMessage() for record in caplog.records if dead in record.getMessage()]
    assert len(said) == 1 and f"the mirror {dead} is left out for 30 s" in said[0]


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
async def test_a_mirror_that_refuses_is_passed_over(
    fetcher: Opened, hosts: HostsDir, registry: RegistryServer, status: int
) -> None:
    reference = registry.push("some/app", "1", IMAGE)
    async with FaultyRegistry(IMAGE) as refusing, fetcher(settings=hosts.settings) as f:
        refusing.plan("", answers(status), times=100)
        hosts.say(registry.host, f"http://{refusing.host}", capabilities='["pull", "resolve"]')
        await f.pull(reference)
        assert len(refusing.asked("GET")) == 5
    assert registry.counts() == {"HEAD manifests": 1, "GET manifests": 1, "GET blobs": 4}


async def test_a_mirror_that_breaks_off_is_followed_by_the_registry_from_where_it_stopped(
    fetcher: Opened, hosts: HostsDir, registry: RegistryServer
) -> None:
    reference = registry.push("some/app", "1", IMAGE)
    async with FaultyRegistry(IMAGE) as breaking, fetcher(settings=hosts.settings) as f:
        hosts.say(registry.host, f"http://{breaking.host}")
        resolved = await f.resolve(reference)
        blob = resolved.layers[0].blob
        breaking.plan(blob.digest, breaks_after(100))
        breaking.plan(blob.digest, breaks_after(0))
        registry.forget()
        await f.fetch(resolved, blob)
        assert [each.headers.get("Range") for each in breaking.asked(blob.digest)] == [None, "bytes=100-"]
    assert [(each.method, each.status) for each in registry.requests()] == [("GET", 206)]


@pytest.mark.parametrize(
    ("lie", "asked"), [(sends(b"x" * 10), 1), (streams(b"x" * 10), 2), (streams(b"x" * 10_000_000), 1), (None, 1)]
)
async def test_a_layer_that_a_mirror_made_up_is_fetched_from_the_registry(
    fetcher: Opened, hosts: HostsDir, registry: RegistryServer, lie: object, asked: int
) -> None:
    """A length that is told shows at once. What else is wrong shows when it is stored, even if the registry sent the rest:
    then all of it is asked for anew, of the registry alone."""
    reference = registry.push("some/app", "1", IMAGE)
    async with FaultyRegistry(IMAGE) as lying, fetcher(settings=hosts.settings) as f:
        hosts.say(registry.host, f"http://{lying.host}")
        resolved = await f.resolve(reference)
        blob = resolved.layers[0].blob
        lying.plan(blob.digest, lie or sends(b"x" * blob.size), times=100)  # type: ignore[arg-type]
        registry.forget()
        await f.fetch(resolved, blob)
        assert f.content.has(Digest(blob.digest)) and f.content.read(Digest(blob.digest), 1 << 20) == IMAGE.blobs[blob.digest]
    assert registry.counts() == {"GET blobs": asked}


async def test_documents_that_a_mirror_made_up_are_fetched_from_the_registry(
    fetcher: Opened, hosts: HostsDir, registry: RegistryServer
) -> None:
    reference = registry.push("some/app", "1", IMAGE)
    config = next(digest for digest in IMAGE.blobs if digest not in IMAGE.layers)
    async with FaultyRegistry(IMAGE) as lying, fetcher(settings=hosts.settings) as f:
        hosts.say(registry.host, f"http://{lying.host}")
        lying.plan("HEAD", answers(405), times=100)
        lying.plan("GET /v2/some/app/manifests", sends(b"{}"), times=100)
        lying.plan(config, sends(b"x" * len(IMAGE.blobs[config])), times=100)
        assert (await f.resolve(reference)).digest == IMAGE.digest
    assert registry.counts() == {"HEAD manifests": 1, "GET manifests": 1, "GET blobs": 1}


async def test_a_registry_that_lies_itself_fails_for_good(fetcher: Opened, hosts: HostsDir, mirror: RegistryServer) -> None:
    async with FaultyRegistry(IMAGE) as lying, fetcher(settings=hosts.settings) as f:
        hosts.say(lying.host, f"http://{mirror.host}")  # which has nothing at all
        resolved = await f.resolve(lying.reference)
        blob = resolved.layers[0].blob
        lying.plan(blob.digest, sends(b"x" * blob.size), times=100)
        with pytest.raises(Permanent) as failed:
            await f.fetch(resolved, blob)
        assert failed.value.code == "digest.mismatch"


@pytest.mark.parametrize("may", [True, False])
async def test_only_who_may_resolve_says_what_a_tag_is(
    fetcher: Opened, hosts: HostsDir, registry: RegistryServer, mirror: RegistryServer, may: bool
) -> None:
    older = an_image("older")
    reference = registry.push("some/app", "1", IMAGE)
    mirror.push("some/app", "1", older)
    hosts.say(registry.host, f"http://{mirror.host}", capabilities='["pull", "resolve"]' if may else '["pull"]')
    async with fetcher(settings=hosts.settings) as f:
        assert (await f.resolve(reference)).digest == (older if may else IMAGE).digest


async def test_a_mirror_alone_is_enough_while_the_registry_is_down(
    fetcher: Opened, hosts: HostsDir, mirror: RegistryServer
) -> None:
    mirror.push("some/app", "1", IMAGE)
    gone = f"127.0.0.1:{free_port()}"
    hosts.say(gone, f"http://{mirror.host}", capabilities='["pull", "resolve"]')
    async with fetcher(settings=hosts.settings) as f:
        assert (await f.pull(f"{gone}/some/app:1")).digest == IMAGE.digest
        with pytest.raises(Retryable) as failed:
            await f.resolve(f"{gone}/some/app:2")
    assert gone in str(failed.value) and failed.value.code == "registry.unavailable"


async def test_all_that_were_asked_are_named_when_none_has_it(
    fetcher: Opened, hosts: HostsDir, registry: RegistryServer, mirror: RegistryServer
) -> None:
    hosts.say(registry.host, f"http://{mirror.host}", capabilities='["pull", "resolve"]')
    async with fetcher(settings=hosts.settings) as f:
        with pytest.raises(Permanent, match=f"404.*asked before it: http://{mirror.host} .*404") as failed:
            await f.resolve(f"{registry.host}/some/app:1")
    assert failed.value.code == "MANIFEST_UNKNOWN"


async def test_the_server_stands_for_the_registry(fetcher: Opened, hosts: HostsDir, mirror: RegistryServer) -> None:
    mirror.push("some/app", "1", IMAGE)
    elsewhere = "registry.example:443"
    hosts.say(elsewhere, head=f'server = "http://{mirror.host}"')
    async with fetcher(settings=hosts.settings) as f:
        resolved = await f.pull(f"{elsewhere}/some/app:1")
    assert resolved.source.registry == elsewhere
    assert all(request.path.endswith(f"?ns={elsewhere}") for request in mirror.requests())


@pytest.mark.parametrize("named", [True, False])
async def test_a_password_is_shown_to_nobody_but_the_host_it_is_for(
    fetcher: Opened, hosts: HostsDir, tmp_path: Path, named: bool
) -> None:
    """The mirror asks for a password as the registry does, and gets none; then it gets its own."""
    registry = RegistryServer(tmp_path / "guarded", htpasswd=HTPASSWD).start()

    async def ask(request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization", "").startswith("Basic bWlycm9y"):
            return None
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="mirror"'})

    login = tmp_path / ("credentials/team.json" if named else "config.json")
    login.parent.mkdir(exist_ok=True)
    logins = {registry.host: {"username": "ali", "password": PASSWORD}}
    login.write_text(json.dumps({"auths": logins}))
    try:
        async with FaultyRegistry(IMAGE) as mirror, fetcher(settings=hosts.settings, configs=(login,)) as f:
            mirror.guard = ask
            hosts.say(registry.host, f"http://{mirror.host}", capabilities='["pull", "resolve"]')
            credential = {"credential": "team"} if named else {}
            with pytest.raises(Permanent) as failed:
                await f.resolve(f"{registry.host}/some/app:1", **credential)
            assert failed.value.code == "MANIFEST_UNKNOWN", "the registry itself was asked, with its password"
            assert {each.headers.get("Authorization") for each in mirror.seen} == {None}

            login.write_text(json.dumps({"auths": logins | {mirror.host: {"username": "mirror", "password": "x"}}}))
            await f.pull(f"{registry.host}/some/app:1", **credential)
            assert mirror.seen[-1].headers["Authorization"].startswith("Basic bWlycm9y")
            assert BASIC not in {each.headers.get("Authorization") for each in mirror.seen}
    finally:
        registry.stop()


async def test_tokens_of_a_mirror_stay_with_it(fetcher: Opened, hosts: HostsDir, registry: RegistryServer) -> None:
    """Both are asked for the same repository; the registry must not see what the mirror's token server gave."""
    async with FaultyRegistry(IMAGE) as mirror, FaultyRegistry(IMAGE) as origin, fetcher(settings=hosts.settings) as f:

        async def guard(request: web.Request) -> web.Response | None:
            if request.path == "/token":
                return web.json_response({"token": "of-the-mirror"})
            if request.headers.get("Authorization") == "Bearer of-the-mirror":
                return None
            challenge = f'Bearer realm="http://{mirror.host}/token",scope="repository:app:pull"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})

        mirror.guard = guard
        hosts.say(origin.host, f"http://{mirror.host}")
        mirror.plan(IMAGE.layers[0], answers(404))
        await f.pull(origin.reference)
        assert len(mirror.asked("/token")) == 1 and len(origin.asked("blobs")) == 1
        assert {each.headers.get("Authorization") for each in origin.seen} == {None}


async def test_headers_of_a_host_go_to_that_host_alone(fetcher: Opened, hosts: HostsDir) -> None:
    async with FaultyRegistry(IMAGE) as storage, FaultyRegistry(IMAGE) as mirror, FaultyRegistry(IMAGE) as origin:
        async with fetcher(settings=hosts.settings) as f:
            table = f'[host."http://{mirror.host}".header]\nx-team = "build"\nauthorization = "Bearer by-hand"'
            hosts.say(origin.host, f"http://{mirror.host}", more=table)
            location = {"Location": f"http://{storage.host}/v2/app/blobs/{IMAGE.layers[0]}"}
            mirror.plan(IMAGE.layers[0], answers(307, headers=location))
            mirror.plan(IMAGE.layers[1], answers(404))
            await f.pull(origin.reference)
        assert {(each.headers["X-Team"], each.headers["Authorization"]) for each in mirror.seen} == {
            ("build", "Bearer by-hand")
        }
        assert len(storage.seen) == 1 and len(origin.asked("blobs")) == 1
        for each in (*storage.seen, *origin.seen):
            assert "X-Team" not in each.headers and "Authorization" not in each.headers


async def test_a_file_is_read_anew_when_it_changes_and_named_when_it_is_wrong(
    fetcher: Opened, hosts: HostsDir, registry: RegistryServer, mirror: RegistryServer
) -> None:
    reference = registry.push("some/app", "1", IMAGE)
    mirror.push("some/app", "1", IMAGE)
    async with fetcher(settings=hosts.settings) as f:
        await f.resolve(reference)
        file = hosts.say(registry.host, f"http://{mirror.host}", capabilities='["pul"]')
        with pytest.raises(Permanent, match=f"{file} cannot be used: .* has the capability 'pul'") as failed:
            await f.resolve(reference)
        assert failed.value.code == "hosts.invalid"
        hosts.say(registry.host, f"http://{mirror.host}")
        await f.pull(reference)
        hosts.say(registry.host, head='capabilities = ["pull"]')
        with pytest.raises(Permanent, match=r"no server .* has the capability 'resolve'"):
            await f.resolve(reference)
    assert mirror.counts() == {"GET blobs": 3}


async def test_the_default_directory_is_for_all_others(
    fetcher: Opened, hosts: HostsDir, registry: RegistryServer, mirror: RegistryServer
) -> None:
    reference = registry.push("some/app", "1", IMAGE)
    mirror.push("some/app", "1", IMAGE)
    (hosts.path / "_default").mkdir(parents=True)
    (hosts.path / "_default" / "hosts.toml").write_text(f'[host."http://{mirror.host}"]\ncapabilities = ["pull"]\n')
    async with fetcher(settings=hosts.settings) as f:
        await f.pull(reference)
    assert (registry.counts(), mirror.counts()["GET blobs"]) == ({"HEAD manifests": 1}, 4)


# -- TLS -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def certified(tmp_path: Path) -> Path:
    """A directory with an authority (`ca.pem`), and a certificate of it for this machine (`own.pem` with `own.key`)."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=tmp_path, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2")
    openssl("req", *key, "-subj", "/CN=own", "-keyout", "own.key", "-out", "own.csr")
    (tmp_path / "own.ext").write_text("subjectAltName=IP:127.0.0.1\n")
    by = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "own.ext")
    openssl("x509", "-req", "-in", "own.csr", "-out", "own.pem", *by)
    return tmp_path


def server_context(directory: Path, *, wants_ours: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "own.pem", directory / "own.key")
    if wants_ours:
        context.load_verify_locations(directory / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.mark.parametrize(
    ("more", "wants_ours", "served"),
    [
        ('ca = "{}/ca.pem"', False, True),
        ("skip_verify = true", False, True),
        ("", False, False),
        ('ca = "{}/ca.pem"', True, False),
        ('ca = "{}/ca.pem"\nclient = [["{}/own.pem", "{}/own.key"]]', True, True),
        ('ca = "{}/missing.pem"', False, False),
    ],
)
async def test_a_mirror_is_trusted_as_the_file_says(
    fetcher: Opened, hosts: HostsDir, registry: RegistryServer, certified: Path, more: str, wants_ours: bool, served: bool
) -> None:
    reference = registry.push("some/app", "1", IMAGE)
    async with FaultyRegistry(IMAGE, tls=server_context(certified, wants_ours=wants_ours)) as mirror:
        hosts.say(registry.host, f"https://{mirror.host}", more=more.replace("{}", str(certified)))
        async with fetcher(settings=hosts.settings) as f:
            await f.pull(reference)
        assert len(mirror.asked("blobs")) == (4 if served else 0)
    assert registry.counts()["GET blobs"] == (0 if served else 4)


async def test_what_stands_above_all_hosts_is_for_the_server(fetcher: Opened, hosts: HostsDir, certified: Path) -> None:
    ours = f'[["{certified}/own.pem", "{certified}/own.key"]]'
    async with FaultyRegistry(IMAGE, tls=server_context(certified, wants_ours=True)) as registry:
        hosts.say(registry.host, head=f'server = "https://{registry.host}"\nca = "{certified}/ca.pem"\nclient = {ours}')
        async with fetcher(settings=hosts.settings) as f:
            assert (await f.pull(registry.reference)).digest == IMAGE.digest
        assert "ns=" not in str(registry.seen[0].url)


def test_certificates_may_lie_as_docker_keeps_them(hosts: HostsDir, certified: Path) -> None:
    there = hosts.path / "registry.example:5000"
    there.mkdir(parents=True)
    for name, kept in (("ca.pem", "ca.crt"), ("own.pem", "client.cert"), ("own.key", "client.key")):
        (there / kept).write_bytes((certified / name).read_bytes())
    mirrors = Mirrors(hosts.path, lambda _: False)
    (server,) = mirrors.of("registry.example:5000")
    assert (server.ca, server.client) == ((f"{there}/ca.crt",), ((f"{there}/client.cert", f"{there}/client.key"),))
    assert mirrors.of("other.example") == (Host("https://other.example"),)
    context, elsewhere = mirrors.context(server), mirrors.context(server, elsewhere=True)
    assert context and elsewhere and context is mirrors.context(server)
    assert context.get_ca_certs()[-1]["subject"] == ((("commonName", "authority"),),)
    (there / "client.key").write_text("nonsense")
    with pytest.raises(Permanent, match=rf"certificates of https://registry.example:5000 cannot be used .*{there}/client.key"):
        mirrors.context(server)
