"""What registries in the world do, one row each: a newcomer adds a row here, and a line to docs/registry.md.

A row says how a registry behaves, who met that, and how a pull from it ends. `tests/integration/fetcher/test_odd_registries.py`
pulls from each of them; what a row plans is done by `FaultyRegistry` on the loopback.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import random
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.support.faulty import (
    Fault,
    FaultyRegistry,
    answers,
    breaks_after,
    ignores_ranges,
    sends,
    streams,
    whole_or_part,
)
from tests.support.images import Image, Layer, digest_of, image, index, layer, tar_of

LAYER = layer(tar_of({"random": random.Random(7).randbytes(300_000)}))
PLAIN = image([LAYER])
BLOB = f"GET /v2/app/blobs/{LAYER.digest}"
CONFIG = f"GET /v2/app/blobs/{PLAIN.document['config']['digest']}"
HEAD, MANIFEST = "HEAD /v2/app/manifests", "GET /v2/app/manifests"
DIGEST = f"Docker-Content-Digest: {PLAIN.digest}"
ALWAYS = 100
LONG = 100_000
"""Letters of a header: more than 8,190, which aiohttp alone would take, and than 64 kB."""

Plan = Callable[[FaultyRegistry], None]


@dataclass(frozen=True)
class Odd:
    """One behaviour.

    Attributes:
        does: what the registry does, in words; the name of the row.
        source: who met it.
        plan: makes a registry behave so.
        ends: code of the failure; empty where the image is pulled.
        says: what the failure's message must hold.
        image: what the registry holds.
    """

    does: str
    source: str
    plan: Plan
    ends: str = ""
    says: str = ""
    image: Image = PLAIN


def planned(*faults: tuple[str, Fault], times: int = ALWAYS) -> Plan:
    """Answer the next requests whose `METHOD path` contains a text with a fault."""

    def plan(registry: FaultyRegistry) -> None:
        for where, fault in faults:
            registry.plan(where, fault, times)

    return plan


def in_turn(*faults: tuple[str, Fault, int]) -> Plan:
    """Several faults, each so many times, one after the other."""

    def plan(registry: FaultyRegistry) -> None:
        for where, fault, times in faults:
            registry.plan(where, fault, times)

    return plan


def blob(fault: Fault, times: int = ALWAYS) -> Plan:
    """Answer requests for the layer so."""
    return planned((BLOB, fault), times=times)


def config(fault: Fault, times: int = ALWAYS) -> Plan:
    """Answer requests for the config so."""
    return planned((CONFIG, fault), times=times)


def manifest(fault: Fault, times: int = ALWAYS) -> Plan:
    """Answer GETs of manifests so."""
    return planned((MANIFEST, fault), times=times)


def head(fault: Fault) -> Plan:
    """Answer HEADs so."""
    return planned((HEAD, fault))


def document(change: Callable[[dict[str, Any]], object], of: Image = PLAIN) -> Image:
    """An image whose manifest is another one."""
    made = json.loads(of.content)
    change(made)
    return dataclasses.replace(of, content=json.dumps(made, separators=(",", ":")).encode())


def labelled(coding: str, packed: Callable[[bytes], bytes] = lambda content: content, *, chunked: bool = False) -> Fault:
    """The right answer under a `Content-Encoding`, packed so."""

    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        headers = {"Content-Encoding": coding}
        body = packed(content)
        if not chunked:
            return web.Response(body=body, headers=headers)
        response = web.StreamResponse(headers=headers)
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(body)
        await response.write_eof()
        return response

    return fault


def raw(head: Callable[[bytes], str], body: Callable[[bytes], bytes] = lambda content: content) -> Fault:
    """Exactly these bytes, and the connection is closed: what no library would send."""

    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(f"HTTP/1.1 {head(content)}\r\n\r\n".encode("latin-1") + body(content))
        request.transport.close()
        return web.Response()

    return fault


def with_headers(headers: Mapping[str, str]) -> Fault:
    """The right answer with further headers."""

    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        told = {**headers}
        if "manifests" in request.path:
            told |= {"Content-Type": PLAIN.media_type, "Docker-Content-Digest": PLAIN.digest}
        return whole_or_part(request, content, told)

    return fault


def head_says(digest: str, size: int = len(PLAIN.content)) -> Fault:
    """A HEAD of something else."""

    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        headers = {"Content-Type": PLAIN.media_type, "Docker-Content-Digest": digest, "Content-Length": str(size)}
        return web.Response(headers=headers)

    return fault


def redirects(where: Callable[[FaultyRegistry], str]) -> Plan:
    """Send requests for the layer somewhere on this registry, once."""

    def plan(registry: FaultyRegistry) -> None:
        registry.plan(BLOB, redirect(where(registry)), 1)

    return plan


def redirect(where: str) -> Fault:
    """Send a request somewhere."""
    return answers(307, headers={"Location": where})


def _chunked(content: bytes) -> bytes:
    return f"{len(content):x}\r\n".encode() + content + b"\r\n0\r\n\r\n"


def _deep(depth: int) -> bytes:
    return b'{"errors":' + b"[" * depth + b"]" * depth + b"}"


def _embedded() -> Image:
    """An artifact whose only layer lies in its manifest, and not in the registry."""
    empty = Layer(b"{}", digest_of(b"{}"), "plain")
    made = image([empty])

    def change(fields: dict[str, Any]) -> None:
        fields["layers"][0].update(mediaType="application/vnd.oci.empty.v1+json", data="e30=")

    return dataclasses.replace(
        document(change, made), blobs={name: blob for name, blob in made.blobs.items() if name != empty.digest}
    )


def _sbom() -> Image:
    """An index of nothing but an entry without a platform, whose config is no image."""
    attached = document(lambda fields: fields["config"].update(mediaType="application/vnd.cyclonedx+json"))
    return document(lambda fields: fields["manifests"][0].pop("platform"), index([attached]))


PACKED = gzip.compress
ODD: tuple[Odd, ...] = (
    # -- heads that Go takes --
    Odd("a header of 100 kB", "a long CSP; aiohttp's limit is 8,190", planned(("", with_headers({"X-Policy": "x" * LONG})))),
    Odd(
        "a Location of 100 kB", "signed addresses of clouds",
        redirects(lambda r: f"http://{r.host}/v2/app/blobs/{LAYER.digest}#{'x' * LONG}"),
    ),
    Odd(
        "Content-Length beside chunked", "RFC 9112 section 6.3; Go drops the length",
        blob(raw(lambda c: f"200 OK\r\nContent-Length: {len(c)}\r\nTransfer-Encoding: chunked", _chunked)),
    ),
    Odd(
        "HEAD answered with a body", "registries behind scripts; Go skips it",
        head(raw(lambda c: f"200 OK\r\n{DIGEST}\r\nContent-Length: {len(c)}")),
    ),
    Odd("HEAD answered with a body and no length", "the same", head(raw(lambda c: "200 OK\r\nX-A: b"))),
    Odd(
        "100 Continue before the answer", "RFC 9110 section 15.2",
        blob(raw(lambda c: f"100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: {len(c)}")),
    ),
    # -- encodings --
    Odd("a manifest compressed on the way", "quay#1310", manifest(labelled("gzip", PACKED))),
    Odd("a manifest compressed as x-gzip", "quay#1310", manifest(labelled("x-gzip", PACKED))),
    Odd("a config compressed on the way", "oras-go#1177", config(labelled("gzip", PACKED))),
    Odd("a layer compressed on the way", "oras-go#1177", blob(labelled("gzip", PACKED))),
    Odd("a layer compressed on the way, of no length", "oras-go#1177", blob(labelled("gzip", PACKED, chunked=True))),
    Odd("a layer deflated on the way", "RFC 9110 section 8.4.1.2", blob(labelled("deflate", zlib.compress))),
    Odd("a layer compressed twice on the way", "proxies in a row", blob(labelled("gzip, gzip", lambda c: PACKED(PACKED(c))))),
    Odd("a gzip layer labelled as such", "storage that keeps the header of an upload", blob(labelled("gzip"))),
    Odd("a gzip layer labelled as such, of no length", "the same", blob(labelled("gzip", chunked=True))),
    Odd("a manifest labelled as compressed, which it is not", "the same", planned((MANIFEST + "/sha", labelled("gzip")))),
    Odd(
        "an encoding that nobody undoes", "RFC 9110 section 8.4", blob(labelled("br", PACKED)),
        ends="registry.encoding", says="known are gzip and deflate",
    ),
    Odd("an encoding that is broken", "a cut on the way", blob(labelled("gzip", lambda c: PACKED(c)[:-9]), 1)),
    # -- later, not never --
    *(
        Odd(f"{status} for a blob", "CDNs and proxies before registries", blob(answers(status)), ends="registry.unavailable")
        for status in (499, 500, 501, 502, 503, 504, 505, 520, 522, 530, 599)
    ),
    Odd("429 for a blob", "docker hub", blob(answers(429)), ends="TOOMANYREQUESTS"),
    # -- HEAD --
    *(
        Odd(f"HEAD fails by {status} while GET works", "docker goes on by GET", head(answers(status)))
        for status in (400, 403, 404, 405, 418, 500, 501, 503)
    ),
    Odd("HEAD closes the connection", "docker goes on by GET", head(raw(lambda c: "", lambda c: b""))),
    Odd("HEAD redirects to nowhere", "docker goes on by GET", head(redirect("mailto:x"))),
    Odd("HEAD tells a digest that is not there", "a tag that moved meanwhile", head(head_says(digest_of(b"old")))),
    Odd("HEAD tells another size", "proxies that count the compressed bytes", head(head_says(PLAIN.digest, 7))),
    Odd("HEAD tells a size above all limits", "the same", head(head_says(PLAIN.digest, 1 << 40))),
    Odd("HEAD tells a digest that is none", "registries of their own", head(head_says("blake3:00"))),
    Odd("HEAD tells a length in other digits", "hostile", head(raw(lambda c: f"200 OK\r\n{DIGEST}\r\nContent-Length: \u00b2"))),
    Odd("HEAD tells no length", "chunked answers", head(raw(lambda c: f"200 OK\r\n{DIGEST}"))),
    # -- damage that passes --
    Odd("a blob of other bytes, once", "a damaged cache", blob(sends(b"x" * len(LAYER.blob)), 1)),
    Odd("an empty blob, once", "a CDN's edge", blob(sends(b""), 1)),
    Odd("an empty blob of no length, once", "a CDN's edge", blob(streams(b""), 1)),
    Odd("404 for a blob, once", "storage that lags behind", blob(answers(404, "BLOB_UNKNOWN", "no"), 1)),
    Odd("403 for a blob, once", "a signature that came too late", blob(answers(403), 1)),
    Odd(
        "a first part out of a bad place, then resumed", "a CDN's edge",
        blob(sends(b"x" * 1000, 206, {"Content-Range": f"bytes 0-999/{len(LAYER.blob)}"}), 1),
    ),
    Odd("a manifest of other bytes, once", "a damaged cache", manifest(sends(b"{}"), 1)),
    Odd("a config of other bytes, once", "a damaged cache", config(sends(b"x" * len(PLAIN.blobs[CONFIG[-71:]])), 1)),
    Odd("a blob that breaks off", "every network", blob(breaks_after(100_000), times=2)),
    Odd(
        "a blob that breaks off where there are no ranges", "registries before 2.3",
        in_turn((BLOB, breaks_after(100_000), 1), (BLOB, ignores_ranges, ALWAYS)),
    ),
    Odd("a blob of other bytes for ever", "a registry that lies", blob(sends(b"x" * len(LAYER.blob))), ends="digest.mismatch"),
    Odd("404 for a blob for ever", "an image that was not pushed whole", blob(answers(404)), ends="BLOB_UNKNOWN"),
    # -- documents --
    Odd("null for optional fields", "Go's JSON", planned(), image=document(lambda d: d.update(annotations=None, subject=None))),
    Odd("no schemaVersion", "Go's JSON", planned(), image=document(lambda d: d.pop("schemaVersion"))),
    Odd("an embedded layer that the registry lacks", "image-spec, `data`", planned(), image=_embedded()),
    Odd("an index of nothing but an SBOM", "rules_img#742", planned(), ends="platform.unavailable", image=_sbom()),
    # -- errors made to harm --
    Odd("an error nested 60,000 deep", "hostile", blob(sends(_deep(30_000), 404)), ends="BLOB_UNKNOWN"),
    Odd("a manifest nested 100,000 deep", "hostile", planned(("manifests", sends(b"[" * LONG))), ends="MANIFEST_INVALID"),
    Odd(
        "Retry-After in other digits", "hostile", blob(answers(503, headers={"Retry-After": "\u00b2"})),
        ends="registry.unavailable",
    ),
    *(
        Odd(f"a blob redirected to {what}", "hostile", blob(redirect(where)), ends="registry.redirects")
        for what, where in (
            ("port 99999", "https://127.0.0.1:99999/x"),
            ("a label of 70 letters", f"https://{'a' * 70}.example/x"),
            ("a name that IDNA refuses", "https://xn--a/x"),
            ("an address that is none", "https://[1:2]/x"),
            ("no host", "mailto:x"),
        )
    ),
    Odd("an answer that is no HTTP", "hostile", blob(raw(lambda c: "\x00")), ends="registry.unavailable"),
    Odd("an error in HTML", "proxies", blob(sends(b"<html>Go away</html>", 403)), ends="DENIED"),
    Odd(
        "an error that says why", "distribution-spec, error codes",
        planned(("manifests", answers(404, "MANIFEST_UNKNOWN", "no such tag"))), ends="MANIFEST_UNKNOWN", says="no such tag",
    ),
)  # fmt: skip
"""The table."""
