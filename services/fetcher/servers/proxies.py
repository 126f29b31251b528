"""Which proxy leads to a host, out of `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`. Pure.

As Go reads them (golang.org/x/net/http/httpproxy), since docker and containerd run in the same environment: a proxy may lack
its scheme; `NO_PROXY` lists names with all below them, `.names` without the name itself, addresses, networks, names and
addresses with a port, or `*`. This machine is never reached through a proxy.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit


class ProxyInvalid(ValueError):
    """A proxy cannot be used; the message names the variable and what was expected."""


@dataclass(frozen=True, slots=True)
class Proxies:
    """Proxies by the scheme of what is asked for, and what is reached directly.

    Attributes:
        http, https: addresses with their scheme; empty: none.
        direct: the entries of `NO_PROXY`, lower case.
    """

    http: str = ""
    https: str = ""
    direct: tuple[str, ...] = ()

    @staticmethod
    def from_env(environ: Mapping[str, str]) -> Proxies:
        """Raises ProxyInvalid."""

        def first(*names: str) -> str:
            return next((environ[name] for name in names if environ.get(name)), "")

        # A CGI program gets its client's `Proxy` header as HTTP_PROXY.
        ours = ("http_proxy",) if environ.get("REQUEST_METHOD") else ("HTTP_PROXY", "http_proxy")
        entries = (entry.strip().lower() for entry in first("NO_PROXY", "no_proxy").split(","))
        return Proxies(
            http=_address(first(*ours), "HTTP_PROXY"),
            https=_address(first("HTTPS_PROXY", "https_proxy"), "HTTPS_PROXY"),
            direct=tuple(entry for entry in entries if entry),
        )

    @property
    def passwords(self) -> list[str]:
        """The passwords of proxies."""
        found = (unquote(urlsplit(address).password or "") for address in (self.http, self.https))
        return [password for password in found if password]

    def of(self, scheme: str, host: str, port: int | None) -> str | None:
        """The proxy through which a server is reached; None: directly.

        Args:
            host: a name or an address, without brackets.
            port: that of the scheme where None.
        """
        address = {"http": self.http, "https": self.https}.get(scheme)
        if not address:
            return None
        number = port or (443 if scheme == "https" else 80)
        host = host.rstrip(".").lower()
        return None if any(_matches(entry, host, number) for entry in self.direct) else address


def _address(text: str, variable: str) -> str:
    if not text:
        return ""
    parts = _split(text)
    if parts is None or not parts.hostname or parts.scheme not in _SCHEMES:
        parts = _split(f"http://{text}") if "://" not in text else parts
    shown = text.rpartition("@")[2]
    if parts is None or not parts.hostname:
        raise ProxyInvalid(f"{variable} is {shown!r}; expected an address such as http://proxy.example:3128")
    if parts.scheme not in _SCHEMES:
        raise ProxyInvalid(
            f"{variable} is {shown!r}; proxies that speak {parts.scheme} are not known, only http and https: name one of "
            "these, or have a translator such as privoxy stand before it"
        )
    return parts.geturl()


_SCHEMES = ("http", "https")


def _split(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        _ = parts.port
        return parts if parts.netloc else None
    except ValueError:
        return None


def _matches(entry: str, host: str, port: int) -> bool:
    """Whether an entry of `NO_PROXY` means a server."""
    if entry == "*":
        return True
    address = _ip(host)
    if "/" in entry:
        try:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name, wanted = _name_and_port(entry)
    if wanted and wanted != str(port):
        return False
    if (meant := _ip(name)) is not None:
        return meant == address
    name = name.removeprefix("*") if name.startswith("*.") else name
    if not name.strip("."):
        return False
    return host.endswith(name if name.startswith(".") else f".{name}") or host == name


def _name_and_port(entry: str) -> tuple[str, str]:
    if entry.startswith("["):
        name, _, port = entry[1:].partition("]")
        return name, port.removeprefix(":")
    name, colon, port = entry.rpartition(":")
    return (name, port) if colon and ":" not in name else (entry, "")


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
