"""Which addresses lie within, and where a server may lead us: nobody out there has us ask for anything in here. Pure.

A registry that is public may lead to public addresses only. One that is itself private may lead within the private network,
one on this machine within this machine. Nobody leads to where clouds keep the secrets of a machine, or to addresses that
belong to no host.

Sources: IANA's registries of special-purpose addresses (RFC 6890); RFC 6598 (shared address space), RFC 4193 (unique local);
for addresses within addresses RFC 4291 section 2.5.5, 6052 and 8215 (NAT64), 3056 (6to4), 4380 (Teredo), 7915 (translated),
5214 (ISATAP).
"""

import unicodedata
from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Literal
from urllib.parse import unquote

Kind = Literal["public", "private", "loopback", "link-local", "metadata", "reserved"]
"""Where an address lies. `metadata`: a service of a cloud that tells a machine its secrets."""

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Reach = frozenset[Kind]
"""Kinds of addresses that may be connected to."""

PUBLIC: Reach = frozenset(("public",))
HOME: Reach = frozenset(("public", "private", "loopback"))
"""What a user may name as a registry."""
ANYWHERE: Reach = frozenset(("public", "private", "loopback", "link-local", "metadata", "reserved"))
"""Where the operator says so."""

_METADATA = frozenset(
    {
        *("169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
        *("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254"),
    }
)
_PRIVATE = tuple(
    map(
        ip_network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "fec0::/10", "64:ff9b:1::/48"),
    )
)
_THIS_HOST = tuple(map(ip_network, ("127.0.0.0/8", "0.0.0.0/8", "::1/128", "::/128")))
"""The last of both: what has no address yet stands for this machine, and a connection to it arrives here."""
_LINK_LOCAL = tuple(map(ip_network, ("169.254.0.0/16", "fe80::/10")))
_EMBEDDING = tuple(
    (ip_network(network), shift)
    for network, shift in (
        ("::/96", 0),
        ("::ffff:0:0/96", 0),
        ("::ffff:0:0:0/96", 0),
        ("64:ff9b::/96", 0),
        ("64:ff9b:1::/48", 0),
        ("2002::/16", 80),
    )
)
"""IPv6 networks whose addresses stand for an IPv4 address, and how many bits stand behind it."""
_DOTS = str.maketrans({0x3002: ".", 0xFF61: ".", 0xFF0E: "."})
"""The full stops that RFC 3490 section 3.1 reads as dots."""


def kind_of(address: Address) -> Kind:
    """Where an address lies. One that stands for another lies where that one does."""
    if str(address) in _METADATA:
        return "metadata"
    if any(address in network for network in _THIS_HOST):
        return "loopback"
    if any(address in network for network in _LINK_LOCAL):
        return "link-local"
    if isinstance(address, IPv6Address) and (inner := _embedded(address)) is not None:
        return kind_of(inner)
    if any(address in network for network in _PRIVATE):
        return "private"
    return "public" if address.is_global and not address.is_multicast else "reserved"


def literal(host: str) -> Address | None:
    """The address that a host is written as, in any notation that reaches it; None where it is a name.

    The C library reads `0x7f000001`, `0177.1` and `2130706433` as addresses, and names are folded before they are looked up:
    digits and dots of full width, and letters that are not seen, are no disguise.
    """
    text = unicodedata.normalize("NFKC", unquote(host)).translate(_DOTS)
    text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf").strip().rstrip(".").strip("[]")
    if ":" in text:
        try:
            return IPv6Address(text.partition("%")[0])
        except AddressValueError:
            return None
    numbers = [_number(part) for part in text.split(".")]
    if len(numbers) > 4:
        return None
    value = 0
    for position, number in enumerate(numbers):
        bits = 8 if position < len(numbers) - 1 else 8 * (5 - len(numbers))
        if number is None or number >= 1 << bits:
            return None
        value = value << bits | number
    return IPv4Address(value)


def kinds_of_host(host: str) -> Reach:
    """The kind of a host whose name says it; empty where it has to be looked up."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return frozenset(("loopback",))
    address = literal(host)
    return frozenset((kind_of(address),)) if address is not None else frozenset()


def leads(kinds: Iterable[Kind]) -> Reach:
    """Where a server may lead us whose addresses are of these kinds."""
    found = set(kinds)
    for kind in ("private", "loopback"):
        if found == {kind}:
            return PUBLIC | {kind}
    return PUBLIC


def network(text: str) -> Network | None:
    """A network in CIDR notation, or one address; None where the text is a name."""
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def _embedded(address: IPv6Address) -> IPv4Address | None:
    for within, shift in _EMBEDDING:
        if address in within:
            return IPv4Address(int(address) >> shift & 0xFFFFFFFF)
    if address.teredo:
        return address.teredo[1]
    if int(address) >> 32 & 0xFFFFFFFF in (0x00005EFE, 0x02005EFE):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def _number(part: str) -> int | None:
    """As `inet_aton` reads it: hexadecimal, octal or decimal."""
    part = part.lower()
    try:
        if part.startswith("0x"):
            return int(part[2:] or "0", 16) if part[2:].isalnum() or part == "0x" else None
        if not (part.isascii() and part.isdigit()):
            return None
        return int(part, 8 if part.startswith("0") and part != "0" else 10)
    except ValueError:
        return None
