"""NATS keys: ed25519 pairs that name and prove a user of the bus. Reads `.nk` files (a seed) and `.creds` files (JWT and seed).

A seed and a public key are base32 of: type bytes, 32 bytes of key, CRC-16 of both. Source: the format of nats-io/nkeys, and
NATS ADR-14 for creds files. Light to import: every `pullonce pull` on a bus with keys reads one and signs once.
"""

import binascii
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_USER = 20 << 3
_SEED = 18 << 3
_KEY_BYTES = 32
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
"""Of base32, by their values. Source: RFC 4648, section 6."""


class KeyInvalid(ValueError):
    """The text is no seed of a user's key, or the file holds none."""


class BusIdentity:
    """Who a connection is: a key pair, and the JWT that vouches for it where the server knows operators, not users."""

    __slots__ = ("jwt", "seed")

    def __init__(self, seed: str, jwt: str = "") -> None:
        self.seed = seed
        self.jwt = jwt

    @property
    def public(self) -> str:
        """The public key, `U…`: what a server's configuration names."""
        return _encode(bytes([_USER]), _pair(_decode_seed(self.seed))[0])

    def sign(self, nonce: str) -> bytes:
        """Prove it: the signature of what the server asked for, as it goes into CONNECT."""
        _, sign = _pair(_decode_seed(self.seed))
        return binascii.b2a_base64(sign(nonce.encode()), newline=False)


def make_identity() -> BusIdentity:
    """A fresh key pair."""
    # The type of the key is spread over the two bytes before it: five bits "seed", then eight bits of what for.
    head = bytes([_SEED | _USER >> 5, (_USER & 31) << 3])
    return BusIdentity(_encode(head, os.urandom(_KEY_BYTES)))


def read_identity(path: "Path | str") -> BusIdentity:
    """The identity in a file: a seed alone, or a creds file.

    Raises:
        OSError: the file cannot be read.
        KeyInvalid: it holds no user's seed.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read()
    blocks = _blocks(text)
    seed, jwt = blocks.get("USER NKEY SEED", text.strip()), blocks.get("NATS USER JWT", "")
    try:
        _decode_seed(seed)
    except KeyInvalid as exc:
        raise KeyInvalid(f"{path} holds {exc}") from None
    return BusIdentity(seed, jwt)


def _blocks(text: str) -> "dict[str, str]":
    """The first line of each block between `-----BEGIN NAME-----` and `------END NAME------`."""
    blocks: dict[str, str] = {}
    name = ""
    for line in text.split("\n"):
        line = line.strip()
        if line.startswith("-"):
            _, begins, rest = line.partition("BEGIN ")
            name = rest.strip("- ") if begins else ""
        elif line and name:
            blocks.setdefault(name, line)
    return blocks


def _pair(seed: bytes) -> "tuple[bytes, Callable[[bytes], bytes]]":
    """The public key of a seed, and what signs with it.

    `nacl.signing` loads thirty modules, two thirds of what a whole light client costs; what it calls is one of them.
    """
    try:
        from nacl._sodium import ffi, lib  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        from nacl.signing import SigningKey

        key = SigningKey(seed)
        return bytes(key.verify_key), lambda message: bytes(key.sign(message).signature)
    if lib.sodium_init() < 0:
        raise RuntimeError("libsodium does not work here")
    public, secret = ffi.new("unsigned char[32]"), ffi.new("unsigned char[64]")
    lib.crypto_sign_seed_keypair(public, secret, seed)

    def sign(message: bytes) -> bytes:
        signed, length = ffi.new("unsigned char[]", 64 + len(message)), ffi.new("unsigned long long *")
        lib.crypto_sign(signed, length, message, len(message), secret)
        return bytes(ffi.buffer(signed, 64))

    return bytes(ffi.buffer(public, 32)), sign


def _encode(head: bytes, key: bytes) -> str:
    raw = head + key
    raw += _crc(raw)
    count = -(-len(raw) * 8 // 5)
    number = int.from_bytes(raw, "big") << (count * 5 - len(raw) * 8)
    return "".join(_LETTERS[number >> 5 * place & 31] for place in reversed(range(count)))


def _decode_seed(seed: str) -> bytes:
    if not 2 <= len(seed) <= 2 * _KEY_BYTES:
        raise KeyInvalid("no NATS seed")
    number = 0
    for letter in seed:
        value = _LETTERS.find(letter)
        if value < 0:
            raise KeyInvalid("no NATS seed")
        number = number << 5 | value
    left = len(seed) * 5 % 8
    if left >= 5 or number & ((1 << left) - 1):  # letters, or bits, that no byte needs
        raise KeyInvalid("no NATS seed")
    raw = (number >> left).to_bytes(len(seed) * 5 // 8, "big")
    if len(raw) != 2 + _KEY_BYTES + 2 or raw[-2:] != _crc(raw[:-2]):
        raise KeyInvalid("a damaged NATS seed")
    if raw[0] & 0xF8 != _SEED or (raw[0] & 7) << 5 | raw[1] >> 3 != _USER:
        raise KeyInvalid("a NATS key that is no user's seed (SU…)")
    return raw[2:-2]


def _crc(raw: bytes) -> bytes:
    """CRC-16/XMODEM, low byte first."""
    return binascii.crc_hqx(raw, 0).to_bytes(2, "little")
