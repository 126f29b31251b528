"""What the fetcher reads from its environment, and which way to a host follows from it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from pullonce.config import BusSettings, SettingInvalid, StoreSettings, home, is_loopback, number
from services.fetcher.remote.inward import Network, network
from services.fetcher.servers.proxies import Proxies, ProxyInvalid

RETRY = 60.0
"""A registry that restarts, or is moved to another machine, is back by then."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a fetcher asks for at a time."""

    fetches: int = 12
    """Blobs that are fetched at once, from all registries."""
    fetches_per_registry: int = 3
    resolves_per_registry: int = 8
    """References that are resolved at once against one registry."""
    slow_rate: float = 16_384.0
    """Bytes a second below which a transfer does not keep others from coming in."""
    looks: int = 16
    """Images whose state on the disk is looked at, or listed, at once."""


Verify = Literal["never", "if-private", "always"]
Word = TypeVar("Word", bound=str)


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """Whom the store serves.

    Attributes:
        verify: who has to prove access to what is there: nobody; everybody, unless it is public; everybody.
        isolated: content that is there is given to a repository only if the registry has it there too, for that credential.
        lifetime: seconds for which a proof counts.
        fresh: seconds for which what a registry said of a reference answers the next request of the same credential.
    """

    verify: Verify = "if-private"
    isolated: bool = False
    lifetime: float = 86_400.0
    fresh: float = 0.0


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """How registries are reached. Times in seconds."""

    insecure: frozenset[str] = frozenset()
    """Hosts (`host` or `host:port`) that may be reached by plain HTTP; loopback always may."""
    patience: float = 30.0
    """A transfer that brings no byte for this long is broken off."""
    inward: frozenset[str] = frozenset()
    """Hosts (`host` or `host:port`) that may lead to inward addresses or be led to, and networks (CIDR) that may be led to."""
    proxies: Proxies = field(default_factory=Proxies)
    hosts: Path | None = None
    """Directory that says which servers are asked for a registry, see `mirrors`; None: only itself."""

    def plain(self, registry: str) -> bool:
        """Whether a registry is spoken to by plain HTTP: it is on this machine, or listed."""
        return is_loopback(_hostname(registry)) or self.listed(registry)

    def listed(self, registry: str) -> bool:
        """Whether the operator named it among those that may be reached by plain HTTP."""
        return registry in self.insecure or _hostname(registry) in self.insecure

    def leads_inward(self, authority: str) -> bool:
        """Whether the operator lets a server lead to inward addresses, or be led to wherever it is."""
        return self.listed(authority) or authority in self.inward or _hostname(authority) in self.inward

    @property
    def passwords(self) -> list[str]:
        """The passwords of proxies."""
        return self.proxies.passwords

    @property
    def inward_networks(self) -> tuple[Network, ...]:
        """Networks that may be connected to, whoever leads there."""
        return tuple(filter(None, map(network, sorted(self.inward))))

    def proxy(self, scheme: str, host: str, port: int | None = None) -> str | None:
        """The proxy through which a server is reached; None: directly, as is everything on this machine."""
        return None if is_loopback(host) else self.proxies.of(scheme, host, port)


@dataclass(frozen=True, slots=True)
class FetcherSettings:
    """Everything a fetcher is told from outside."""

    bus: BusSettings
    store: StoreSettings
    registry: RegistrySettings
    credentials: Path
    """Directory of the named credentials, `<name>.json` each."""
    configs: tuple[Path, ...]
    """Docker's and podman's login files, searched where a request names no credential."""
    sync: bool
    """Whether content is on the disk, not only in its cache, before it is announced."""
    bounds: Bounds
    access: AccessSettings
    retry: float
    """Seconds of trouble that an order outlasts before its failure is final."""

    @staticmethod
    def from_env(environ: Mapping[str, str] = os.environ) -> "FetcherSettings":
        """`PULLONCE_INSECURE_REGISTRIES`, `PULLONCE_INWARD_HOSTS`, `PULLONCE_HOSTS_DIR`, `PULLONCE_CREDENTIALS`,
        `PULLONCE_SYNC`, `PULLONCE_FETCHES`, `PULLONCE_FETCHES_PER_REGISTRY`, `PULLONCE_RESOLVES_PER_REGISTRY`,
        `PULLONCE_RETRY`, `PULLONCE_SLOW_RATE`, `PULLONCE_PATIENCE`, `PULLONCE_ACCESS`, `PULLONCE_ACCESS_LIFETIME`,
        `PULLONCE_CONTENT`, `PULLONCE_FRESH`, `DOCKER_CONFIG`, `REGISTRY_AUTH_FILE`, and the usual proxies.

        Raises:
            SettingInvalid: a value cannot be used.
        """
        return FetcherSettings(
            bus=BusSettings.from_env("fetcher", environ),
            store=StoreSettings.from_env(environ),
            registry=RegistrySettings(
                insecure=_listed(environ, "PULLONCE_INSECURE_REGISTRIES"),
                inward=_listed(environ, "PULLONCE_INWARD_HOSTS"),
                patience=number(environ, "PULLONCE_PATIENCE", 30.0, low=1.0, high=3600.0),
                proxies=_proxies(environ),
                hosts=Path(environ.get("PULLONCE_HOSTS_DIR") or home(environ) / "hosts"),
            ),
            credentials=Path(environ.get("PULLONCE_CREDENTIALS") or home(environ) / "credentials"),
            configs=_login_files(environ),
            sync=number(environ, "PULLONCE_SYNC", 1, low=0, high=1) > 0,
            bounds=Bounds(
                fetches=int(number(environ, "PULLONCE_FETCHES", 12, low=1, high=256)),
                fetches_per_registry=int(number(environ, "PULLONCE_FETCHES_PER_REGISTRY", 3, low=1, high=256)),
                resolves_per_registry=int(number(environ, "PULLONCE_RESOLVES_PER_REGISTRY", 8, low=1, high=256)),
                slow_rate=number(environ, "PULLONCE_SLOW_RATE", 16_384.0, low=0.0, high=1e12),
            ),
            access=AccessSettings(
                verify=_one_of(environ, "PULLONCE_ACCESS", ("if-private", "never", "always")),
                isolated=_one_of(environ, "PULLONCE_CONTENT", ("shared", "isolated")) == "isolated",
                lifetime=number(environ, "PULLONCE_ACCESS_LIFETIME", 86_400.0, low=0.0, high=1e9),
                fresh=number(environ, "PULLONCE_FRESH", 1.0, low=0.0, high=3600.0),
            ),
            retry=number(environ, "PULLONCE_RETRY", RETRY, low=0.0, high=86_400.0),
        )


def _proxies(environ: Mapping[str, str]) -> Proxies:
    try:
        return Proxies.from_env(environ)
    except ProxyInvalid as exc:
        raise SettingInvalid(str(exc)) from None


def _one_of(environ: Mapping[str, str], name: str, words: tuple[Word, ...]) -> Word:
    """One of some words; the first where nothing is said.

    Raises:
        SettingInvalid: it is another one.
    """
    given = environ.get(name) or words[0]
    for word in words:
        if given == word:
            return word
    raise SettingInvalid(f"{name} is {given!r}; expected one of {', '.join(words)}")


def _listed(environ: Mapping[str, str], name: str) -> frozenset[str]:
    return frozenset(each.strip() for each in environ.get(name, "").split(",") if each.strip())


def _hostname(authority: str) -> str:
    try:
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        return ""


def _login_files(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where `docker login` and `podman login` leave what they were told; what was named explicitly goes first.

    Sources: docker's cli configuration; containers-auth.json(5), FILES.
    """
    files: list[Path] = []
    user = Path(environ["HOME"]) if environ.get("HOME") else None
    if given := environ.get("REGISTRY_AUTH_FILE"):
        files.append(Path(given))
    if given := environ.get("DOCKER_CONFIG"):
        files.append(Path(given) / "config.json")
    elif user:
        files.append(user / ".docker" / "config.json")
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        files.append(Path(runtime) / "containers" / "auth.json")
    else:
        files.append(Path(f"/run/containers/{os.getuid()}/auth.json"))
    if given := environ.get("XDG_CONFIG_HOME"):
        files.append(Path(given) / "containers" / "auth.json")
    elif user:
        files.append(user / ".config" / "containers" / "auth.json")
    if user:
        files.append(user / ".dockercfg")
    return tuple(files)
