"""What a pull or a push draws on a terminal."""

from __future__ import annotations

import io

import pytest

from pullonce.cli.bars import ProgressView, line
from pullonce.cli.push import PushView
from pullonce.pulling.layers import LayerUpdate
from schemas.oci import Digest
from schemas.push import PushedBlob, PushStatus
from tests.support.screen import Screen

FLIGHT = "0123456789abcdef"
ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64
CHAIN_ONE, CHAIN_TWO = "sha256:" + "c" * 64, "sha256:" + "d" * 64
RESOLVED: dict[str, object] = {
    "type": "pull.resolved",
    "layers": [
        {"blob": {"digest": ONE, "size": 10_000_000}, "chain_id": CHAIN_ONE, "fetched": True, "unpacked": True},
        {"blob": {"digest": TWO, "size": 20_000_000}, "chain_id": CHAIN_TWO},
    ],
}


def shown(*messages: dict[str, object], above: str = "") -> list[str]:
    """The lines on the screen after these messages."""
    stream = io.StringIO()
    view = ProgressView(stream, FLIGHT)
    for message in messages:
        view.take(message)
    if above:
        view.say(above)
    view.close()
    screen = Screen(80)
    screen.write(stream.getvalue().replace("\n", "\r\n"))  # as a terminal does
    assert screen.column == 0 and screen.lines[screen.row] == "" and not screen.wrapped
    return [" ".join(line.split()) for line in screen.lines[:-1]]


def update(**fields: object) -> LayerUpdate:
    base = LayerUpdate(ONE, CHAIN_ONE, "fetching", 5_000_000, 20_000_000, 2_500_000.0, 6.0, 0, "", 0.0)
    return base._replace(**fields)  # type: ignore[arg-type]


def test_nothing_is_drawn_before_the_layers_are_known() -> None:
    assert shown({"type": "blob.progress", "digest": ONE, "done": 5}) == []


def test_each_layer_has_a_line_with_what_the_store_holds() -> None:
    assert shown(RESOLVED) == ["111111111111 present 10.0 MB", "222222222222 waiting 20.0 MB"]


def test_a_fetch_shows_how_far_it_is() -> None:
    lines = shown(RESOLVED, {"type": "blob.progress", "digest": TWO, "done": 5_000_000, "size": 20_000_000})
    assert lines[1] == "222222222222 fetching [=== ] 5.0/20.0 MB"


def test_a_repeated_attempt_says_why_and_commands_no_terminal() -> None:
    retrying = {"type": "blob.progress", "digest": TWO, "state": "retrying", "error": "it \x1b[2J broke\u202e"}
    assert shown(RESOLVED, retrying)[1] == "222222222222 retrying after attempt 1: it \\x1b[2J broke\\u202e"


def test_what_is_resolved_again_says_why_until_the_layers_are_known() -> None:
    retrying: dict[str, object] = {
        "type": "pull.progress", "flight": FLIGHT, "work": "resolve", "state": "retrying", "retry_in": 2.5, "error": "4\x1b29",
    }  # fmt: skip
    again = retrying | {"state": "working", "attempt": 2}
    assert shown(retrying) == ["resolving again in 2.5 s: 4\\x1b29"]
    assert shown(retrying, again) == shown({"type": "progress.now", "works": [again]}) == ["resolving, attempt 2: 4\\x1b29"]
    assert shown(retrying, again, RESOLVED) == shown(RESOLVED)
    assert shown(RESOLVED, retrying | {"work": "record"})[0] == "listing again in 2.5 s: 4\\x1b29"
    assert shown(retrying | {"flight": "f" * 16}) == shown(again | {"attempt": 1}) == []


def test_what_is_said_meanwhile_stands_above() -> None:
    assert shown(RESOLVED, above="the bus is away") == ["the bus is away", *shown(RESOLVED)]


def test_more_layers_than_lines_are_counted() -> None:
    layers = [
        {"blob": {"digest": f"sha256:{n:064d}", "size": 1}, "chain_id": f"sha256:{n:064x}", "unpacked": n < 50}
        for n in range(60)
    ]
    lines = shown({"type": "pull.resolved", "layers": layers})
    assert len(lines) == 11 and lines[-1] == "50 of 60 layers done"


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (100, "111111111111  fetching   [=======                       ]      5.0/20.0 MB    2.5 MB/s       6s"),
        (79, "111111111111  fetching   [===           ]      5.0/20.0 MB    2.5 MB/s       6s"),
        (68, "111111111111  fetching       5.0/20.0 MB    2.5 MB/s       6s"),
        (55, "111111111111  fetching    25%    2.5 MB/s       6s"),
        (40, "1111  25% 2.5 MB/s 6s"),
        (20, "1111  25%"),
        (5, "1111 "),
    ],
)
def test_narrow_terminals_lose_the_bar_first_and_the_share_last(width: int, expected: str) -> None:
    assert line(update(), width) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(None, ""), (0.0, "0s"), (0.2, "1s"), (59.5, "1m00s"), (3599.0, "59m59s"), (4000.0, "1h06m"), (1e9, "999h46m")],
)
def test_the_time_left_is_said_in_few_characters(seconds: float | None, expected: str) -> None:
    assert line(update(left=seconds), 100).split("MB/s")[1].strip() == expected


def test_no_line_is_wider_than_its_terminal() -> None:
    for width in range(1, 120):
        for state in ("waiting", "fetching", "unpacking", "retrying", "present"):
            for size in (0, 1, 10**13):
                assert len(line(update(state=state, size=size, error="x" * 200, rate=1e10, left=1e9), width)) <= width


def test_a_blob_that_is_pushed_has_a_bar_as_a_layer_that_is_fetched() -> None:
    stream = io.StringIO()
    view = PushView(stream)
    digest = Digest(f"sha256:{'a' * 64}")
    for done in (0, 500_000):
        view.take(PushStatus(id="0" * 16, blobs=(PushedBlob(digest=digest, size=1_000_000, done=done, state="pushing"),)))
    view.close()
    drawn = stream.getvalue().rpartition("\r")[2]
    assert drawn.startswith("aaaaaaaaaaaa  pushing    [====") and "0.5/1.0 MB" in drawn
    view.take(PushStatus(id="0" * 16, note="again in 2 s", blobs=(PushedBlob(digest=digest, size=1_000_000, state="there"),)))
    view.close()
    assert "again in 2 s" in stream.getvalue() and "aaaaaaaaaaaa  there      1.0 MB" in stream.getvalue()
