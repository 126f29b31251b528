"""Which keys of a board may be pursued now, and which when others are done."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pullonce.pulling.identity import identify_request
from schemas import subjects
from schemas.events import (
    BlobClaimed,
    BlobFailed,
    BlobFetched,
    BlobLost,
    Event,
    LayerLost,
    PullFailed,
    PullRequested,
    PullResolved,
    Source,
)
from schemas.oci import Descriptor
from schemas.pull_facts import ResolvedLayer
from services.coordinator.board import Board
from services.coordinator.intents import Want
from services.coordinator.turns import CONTENT, CONTENT_OF_A_STORE, Turns
from tests.support.sky import digest, layer

STORE = "default"


class World:
    """A board, what it has ever wanted in its order, and what of that went."""

    def __init__(self) -> None:
        self.board = Board()
        self.turns = Turns(self.board)
        self.went: list[str] = []

    def fold(self, event: Event) -> None:
        intents = self.board.apply(event, self.board.position + 1)
        self.turns.note(event, intents)
        self.went += [each.key for each in intents if isinstance(each, Want) and self.turns.may_go(each.key)]
        self.went += self.turns.next()

    def pull(self, registry: str, name: str, layers: int) -> PullFailed:
        """An image of so many layers of its own is asked for and resolved. Returns how its flight would fail."""
        return self.pull_of(registry, name, [layer(f"{name} {number}", 1) for number in range(layers)])

    def pull_of(self, registry: str, name: str, layers: Sequence[ResolvedLayer]) -> PullFailed:
        """The same with the layers that are given."""
        request = PullRequested(reference=f"{registry}/{name}:1")
        self.fold(request)
        opened, flight = self.board.position, identify_request(request).flight
        manifest = Descriptor(media_type="manifest", digest=digest(name), size=1)
        self.fold(
            PullResolved(
                reference=request.reference, flight=flight, opened=opened, revision=1, platform="linux/amd64",
                source=Source(registry, name), digest=manifest.digest, manifest=manifest, config=manifest,
                layers=tuple(layers),
            )
        )  # fmt: skip
        return self.board.flights[flight].failure(self.board.position, code="pull.cancelled", message="left")

    def out(self, noun: str) -> list[str]:
        return [each for each in self.went if each.startswith(f"{noun}.")]


def key(name: str, number: int) -> str:
    return subjects.blob_key(STORE, digest("blob", f"{name} {number}"))


def fetched(name: str, number: int) -> BlobFetched:
    return BlobFetched(digest=digest("blob", f"{name} {number}"), revision=9, size=1)


def test_a_flood_of_one_registry_is_given_out_by_and_by_and_others_go_at_once() -> None:
    world = World()
    world.pull("a.example", "flood", 2 * CONTENT)
    assert world.out("blob") == [key("flood", number) for number in range(CONTENT)] and len(world.out("layer")) == CONTENT
    world.pull("b.example", "small", 3)
    assert world.went[-6::2] == [key("small", number) for number in range(3)]
    for number in (0, 5):
        world.fold(fetched("flood", number))
    assert world.out("blob")[-2:] == [key("flood", number) for number in (CONTENT, CONTENT + 1)]
    assert world.turns.waiting == 2 * CONTENT - 2 and world.turns.is_waiting(key("flood", CONTENT + 2))


def test_whose_flight_has_ended_leaves_his_places_to_others() -> None:
    world = World()
    ending = world.pull("a.example", "flood", CONTENT)
    world.pull("a.example", "next", CONTENT)
    assert len(world.out("blob")) == CONTENT
    world.fold(ending)
    assert world.out("blob")[CONTENT:] == [key("next", number) for number in range(CONTENT)] and world.turns.waiting == 0


def test_what_failed_is_ordered_again_without_asking_and_keeps_its_place() -> None:
    world = World()
    world.pull("a.example", "flood", 2 * CONTENT)
    blob = digest("blob", "flood 3")
    world.fold(BlobClaimed(digest=blob, revision=9, holder="me"))
    before = len(world.out("blob"))
    world.fold(
        BlobFailed(
            digest=blob, revision=9, source=Source("a.example", "flood"), concerns="nobody", code="order.withdrawn", message=""
        )
    )
    assert world.out("blob")[before:] == [key("flood", 3)]


def test_what_is_lost_while_others_wait_for_it_does_not_wait_itself() -> None:
    """A layer above may have a place, and wait for the one below."""
    world = World()
    world.pull("a.example", "flood", 2 * CONTENT)
    world.fold(BlobClaimed(digest=digest("blob", "flood 3"), revision=9, holder="me"))
    world.fold(fetched("flood", 3))
    before = len(world.out("blob"))
    world.fold(BlobLost(digest=digest("blob", "flood 3"), reason="removed"))
    assert world.out("blob")[before:] == [key("flood", 3)]


SHARED = layer("shared", 1)
SHARED_KEY = subjects.blob_key(STORE, SHARED.blob.digest)


def drips(count: int, of: str = "drip") -> list[ResolvedLayer]:
    return [layer(f"{of} {number}", 1) for number in range(count)]


def test_what_waits_behind_one_registry_goes_for_whoever_has_it_of_another() -> None:
    world = World()
    world.pull_of("a.example", "evil", [*drips(CONTENT), SHARED])
    assert world.turns.is_waiting(SHARED_KEY)
    world.pull_of("b.example", "victim", [SHARED])
    assert world.went.count(SHARED_KEY) == 1 and not world.turns.is_waiting(SHARED_KEY)


def test_a_key_whose_first_flight_has_left_is_asked_about_again_without_harm() -> None:
    """As a coordinator does after a reconnection, and when it takes a store over."""
    world = World()
    world.pull_of("a.example", "evil", drips(CONTENT))
    world.pull_of("b.example", "busy", drips(CONTENT, "busy"))
    leaving = world.pull_of("a.example", "two", [SHARED])
    world.pull_of("b.example", "three", [SHARED])
    world.fold(leaving)
    for _ in range(2):
        for want in world.board.waits.everything():
            assert world.turns.may_go(want.key) == (want.key in world.went)
    assert SHARED_KEY not in world.went and world.turns.is_waiting(SHARED_KEY)
    world.fold(fetched("busy", 0))
    assert world.went.count(SHARED_KEY) == 1 and not world.turns.is_waiting(SHARED_KEY)


def test_a_layer_that_is_lost_goes_before_those_that_stand_on_it() -> None:
    world = World()
    there = msgspec.structs.replace(SHARED, fetched=True, unpacked=True)
    for image in range(40):
        world.pull_of("a.example", f"image-{image}", [there, *(layer(f"image-{image} {number}", 1) for number in range(4))])
    assert len(world.out("layer")) == CONTENT
    world.fold(LayerLost(chain_id=SHARED.chain_id, reason="removed"))
    assert subjects.layer_key(STORE, SHARED.chain_id) in world.went


def test_every_registry_has_its_turn_though_others_are_never_done() -> None:
    world, busy = World(), CONTENT_OF_A_STORE // CONTENT
    for number in range(busy):
        world.pull(f"r{number}.example", f"busy-{number}", 2 * CONTENT)
    world.pull("last.example", "last", 1)
    assert key("last", 0) not in world.went
    for done in range(2 * busy):
        world.fold(fetched(f"busy-{done % busy}", done // busy))
    assert key("last", 0) in world.went


def test_who_came_and_left_while_a_registry_was_full_is_not_remembered() -> None:
    world = World()
    world.pull("a.example", "drip", CONTENT)
    for number in range(10):
        world.fold(world.pull("a.example", f"left-{number}", 500))
    assert world.turns.waiting < 4 * 1024
