"""Digests: reading them, checking content against them, naming stacks of layers. Pure.

Sources: OCI image-spec 1.1 (descriptor, `digest`; config, `Layer ChainID`).
"""

import hashlib
import re
from collections.abc import Iterable

from pullonce.errors import Permanent
from schemas.oci import ChainID, DiffID, Digest

STACK_LIMIT = 500
"""Layers that the kernel mounts on each other (overlayfs, `OVL_MAX_STACK`): an image with more could never be mounted."""

Buffer = bytes | bytearray | memoryview

_FORM = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


def parse_digest(text: str) -> Digest:
    """Read a digest. Everything that becomes part of a path or a URL passes through here.

    Raises:
        Permanent: `DIGEST_INVALID`; an unknown algorithm, wrong length, upper case, or no digest at all.
    """
    if not is_digest(text):
        raise Permanent(
            f"{text[:160]!r} is no digest that can be checked; expected sha256:<64 hex digits> or sha512:<128 hex digits>",
            code="DIGEST_INVALID",
        )
    return Digest(text)


def is_digest(text: str) -> bool:
    """Whether `parse_digest` would take it."""
    return _FORM.fullmatch(text) is not None


def digest_bytes(content: Buffer) -> Digest:
    """The sha256 digest of some content."""
    return Digest(f"sha256:{hashlib.sha256(content).hexdigest()}")


def matches(content: Buffer, digest: Digest) -> bool:
    """Whether some content is what its digest says."""
    verifier = Verifier(digest)
    verifier.update(content)
    return verifier.verified()


class Verifier:
    """Checks a stream against the digest it is expected to have.

    `update` releases the GIL for big chunks (best at 256 kB and more: 1.7 GB/s), so it may run in a thread.
    """

    __slots__ = ("_hash", "expected", "size")

    def __init__(self, expected: Digest) -> None:
        algorithm = parse_digest(expected).partition(":")[0]
        self._hash = hashlib.new(algorithm)
        self.expected = expected
        self.size = 0
        """Bytes so far."""

    def update(self, chunk: Buffer) -> None:
        self._hash.update(chunk)
        self.size += memoryview(chunk).nbytes

    def actual(self) -> Digest:
        """The digest of what was seen so far."""
        return Digest(f"{self._hash.name}:{self._hash.hexdigest()}")

    def verified(self) -> bool:
        """Whether what was seen so far has the expected digest."""
        return self.actual() == self.expected


def chain_ids(diff_ids: Iterable[DiffID]) -> list[ChainID]:
    """Name each layer by the whole stack below it, bottom first."""
    chain: list[ChainID] = []
    for diff_id in diff_ids:
        chain.append(ChainID(digest_bytes(f"{chain[-1]} {diff_id}".encode())) if chain else ChainID(diff_id))
    return chain
