"""What a coordinator may do about a claim that somebody else made: one table."""

import pytest

from services.coordinator.claim import (
    Ask,
    Claim,
    Collecting,
    Held,
    Ordered,
    Settled,
    Take,
    Wait,
    decode,
    encode,
    judge,
)

HELD = Held(by="c1", nonce="c1.1")
ORDERED = Ordered(by="c1", revision=7)
COLLECTING = Collecting(by="gc", nonce="gc.1")


@pytest.mark.parametrize(
    ("claim", "given", "answer"),
    [
        (None, {}, Take()),
        (COLLECTING, {}, Take()),
        (HELD, {}, Wait()),
        (HELD, {"ensure": True}, Wait()),
        (HELD, {"waited": True}, Take()),
        (ORDERED, {"done": 6}, Wait()),
        (ORDERED, {"done": 7}, Take()),
        (ORDERED, {"done": 6, "waited": True}, Ask(7)),
        (ORDERED, {"done": 6, "ensure": True}, Ask(7)),
        (Settled(by="c1", at=11), {"position": 10}, Wait()),
        (Settled(by="c1", at=11), {"position": 10, "waited": True}, Take()),
        (Settled(by="c1", at=10), {"position": 10, "since": 10}, Take()),
        (Settled(by="c1", at=9), {"position": 10}, Take()),
    ],
)
def test_judge(claim: Claim | None, given: dict[str, int], answer: object) -> None:
    case = {"since": 0, "done": 0, "position": 0, "waited": False, "ensure": False, **given}
    assert judge(claim, **case) == answer  # type: ignore[arg-type]


@pytest.mark.parametrize("claim", [HELD, ORDERED, COLLECTING, Settled(by="c1", at=3)])
def test_a_claim_survives_the_bucket(claim: Claim) -> None:
    assert decode(encode(claim)) == claim


@pytest.mark.parametrize("value", [b"", b"junk", b'{"state":"unheard of"}', b"\xff", b"[" * 100_000])
def test_what_is_no_claim_may_be_claimed_over(value: bytes) -> None:
    assert decode(value) is None
