"""The bars of `pullonce pull` on a real terminal, and the same as updates of the client: real services, a slow line."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterator

import pytest

from pullonce.client import connect
from pullonce.pulling.layers import LayerUpdate
from tests.support.chaos_line import Line
from tests.support.deployment import Deployment
from tests.support.images import image, layer, tar_of
from tests.support.registry import RegistryServer
from tests.support.screen import Terminal

LIMIT = 60
MOVING = re.compile(r"(fetching|unpacking) +\[=+ *\] +\d\.\d/\d\.\d MB +\d+\.\d [kM]B/s +\d+s$")
NARROW = re.compile(r"^[0-9a-f]{4} +\d+% \d+\.\d [kM]B/s \d+s$")


@pytest.fixture(scope="module")
def pullonce(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("bars") / "home").start()
    yield deployment
    deployment.stop()


@pytest.fixture
def reference(registry: RegistryServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """An image of two layers of 2 MB, each of which comes in at 1.5 MB a second."""
    name = request.node.name
    layers = [layer(tar_of({f"file-{each}": random.Random(f"{name}{each}").randbytes(2_000_000)})) for each in range(2)]
    with Line(registry.host, 1.5e6) as line:
        yield line.reference(registry.push("slow/image", "latest", image(layers)))


@pytest.fixture
def terminal(pullonce: Deployment, reference: str, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    size, stdout = getattr(request, "param", ((100, 24), True))
    terminal = Terminal([sys.executable, "-m", "pullonce", "pull", reference], pullonce.environ, size, stdout=stdout)
    yield terminal
    terminal.close()


def test_a_layer_has_a_bar_with_rate_and_time_left(terminal: Terminal) -> None:
    terminal.until(lambda lines: sum(bool(MOVING.search(each)) for each in lines) == 2)
    assert terminal.end() == 0 and terminal.unchanged()
    screen = terminal.screen
    assert [each.split()[1] for each in screen.lines[:2]] == ["unpacked", "unpacked"]
    # Below the bars is what came of it, and below that the cursor, on a line of its own.
    assert screen.lines[3].startswith("image id  sha256:") and not any(MOVING.search(each) for each in screen.lines)
    assert (screen.column, screen.lines[screen.row], len(screen.lines)) == (0, "", screen.row + 1)


@pytest.mark.parametrize("terminal", [((32, 24), False)], indirect=True)
def test_a_narrow_terminal_wraps_no_line(terminal: Terminal) -> None:
    terminal.until(lambda lines: sum(bool(NARROW.search(each)) for each in lines) == 2)
    assert terminal.end() == 0
    assert not terminal.screen.wrapped and len(terminal.screen.lines) == 3


def test_ctrl_c_leaves_the_cursor_below_the_bars(terminal: Terminal) -> None:
    terminal.until(lambda lines: any(MOVING.search(each) for each in lines))
    terminal.press(b"\x03")
    assert terminal.end() == 130 and terminal.unchanged()
    assert terminal.screen.lines[2:] == [""] and terminal.screen.column == 0


async def test_the_client_tells_the_same_as_updates(pullonce: Deployment, reference: str) -> None:
    told: list[LayerUpdate] = []
    async with connect(pullonce.url) as client:
        pulled = await client.pull(reference, timeout=LIMIT, layers=told.append)
    assert pulled.sharing.unpacked == 2
    by_layer = {digest: [each for each in told if each.digest == digest] for digest in {each.digest for each in told}}
    assert len(by_layer) == 2
    for updates in by_layer.values():
        assert updates[0].state == "waiting" and updates[-1].state == "unpacked"
        assert updates[-1].done == updates[-1].size > 2_000_000
        moving = [each for each in updates if each.rate and each.left is not None]
        # The line lets 1.5 MB a second through; the words about it come ten times a second.
        assert moving and all(each.left is not None and 0 <= each.left < 60 for each in moving)
        assert len(updates) < 200
