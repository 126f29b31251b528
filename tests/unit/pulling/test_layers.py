"""Where the layers of an image stand, by what is heard of them: one line for fetch and unpack, with rate and time left."""

from __future__ import annotations

import pytest

from pullonce.pulling.layers import LayerUpdate, LayerView, Rate

ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64
CHAIN_ONE, CHAIN_TWO = "sha256:" + "c" * 64, "sha256:" + "d" * 64
RESOLVED: dict[str, object] = {
    "type": "pull.resolved",
    "layers": [
        {"blob": {"digest": ONE, "size": 1000}, "chain_id": CHAIN_ONE, "fetched": True, "unpacked": True},
        {"blob": {"digest": TWO, "size": 2000}, "chain_id": CHAIN_TWO},
    ],
}


def fetch(done: int, **more: object) -> dict[str, object]:
    return {"type": "blob.progress", "digest": TWO, "done": done, "size": 2000, **more}


def unpack(done: int, **more: object) -> dict[str, object]:
    return {"type": "layer.progress", "chain_id": CHAIN_TWO, "blob": TWO, "done": done, "size": 2000, **more}


def second(*said: dict[str, object], every: float = 1.0, unpacked: bool = True) -> LayerUpdate:
    """The second layer after these words, one each second."""
    view = LayerView(unpack=unpacked)
    now = 100.0
    view.take(RESOLVED, now)
    for word in said:
        now += every
        view.take(word, now)
    return view.layers(now)[1]


@pytest.mark.parametrize(
    ("said", "state", "done"),
    [
        ([], "waiting", 0),
        ([unpack(0, state="waiting")], "waiting", 0),
        ([fetch(500)], "fetching", 500),
        ([fetch(2000, state="verified")], "fetched", 2000),
        ([{"type": "blob.fetched", "digest": TWO, "size": 2000}], "fetched", 2000),
        ([fetch(900), unpack(300), fetch(1000)], "unpacking", 300),
        ([unpack(300), {"type": "blob.fetched", "digest": TWO}], "unpacking", 300),
        ([unpack(2000, state="committed")], "unpacked", 2000),
        ([{"type": "layer.unpacked", "chain_id": CHAIN_TWO}, unpack(1), fetch(1, state="retrying")], "unpacked", 2000),
        ([unpack(300), fetch(900, state="retrying", error="broke")], "retrying", 0),
        ([fetch(900, state="aborted", error="broke"), fetch(900)], "fetching", 900),
        ([unpack(5, state="retrying"), unpack(0, state="waiting")], "waiting", 0),
        ([{"type": "progress.now", "works": [fetch(2000, state="verified"), unpack(700)]}], "unpacking", 700),
        ([{"type": "blob.progress", "digest": "sha256:" + "9" * 64, "done": 5}, {"type": "blob.progress"}], "waiting", 0),
    ],
)
def test_fetch_and_unpack_are_one_line(said: list[dict[str, object]], state: str, done: int) -> None:
    update = second(*said)
    assert (update.state, update.done, update.size) == (state, done, 2000)


def test_what_is_there_is_present_from_the_first_word() -> None:
    view = LayerView()
    assert view.layers(1.0) == []
    view.take(RESOLVED, 1.0)
    first, _ = view.layers(1.0)
    assert (first.digest, first.chain_id, first.state, first.done, first.finished) == (ONE, CHAIN_ONE, "present", 1000, True)


def test_rate_and_time_left() -> None:
    update = second(fetch(0), fetch(200), fetch(400), fetch(600))
    assert update.rate == pytest.approx(200) and update.left == pytest.approx(7.0)


def test_one_word_tells_no_rate() -> None:
    assert second(fetch(1500))[5:7] == (0.0, None)


def test_the_rate_of_the_unpack_is_not_that_of_the_fetch() -> None:
    assert second(fetch(0), fetch(1000), unpack(0), unpack(100)).rate == pytest.approx(100)


def test_what_begins_anew_has_no_rate_of_before() -> None:
    update = second(fetch(0), fetch(1000), fetch(1000, state="retrying", error="broke", retry_in=2.5), fetch(100))
    assert (update.rate, update.left) == (0.0, None)
    assert (update.attempts, update.error, update.retry_in) == (1, "broke", 2.5)


def test_attempts_are_counted_once_each() -> None:
    """A fetch says of one attempt that it is aborted, and then that it is repeated; the next one may not get as far as that."""
    words = [
        fetch(5, state="aborted", error="broke"),
        fetch(5, state="retrying", error="broke"),
        fetch(0, state="retrying", error="no"),
    ]
    assert second(*words)[7:9] == (2, "no")


def test_an_image_that_is_only_fetched_is_done_when_it_is_fetched() -> None:
    update = second(fetch(2000, state="verified"), unpacked=False)
    assert (update.chain_id, update.state, update.finished) == ("", "fetched", True)
    assert not second(fetch(2000, state="verified")).finished


def test_layers_with_the_same_blob_get_on_together() -> None:
    twice = {
        "type": "pull.resolved",
        "layers": [{"blob": {"digest": TWO, "size": 9}, "chain_id": each} for each in (CHAIN_ONE, CHAIN_TWO)],
    }
    view = LayerView()
    view.take(twice, 0.0)
    view.take({"type": "blob.progress", "digest": TWO, "done": 4}, 0.0)
    assert [(each.state, each.done) for each in view.layers(0.0)] == [("fetching", 4), ("fetching", 4)]


def test_news_is_what_changed_and_at_first_everything() -> None:
    view = LayerView()
    view.take(RESOLVED, 0.0)
    assert [each.state for each in view.news(0.0)] == ["present", "waiting"]
    assert view.news(1.0) == []
    view.take(fetch(10), 2.0)
    view.take(fetch(20), 3.0)
    assert [(each.digest, each.done) for each in view.news(3.0)] == [(TWO, 20)]
    assert view.news(9.0) == []  # that time passes is no news


def test_a_rate_is_that_of_the_latest_seconds() -> None:
    rate = Rate()
    for moment in range(31):
        rate.grown(moment * 100, float(moment))
    assert rate.at(30.0) == pytest.approx(100)
    for moment in range(31, 41):
        rate.grown(3000 + (moment - 30) * 1000, float(moment))
    assert 950 < rate.at(40.0) < 1000
    assert rate.at(42.0) < rate.at(40.0) / 1.4 and rate.at(1e6) < 1  # nothing is said any more
