"""How a light connection comes about: the addresses, TLS where the server or the address asks for it, and who we say we are.

Source: the NATS client protocol (INFO, CONNECT), https://docs.nats.io/reference/reference-protocols/nats-protocol.
"""

import _socket  # Python's `socket` is made of it; loading that, with its enums and selectors, costs a tenth of a light client.
import json
import os

from pullonce.errors import BusUnsuitable


class Access:
    """What lets us in, beside the address. Empty: nothing of the kind.

    Attributes:
        creds: file with a NATS seed (nkey), or a `.creds` file.
        ca: file of the authority that vouches for the server.
        cert, key: files of our own certificate and its key.
        inbox: prefix of the subjects that answers to us arrive under.
    """

    __slots__ = ("ca", "cert", "creds", "inbox", "key")

    def __init__(self, *, creds: str = "", ca: str = "", cert: str = "", key: str = "", inbox: str = "_INBOX") -> None:
        self.creds, self.ca, self.cert, self.key, self.inbox = creds, ca, cert, key, inbox


class Address:
    """One server: `nats://` or `tls://`, with a user and a password, or a token, where the address has them."""

    __slots__ = ("host", "password", "port", "scheme", "user")

    def __init__(self, url: str) -> None:
        """Read an address.

        Raises:
            BusUnsuitable: it is none of `nats://[user[:password]@]host[:port]` and `tls://…`.
        """
        scheme, separator, rest = url.strip().partition("://")
        if not separator:
            scheme, rest = "nats", scheme
        who, _, place = rest.rstrip("/").rpartition("@")
        if scheme not in ("nats", "tls") or any(c in place for c in "/?#"):
            raise _no_address(scheme, place)
        self.scheme = scheme
        self.user, colon, password = who.partition(":")
        self.password = password if colon else None
        host, colon, port = place.rpartition(":")
        if not colon or place.endswith("]"):
            host, port = place, "4222"
        if not host or not port.isdecimal() or int(port) > 65535:
            raise _no_address(scheme, place)
        self.host, self.port = host.strip("[]"), int(port)

    @property
    def shown(self) -> str:
        """The address without its secrets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def _no_address(scheme: str, place: str) -> BusUnsuitable:
    return BusUnsuitable(f"{scheme}://{place} is no address of a bus: expected nats://host:port or tls://host:port")


def addresses(url: str) -> "list[Address]":
    """Several servers of one cluster, with commas between them: any will do, so each client begins at another one."""
    found = [Address(each) for each in url.split(",")]
    first = os.urandom(1)[0] % len(found)
    return found[first:] + found[:first]


def connected(address: Address, timeout: float) -> _socket.socket:
    """A connection to the first address of a host that answers; raises OSError."""
    failure: OSError | None = None
    # As bytes where that will do: for a name as text Python loads the tables of international ones.
    host = address.host.encode() if address.host.isascii() else address.host
    for family, kind, protocol, _, place in _socket.getaddrinfo(host, address.port, 0, _socket.SOCK_STREAM):
        made = _socket.socket(family, kind, protocol)
        try:
            made.settimeout(timeout)
            made.connect(place)
            made.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
            return made
        except OSError as exc:
            made.close()
            failure = exc
    raise failure or OSError(f"{address.host} has no address")


def no_tls(shown: str) -> str:
    """What is said where TLS is wanted and not to be had."""
    return f"the server at {shown} offers no TLS: configure it, or use a nats:// address and no PULLONCE_NATS_CA"


def wants_tls(address: Address, access: Access, info: "dict[str, object]") -> bool:
    """Whether the rest is to be encrypted.

    Raises:
        BusUnsuitable: the address says so, and the server cannot.
    """
    if info.get("tls_required"):
        return True
    wanted = address.scheme == "tls" or bool(access.ca or access.cert)
    if wanted and not info.get("tls_available"):
        raise BusUnsuitable(no_tls(address.shown))
    return wanted


def answer(address: Address, access: Access, info: "dict[str, object]", name: str) -> bytes:
    """The CONNECT that answers a server's INFO.

    Raises:
        BusUnsuitable: our credentials cannot be used.
    """
    options: dict[str, object] = {
        "verbose": False, "pedantic": False, "headers": True, "no_responders": True, "protocol": 1,
        "lang": "python", "version": "0", "name": name,
    }  # fmt: skip
    nonce = info.get("nonce")
    if access.creds and isinstance(nonce, str):
        from pullonce.bus.nats.credentials import identity

        who = identity(access.creds)
        options["sig"] = who.sign(nonce).decode()
        options |= {"jwt": who.jwt} if who.jwt else {"nkey": who.public}
    elif address.password is not None:
        options |= {"user": address.user, "pass": address.password}
    elif address.user:
        options["auth_token"] = address.user
    return f"CONNECT {json.dumps(options)}\r\n".encode()
