"""The critical path: whatever happened, its parts follow one another and add up to the whole."""

import random

import pytest

from services.ledger.answers.explain import Story, Work, advice, critical_path


def told(story: Story) -> list[tuple[str, str, str, float]]:
    return [(part.step, part.work, part.name, round(part.seconds, 3)) for part in critical_path(story)]


def resolved() -> Work:
    return Work("resolve", end=1.0, steps={"token": 0.2, "head": 0.3, "manifest": 0.1})


def one_layer() -> Story:
    """Asked for at 0, resolved at 1, fetched at 4, unpacked while it came and committed at 5, recorded at 5.5, ended at 5.6."""
    blob = Work("fetch", "B", end=4.0, ordered=1.1, steps={"slot": 0.5, "answer": 0.4, "transfer": 1.8, "verify": 0.1})
    layer = Work("unpack", "L", end=5.0, ordered=1.1, steps={"bytes": 1.0, "unpack": 2.3, "commit": 0.4}, blob="B")
    record = Work("record", end=5.5, steps={"record": 0.4})
    return Story(0.0, 5.6, True, resolved(), record, {"B": blob}, {"L": layer})


def test_the_path_goes_from_the_layer_to_its_blob_where_the_unpack_caught_up_with_it() -> None:
    assert told(one_layer()) == [
        ("order", "resolve", "", 0.4),
        ("token", "resolve", "", 0.2),
        ("head", "resolve", "", 0.3),
        ("manifest", "resolve", "", 0.1),
        ("claim", "fetch", "B", 0.1),
        ("queue", "fetch", "B", 0.1),
        ("slot", "fetch", "B", 0.5),
        ("answer", "fetch", "B", 0.4),
        ("transfer", "fetch", "B", 1.8),
        ("verify", "fetch", "B", 0.1),
        ("unpack", "unpack", "L", 0.6),
        ("commit", "unpack", "L", 0.4),
        ("order", "record", "", 0.1),
        ("record", "record", "", 0.4),
        ("release", "", "", 0.1),
    ]


def test_a_layer_that_waited_for_the_one_below_hands_the_path_on() -> None:
    story = one_layer()
    steps = {"bytes": 0.1, "unpack": 0.3, "parent": 2.5, "complete": 0.1, "commit": 0.2}
    story.blobs["C"] = Work("fetch", "C", end=1.5, steps={"transfer": 0.4})
    story.layers["M"] = Work("unpack", "M", end=5.3, steps=steps, blob="C", parent="L")
    assert story.record is not None
    story.record.end, story.end = 5.8, 5.9
    assert told(story)[-6:-2] == [
        ("commit", "unpack", "L", 0.4),
        ("complete", "unpack", "M", 0.1),
        ("commit", "unpack", "M", 0.2),
        ("order", "record", "", 0.1),
    ]


def test_what_another_pull_ordered_counts_only_as_far_as_this_one_waited() -> None:
    story = one_layer()
    story.blobs["B"] = Work("fetch", "B", end=4.0, ordered=-3.0, steps={"transfer": 6.0}, others=True)
    transfer = next(part for part in critical_path(story) if part.step == "transfer")
    assert transfer.others and transfer.seconds == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("ordered", "wanted"),
    [
        (1.15, [("claim", 0.15), ("queue", 0.05)]),
        (1.7, [("claim", 0.2)]),  # a worker was faster than the event that tells of the order
        (0.4, [("queue", 0.2)]),  # another flight had ordered it
        (None, [("order", 0.2)]),  # by a ledger that begins behind its claim
    ],
)
def test_what_the_bus_took_is_told_from_what_a_worker_was_waited_for(
    ordered: float | None, wanted: list[tuple[str, float]]
) -> None:
    story = one_layer()
    story.blobs["B"].ordered = ordered
    parts = [(step, seconds) for step, work, _, seconds in told(story) if work == "fetch"]
    assert parts[: parts.index(("slot", 0.5))] == wanted


def test_a_request_that_came_late_waits_only_from_then_on() -> None:
    story = one_layer()
    story.begin = 4.3
    assert told(story)[0] == ("unpack", "unpack", "L", 0.3)
    assert sum(part.seconds for part in critical_path(story)) == pytest.approx(1.3)


def test_where_everything_is_present_only_resolving_and_release_are_left() -> None:
    story = Story(0.0, 1.1, True, resolved(), blobs={"B": Work("fetch", "B", present=True)})
    assert told(story) == [
        ("order", "resolve", "", 0.4),
        ("token", "resolve", "", 0.2),
        ("head", "resolve", "", 0.3),
        ("manifest", "resolve", "", 0.1),
        ("release", "", "", 0.1),
    ]


@pytest.mark.parametrize(
    ("story", "last"),
    [
        (Story(0.0, 7.0, False, Work("resolve")), ("waiting", "resolve", "", 7.0)),
        (
            Story(0.0, 7.0, False, resolved(), Work("record"), {"B": Work("fetch", "B", ordered=1.2)}),
            ("waiting", "fetch", "B", 6.0),
        ),
        (
            Story(0.0, 7.0, False, resolved(), Work("record"), {"B": Work("fetch", "B", present=True)}),
            ("waiting", "record", "", 6.0),
        ),
        (Story(0.0, 2.0, True, Work("resolve", end=1.9, failed=True)), ("release", "", "", 0.1)),
        (Story(0.0, 4.0, True, resolved(), None, {"B": Work("fetch", "B", end=3.9, failed=True)}), ("release", "", "", 0.1)),
    ],
    ids=["unresolved", "a blob is missing", "to be recorded", "resolving failed", "a blob failed"],
)
def test_a_pull_that_waits_or_failed_ends_with_what_it_waits_for(story: Story, last: tuple[str, str, str, float]) -> None:
    assert told(story)[-1] == last
    assert sum(part.seconds for part in critical_path(story)) == pytest.approx(story.end)


@pytest.mark.parametrize("seed", range(200))
def test_the_parts_always_add_up(seed: int) -> None:
    """Whatever the clocks and the workers say."""
    chance = random.Random(seed)

    def steps(*names: str) -> dict[str, float]:
        return {name: chance.choice((0.0, 1e-6, chance.random(), 50.0)) for name in names if chance.random() < 0.8}

    def work(kind: str, name: str, *names: str) -> Work:
        end = chance.choice((None, chance.uniform(-1, 12), chance.uniform(0, 10)))
        return Work(kind, name, end=end, steps=steps(*names), failed=chance.random() < 0.1, present=chance.random() < 0.2)  # type: ignore[arg-type]

    story = Story(0.0, 10.0, chance.random() < 0.5, work("resolve", "", "token", "head"), work("record", "", "record"))
    parent = ""
    for number in range(chance.randrange(5)):
        blob, layer = f"B{number}", f"L{number}"
        story.blobs[blob] = work("fetch", blob, "slot", "answer", "transfer", "verify")
        story.layers[layer] = work("unpack", layer, "bytes", "unpack", "blob", "parent", "commit")
        story.layers[layer].blob, story.layers[layer].parent = blob, parent
        parent = layer
    parts = critical_path(story)
    assert sum(part.seconds for part in parts) == pytest.approx(10.0)
    at = 0.0
    for part in parts:
        assert part.begin == pytest.approx(at) and part.seconds > 0
        at += part.seconds
    advice(parts)


def test_advice_names_the_greatest_share_first() -> None:
    said = advice(critical_path(one_layer()))
    assert said[0].startswith("transfer, 32%")
    assert len(said) == 1
