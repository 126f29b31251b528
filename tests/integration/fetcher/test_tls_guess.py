"""Registries on this machine that turn out to speak TLS, as docker finds out: nobody has to say so."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pullonce.errors import Permanent, Retryable
from services.fetcher.settings import RegistrySettings
from tests.integration.fetcher.conftest import Opened
from tests.support.faulty import FaultyRegistry, answers
from tests.support.images import image, layer, tar_of

IMAGE = image([layer(tar_of({"a": b"b" * 1000}))])
GO = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
"""What a Go server answers on such a port."""
NGINX = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n"
    b"<html><center>The plain HTTP request was sent to HTTPS port</center></html>"
)
ALERT = bytes((0x15, 3, 1, 0, 2, 2, 70))
"""A TLS alert, `protocol_version`."""


@asynccontextmanager
async def door(registry: FaultyRegistry, says: bytes) -> AsyncIterator[str]:
    """A port that hands TLS on to a registry, and answers anything else by these bytes."""
    port = int(registry.host.rpartition(":")[2])

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(65536)
        if not first.startswith(b"\x16"):
            writer.write(says)
            writer.close()
            return
        inward, outward = await asyncio.open_connection("127.0.0.1", port)
        outward.write(first)
        await asyncio.gather(_pipe(reader, outward), _pipe(inward, writer))

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@pytest.mark.parametrize("says", [GO, NGINX, ALERT, b""], ids=["Go", "nginx", "alert", "closes"])
async def test_a_server_that_answers_as_those_of_tls_do_is_spoken_to_by_tls(
    fetcher: Opened, own: ssl.SSLContext, says: bytes
) -> None:
    async with FaultyRegistry(IMAGE, tls=own) as registry, door(registry, says) as host, fetcher() as f:
        resolved = await f.pull(f"{host}/app:1")
        assert resolved.digest == IMAGE.digest
        assert all(request.secure for request in registry.seen)


async def test_a_server_of_plain_http_that_breaks_off_is_not_taken_for_one_of_tls(fetcher: Opened) -> None:
    async with FaultyRegistry(IMAGE) as registry, fetcher() as f:

        async def cut(request: object, content: bytes) -> None:
            request.transport.close()  # type: ignore[attr-defined]

        registry.plan("manifests", cut, times=100)
        with pytest.raises(Retryable) as failed:
            await f.resolve(registry.reference)
        assert "disconnected" in str(failed.value).lower() and "https" not in str(failed.value)


@pytest.mark.parametrize("closes", [False, True], ids=["answers", "closes"])
async def test_a_server_that_speaks_tls_no_more_is_spoken_to_without(
    fetcher: Opened, own: ssl.SSLContext, closes: bool
) -> None:
    """Another one is behind the same port: the first was remembered as one of TLS."""
    async with FaultyRegistry(IMAGE, tls=own) as first, FaultyRegistry(IMAGE) as second, fetcher() as f:
        now = first

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            said = await reader.read(65536)
            tls = said.startswith(b"\x16")
            if (now is first) != tls and (closes or now is first):
                writer.close()
                return
            inward, outward = await asyncio.open_connection("127.0.0.1", int(now.host.rpartition(":")[2]))
            outward.write(said)
            await asyncio.gather(_pipe(reader, outward), _pipe(inward, writer))

        server = await asyncio.start_server(take, "127.0.0.1", 0)
        host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await f.resolve(f"{host}/app:1")
        assert first.seen and f.registry._requests._speak_tls.get(f"http://{host}")
        await first.__aexit__()
        now = second
        assert (await f.pull(f"{host}/app:1")).digest == IMAGE.digest
        assert second.seen and not f.registry._requests._speak_tls.get(f"http://{host}")
        server.close()


async def test_a_400_that_says_why_stays_what_it_is(fetcher: Opened) -> None:
    async with FaultyRegistry(IMAGE) as registry, fetcher() as f:
        registry.plan("manifests", answers(400, "NAME_INVALID", "no such project"), times=100)
        with pytest.raises(Permanent, match="no such project") as failed:
            await f.resolve(registry.reference)
        assert failed.value.code == "NAME_INVALID"


async def test_a_proxy_is_asked_for_what_lies_beyond_it(fetcher: Opened) -> None:
    """`HTTP_PROXY` without a scheme; the registry's name is one that only the proxy knows."""
    from services.fetcher.servers.proxies import Proxies

    async with FaultyRegistry(IMAGE) as proxy:
        settings = RegistrySettings(
            patience=5.0,
            insecure=frozenset(("registry.invalid:5000",)),
            proxies=Proxies.from_env({"HTTP_PROXY": proxy.host, "NO_PROXY": "10.0.0.0/8,other.invalid:5000"}),
        )
        async with fetcher(settings=settings) as f:
            resolved = await f.pull("registry.invalid:5000/app:1")
        assert resolved.digest == IMAGE.digest
        assert {request.headers["Host"] for request in proxy.seen} == {"registry.invalid:5000"}
