"""What a coordinator may do about a claim that somebody else made: one table."""

import pytest

from services.coordinator.claim import (
    AskClaim,
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
LEASED = Held(by="c1", nonce="c1.1", leased=True)
ORDERED = Ordered(by="c1", revision=7)
COLLECTING = Collecting(by="gc", nonce="gc.1")


@pytest.mark.parametrize(
    ("claim", "given", "answer"),
    [
        (None, {}, Take()),
        (COLLECTING, {}, Take()),
        (HELD, {}, Wait()),
        (HELD, {"waited": True}, Take()),
        (LEASED, {"done": 8}, AskClaim(9)),
        (LEASED, {"done": 9}, Take()),
        (ORDERED, {"done": 6}, AskClaim(7)),
        (ORDERED, {"done": 7}, Take()),
        (Settled(by="c1", at=11), {"position": 10}, Wait()),
        (Settled(by="c1", at=11), {"position": 10, "waited": True}, Take()),
        (Settled(by="c1", at=10), {"position": 10}, Take()),
        (Settled(by="c1", at=9), {"position": 10}, Take()),
    ],
)
def test_judge(claim: Claim | None, given: dict[str, int], answer: object) -> None:
    case = {"done": 0, "position": 0, "waited": False, **given}
    assert judge(claim, 9, **case) == answer  # type: ignore[arg-type]


@pytest.mark.parametrize("claim", [HELD, LEASED, ORDERED, COLLECTING, Settled(by="c1", at=3)])
def test_a_claim_survives_the_bucket(claim: Claim) -> None:
    assert decode(encode(claim)) == claim


@pytest.mark.parametrize("value", [b"", b"junk", b'{"state":"unheard of"}', b"\xff", b"[" * 100_000])
def test_what_is_no_claim_may_be_claimed_over(value: bytes) -> None:
    assert decode(value) is None
