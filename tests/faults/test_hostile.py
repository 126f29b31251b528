"""Registries that lie and images made to harm, through all of pullonce: a typed failure, at once, and the next pull works.

What single parts refuse is tested beside them (`tests/unit/fetcher/`, `tests/unit/unpacker/`,
`tests/integration/fetcher/`, `tests/integration/unpacker/test_faults.py`).
"""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yarl
import zstandard
from aiohttp import web

from pullonce.client import connect
from pullonce.errors import Permanent, PullFailed
from services.fetcher.remote.connections import Connections
from services.fetcher.remote.transport import Transport
from services.fetcher.settings import RegistrySettings
from services.unpacker.work.messages import WorkLimits
from tests.support.buses import eventually
from tests.support.chaos import Crew
from tests.support.chaos_check import damage, picture, stack, trees
from tests.support.faulty import FaultyRegistry
from tests.support.images import Image, Layer, digest_of, image, index, layer, tar_of
from tests.support.layers import entry, tar
from tests.support.nats_server import NatsServer

LIMIT = 60
SMALL = layer(tar_of({"small": b"small" * 1000}))
MOST = 30_000_000


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory, bus_server: NatsServer) -> Iterator[Crew]:
    environ = {"PULLONCE_LAYER_MAX_BYTES": str(MOST), "PULLONCE_LAYER_MAX_ENTRIES": "20000", "PULLONCE_PATIENCE": "2"}
    home = tmp_path_factory.mktemp("home") / "here"
    with Crew(home, bus_server.url, environ=environ, coordinator=1, fetcher=1, unpacker=1) as running:
        yield running
        assert [member.deaths for member in running.members] == [[], [], []], "nothing hostile ends a service"


async def outcome(crew: Crew, made: Image, fault: Callable[[FaultyRegistry], None] = lambda _: None) -> str:
    """Pull an image from a registry that checks nothing: the code of its failure, or nothing. Then pull a good one."""
    async with FaultyRegistry(made) as registry, connect(crew.url, patience=LIMIT) as client:
        fault(registry)
        try:
            await client.pull(registry.reference, timeout=LIMIT)
        except PullFailed as exc:
            code = exc.code
            assert len(str(exc)) < 2000, "said in one line"
        else:
            code = ""
    tars = stack(random.Random(digest_of(made.content)), 1, size=1000)
    async with FaultyRegistry(picture(tars)) as registry, connect(crew.url, patience=LIMIT) as client:
        await client.pull(registry.reference, timeout=LIMIT)
    assert damage(crew.store, trees(tars)) == []
    return code


def with_layers(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Image:
    """An image whose manifest says something else of its layers."""
    made = image([SMALL])
    document = made.document
    document["layers"] = change(document["layers"])
    return dataclasses.replace(made, content=json.dumps(document, separators=(",", ":")).encode())


def sized(size: int) -> Image:
    return with_layers(lambda layers: [{**layers[0], "size": size}])


def stored(blob: bytes, tar_bytes: bytes) -> Image:
    """An image of one layer, stored as it may be."""
    return image([Layer(blob, digest_of(tar_bytes))])


def nested(depth: int) -> Image:
    made = image([SMALL])
    for _ in range(depth):
        made = dataclasses.replace(index([made]), platform=made.platform)
    return made


@pytest.mark.parametrize(
    "made, code",
    [
        (with_layers(lambda layers: layers * 100_000), "MANIFEST_INVALID"),
        (with_layers(lambda layers: layers * 20_000), "MANIFEST_INVALID"),
        (sized(-1), "MANIFEST_INVALID"),
        (sized(1 << 62), "disk.full"),
        (sized(1 << 64), "MANIFEST_INVALID"),
        (sized(1 << 80), "MANIFEST_INVALID"),
        (sized(1), "size.mismatch"),
        (sized(1_000_000), "size.mismatch"),
        (with_layers(lambda layers: [{**layers[0], "digest": "md5:" + "0" * 32}]), "DIGEST_INVALID"),
        (with_layers(lambda layers: [{**layers[0], "digest": "sha256:" + "0" * 64}]), "BLOB_UNKNOWN"),
        (nested(3), ""),
        (nested(4), "MANIFEST_INVALID"),
        (nested(200), "MANIFEST_INVALID"),
    ],
    ids=[
        "100,000 layers",
        "20,000 layers",
        "negative size",
        "huge size",
        "size of 65 bits",
        "size of 81 bits",
        "too small a size",
        "too large a size",
        "md5",
        "unknown blob",
        "3 indexes",
        "4 indexes",
        "200 indexes",
    ],
)
async def test_manifests(crew: Crew, made: Image, code: str) -> None:
    assert await outcome(crew, made) == code


async def test_an_index_that_leads_to_itself_is_as_deep_as_any(crew: Crew) -> None:
    """No document can name its own digest; a registry that lies about digests is found out at the first one."""
    made = index([image([layer(tar_of({"itself": b"itself"}))])])
    made.manifests[next(iter(made.manifests))] = (made.media_type, made.content)
    assert await outcome(crew, made) == "digest.mismatch"


async def test_the_same_layer_twice_with_two_sizes(crew: Crew) -> None:
    made = image([twice := layer(tar_of({"twice": b"twice"})), twice])
    document = made.document
    document["layers"][1]["size"] += 1
    made = dataclasses.replace(made, content=json.dumps(document).encode())
    assert await outcome(crew, made) in ("", "size.mismatch")


async def test_a_layer_that_stands_twice_in_an_image_is_fetched_once_and_unpacked_at_both_places(crew: Crew) -> None:
    made = image([once := layer(tar_of({"once": b"twice in one image"})), once])
    async with FaultyRegistry(made) as registry, connect(crew.url, patience=LIMIT) as client:
        ending = await client.pull(registry.reference, timeout=LIMIT)
        assert len(registry.asked(f"GET /v2/app/blobs/{once.digest}")) == 1
    assert (ending.layers, ending.sharing.fetched, ending.sharing.unpacked) == (2, 1, 2)


@pytest.mark.parametrize("order", ["honest one first", "liar first"])
async def test_two_images_that_say_different_sizes_of_one_layer(crew: Crew, order: str) -> None:
    """The honest one is there whoever was first; what the blob is, its digest says."""
    shared, below = layer(tar_of({"shared": order.encode()})), layer(tar_of({"below": order.encode()}))
    honest, lie = image([shared]), image([below, shared])
    document = lie.document
    document["layers"][1]["size"] += 7
    lie = dataclasses.replace(lie, content=json.dumps(document).encode())
    for made in (honest, lie) if order == "honest one first" else (lie, honest):
        assert await outcome(crew, made) in (("", "size.mismatch") if made is lie else ("",))


@pytest.mark.parametrize("lies, code", [(False, ""), (True, "digest.mismatch")])
async def test_another_digest_algorithm(crew: Crew, lies: bool, code: str) -> None:
    """sha512 is checked like sha256."""
    content = tar_of({f"long-{lies}": random.Random(1).randbytes(1000)})
    blob = gzip.compress(content)
    good = stored(blob, content)
    name = f"sha512:{hashlib.sha512(blob).hexdigest()}"
    document = good.document
    document["layers"][0]["digest"] = name
    sent = gzip.compress(content, 1)[:-1] + b"x" if lies else blob
    document["layers"][0]["size"] = len(sent)
    made = dataclasses.replace(good, content=json.dumps(document).encode(), blobs={**good.blobs, name: sent})
    assert await outcome(crew, made) == code


# -- bodies ----------------------------------------------------------------------------------------------------------------


async def endless(request: web.Request, content: bytes) -> web.StreamResponse:
    """Bytes without end, and no word on how many."""
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    while True:
        await response.write(bytes(1 << 16))


async def dripping(request: web.Request, content: bytes) -> web.StreamResponse:
    """What was asked for, some bytes at a time: slow, but never silent."""
    response = web.StreamResponse(headers={"Content-Length": str(len(content))})
    await response.prepare(request)
    for start in range(0, len(content), 2000):
        await response.write(content[start : start + 2000])
        await asyncio.sleep(0.5)
    return response


@pytest.mark.parametrize("where", ["GET /v2/app/manifests/", "GET /v2/app/blobs/"])
async def test_a_body_without_end(crew: Crew, where: str) -> None:
    made = image([layer(tar_of({where: b"1"}))])
    code = await outcome(crew, made, lambda registry: registry.plan(where, endless, times=20))
    assert code in ("size.mismatch", "MANIFEST_INVALID", "digest.mismatch")


async def test_slow_is_not_stuck(crew: Crew) -> None:
    made = image([layer(tar_of({"drip": b"drip" * 300}), "plain")])
    assert await outcome(crew, made, lambda registry: registry.plan(made.layers[0], dripping)) == ""


# -- layers ----------------------------------------------------------------------------------------------------------------


ZEROS = tar_of({"zeros": bytes(MOST + 1)})
ONCE, TWICE, CUT = (tar_of({name: name.encode() * 1000}) for name in ("once", "twice more", "cut"))
DEEP = tar(entry("/".join(["d" * 20] * 250), content=b"deep"))


@pytest.mark.parametrize(
    "made, codes",
    [
        (stored(gzip.compress(ZEROS), ZEROS), {"layer.too-large"}),
        (stored(zstandard.compress(ZEROS), ZEROS), {"layer.too-large"}),
        (stored(zstandard.compress(gzip.compress(ZEROS)), ZEROS), {"layer.invalid", "media.unsupported"}),
        (stored(gzip.compress(gzip.compress(TWICE)), TWICE), {"layer.invalid", "media.unsupported"}),
        (image([layer(tar(*(entry(f"{n}") for n in range(20_001))))]), {"layer.too-large"}),
        (image([layer(DEEP)]), {"", "layer.invalid"}),
        (image([layer(tar(entry("x" * 4096, content=b"long")))]), {"layer.invalid"}),
        (image([layer(tar(*(entry("same", content=b"%d" % n) for n in range(100))))]), {""}),
        (stored(gzip.compress(ONCE) + b"garbage" * 100, ONCE), {"layer.invalid"}),
        (stored(gzip.compress(CUT)[:-20], CUT), {"layer.invalid"}),
        (image([layer(tar(entry("cap", xattrs={"security.capability": "="})))]), {"layer.invalid"}),
        (image([layer(tar(entry("fat", xattrs={"user.fat": "v" * 70_000})))]), {"layer.invalid"}),
        (stored(b"", b""), {"", "layer.invalid", "media.unsupported"}),
    ],
    ids=["gzip bomb", "zstd bomb", "bomb in a bomb", "gzip twice", "entries", "deep", "long name", "same name", "garbage",
         "cut off", "capability", "attribute", "nothing"],
)  # fmt: skip
async def test_layers(crew: Crew, made: Image, codes: set[str]) -> None:
    assert await outcome(crew, made) in codes

    async def gone() -> bool:
        return not list((crew.store / "staging").glob("*/*/*"))

    await eventually(gone)


@pytest.mark.parametrize(
    "kind, target", [("char", ""), ("block", ""), ("fifo", "")], ids=["character device", "block device", "fifo"]
)
async def test_devices_are_made_and_not_opened(crew: Crew, kind: str, target: str) -> None:
    made = image([layer(tar(entry("dev", kind, devmajor=1, devminor=3), entry("after", content=kind.encode())))])
    assert await outcome(crew, made) == ""


def test_how_far_a_layer_may_expand() -> None:
    limits = WorkLimits()
    assert limits.expanded(1000) == 1 << 30, "small ones to a GiB"
    assert limits.expanded(10 << 20) == 2000 * (10 << 20)
    assert limits.expanded(1 << 40) == limits.size


# -- redirects -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "registry, target, allowed",
    [
        ("https://registry.example", "https://storage.example/x", True),
        ("https://registry.example", "http://storage.example/x", False),
        ("https://registry.example", "http://169.254.169.254/latest/meta-data", False),
        ("https://registry.example", "https://169.254.169.254/latest/meta-data", False),
        ("https://registry.example", "http://127.0.0.1:2375/containers/json", False),
        ("https://registry.example", "http://localhost:4222/", False),
        ("https://registry.example", "https://[::1]/", False),
        ("https://registry.example", "https://10.0.0.1/x", False),
        ("https://registry.example", "https://0x7f000001/x", False),
        ("https://registry.example", "https://0xa9fea9fe/latest", False),
        ("https://registry.example", "https://127。0。0。1/x", False),
        ("https://10.0.0.2", "https://10.0.0.1/x", True),
        ("https://10.0.0.2", "https://192.168.0.1/x", True),
        ("https://10.0.0.2", "https://127.0.0.1/x", False),
        ("https://10.0.0.2", "https://169.254.169.254/x", False),
        ("http://127.0.0.1:5000", "http://10.0.0.1/x", False),
        ("http://127.0.0.1:5000", "http://169.254.169.254/x", False),
        ("http://127.0.0.1:5000", "http://127.0.0.1:9000/x", True),
        ("http://listed.example", "http://10.0.0.1/x", True),
        ("https://registry.example", "http://10.9.9.9/x", True),
    ],
)
async def test_redirects_into_the_private_network(registry: str, target: str, allowed: bool) -> None:
    settings = RegistrySettings(insecure=frozenset({"listed.example", "10.9.9.9"}))
    client = Transport(Connections(settings, {}), None, settings, None, None)  # type: ignore[arg-type]  # asks nothing here
    try:
        client.check_redirect(yarl.URL(registry), yarl.URL(target))
    except Permanent as exc:
        assert not allowed and exc.code == "registry.redirects"
    else:
        assert allowed
