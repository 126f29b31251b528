"""A docker-registry of our own over a storage directory, with its requests and bytes read from its access log."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.tools.usage import Group
from tests.support.nats_server import free_port

_ACCESS = re.compile(rb'"(GET|HEAD) (/v2/\S*) HTTP/1\.[01]" (\d+) (\d+)')
_TYPES = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")


class Registry:
    """One that runs."""

    def __init__(self, host: str, log: Path, group: Group) -> None:
        self.host = host
        self._log = log
        self._group = group

    def position(self) -> int:
        """Where its log ends now."""
        return self._log.stat().st_size

    def since(self, position: int) -> dict[str, int]:
        """Requests by kind, and bytes of blobs, since then."""
        found = {"heads": 0, "manifest_gets": 0, "blob_gets": 0, "blob_bytes": 0, "errors": 0}
        with self._log.open("rb") as file:
            file.seek(position)
            for method, path, status, size in _ACCESS.findall(file.read()):
                if int(status) >= 400:
                    found["errors"] += 1
                elif method == b"HEAD":
                    found["heads"] += 1
                elif b"/blobs/" in path:
                    found["blob_gets"] += 1
                    found["blob_bytes"] += int(size)
                elif b"/manifests/" in path:
                    found["manifest_gets"] += 1
        return found

    def cpu(self) -> float:
        return self._group.cpu()

    def manifest(self, image: str) -> dict[str, Any]:
        """The manifest of `name:tag`."""
        return dict(json.loads(self.document(image)[0]))

    def document(self, image: str) -> tuple[bytes, str]:
        """The bytes of a manifest, and its media type."""
        name, _, tag = image.partition(":")
        body = get(self.host, f"/v2/{name}/manifests/{tag or 'latest'}", {"Accept": ",".join(_TYPES)})
        return body, str(json.loads(body).get("mediaType", _TYPES[0]))

    def warm(self, image: str) -> None:
        """Have it read an image once, so that its disk is not what is measured."""
        name, document = image.partition(":")[0], self.manifest(image)
        for blob in [document["config"], *document["layers"]]:
            get(self.host, f"/v2/{name}/blobs/{blob['digest']}")


def get(host: str, path: str, headers: dict[str, str] | None = None) -> bytes:
    connection = http.client.HTTPConnection(host, timeout=60)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status}")
        return body
    finally:
        connection.close()


@contextmanager
def serving(storage: Path, home: Path) -> Iterator[Registry]:
    """Serve a registry's storage on a free port of the loopback."""
    binary = shutil.which("docker-registry")
    if binary is None:
        raise SystemExit("docker-registry is needed (Debian: apt install docker-registry)")
    host, log, config = f"127.0.0.1:{free_port()}", home / "registry.log", home / "registry.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: false}}\n"
        f"storage: {{cache: {{blobdescriptor: inmemory}}, filesystem: {{rootdirectory: {storage.absolute()}}}}}\n"
        f"http: {{addr: '{host}'}}\n"
    )
    environ = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    group = Group("registry")
    with log.open("wb") as out, group.inside():
        server = subprocess.Popen([binary, "serve", config], stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environ)
    try:
        while server.poll() is None:
            try:
                get(host, "/v2/")
                break
            except OSError:
                time.sleep(0.02)
        else:
            raise RuntimeError(f"docker-registry did not start: {log.read_text()[-500:]}")
        yield Registry(host, log, group)
    finally:
        server.kill()
        server.wait()
        group.close()
