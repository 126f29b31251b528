"""A registry for the demonstration: one small image over HTTP on loopback, every request counted.

It speaks as much of the distribution protocol as a pull needs (manifests by tag and digest, blobs with ranges), from memory,
in threads of its own. Source: distribution-spec 1.1, "Pulling".
"""

import gzip
import hashlib
import http.server
import io
import json
import os
import random
import re
import tarfile
import threading
import time
from collections import Counter
from types import TracebackType

from pullonce.oci.platform import spell

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_EPOCH = 1_700_000_000
_PIECE = 65_536

RATE = 8_000_000
"""Bytes a second: what a registry gives over a line of 64 Mbit/s. Over loopback the first pull would be over before the last
of twenty processes has started, and there would be nothing to share."""
_PATH = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs)/(?P<which>[^/]+)")


class DemoImage:
    """A few-layer image, made anew: a base, libraries and an application that changes and removes some of what lies below."""

    def __init__(self) -> None:
        noise = random.Random(20)
        layers = [
            _layer({f"usr/lib/base/{n:03d}.bin": noise.randbytes(60_000) for n in range(120)}),
            _layer({f"usr/lib/python/{n:03d}.py": b"# a line of a library\n" * 400 for n in range(600)}),
            _layer({f"opt/app/data/{n:02d}.bin": noise.randbytes(300_000) for n in range(20)}),
            _layer(
                {"opt/app/main.py": b"print('hello')\n", "opt/app/data/.wh.00.bin": b"", "etc/app.conf": b"debug = false\n"}
            ),
        ]
        blobs = [gzip.compress(layer, compresslevel=1, mtime=_EPOCH) for layer in layers]
        config = json.dumps({
            "architecture": spell("linux", os.uname().machine).split("/")[1], "os": "linux",
            "config": {"Cmd": ["/opt/app/main.py"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer) for layer in layers]},
        }).encode()  # fmt: skip
        self.manifest = json.dumps({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": _descriptor(_CONFIG, config),
            "layers": [_descriptor(_LAYER, blob) for blob in blobs],
        }).encode()  # fmt: skip
        self.blobs = {_digest(blob): blob for blob in (config, *blobs)}
        self.config = _digest(config)
        self.size = sum(map(len, blobs))
        self.layers = len(blobs)


def _layer(files: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(content), _EPOCH, 0o644
            tar.addfile(info, io.BytesIO(content))
    return archive.getvalue()


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


class DemoRegistry:
    """Serves one image for as long as the block lasts.

    Attributes:
        reference: the image's reference, with the port that was free.
        counts: requests by kind since `counts` was last cleared.
    """

    def __init__(self, image: DemoImage) -> None:
        self.image = image
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._free = 0.0
        registry = self

        class Handler(_Handler):
            owner = registry

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.reference = f"127.0.0.1:{self._server.server_address[1]}/demo/app:1"

    def __enter__(self) -> "DemoRegistry":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def count(self, kind: str) -> None:
        with self._lock:
            self.counts[kind] += 1

    def pace(self, size: int) -> None:
        """Wait until the line, which all connections share, has room for this many bytes."""
        with self._lock:
            start = max(self._free, time.monotonic())
            self._free = start + size / RATE
        time.sleep(max(start - time.monotonic(), 0.0))


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: DemoRegistry

    def do_GET(self) -> None:
        self._serve(body=True)

    def do_HEAD(self) -> None:
        self._serve(body=False)

    def _serve(self, *, body: bool) -> None:
        match = _PATH.fullmatch(self.path)
        image = self.owner.image
        if match is None:
            self.owner.count(f"{self.command} {self.path}")
            self._send(200 if self.path == "/v2/" else 404, "application/json", b"{}", body=body)
        elif match["kind"] == "manifests":
            self.owner.count(f"{self.command} manifest")
            known = match["name"] == "demo/app" and match["which"] in ("1", _digest(image.manifest))
            self._send(200 if known else 404, MANIFEST, image.manifest if known else b"{}", body=body)
        else:
            self.owner.count(f"{self.command} {'config' if match['which'] == image.config else 'layer'}")
            self._blob(image.blobs.get(match["which"]), body=body)

    def _blob(self, content: bytes | None, *, body: bool) -> None:
        if content is None:
            self._send(404, "application/json", b"{}", body=body)
            return
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if start and int(start[1]) < len(content):
            first = int(start[1])
            extra = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"}
            self._send(206, "application/octet-stream", content[first:], body=body, extra=extra)
        else:
            self._send(200, "application/octet-stream", content, body=body)

    def _send(self, status: int, media_type: str, content: bytes, *, body: bool, extra: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(content)))
        if media_type == MANIFEST:
            self.send_header("Docker-Content-Digest", _digest(content))
        for key, value in (extra or {}).items():
            self.send_header(key, value)
        self.end_headers()
        for start in range(0, len(content) if body else 0, _PIECE):
            piece = content[start : start + _PIECE]
            self.owner.pace(len(piece))
            self.wfile.write(piece)

    def log_message(self, format: str, *args: object) -> None:
        """The counts say it all."""
