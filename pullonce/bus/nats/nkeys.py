"""NATS keys: ed25519 pairs that name and prove a user of the bus. Reads `.nk` files (a seed) and `.creds` files (JWT and seed).

A seed and a public key are base32 of: type bytes, 32 bytes of key, CRC-16 of both. Source: the format of nats-io/nkeys, and
NATS ADR-14 for creds files.
"""

import base64
import binascii
import os
import re
from dataclasses import dataclass
from pathlib import Path

from nacl.signing import SigningKey

_USER = 20 << 3
_SEED = 18 << 3
_KEY_BYTES = 32
_BLOCK = re.compile(r"-+BEGIN ([A-Z ]+?)-+\s+(\S+)\s+-+END")


class KeyInvalid(ValueError):
    """The text is no seed of a user's key, or the file holds none."""


@dataclass(frozen=True, slots=True)
class BusIdentity:
    """Who a connection is: a key pair, and the JWT that vouches for it where the server knows operators, not users."""

    seed: str
    jwt: str = ""

    @property
    def public(self) -> str:
        """The public key, `U…`: what a server's configuration names."""
        return _encode(bytes([_USER]), bytes(self._key().verify_key))

    def sign(self, nonce: str) -> bytes:
        """Prove it: the signature of what the server asked for, as it goes into CONNECT."""
        return base64.b64encode(self._key().sign(nonce.encode()).signature)

    def _key(self) -> SigningKey:
        return SigningKey(_decode_seed(self.seed))


def make_identity() -> BusIdentity:
    """A fresh key pair."""
    # The type of the key is spread over the two bytes before it: five bits "seed", then eight bits of what for.
    head = bytes([_SEED | _USER >> 5, (_USER & 31) << 3])
    return BusIdentity(_encode(head, os.urandom(_KEY_BYTES)))


def read_identity(path: Path) -> BusIdentity:
    """The identity in a file: a seed alone, or a creds file.

    Raises:
        OSError: the file cannot be read.
        KeyInvalid: it holds no user's seed.
    """
    text = path.read_text("utf-8", "replace")
    blocks = dict(_BLOCK.findall(text))
    seed, jwt = blocks.get("USER NKEY SEED", text.strip()), blocks.get("NATS USER JWT", "")
    try:
        _decode_seed(seed)
    except KeyInvalid as exc:
        raise KeyInvalid(f"{path} holds {exc}") from None
    return BusIdentity(seed, jwt)


def _encode(head: bytes, key: bytes) -> str:
    raw = head + key
    return base64.b32encode(raw + _crc(raw)).rstrip(b"=").decode()


def _decode_seed(seed: str) -> bytes:
    try:
        raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    except (binascii.Error, ValueError):
        raise KeyInvalid("no NATS seed") from None
    if len(raw) != 2 + _KEY_BYTES + 2 or raw[-2:] != _crc(raw[:-2]):
        raise KeyInvalid("a damaged NATS seed")
    if raw[0] & 0xF8 != _SEED or (raw[0] & 7) << 5 | raw[1] >> 3 != _USER:
        raise KeyInvalid("a NATS key that is no user's seed (SU…)")
    return raw[2:-2]


def _crc(raw: bytes) -> bytes:
    """CRC-16/XMODEM, low byte first."""
    return binascii.crc_hqx(raw, 0).to_bytes(2, "little")
