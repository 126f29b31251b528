"""A real nats-server on a free port of the loopback, with JetStream in a directory of its own: to kill and restart."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from tests.support.programs import die_with_parent, find

_READY = 20.0


def binary() -> str:
    """Path of nats-server: the one beside the running Python, else the one on PATH. Skips (in CI: fails) if there is none."""
    beside = Path(sys.executable).parent
    path = f"{beside}{os.pathsep}{os.environ.get('PATH', '')}"
    return find("nats-server", "nats-server is neither beside this Python nor on PATH", path=path)


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class NatsServer:
    """One server process.

    Args:
        home: where its configuration and its streams lie; they outlive the process.
        jetstream: lines for the `jetstream` block, such as `sync_interval: always`; None: no JetStream at all.
        more: further lines of configuration.
        config: a configuration file that is there already, and the port it names, instead of all this.
    """

    def __init__(
        self, home: Path, *, jetstream: str | None = "", more: str = "", config: tuple[Path, int] | None = None
    ) -> None:
        self.port = config[1] if config else free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._binary = binary()
        self._config = config[0] if config else home / "nats.conf"
        self._process: subprocess.Popen[bytes] | None = None
        self.output: list[str] = []
        self._streams = home / "jetstream"
        block = "" if jetstream is None else f'jetstream {{\n  store_dir: "{self._streams}"\n  {jetstream}\n}}\n'
        if config:
            return
        home.mkdir(parents=True, exist_ok=True)
        self._config.write_text(f'listen: "127.0.0.1:{self.port}"\n{block}{more}\n')

    def move_to(self, port: int) -> None:
        """Listen on another port from the next start on."""
        text = self._config.read_text().replace(f'listen: "127.0.0.1:{self.port}"', f'listen: "127.0.0.1:{port}"')
        self._config.write_text(text)
        self.port, self.url = port, f"nats://127.0.0.1:{port}"

    def start(self) -> NatsServer:
        """Start it and return once it accepts connections."""
        process = subprocess.Popen(
            [self._binary, "--config", str(self._config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=die_with_parent,
        )
        self._process = process
        ready = threading.Event()
        threading.Thread(target=self._read, args=(process, ready), daemon=True).start()
        if not ready.wait(_READY) or process.poll() is not None:
            self.kill()
            raise RuntimeError("nats-server did not start:\n" + "\n".join(self.output[-20:]))
        return self

    def kill(self) -> None:
        """SIGKILL: as in a crash."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM: as by an operator."""
        self._end(signal.SIGTERM)

    def wipe(self) -> None:
        """Remove all streams, as a server that lost its disk. Only while it is not running."""
        shutil.rmtree(self._streams)

    def pause(self) -> None:
        """SIGSTOP: connected but dumb, until `resume`. Returns when all its threads stand still."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Kill it and start it again, on the same port and the same streams."""
        self.kill()
        self.start()

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait()
        self._process = None

    def _read(self, process: subprocess.Popen[bytes], ready: threading.Event) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                self.output.append(line.decode(errors="replace").rstrip())
                if b"Server is ready" in line:
                    ready.set()
        ready.set()
