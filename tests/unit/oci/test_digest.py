"""Digests: which are understood, content against them, and the names of stacks."""

from __future__ import annotations

import hashlib

import pytest

from pullonce.errors import Permanent
from pullonce.oci.digest import Verifier, chain_ids, digest_bytes, matches, parse_digest
from schemas.oci import DiffID, Digest

A, B, C = (DiffID("sha256:" + letter * 64) for letter in "abc")


@pytest.mark.parametrize("text", ["sha256:" + "0" * 64, "sha512:" + "f" * 128])
def test_understood(text: str) -> None:
    assert parse_digest(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "sha256:" + "a" * 63,
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 64 + "\n",
        "sha256:../" + "a" * 61,
        "sha256-" + "a" * 64,
        "sha512:" + "a" * 64,
        "md5:" + "a" * 32,
        "a" * 64,
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(Permanent) as failed:
        parse_digest(text)
    assert failed.value.code == "DIGEST_INVALID"


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_stream_is_verified_in_pieces(algorithm: str) -> None:
    content = bytes(range(256)) * 10
    verifier = Verifier(Digest(f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"))
    for start in range(0, len(content), 100):
        assert not verifier.verified()
        verifier.update(memoryview(content)[start : start + 100])
    assert verifier.verified() and verifier.size == len(content)
    assert matches(content, verifier.expected) and not matches(content + b"x", verifier.expected)


def test_the_digest_of_nothing() -> None:
    assert digest_bytes(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_chain_ids() -> None:
    """ChainID(L₀) = DiffID(L₀); ChainID(L₀|…|Lₙ) = Digest(ChainID(L₀|…|Lₙ₋₁) + " " + DiffID(Lₙ))."""
    assert chain_ids([]) == []
    assert chain_ids([A]) == [A]
    two = digest_bytes(f"{A} {B}".encode())
    assert chain_ids([A, B, C]) == [A, two, digest_bytes(f"{two} {C}".encode())]
    assert chain_ids([A, A])[1] != A
