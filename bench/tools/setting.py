"""What the smaller benchmarks stand on: a registry with images, a line to it, `pullonce up` on a fresh disk."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.tools import images
from bench.tools.disk import fresh_disk, warm_memory
from bench.tools.peers import Ours
from bench.tools.registry import Registry, serving
from bench.tools.usage import Group, come_first


def arguments(description: str, image: str) -> argparse.ArgumentParser:
    """Those that all of them take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", type=Path, help="a registry's storage directory to serve, instead of images made here")
    parser.add_argument("--image", default=image, help=f"name:tag of an image in it (default {image})")
    return parser


@contextmanager
def registry_with(storage: Path | None, image: str) -> Iterator[Registry]:
    """A registry that serves an image, from memory, and this process before everything else on the machine."""
    come_first()
    with tempfile.TemporaryDirectory() as home, serving(storage or Path(home) / "content", Path(home)) as registry:
        if storage is None:
            images.push_all(registry.host, image)
        registry.warm(image)
        yield registry


@contextmanager
def slow_line(host: str, rate: float) -> Iterator[str]:
    """The registry at the other end of a line of so many MB a second: its address there."""
    command = [sys.executable, "-m", "bench.tools.proxy", host, str(rate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        try:
            yield f"127.0.0.1:{proxy.stdout.readline().strip()}"
        finally:
            proxy.kill()


@contextmanager
def services(host: str) -> Iterator[Ours]:
    """`pullonce up` on a fresh disk."""
    with fresh_disk() as place:
        warm_memory()
        group = Group("services")
        ours = Ours(place, host, group)
        try:
            ours.start()
            yield ours
        finally:
            ours.stop()
            group.close()
