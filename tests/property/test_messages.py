"""Whatever bytes come as a message, reading them gives a message or says `Malformed`."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import claims, events, ledger, orders, progress, status
from schemas.derive.samples import SAMPLES
from schemas.malformed import Malformed
from schemas.routing import event_subject, order_subject


def _stored(kind: str) -> Callable[[bytes], object]:
    match SAMPLES[kind]:
        case events.Event() as event:
            return lambda body: events.decode(event_subject(event), body)
        case orders.Order() as order:
            return lambda body: orders.decode(order_subject(order), body)
        case _:
            return progress.decode


READERS: dict[str, Callable[[bytes], object]] = {kind: _stored(kind) for kind in SAMPLES} | {
    "progress.now": progress.decode_now,
    "a question about progress": progress.names_of,
    "pong": status.decode_pong,
    "status": status.decode_status,
    "store.now": status.decode_store_now,
    "a question to the ledger": ledger.decode_question,
    "an answer of the ledger": ledger.decode_answer,
    "a claim": claims.decode,
}

DEEP = 200_000

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
NAMES = st.text(max_size=8) | st.sampled_from(["type", "digest", "chain_id", "blob", "layers", "store", "details", "works"])
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)


def is_read_or_malformed(read: Callable[[bytes], object], body: bytes) -> None:
    try:
        found = read(body)
    except Malformed as exc:
        assert str(exc)
    else:
        assert found is None or isinstance(found, (msgspec.Struct, tuple))


@pytest.mark.parametrize("reader", READERS)
@given(body=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes(reader: str, body: bytes) -> None:
    is_read_or_malformed(READERS[reader], body)


@pytest.mark.parametrize("reader", READERS)
@given(data=st.data())
def test_a_message_with_some_bytes_changed(reader: str, data: st.DataObject) -> None:
    body = bytearray(msgspec.json.encode(SAMPLES.get(reader, SAMPLES["pull.resolved"])))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    is_read_or_malformed(READERS[reader], bytes(body))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "body",
    [
        b"[" * DEEP,
        b'{"a":' * DEEP,
        b'{"details":' + b"[" * DEEP + b"]" * DEEP + b"}",
        b'{"a field of tomorrow":' + b"[" * DEEP + b"]" * DEEP + b"}",
        b'{"store":"\xff\xfe"}',
        b'{"reference":"\xed\xa0\x80"}',
        b'{"host":"\xff"}',
        b"\xff",
        b"",
    ],
    ids=[
        "lists",
        "objects",
        "a known field",
        "a skipped field",
        "no UTF-8",
        "half a pair",
        "no UTF-8 either",
        "a byte",
        "nothing",
    ],
)
def test_bytes_that_are_meant_to_hurt(reader: str, body: bytes) -> None:
    is_read_or_malformed(READERS[reader], body)


BROKEN = [
    "", "sha256", "sha256:", "sha256:" + "a" * 63, "sha256:" + "a" * 65, "sha256:" + "A" * 64, "sha256:" + "g" * 64,
    "md5:" + "0" * 32, "sha512:" + "0" * 64, "sha256:" + "a" * 64 + "\n", " sha256:" + "a" * 64, "sha256:*", "sha256:>",
    "../../etc/passwd",
]  # fmt: skip


def _with_digest(value: object, broken: str) -> list[object]:
    """The value once for each digest in it, with that one broken; DiffIDs and ChainIDs count."""
    match value:
        case dict():
            return [value | {key: changed} for key, inner in value.items() for changed in _with_digest(inner, broken)]
        case list():
            return [
                [*value[:at], changed, *value[at + 1 :]]
                for at, inner in enumerate(value)
                for changed in _with_digest(inner, broken)
            ]
        case str() if value.startswith("sha256:"):
            return [broken]
        case _:
            return []


@pytest.mark.parametrize("broken", [each for each in BROKEN if each])
@pytest.mark.parametrize("kind", SAMPLES)
def test_a_malformed_digest_makes_a_malformed_message_wherever_it_stands(kind: str, broken: str) -> None:
    for body in _with_digest(json.loads(msgspec.json.encode(SAMPLES[kind])), broken):
        with pytest.raises(Malformed, match="regex"):
            READERS[kind](json.dumps(body).encode())


def test_only_what_may_be_missing_may_be_empty() -> None:
    body = json.loads(msgspec.json.encode(SAMPLES["pull.completed"]))
    assert events.decode("pull.completed", json.dumps(body | {"chain_id": ""}).encode())
    with pytest.raises(Malformed, match="manifest"):
        events.decode("pull.completed", json.dumps(body | {"manifest": ""}).encode())


def test_a_sha512_digest_is_one() -> None:
    body = {"digest": "sha512:" + "0f" * 64}
    assert events.decode(f"blob.lost.default.{body['digest'].replace(':', '-')}", json.dumps(body).encode())
