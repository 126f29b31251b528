"""What a registry asks for: `WWW-Authenticate` read, and whether its token server may be trusted with a secret. Pure.

Sources: RFC 9110 section 11.6.1, RFC 6750 section 3, distribution's token specification.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from pullonce.errors import Permanent
from services.fetcher.remote.inward import PUBLIC, Reach, kinds_of_host

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


def check_realm(realm: str, registry: str, *, plain: bool, reach: Reach = PUBLIC) -> None:
    """Refuse a token server that a hostile registry could use to see a secret or to reach into the private network.

    What the address of a realm tells is refused here; what its name stands for is decided when it is connected to.

    Args:
        registry: host and port of the registry that sent the challenge.
        plain: the realm may be reached by plain HTTP.
        reach: where the registry may lead us.

    Raises:
        Permanent: `realm.refused`.
    """
    try:
        parts = urlsplit(realm)
        host = parts.hostname or ""
        parts.port  # noqa: B018  a port that is none raises
        if not host.strip("."):
            raise ValueError
    except ValueError:
        raise _refused("", registry, "has a malformed address") from None
    if parts.scheme != "https" and not (plain and parts.scheme == "http"):
        raise _refused(realm, registry, "is not reached by https")
    if host != (urlsplit(f"https://{registry}").hostname or "") and not kinds_of_host(host) <= reach:
        raise inward_realm(realm, registry)


def inward_realm(realm: str, registry: str) -> Permanent:
    """A registry sends us to a token server that it may not lead us to."""
    return _refused(realm, registry, "is a private address (PULLONCE_INWARD_HOSTS allows it where that is meant)")


def _refused(realm: str, registry: str, why: str) -> Permanent:
    host = urlsplit(realm).netloc.rpartition("@")[2] if realm else ""
    return Permanent(
        f"{registry} sends us to the token server {host!r}, which {why}; no secret is sent there",
        code="realm.refused",
        concerns="source",
    )
