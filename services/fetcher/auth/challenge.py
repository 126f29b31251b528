"""What a registry asks for: `WWW-Authenticate` read, and whether its token server may be trusted with a secret. Pure.

Sources: RFC 9110 section 11.6.1, RFC 6750 section 3, distribution's token specification.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from pullonce.errors import Permanent

_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_ITEM = re.compile(
    rf'[\s,]*(?:(?P<key>{_TOKEN})\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s,"]*))|(?P<scheme>{_TOKEN}))(?=[\s,]|$)'
)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way of authentication that the registry accepts.

    Attributes:
        scheme: lower case; `basic` and `bearer` are understood.
        parameters: keys lower case.
    """

    scheme: str
    parameters: dict[str, str]

    @property
    def realm(self) -> str:
        return self.parameters.get("realm", "")

    @property
    def service(self) -> str:
        return self.parameters.get("service", "")

    @property
    def scopes(self) -> frozenset[str]:
        """What the token must allow; several are separated by spaces."""
        return frozenset(self.parameters.get("scope", "").split())


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Read `WWW-Authenticate` headers: several of them, several challenges in each, commas within quotes, any case.

    What follows a part that cannot be read is left out.
    """
    challenges: list[Challenge] = []
    for header in headers:
        position = 0
        while (item := _ITEM.match(header, position)) and item.end() > position:
            position = item.end()
            if item["scheme"]:
                challenges.append(Challenge(item["scheme"].lower(), {}))
            elif challenges:
                value = item["plain"] if item["quoted"] is None else re.sub(r"\\(.)", r"\1", item["quoted"])
                challenges[-1].parameters.setdefault(item["key"].lower(), value)
    return challenges


def pick(challenges: Iterable[Challenge]) -> Challenge | None:
    """The challenge to answer: bearer before basic; None where nothing is understood."""
    known = {challenge.scheme: challenge for challenge in reversed(list(challenges))}
    bearer = known.get("bearer")
    return bearer if bearer and bearer.realm else known.get("basic")


def check_realm(realm: str, registry: str, *, plain: bool) -> None:
    """Refuse a token server that a hostile registry could use to see a secret or to reach into the private network.

    Args:
        registry: host and port of the registry that sent the challenge.
        plain: it is served by plain HTTP, which is allowed for loopback and listed hosts only: anything goes there.

    Raises:
        Permanent: `realm.refused`.
    """
    if plain:
        return
    try:
        parts = urlsplit(realm)
    except ValueError:
        raise _refused("", registry, "has a malformed address") from None
    if parts.scheme != "https":
        raise _refused(realm, registry, "is not reached by https")
    host = parts.hostname or ""
    if host == (urlsplit(f"https://{registry}").hostname or ""):
        return
    if not host or is_private(host):
        raise _refused(realm, registry, "is a private address")


def is_private(host: str) -> bool:
    """Whether a host is an address that is not of the public internet, or this machine. What a name stands for is not asked."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return False


def _refused(realm: str, registry: str, why: str) -> Permanent:
    host = urlsplit(realm).netloc.rpartition("@")[2]
    return Permanent(
        f"{registry} sends us to the token server {host!r}, which {why}; no secret is sent there",
        code="realm.refused",
        concerns="source",
    )
