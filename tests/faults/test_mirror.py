"""What goes wrong around the mirror: it dies, its bus is away, registries lie and break, clients are hostile."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from pullonce.oci.digest import digest_bytes
from tests.integration.gateway.mirror_door import MirrorDoor, ask
from tests.support.faulty import Fault, FaultyRegistry, answers, breaks_after, held_until, sends
from tests.support.gateway import GatewayProcess
from tests.support.images import Image, image, layer, tar_of
from tests.support.nats_server import free_port
from tests.support.registry import RegistryServer

MIB = 1 << 20
RETRY = "0"


@pytest.fixture(scope="module")
def door(registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MirrorDoor]:
    with MirrorDoor(tmp_path_factory.mktemp("home"), registry, PULLONCE_RETRY=RETRY) as made:
        yield made
        gateway = [line for line in made.told().splitlines() if '"service": "gateway"' in line]
        assert not [line for line in gateway if '"traceback"' in line], "nothing of this is a defect"


def large(size: int = 6 * MIB) -> tuple[Image, str, bytes]:
    """An image of one layer that does not compress: itself, the layer's digest and content."""
    made = image([layer(tar_of({"file": os.urandom(size)}), "plain")])
    (digest,) = made.layers
    return made, digest, made.blobs[digest]


class Reader:
    """A client that reads a blob of a registry through the mirror bit by bit."""

    def __init__(self, door: MirrorDoor, host: str, digest: str, start: int = 0) -> None:
        self._connection = http.client.HTTPConnection(door.host, timeout=60)
        headers = {"Range": f"bytes={start}-"} if start else {}
        self._connection.request("GET", f"/v2/app/blobs/{digest}?ns={host}", headers=headers)
        self.response = self._connection.getresponse()
        self.status = self.response.status

    def read(self, size: int) -> bytes:
        """So many bytes, or as many as came before it broke off."""
        got = b""
        with contextlib.suppress(ConnectionError, http.client.IncompleteRead):
            while len(got) < size and (part := self.response.read1(min(MIB, size - len(got)))):
                got += part
        return got

    def close(self) -> None:
        self._connection.close()


def whole(door: MirrorDoor, host: str, digest: str) -> bytes:
    """A blob, by a client that comes back for what is missing as containerd does, and begins anew with what is wrong."""
    got = b""
    for _ in range(200):
        try:
            reader = Reader(door, host, digest, len(got))
        except (OSError, http.client.HTTPException):
            continue
        if reader.status in (200, 206):
            got = (got if reader.status == 206 else b"") + reader.read(1 << 30)
        reader.close()
        length = reader.response.length
        if not length and digest_bytes(got) == digest:
            return got
        if not length and reader.status in (200, 206, 416):
            got = b""
    raise AssertionError(f"never whole: {len(got)} bytes\n{door.told()[-3000:]}")


def pauses_after(count: int, release: asyncio.Event) -> Fault:
    """Send `count` bytes, and the rest once released."""

    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(content))})
        await response.prepare(request)
        await response.write(content[:count])
        await release.wait()
        await response.write(content[count:])
        return response

    return fault


async def resolved(door: MirrorDoor, host: str) -> None:
    answer = await asyncio.to_thread(door.ask, f"/v2/app/manifests/1?ns={host}")
    assert answer.status == 200, answer.body


async def test_a_tag_is_what_the_registry_says_now(door: MirrorDoor) -> None:
    """Moved, deleted, refused: what an earlier pull of the same tag found is no answer."""
    first, second = large(1000)[0], large(1000)[0]
    async with FaultyRegistry(first) as registry:
        path = f"/v2/app/manifests/1?ns={registry.host}"

        async def asked() -> tuple[int, bytes]:
            await asyncio.sleep(1.1)  # for a second what a tag names is not asked again
            answer = await asyncio.to_thread(door.ask, path)
            return answer.status, answer.body

        assert await asked() == (200, first.content)
        for moved in (second, first, second):
            registry.image = moved
            assert await asked() == (200, moved.content)
        registry.tag = "2"
        assert (await asked())[0] == 404
        registry.tag = "1"
        assert await asked() == (200, second.content)

        async def refuse(request: web.Request) -> web.Response:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})

        registry.guard = refuse
        assert (await asked())[0] == 401
        for digest in second.blobs:
            answer = await asyncio.to_thread(door.ask, f"/v2/app/blobs/{digest}?ns={registry.host}")
            assert answer.status == 401, "what it gave before does not count any more"


async def test_bytes_are_handed_on_while_they_come(door: MirrorDoor) -> None:
    made, digest, content = large()
    release = asyncio.Event()
    async with FaultyRegistry(made) as registry:
        registry.plan(f"blobs/{digest}", pauses_after(4 * MIB, release))
        await resolved(door, registry.host)
        reader = await asyncio.to_thread(Reader, door, registry.host, digest)
        assert reader.status == 200 and reader.response.length == len(content)
        first = await asyncio.to_thread(reader.read, 2 * MIB)
        assert first == content[: 2 * MIB], "before the registry has sent the rest"
        release.set()
        assert first + await asyncio.to_thread(reader.read, len(content)) == content
        reader.close()


async def test_killed_in_the_middle_of_a_blob(door: MirrorDoor) -> None:
    made, digest, content = large()
    release = asyncio.Event()
    async with FaultyRegistry(made) as registry:
        registry.plan(f"blobs/{digest}", pauses_after(4 * MIB, release))
        await resolved(door, registry.host)
        reader = await asyncio.to_thread(Reader, door, registry.host, digest)
        await asyncio.to_thread(reader.read, 1 * MIB)
        await asyncio.to_thread(door.kill)
        release.set()
        assert len(await asyncio.to_thread(reader.read, len(content))) < len(content), "the client sees it"
        reader.close()
        assert await asyncio.to_thread(whole, door, registry.host, digest) == content


async def test_what_is_wrong_in_the_end_is_never_whole(door: MirrorDoor) -> None:
    """The growing file is emptied when the digest is wrong; the fetcher asks anew."""
    made, digest, content = large()
    wrong = content[:-10] + b"0123456789"
    held = asyncio.Event()
    async with FaultyRegistry(made) as registry:
        registry.plan(f"blobs/{digest}", sends(wrong))
        registry.plan(f"blobs/{digest}", held_until(held))
        await resolved(door, registry.host)
        reader = await asyncio.to_thread(Reader, door, registry.host, digest)
        got = await asyncio.to_thread(reader.read, len(content)) if reader.status == 200 else b""
        reader.close()
        assert len(got) < len(content)
        held.set()
        assert await asyncio.to_thread(whole, door, registry.host, digest) == content


async def test_a_registry_that_dies_in_the_middle_of_a_blob(door: MirrorDoor) -> None:
    made, digest, content = large()
    async with FaultyRegistry(made) as registry:
        registry.plan(f"blobs/{digest}", breaks_after(3 * MIB))
        registry.plan(f"blobs/{digest}", answers(503), times=1000)
        await resolved(door, registry.host)
        reader = await asyncio.to_thread(Reader, door, registry.host, digest)
        got = await asyncio.to_thread(reader.read, len(content)) if reader.status == 200 else b""
        assert content.startswith(got) and len(got) < len(content)
        reader.close()
        rest = {"Range": f"bytes={max(len(got), 3 * MIB)}-"}
        later = await asyncio.to_thread(door.ask, f"/v2/app/blobs/{digest}?ns={registry.host}", headers=rest)
        assert later.status == 404, "so that the client asks the registry for the rest"


async def test_a_blob_that_the_registry_does_not_have(door: MirrorDoor) -> None:
    made, digest, _ = large(1000)
    async with FaultyRegistry(made) as registry:
        registry.plan(f"blobs/{digest}", answers(404, "BLOB_UNKNOWN", "gone"), times=100)
        await resolved(door, registry.host)
        answer = await asyncio.to_thread(door.ask, f"/v2/app/blobs/{digest}?ns={registry.host}")
        assert answer.status == 404


async def test_a_registry_that_is_away_and_an_image_that_is_listed(door: MirrorDoor) -> None:
    made, _, _ = large(1000)
    async with FaultyRegistry(made) as registry:
        host = registry.host
        await resolved(door, host)
        for digest, content in made.blobs.items():
            assert (await asyncio.to_thread(door.ask, f"/v2/app/blobs/{digest}?ns={host}")).body == content
        door.until(lambda: not door.flights())
    await asyncio.sleep(1.1)  # what the registry said just now counts for a second
    answer = await asyncio.to_thread(door.ask, f"/v2/app/manifests/1?ns={host}")
    assert (answer.status, answer.body) == (200, made.content)


def test_without_a_bus_clients_are_sent_on(tmp_path: Path) -> None:
    host = f"127.0.0.1:{free_port()}"
    nowhere = f"nats://127.0.0.1:{free_port()}"
    gateway = GatewayProcess(tmp_path, "gateway", {"MIRROR": host}, url=nowhere)
    gateway.start("the mirror answers")
    try:
        assert ask(host, "/v2/").status == 200
        digest = "sha256:" + "0" * 64
        for path in ("manifests/1", f"manifests/{digest}", f"blobs/{digest}", "tags/list", f"referrers/{digest}"):
            answer = ask(host, f"/v2/library/redis/{path}")
            assert answer.status == 404, path
            assert b"errors" in answer.body
    finally:
        gateway.stop()


def is_closed(client: socket.socket) -> bool:
    """Whether the other side has ended a connection on which nothing was said."""
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_hostile_clients_hold_up_nobody(door: MirrorDoor) -> None:
    made, digest, content = large(40 * MIB)
    door.push(made=made)
    path = f"/v2/{door.repository}/blobs/{digest}?ns={door.registry.host}"
    assert door.ask(f"/v2/{door.repository}/manifests/1").status == 200
    assert door.ask(path).body == content

    def connected(said: bytes = b"") -> socket.socket:
        made = socket.create_connection(("127.0.0.1", int(door.host.rpartition(":")[2])), timeout=30)
        made.sendall(said)
        return made

    get = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n".encode()
    with contextlib.ExitStack() as stack:
        # Who reads nothing, who never ends its request, and who sends what is none.
        for said in [get + b"\r\n"] * 40 + [get] * 40 + [b"\0\xff" * 100] * 5:
            stack.enter_context(contextlib.closing(connected(said)))
        for said in (get + b"X: " + b"x" * 100_000 + b"\r\n\r\n", get + b"X: x\r\n" * 2000 + b"\r\n", b"G" * 100_000):
            with contextlib.suppress(ConnectionError), contextlib.closing(connected(said)) as client:
                answer = client.recv(100)
                assert answer == b"" or answer.split()[1] == b"400", answer
        for wanted in ("bytes=" + "0-1," * 500, "bytes=-" + "9" * 300, "bytes=0-0,0-0", "bytes=5-1"):
            assert door.ask(path, method="HEAD", headers={"Range": wanted}).status == 200
        assert door.ask(path).body == content
        # More connections than there may be: who comes then is turned away, and nobody else.
        crowd = [stack.enter_context(contextlib.closing(connected())) for _ in range(1100)]
        door.until(lambda: any(map(is_closed, crowd)))
        assert not all(map(is_closed, crowd))
    door.until_answered()
    assert door.ask(path).body == content
