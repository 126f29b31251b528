"""A real `docker-registry` on a free port of the loopback, whose access log is read and counted."""

from __future__ import annotations

import http.client
import os
import re
import secrets
import signal
import subprocess
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.support.images import Image, push
from tests.support.nats_server import free_port
from tests.support.programs import die_with_parent, find

_SECONDS = 20.0
_ACCESS = re.compile(r'"(?P<method>[A-Z]+) (?P<path>\S+) HTTP/[\d.]+" (?P<status>\d{3}) (?:\S+ "[^"]*" "(?P<agent>[^"]*)")?')
_KIND = re.compile(r"/v2/.+/(manifests|blobs)/[^/]+$")


@dataclass(frozen=True)
class Request:
    """One line of the access log."""

    method: str
    path: str
    status: int
    agent: str = ""
    """What the client calls itself."""

    @property
    def kind(self) -> str:
        """`HEAD manifests`, `GET manifests`, `GET blobs`, or method and path for anything else."""
        found = _KIND.match(self.path.partition("?")[0])
        return f"{self.method} {found[1]}" if found else f"{self.method} {self.path}"


class RegistryServer:
    """One registry process with its storage in a directory of its own.

    Args:
        home: where configuration and content lie; they outlive the process.
        htpasswd: lines of `user:bcrypt-hash`; with them, every request needs basic authentication.
    """

    def __init__(self, home: Path, *, htpasswd: str = "") -> None:
        self.host = f"127.0.0.1:{free_port()}"
        self._binary = find("docker-registry", "docker-registry is not on PATH (Debian: apt install docker-registry)")
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._start = 0
        home.mkdir(parents=True, exist_ok=True)
        auth = ""
        if htpasswd:
            (home / "htpasswd").write_text(htpasswd + "\n")
            auth = f"auth:\n  htpasswd:\n    realm: test\n    path: {home / 'htpasswd'}\n"
        self._config = home / "registry.yml"
        self._config.write_text(
            "version: 0.1\nlog: {level: error, accesslog: {disabled: false}}\n"
            f"storage: {{filesystem: {{rootdirectory: {home / 'content'}}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: '{self.host}', secret: for-tests}}\n{auth}"
        )

    def start(self) -> RegistryServer:
        """Start it and return once it accepts connections."""
        self._process = subprocess.Popen(
            [self._binary, "serve", str(self._config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
            preexec_fn=die_with_parent,
        )
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()
        while not self._answers():
            if self._process.poll() is not None:
                raise RuntimeError("docker-registry did not start:\n" + "\n".join(self._lines[-20:]))
            with self._news:
                self._news.wait(0.02)
        self.forget()
        return self

    def stop(self) -> None:
        """End the process; content stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def push(self, repository: str, tag: str, pushed: Image) -> str:
        """Push an image and forget the requests that this took. Returns its reference."""
        reference = push(self.host, repository, tag, pushed)
        self.forget()
        return reference

    def requests(self) -> list[Request]:
        """Every request since the last `forget`, in the order in which they ended."""
        marker = f"/v2/?marker={secrets.token_hex(8)}"
        self._ask(marker)
        with self._news:
            if not self._news.wait_for(lambda: any(marker in line for line in self._lines), _SECONDS):
                raise RuntimeError("docker-registry writes no access log")
            lines = self._lines[self._start :]
        found = (_ACCESS.search(line) for line in lines)
        requests = [Request(each["method"], each["path"], int(each["status"]), each["agent"] or "") for each in found if each]
        return [request for request in requests if "?marker=" not in request.path]

    def counts(self) -> Counter[str]:
        """How many requests of each kind there were since the last `forget`."""
        return Counter(request.kind for request in self.requests())

    def forget(self) -> None:
        """Count from here on."""
        self.requests()
        with self._news:
            self._start = len(self._lines)

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with self._news:
                self._lines.append(line.decode(errors="replace").rstrip())
                self._news.notify_all()

    def _answers(self) -> bool:
        try:
            self._ask("/v2/?marker=ready")
        except OSError:
            return False
        return True

    def _ask(self, path: str) -> None:
        connection = http.client.HTTPConnection(self.host, timeout=_SECONDS)
        try:
            connection.request("GET", path)
            connection.getresponse().read()
        finally:
            connection.close()
