"""Which keys of a board may be pursued now, and which when others are done."""

from __future__ import annotations

from pullonce.pulling.identity import identify_request
from schemas import subjects
from schemas.events import (
    BlobClaimed,
    BlobFailed,
    BlobFetched,
    BlobLost,
    Event,
    PullFailed,
    PullRequested,
    PullResolved,
    Source,
)
from schemas.oci import Descriptor
from services.coordinator.board import Board
from services.coordinator.intents import Want
from services.coordinator.turns import CONTENT, Turns
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
        """An image is asked for and resolved. Returns how its flight would fail."""
        request = PullRequested(reference=f"{registry}/{name}:1")
        self.fold(request)
        opened, flight = self.board.position, identify_request(request).flight
        manifest = Descriptor(media_type="manifest", digest=digest(name), size=1)
        self.fold(
            PullResolved(
                reference=request.reference, flight=flight, opened=opened, revision=1, platform="linux/amd64",
                source=Source(registry, name), digest=manifest.digest, manifest=manifest, config=manifest,
                layers=tuple(layer(f"{name} {number}", 1) for number in range(layers)),
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
