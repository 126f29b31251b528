"""`hosts.toml`: which servers are asked for the images of a registry, in which order, and how. Pure.

The form is containerd's (docs/hosts.md there), so that one directory serves both:

    server = "https://registry.example"            # where the images come from, asked last

    [host."https://mirror.example:5000"]           # asked before it, in the order of the file
      capabilities = ["pull", "resolve"]           # without resolve: asked by digest only; with push: pushes go there
      ca = "mirror.pem"                            # beside the file, or an absolute path; one or a list
      client = [["client.cert", "client.key"]]
      skip_verify = false
      override_path = false                        # the address holds the whole path, /v2 included
      dial_timeout = "2s"
      [host."https://mirror.example:5000".header]
        x-team = "build"

What stands above the first `[host]` besides `server` belongs to the server. A key that is not known changes nothing, as in
containerd, and is named: it may be misspelt, or of a version to come.
"""

import posixpath
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlsplit

Capability = Literal["pull", "resolve", "push"]

HUB = "docker.io"
HUB_HOST = "registry-1.docker.io"
_CAPABILITIES = ("pull", "resolve", "push", "referrers")
"""What containerd knows, in any case of letters. No referrers are asked for."""
_OF_MIRRORS, _OF_SERVERS = ("pull", "resolve"), ("pull", "resolve", "push")
"""What each can where its table does not say: who pushes means the registry, and a mirror only where somebody wrote so."""
_DURATION = re.compile(r"\+?(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|\u00b5s|\u03bcs|ms|s|m|h))+|0")
"""As Go's time.ParseDuration reads it: `1m30s`, `.5s`, `0`."""
_STEP = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "\u00b5s": 1e-6, "\u03bcs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_KEYS = {"capabilities", "ca", "client", "skip_verify", "header", "override_path", "dial_timeout"}


class HostsInvalid(ValueError):
    """A `hosts.toml` cannot be used; the message says what of it."""


@dataclass(frozen=True, slots=True)
class Host:
    """One server, and how it is asked.

    Attributes:
        origin: `https://mirror.example:5000`.
        path: what stands before `/<repository>/manifests/…`.
        mirror: it is not where the registry's name leads, so it is told which registry it is asked for.
        ca, client: files of authorities, and of certificates with their keys ("" where one file holds both).
        connect: seconds until a connection must be there; None: as everywhere.
        guessed: it is spoken to by plain HTTP since it is on this machine or listed, and it may turn out to speak TLS.
    """

    origin: str
    path: str = "/v2"
    mirror: bool = False
    capabilities: frozenset[str] = frozenset(_OF_SERVERS)
    ca: tuple[str, ...] = ()
    client: tuple[tuple[str, str], ...] = ()
    skip_verify: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    connect: float | None = None
    guessed: bool = False

    @property
    def name(self) -> str:
        """Host and port, as logins are kept for it."""
        netloc = urlsplit(self.origin).netloc
        return HUB if netloc == HUB_HOST else netloc

    @property
    def plain(self) -> bool:
        return self.origin.startswith("http://")


@dataclass(frozen=True, slots=True)
class Hosts:
    """What one `hosts.toml` says.

    Attributes:
        server: address; empty: where the registry's name leads.
        by_server: how the server is asked; its `origin` means nothing yet.
        mirrors: asked before it, in this order.
        unknown: keys that nothing here knows, in words.
    """

    server: str = ""
    by_server: Host = Host("")
    mirrors: tuple[Host, ...] = ()
    unknown: tuple[str, ...] = ()


def directories(registry: str) -> list[str]:
    """Names of the directories that may hold a registry's file, the most telling first: a colon is no letter everywhere."""
    host, colon, port = registry.rpartition(":")
    return [*([f"{host}_{port}_"] if colon and port.isdigit() else []), registry, "_default"]


def parse(text: str, beside: str) -> Hosts:
    """Read a `hosts.toml`.

    Args:
        beside: the file's directory, from which relative paths in it lead.

    Raises:
        HostsInvalid: it is no TOML, or has a value that cannot be.
    """
    try:
        fields = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise HostsInvalid(f"it is no TOML: {exc}") from None
    tables = _typed(fields.pop("host", {}), dict, "host")
    server = _typed(fields.pop("server", ""), str, "server")
    by_server, unknown = _host("", fields, beside, "the server"), _unknown(fields, "the server")
    mirrors = []
    for address, given in tables.items():
        what = f"host {address!r}"
        found = _host(address, _typed(given, dict, what), beside, what)
        unknown += _unknown(given, what)
        mirrors.append(replace(found, mirror=True))
    return Hosts(server, by_server, tuple(mirrors), tuple(unknown))


def arrange(hosts: Hosts, registry: str, plain: Callable[[str], bool]) -> tuple[Host, ...]:
    """The servers of a registry, in the order in which they are asked; the last one is where its images come from.

    Args:
        plain: whether a host is spoken to by plain HTTP where its address does not say.

    Raises:
        HostsInvalid: an address cannot be one.
    """
    home = HUB_HOST if registry == HUB else registry

    def placed(host: Host, address: str) -> Host:
        # Whoever gives certificates for a server means TLS, wherever the server is.
        said = "://" in address or bool(host.ca or host.client or host.skip_verify)
        origin, path = _address(address, (lambda _: False) if said else plain, whole=host.path == "")
        guessed = not said and origin.startswith("http://")
        return replace(host, origin=origin, path=path, mirror=urlsplit(origin).netloc != home, guessed=guessed)

    last = placed(hosts.by_server, hosts.server or home)
    return (*(placed(each, each.origin) for each in hosts.mirrors), last)


def secured(host: Host) -> Host:
    """A server that may be spoken to by plain HTTP, and speaks TLS: unverified TLS is no less than that."""
    https = f"https://{host.origin.removeprefix('http://')}"
    return replace(host, origin=https, guessed=False, skip_verify=host.skip_verify or not host.ca)


def having(hosts: tuple[Host, ...], capability: Capability) -> list[Host]:
    """Those that may be asked for something."""
    return [each for each in hosts if capability in each.capabilities]


def is_host(name: str) -> bool:
    """Whether a name could be looked up at all, or is an address. Source: RFC 1035 section 2.3.4."""
    labels = name.removesuffix(".").split(".")
    return name.isascii() and name.isprintable() and len(name) <= 253 and all(0 < len(each) <= 63 for each in labels)


def _host(address: str, fields: Mapping[str, Any], beside: str, what: str) -> Host:
    """One table. A `path` of nothing stands for `override_path` until the address is read."""
    usual = [*(_OF_MIRRORS if address else _OF_SERVERS)]
    capabilities = [each.lower() for each in _texts(fields.get("capabilities") or usual, f"capabilities of {what}")]
    if strange := [each for each in capabilities if each not in _CAPABILITIES]:
        raise HostsInvalid(f"{what} has the capability {strange[0]!r}; known are {', '.join(_CAPABILITIES)}")
    return Host(
        origin=address,
        path="" if _typed(fields.get("override_path", False), bool, f"override_path of {what}") else "/v2",
        capabilities=frozenset(capabilities),
        ca=tuple(posixpath.join(beside, each) for each in _texts(fields.get("ca", []), f"ca of {what}")),
        client=_client(fields.get("client", []), beside, what),
        skip_verify=_typed(fields.get("skip_verify", False), bool, f"skip_verify of {what}"),
        headers=_headers(_typed(fields.get("header", {}), dict, f"header of {what}"), what),
        connect=_duration(fields.get("dial_timeout"), what),
    )


def _unknown(fields: Mapping[str, Any], what: str) -> list[str]:
    """What cannot be meant for us, in words."""
    known = ", ".join(sorted(_KEYS))
    return [f"{what} has {key!r}, which nothing here knows; known are {known}" for key in sorted(set(fields) - _KEYS)]


def _address(text: str, plain: Callable[[str], bool], *, whole: bool) -> tuple[str, str]:
    """Origin and path of an address; a path gets the API's `/v2` unless it is the whole of it."""
    try:
        if "://" not in text:
            host = urlsplit(f"//{text}").netloc
            text = f"{'http' if plain(host) else 'https'}://{text}"
        parts = urlsplit(text)
        fits = parts.scheme in ("http", "https") and is_host(parts.hostname or "") and parts.port != 0
    except ValueError:
        fits = False
    if not fits or "@" in parts.netloc or parts.query or parts.fragment:
        raise HostsInvalid(f"{text!r} is no address of a registry, such as https://mirror.example:5000{_why(text)}")
    path = parts.path.rstrip("/")
    return f"{parts.scheme}://{parts.netloc}", path if whole or path.endswith("/v2") else f"{path}/v2"


def _why(text: str) -> str:
    """What of an address nobody could reach. It may be one that `urlsplit` refuses to take apart."""
    netloc = text.rpartition("://")[2].partition("/")[0].rpartition("@")[2]
    host, _, port = netloc.rpartition(":") if ":" in netloc else (netloc, "", "")
    if port.isascii() and port.isdigit() and not 1 <= int(port[:9]) <= 65535:
        return f": there is no port {port[:9]}, the last is 65535"
    if any(len(label) > 63 for label in host.split(".")):
        return ": no part of a host may be longer than 63 letters"
    return ""


def _client(given: Any, beside: str, what: str) -> tuple[tuple[str, str], ...]:
    """One file, a list of files, or a list of pairs of a certificate and its key."""
    pairs = []
    for each in [given] if isinstance(given, str) else _typed(given, list, f"client of {what}"):
        pair = [each, ""] if isinstance(each, str) else _texts(each, f"client of {what}")
        if len(pair) != 2 or not pair[0]:
            raise HostsInvalid(f"client of {what} names no certificate, or no pair of a certificate and its key")
        pairs.append((posixpath.join(beside, pair[0]), posixpath.join(beside, pair[1]) if pair[1] else ""))
    return tuple(pairs)


def _headers(given: Mapping[str, Any], what: str) -> tuple[tuple[str, str], ...]:
    found = []
    for name, value in given.items():
        for each in _texts(value, f"header {name!r} of {what}"):
            if not _NAME.fullmatch(name) or not each.isprintable():
                raise HostsInvalid(f"header {name!r} of {what} cannot be sent")
            found.append((name, each))
    return tuple(found)


def _duration(given: Any, what: str) -> float | None:
    """Seconds; None, as everywhere, where nothing is said or no limit is meant."""
    if given is None or given == "":
        return None
    if not isinstance(given, str) or not _DURATION.fullmatch(given):
        raise HostsInvalid(f"dial_timeout of {what} is {given!r}; expected a time such as '5s', '500ms' or '1m30s'")
    seconds = sum(float(count) * _SECONDS[unit] for count, unit in _STEP.findall(given))
    return seconds or None


def _texts(given: Any, what: str) -> list[str]:
    texts = [given] if isinstance(given, str) else _typed(given, list, what)
    if not all(isinstance(each, str) for each in texts):
        raise HostsInvalid(f"{what} is no text and no list of texts")
    return texts


def _typed(given: Any, kind: type, what: str) -> Any:
    if not isinstance(given, kind):
        raise HostsInvalid(f"{what} is {given!r}, expected {_KINDS[kind]}")
    return given


_KINDS = {dict: "a table", str: "a text", bool: "true or false", list: "a list"}
