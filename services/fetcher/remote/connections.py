"""Connections to servers, in a pool for each set of addresses that may be connected to.

Where a server may lead us is decided by the address that a connection is made to, after its name was resolved and in the moment
of connecting: what a name stands for may change between a look and a connection, and a connection that one may use is never
handed to another who may not.
"""

import asyncio
import errno
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from services.fetcher.remembered import Remembered
from services.fetcher.remote.inward import ANYWHERE, HOME, Kind, Network, Reach, kind_of, kinds_of_host, leads
from services.fetcher.remote.lenient import LONGEST_HEAD, make_lenient
from services.fetcher.settings import RegistrySettings

_READ_BUFFER = 1 << 20
"""Measured best: 820 MB/s on loopback; 4 MB halves it."""
_LOOKUPS = 16
_LOOKUP_SECONDS = 15.0
_MOST_NAMES = 10_000
_Info = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]


class Inward(OSError):
    """A connection was refused by us: its address is none that may be connected to."""


class Connections:
    """Sessions by reach, and what kind of address each name stood for.

    Args:
        headers: sent with every request.
    """

    def __init__(self, settings: RegistrySettings, headers: Mapping[str, str]) -> None:
        self._settings = settings
        self._headers = headers
        self._resolver = AddressResolver()
        self._sessions: dict[Reach, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> "Connections":
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in self._sessions.values():
            await session.close()
        await self._resolver.close()

    def session(self, reach: Reach) -> aiohttp.ClientSession:
        """Requests through this connect to addresses within reach only; others fail by `Inward`."""
        if reach not in self._sessions:
            self._sessions[reach] = self._opened(reach)
        return self._sessions[reach]

    def home(self, authority: str) -> Reach:
        """Where a registry may be that somebody named."""
        return ANYWHERE if self._settings.leads_inward(authority) else HOME

    def led(self, authority: str, host: str, target: str) -> Reach:
        """Where a server may lead us.

        Args:
            authority, host: of the server that leads; `host` is without its port.
            target: host and port to which it leads.
        """
        if self._settings.leads_inward(authority) or self._settings.leads_inward(target):
            return ANYWHERE
        return leads(self._resolver.kinds(host))

    def _opened(self, reach: Reach) -> aiohttp.ClientSession:
        networks = self._settings.inward_networks

        def connecting(info: _Info) -> socket.socket:
            check_address(str(info[4][0]), reach, networks)
            return socket.socket(family=info[0], type=info[1], proto=info[2])

        patience = self._settings.patience
        return aiohttp.ClientSession(
            connector=make_lenient(
                aiohttp.TCPConnector(
                    limit=0,
                    keepalive_timeout=30.0,
                    resolver=self._resolver,
                    socket_factory=None if reach == ANYWHERE else connecting,
                )
            ),
            max_line_size=LONGEST_HEAD,
            max_field_size=LONGEST_HEAD,
            max_headers=10_000,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=patience, sock_read=patience),
            auto_decompress=False,  # a digest is over the bytes as they come
            read_bufsize=_READ_BUFFER,
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
        )


class AddressResolver(AbstractResolver):
    """Looks names up by the system's resolver, in threads of its own: a dead name server must not hold up the disk."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_LOOKUPS, "names")
        self._kinds: Remembered[str, Reach] = Remembered(_MOST_NAMES)

    def kinds(self, host: str) -> Reach:
        """The kinds of all addresses that a host ever stood for; that of the public internet where nobody asked yet.

        A name that stood for a public address once belongs to whoever is out there, whatever it stands for now.
        """
        return kinds_of_host(host) or self._kinds.get(host) or frozenset(("public",))

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        """Raises OSError: there is no such name, or no answer in time."""

        def look_up() -> list[Any]:
            return socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)

        try:
            async with asyncio.timeout(_LOOKUP_SECONDS):
                infos = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        except UnicodeError:
            raise OSError(f"{host[:100]!r} is no name of a host") from None
        except TimeoutError:
            raise OSError(f"no answer of the name server within {_LOOKUP_SECONDS:g} s") from None
        self.note(host, [str(info[4][0]) for info in infos])
        return [
            ResolveResult(
                hostname=host,
                host=str(info[4][0]),
                port=int(info[4][1]),
                family=info[0],
                proto=info[2],
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for info in infos
        ]

    def note(self, host: str, addresses: list[str]) -> None:
        """A name stands for these addresses now."""
        kinds: set[Kind] = {kind_of(ip_address(address.partition("%")[0])) for address in addresses}
        self._kinds.put(host, frozenset(kinds) | (self._kinds.get(host) or frozenset()))

    async def close(self) -> None:
        """Wait for nobody."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def check_address(address: str, reach: Reach, networks: tuple[Network, ...] = ()) -> None:
    """Decide on a connection by the address that it is made to.

    Args:
        networks: within these anything goes.

    Raises:
        Inward: it is out of reach.
    """
    found = ip_address(address.partition("%")[0])
    if kind_of(found) not in reach and not any(found in network for network in networks):
        raise Inward(errno.EACCES, "its address lies within")
