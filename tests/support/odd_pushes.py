"""What registries do that are pushed to, one row each: a newcomer adds a row here, and a line to docs/registry.md.

`tests/integration/fetcher/test_odd_pushes.py` pushes to each of them; what a row plans is done by `PushRegistry`.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.support.images import digest_of, image, layer, tar_of
from tests.support.push_registry import Fault, PushRegistry, answers, breaks_after, forgets

PART = 512 << 10
"""Bytes that are pushed in one request in these tests."""
LARGE = layer(tar_of({"random": random.Random(8).randbytes(1_500_000)}), "plain")
SMALL = layer(tar_of({"file": b"content"}), "zstd")
EMPTY = layer(b"", "plain")
IMAGE = image([LARGE, SMALL, EMPTY], docker=False)
ALWAYS = 1000
HEAD, POST, PATCH, PUT = "HEAD /v2/app/blobs", "POST /v2/app/blobs", "PATCH /v2/app/blobs", "PUT /v2/app/blobs"
OTHER = "PUT /v2/app/manifests"
PAGE = {"Content-Type": "text/html; charset=utf-8"}
NOW = {"Retry-After": "0"}

Plan = Callable[[PushRegistry], None]


@dataclass(frozen=True)
class OddPush:
    """One behaviour.

    Attributes:
        does: what the registry does, in words; the name of the row.
        source: who met it.
        plan: makes a registry behave so.
        made: how it is made.
        ends: code of the failure; empty where the image is pushed.
        says: what the failure's message must hold.
        neighbour: another repository of the registry has all blobs, and the store knows it.
        costs: the most bytes of blobs that may be sent; 0: no matter.
    """

    does: str
    source: str
    plan: Plan = lambda registry: None
    made: Mapping[str, Any] = field(default_factory=dict)
    ends: str = ""
    says: str = ""
    neighbour: bool = False
    costs: int = 0


def planned(*faults: tuple[str, Fault], times: int = ALWAYS) -> Plan:
    def plan(registry: PushRegistry) -> None:
        for where, fault in faults:
            registry.plan(where, fault, times)

    return plan


def answered(status: int, headers: Mapping[str, str]) -> Fault:
    """Do as is right, and answer so."""

    async def fault(registry: PushRegistry, request: web.Request) -> web.StreamResponse:
        right = await registry._right(request)
        told = {name: right.headers[name] for name in ("Location", "Range", "Docker-Content-Digest") if name in right.headers}
        return web.Response(status=status, headers={**told, **headers})

    return fault


def takes_half(registry: PushRegistry) -> None:
    """It keeps the first half of a part, and says so."""

    async def fault(registry: PushRegistry, request: web.Request) -> web.StreamResponse:
        name = request.path.rpartition("/")[2]
        length = int(request.headers["Content-Length"])
        before = len(registry.sessions[name])
        await registry.take(request, name)
        del registry.sessions[name][before + length // 2 :]
        return registry._at(202, "app", name)

    registry.plan(PATCH, fault, 2)


def takes_parts_alone(registry: PushRegistry) -> None:
    """What ends an upload must have no body."""

    async def fault(registry: PushRegistry, request: web.Request) -> web.StreamResponse | None:
        if not int(request.headers.get("Content-Length", "0")):
            return None
        await request.read()
        return web.Response(status=400)

    registry.plan(PUT, fault, ALWAYS)


def lies_about_blobs(registry: PushRegistry) -> None:
    """Its storage lost blobs, and its cache still says that they are there, until they are pushed."""

    async def fault(registry: PushRegistry, request: web.Request) -> web.StreamResponse:
        return web.Response()

    registry.plan(HEAD, fault, 4)
    registry.plan(OTHER, answers(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry"), 1)


def counts(where: str, status: int, *offsets: int) -> Plan:
    """Take nothing, and say in turn that it has so many bytes; whoever asks is told so too."""
    turn = itertools.cycle(offsets)

    async def fault(registry: PushRegistry, request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.Response(status=status, headers={"Location": request.path, "Range": f"0-{next(turn) - 1}"})

    return planned((where, fault), ("GET /v2/app/blobs/uploads", fault))


async def shows_a_page(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(text="<html>Welcome</html>", content_type="text/html")


async def page(registry: PushRegistry, request: web.Request) -> web.StreamResponse:
    return await shows_a_page(request)


ALL = sum(map(len, IMAGE.blobs.values()))
ODD: tuple[OddPush, ...] = (
    # -- where an upload goes on --
    OddPush("an address without a host", "ECR, ACR", costs=ALL),
    OddPush("a whole address", "distribution", made={"located": lambda r, path: f"http://{r.host}{path}"}),
    OddPush(
        "an address with a query", "distribution, `_state`",
        made={"located": lambda r, path: f"{path}?_state=a%2Fb%3D%3D&x=%20"},
    ),
    OddPush("an address with a fragment", "hostile", made={"located": lambda r, path: f"{path}#here"}),
    OddPush("no address", "registries behind scripts", made={"silent": ("Location",)}, ends="registry.answer"),
    OddPush(
        "an address that is none", "hostile",
        made={"located": lambda r, path: "https://[1:2]/x"}, ends="registry.redirects",
    ),
    OddPush(
        "an upload redirected", "proxies",
        planned((POST, answers(307, headers={"Location": "/v2/app/blobs/uploads/"})), times=1),
    ),
    # -- parts --
    *(
        OddPush(f"{status} for a part", "registries that take a blob as a whole", made={"parts": status})
        for status in (400, 404, 405, 415, 501)
    ),
    OddPush("400 for a blob in one piece", "registries that take parts alone", takes_parts_alone),
    OddPush("413 for more than 300 kB", "proxies' limits; nginx has 1 MB", made={"most": 300_000}),
    OddPush("413 for whatever is sent", "the same", made={"most": 1000}, ends="registry.refused", says="413"),
    OddPush("a smallest part", "distribution-spec, `OCI-Chunk-Min-Length`", made={"told": {"OCI-Chunk-Min-Length": "700000"}}),
    OddPush("no Range in its answers", "registries that keep no count", made={"silent": ("Range",)}),
    OddPush("half of a part is taken", "distribution-spec, `Range`", takes_half),
    OddPush(
        "nothing is taken, and 202 said", "hostile", counts(PATCH, 202, 2), ends="registry.answer",
    ),
    OddPush(
        "a Range that is wrong, where its status is right", "registries that count otherwise",
        planned((PATCH, answered(202, {"Range": "0-1"}))),
    ),
    OddPush(
        "200 instead of 202 and 201", "registries of their own",
        planned((PATCH, answered(200, {})), (PUT, answered(200, {})), (POST, answered(200, {}))),
    ),
    OddPush("a Range that goes back and forth", "hostile", counts(PATCH, 202, 200, 100), ends="registry.answer"),
    OddPush("416, and a Range that goes back and forth", "hostile", counts(PATCH, 416, 300, 200, 100)),
    OddPush("a Range beyond what was sent", "registries that count otherwise", counts(PATCH, 202, 1_400_000)),
    # -- breaks --
    OddPush(
        "a part that breaks off, and is kept", "every network",
        planned((PATCH, breaks_after(100_000)), times=1), costs=ALL + PART,
    ),
    OddPush(
        "a part that breaks off, and is not kept", "every network",
        planned((PATCH, breaks_after(100_000, kept=False)), times=1),
    ),
    OddPush("a blob that breaks off again and again", "every network", planned((PATCH, breaks_after(300_000)), times=4)),
    OddPush("an upload that is forgotten", "registries that restart", planned((PATCH, forgets()), times=1)),
    OddPush(
        "an upload that is forgotten for ever", "a load balancer without memory",
        planned((PATCH, forgets()), (PUT, forgets())), ends="registry.unavailable",
    ),
    OddPush("a blob whose end is not heard", "every network", planned((PUT, answered(504, NOW)), times=1), costs=ALL),
    OddPush("503 for a part, once", "registries that restart", planned((PATCH, answers(503, headers=NOW)), times=1)),
    OddPush("429 for a part, once", "docker hub", planned((PATCH, answers(429, headers=NOW)), times=1)),
    OddPush("429 for a manifest, once", "docker hub", planned((OTHER, answers(429, headers=NOW)), times=1)),
    OddPush(
        "500 for ever", "storage that is full",
        planned((PATCH, answers(500, headers=NOW)), (PUT, answers(500, headers=NOW))), ends="registry.unavailable",
    ),
    # -- what is there --
    *(
        OddPush(f"HEAD of a blob fails by {status}", "robots that may push and not pull", planned((HEAD, answers(status))))
        for status in (400, 401, 403, 405)
    ),
    OddPush("HEAD of a blob says another size", "proxies", planned((HEAD, answered(200, {"Content-Length": "7"})))),
    OddPush("blobs that it says it has, and has not", "storage that lost some", lies_about_blobs),
    # -- neighbours --
    OddPush("a blob taken over from another repository", "distribution-spec, mounting", neighbour=True, costs=1),
    *(
        OddPush(
            f"{status} for taking a blob over", "who may not read there; registries that know no mounting",
            planned(("mount=", answers(status))), neighbour=True,
        )
        for status in (400, 401, 403, 404, 405)
    ),
    OddPush(
        "another blob taken over", "hostile",
        planned(("mount=", answered(201, {"Docker-Content-Digest": digest_of(b"x")}))), neighbour=True,
    ),
    # -- digests --
    OddPush(
        "a blob that it finds damaged, once", "a cut on the way",
        planned((PUT, answers(400, "DIGEST_INVALID", "no")), times=1),
    ),
    OddPush(
        "a blob that it finds damaged for ever", "a proxy that changes bodies",
        planned((PUT, answers(400, "DIGEST_INVALID", "no"))), ends="DIGEST_INVALID",
    ),
    OddPush("no digest in its answers", "registries of their own", made={"silent": ("Docker-Content-Digest",)}),
    OddPush(
        "another digest of a blob", "hostile",
        planned((PUT, answered(201, {"Docker-Content-Digest": digest_of(b"x")}))), ends="digest.mismatch",
    ),
    OddPush(
        "another digest of the manifest", "registries that convert",
        planned((OTHER, answered(201, {"Docker-Content-Digest": digest_of(b"x")}))), ends="digest.mismatch",
    ),
    OddPush(
        "no digest of a manifest, even where it is asked for", "registries of their own",
        planned(("HEAD /v2/app/manifests", answers(200))), made={"silent": ("Docker-Content-Digest",)},
    ),
    OddPush(
        "no digest of a manifest, and 403 for it", "robots that may push and not pull",
        planned(("HEAD /v2/app/manifests", answers(403)), ("GET /v2/app/manifests", answers(403))),
        made={"silent": ("Docker-Content-Digest",)},
    ),
    OddPush(
        "201 for a manifest, and nothing there", "portals; proxies that answer themselves",
        planned((OTHER, answers(201))), ends="registry.answer", says="nothing there",
    ),
    OddPush(
        "201 for a manifest, and another there", "registries that convert",
        planned((OTHER, answers(201)), ("HEAD /v2/app/manifests", answers(200)), ("GET /v2/app/manifests", answers(200))),
        ends="registry.answer", says="something else",
    ),
    OddPush(
        "a page for whatever it is asked", "portals, logins",
        made={"guard": shows_a_page}, ends="registry.answer", says="page",
    ),
    *(
        OddPush(
            f"a page for {where.replace('/v2/app/', 'of ')}", "portals, logins",
            planned((where, page)), ends="registry.answer",
        )
        for where in (POST, PATCH, PUT, OTHER)
    ),
    OddPush(
        "empty answers that are called pages", "quay.io",
        planned(*((where, answered(200, PAGE)) for where in (POST, PATCH, PUT, OTHER))),
    ),
    # -- refusals --
    OddPush(
        "403 for an upload", "a credential that may only pull",
        planned((POST, answers(403))), ends="DENIED", says="may not push",
    ),
    OddPush(
        "403 that says why", "quotas",
        planned((POST, answers(403, "DENIED", "quota of 5 GiB reached"))), ends="DENIED", says="quota of 5 GiB",
    ),
    OddPush(
        "404 for an upload", "ECR: repositories are made before",
        planned((POST, answers(404, "NAME_UNKNOWN", "no such repository"))), ends="NAME_UNKNOWN", says="no such repository",
    ),
    OddPush(
        "a tag that stays as it is", "ECR, Harbor",
        planned((OTHER, answers(400, "TAG_INVALID", "the tag is immutable"))), ends="TAG_INVALID", says="immutable",
    ),
    OddPush(
        "a manifest that it does not want", "registries that take docker's types alone",
        planned((OTHER, answers(400, "MANIFEST_INVALID", "unknown type"))), ends="MANIFEST_INVALID", says="unknown type",
    ),
)  # fmt: skip
"""The table."""
