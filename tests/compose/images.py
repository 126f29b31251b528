"""The images that compose.yaml and the Dockerfile name, as far as the tests use them: where these run no registry can be
reached, so stand-ins are made of what packages bring, under the very same names."""

from __future__ import annotations

import functools
import http.server
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from tests.compose.engine import Engine
from tests.support.machines import ROOT, need, python_root, wheels
from tests.support.nats_server import binary as nats_server

APPLETS = ("sh", "wget", "test", "ls", "cat")

REGISTRY = """\
version: 0.1
log: {level: error, accesslog: {disabled: false}}
storage: {filesystem: {rootdirectory: /var/lib/registry}, delete: {enabled: true}}
http: {addr: ":5000", secret: stand-in}
"""


def provide(engine: Engine) -> None:
    """Give an engine all images that `docker-compose up` wants, ours built by the Dockerfile as it stands."""
    need("debootstrap", "busybox", "docker-registry")
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    with tempfile.TemporaryDirectory() as scratch:
        nats, registry = Path(scratch, "nats"), Path(scratch, "registry")
        _tiny(nats, "nats-server", nats_server())
        engine.load(nats, services["nats"]["image"])
        _tiny(registry, "registry", str(shutil.which("docker-registry")))
        (registry / "etc/config.yml").write_text(REGISTRY)
        engine.load(registry, services["registry"]["image"], 'CMD ["registry", "serve", "/etc/config.yml"]')
    named = re.search(r"^ARG PYTHON=(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert named
    engine.load(python_root(), named[1])
    with served(wheels("requirements.txt")) as address:
        arguments = ["--build-arg", "PIP_NO_INDEX=1", "--build-arg", f"PIP_FIND_LINKS={address}"]
        engine.docker("build", "--network", "host", *arguments, "-t", services["coordinator"]["image"], str(ROOT))


def _tiny(root: Path, name: str, program: str) -> None:
    """A root file system for one program: with a shell, and wget for its health check."""
    for directory in ("bin", "usr/local/bin", "etc", "tmp", "data", "var/lib/registry"):
        (root / directory).mkdir(parents=True)
    shutil.copy(str(shutil.which("busybox")), root / "bin/busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    shutil.copy(program, root / "usr/local/bin" / name)
    (root / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    for library in re.findall(r"(/\S+)", said):
        target = root / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nobody needs it."""


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """A directory of packages as a page of links, on loopback."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(directory)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
