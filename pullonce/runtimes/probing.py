"""Looks up the facts of this machine: whether the gateway's doors answer, which runtimes run, where file systems end."""

import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pullonce.runtimes.facts import DoorState, Process
from pullonce.runtimes.offer import Offer

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How a client of HTTP/2 begins, with settings of its own that are empty. Source: RFC 9113, section 3.4."""
_SETTINGS = 4
_PATIENCE = 3.0
_PROGRAMS = ("containerd", "dockerd", "kubelet", "crio", "k3s", "rke2")


def doors(offer: Offer) -> dict[str, DoorState]:
    """Whether each door of a gateway answers. Only sockets of this machine and addresses of loopback are asked."""
    found: dict[str, DoorState] = {}
    for door in ("snapshotter", "cri"):
        if path := getattr(offer, door):
            found[door] = _ask_socket(path)
    if offer.mirror:
        found["mirror"] = _ask_mirror(offer.mirror_host)
    return found


def _ask_socket(path: str) -> DoorState:
    """Begin HTTP/2, as gRPC does; a server answers by its settings."""
    asked = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    asked.settimeout(_PATIENCE)
    with asked:
        try:
            asked.connect(path)
            asked.sendall(_PREFACE)
            head = _read(asked, 9)
        except FileNotFoundError:
            return "absent"
        except PermissionError:
            return "forbidden"
        except ConnectionRefusedError:
            return "refused"
        except OSError:
            return "silent"
    return "answers" if len(head) == 9 and head[3] == _SETTINGS else "silent"


def _ask_mirror(host_and_port: str) -> DoorState:
    """Ask for `/v2/`, by which a registry says that it is one. Source: OCI distribution-spec, "Determining Support"."""
    host, _, port = host_and_port.rpartition(":")
    host = host.strip("[]")
    if not (host == "localhost" or host.startswith("127.") or host == "::1"):
        return "answers"  # beyond loopback nothing is asked
    try:
        with socket.create_connection((host, int(port)), timeout=_PATIENCE) as asked:
            asked.sendall(f"GET /v2/ HTTP/1.1\r\nHost: {host_and_port}\r\nConnection: close\r\n\r\n".encode())
            head = _read(asked, 12)
    except ConnectionRefusedError:
        return "refused"
    except OSError:
        return "silent"
    return "answers" if head.startswith(b"HTTP/1.1 ") and head[9:12] in (b"200", b"401") else "silent"


def _read(asked: socket.socket, count: int) -> bytes:
    head = b""
    while len(head) < count and (more := asked.recv(count - len(head))):
        head += more
    return head


def processes() -> dict[str, list[Process]]:
    """The runtimes that run, by their programs' names, the oldest first."""
    found: dict[str, list[Process]] = {}
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            name = (directory / "comm").read_text().strip()
            if name not in _PROGRAMS:
                continue
            words = tuple((directory / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1])
            found.setdefault(name, []).append(Process(words, _started(directory)))
    return {name: sorted(each, key=lambda process: process.started) for name, each in found.items()}


def _started(directory: Path) -> float:
    """Seconds since the epoch. Source: proc(5), /proc/[pid]/stat, field 22."""
    ticks = int((directory / "stat").read_text().rpartition(")")[2].split()[19])
    boot = next(int(line.split()[1]) for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
    return boot + ticks / os.sysconf("SC_CLK_TCK")


def devices(paths: Iterable[str]) -> dict[str, int]:
    """On which file system directories lie, those that are there."""
    found = {}
    for path in paths:
        with suppress(OSError):
            found[path] = Path(path).stat().st_dev
    return found
