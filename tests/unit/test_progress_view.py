"""What a pull draws on a terminal."""

import io
import re

from pullonce.progress_view import ProgressView

ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64
CHAIN_ONE, CHAIN_TWO = "sha256:" + "c" * 64, "sha256:" + "d" * 64
RESOLVED: dict[str, object] = {
    "type": "pull.resolved",
    "layers": [
        {"blob": {"digest": ONE, "size": 10_000_000}, "chain_id": CHAIN_ONE, "fetched": True, "unpacked": True},
        {"blob": {"digest": TWO, "size": 20_000_000}, "chain_id": CHAIN_TWO},
    ],
}


def shown(*messages: dict[str, object]) -> list[str]:
    """The lines on the screen after these messages."""
    stream = io.StringIO()
    view = ProgressView(stream)
    for message in messages:
        view.take(message)
    view.close()
    last = re.split(r"\x1b\[\d+A", stream.getvalue())[-1]
    return [
        " ".join(line.replace("\x1b[K", "").replace("\x1b[J", "").split()) for line in last.splitlines() if line.strip("\x1b[J")
    ]


def test_nothing_is_drawn_before_the_layers_are_known() -> None:
    assert shown({"type": "blob.progress", "digest": ONE, "done": 5}) == []


def test_each_layer_has_a_line_with_what_the_store_holds() -> None:
    assert shown(RESOLVED) == ["111111111111 present 10.0 MB", "222222222222 waiting 20.0 MB"]


def test_a_fetch_shows_how_far_it_is() -> None:
    lines = shown(RESOLVED, {"type": "blob.progress", "digest": TWO, "done": 5_000_000, "size": 20_000_000})
    assert lines[1] == "222222222222 fetching [===== ] 5.0 MB / 20.0 MB"


def test_an_unpack_that_follows_its_fetch_is_what_is_shown() -> None:
    unpacking = {"type": "layer.progress", "chain_id": CHAIN_TWO, "done": 15_000_000}
    late = {"type": "blob.fetched", "digest": TWO}
    assert shown(RESOLVED, unpacking, late)[1].startswith("222222222222 unpacking [=============== ] 15.0")


def test_a_layer_ends_unpacked_whatever_still_comes() -> None:
    done = {"type": "layer.unpacked", "chain_id": CHAIN_TWO}
    late = {"type": "layer.progress", "chain_id": CHAIN_TWO, "done": 1}
    assert shown(RESOLVED, done, late)[1] == "222222222222 unpacked 20.0 MB"


def test_a_repeated_attempt_says_why() -> None:
    retrying = {"type": "blob.progress", "digest": TWO, "state": "retrying", "error": "the connection broke"}
    assert shown(RESOLVED, retrying)[1] == "222222222222 retrying the connection broke"


def test_what_concerns_other_images_is_passed_over() -> None:
    assert shown(RESOLVED, {"type": "blob.progress", "digest": "sha256:" + "9" * 64, "done": 5}) == shown(RESOLVED)


def test_more_layers_than_lines_are_counted() -> None:
    layers = [
        {"blob": {"digest": f"sha256:{n:064d}", "size": 1}, "chain_id": f"sha256:{n:064x}", "unpacked": n < 50}
        for n in range(60)
    ]
    lines = shown({"type": "pull.resolved", "layers": layers})
    assert len(lines) == 11 and lines[-1] == "50 of 60 layers done"
