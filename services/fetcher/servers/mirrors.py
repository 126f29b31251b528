"""The directory of `hosts.toml` files: read when they change, with the certificates they name; and which mirrors are dead.

    <directory>/<registry>/hosts.toml      or <host>_<port>_/hosts.toml, or _default/hosts.toml for all others

A directory without that file may hold certificates as docker keeps them: `*.crt` vouch for the registry, `<name>.cert` with
`<name>.key` are ours.
"""

import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from pullonce.errors import Permanent
from services.fetcher.remembered import Remembered
from services.fetcher.servers.hosts import Host, Hosts, HostsInvalid, arrange, directories, parse

log = logging.getLogger(__name__)

REST = 30.0
"""Seconds for which a mirror that cannot be reached is not asked again: its wait is paid once, not once a layer."""
_FILE = "hosts.toml"
_MOST_READ = 4096
"""Registries whose servers are kept: whoever pulls names them, and there may be any number."""
_MOST_CONTEXTS = 256
"""Contexts of TLS that are kept: each holds the certificates of many authorities."""

Stamp = tuple[int, int, int]


class Mirrors:
    """Knows the servers of each registry.

    Args:
        directory: of the files; None: there are none.
        plain: whether a host is spoken to by plain HTTP where its address does not say.
    """

    def __init__(self, directory: Path | None, plain: Callable[[str], bool]) -> None:
        self._directory = directory
        self._plain = plain
        self._read: Remembered[str, tuple[Path | None, Stamp, tuple[Host, ...]]] = Remembered(_MOST_READ)
        self._contexts: Remembered[tuple[Host, bool], tuple[list[Stamp], ssl.SSLContext]] = Remembered(_MOST_CONTEXTS)
        self._away: dict[str, float] = {}

    def of(self, registry: str) -> tuple[Host, ...]:
        """The servers of a registry in their order, as its file says at this moment.

        Raises:
            Permanent: `hosts.invalid`.
        """
        path = self._file(registry)
        try:
            stamp = _stamp(path) if path else (0, 0, 0)
            kept = self._read.get(registry)
            if kept and kept[:2] == (path, stamp):
                return kept[2]
            said = _hosts(path)
            hosts = arrange(said, registry, self._plain)
        except (HostsInvalid, OSError, UnicodeDecodeError) as exc:
            what = path or f"the registry {registry}"
            raise Permanent(f"{what} cannot be used: {exc}", code="hosts.invalid") from exc
        for each in said.unknown:
            log.warning("%s: %s", path, each)  # once, until the file changes
        self._read.put(registry, (path, stamp, hosts))
        return hosts

    def context(self, host: Host, *, elsewhere: bool = False) -> ssl.SSLContext | None:
        """Whom to trust in a connection to a host, and with which certificate of ours; None: as everywhere.

        Args:
            elsewhere: for a server that the host sends us to: it is trusted if the host's authorities vouch for it, is shown no
                certificate of ours, and is verified in any case.

        Raises:
            Permanent: `hosts.invalid`; a file of certificates cannot be used.
        """
        if not host.ca and (elsewhere or not (host.client or host.skip_verify)):
            return None
        files = [*host.ca, *(each for pair in host.client for each in pair if each)]
        try:
            stamps = [_stamp(Path(each)) for each in files]
            kept = self._contexts.get((host, elsewhere))
            if kept is None or kept[0] != stamps:
                kept = (stamps, _context(host, elsewhere=elsewhere))
                self._contexts.put((host, elsewhere), kept)
        except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError, and does not name the file
            named = ", ".join(files)
            raise Permanent(f"the certificates of {host.origin} cannot be used ({named}): {exc}", code="hosts.invalid") from exc
        return kept[1]

    def away(self, host: Host) -> bool:
        """Whether a mirror could not be reached a moment ago."""
        return self._away.get(host.origin, 0.0) > time.monotonic()

    def missed(self, host: Host) -> None:
        """A mirror could not be reached."""
        self._away[host.origin] = time.monotonic() + REST

    def _file(self, registry: str) -> Path | None:
        """The file that speaks of a registry, or the directory with its certificates."""
        if self._directory is None:
            return None
        for name in directories(registry):
            for path in (self._directory / name / _FILE, self._directory / name):
                if path.exists():
                    return path
        return None


def _hosts(path: Path | None) -> Hosts:
    if path is None:
        return Hosts()
    if path.name == _FILE and path.is_file():
        return parse(path.read_text(), str(path.parent))
    keys = {each.stem: str(each) for each in path.glob("*.key")}
    client = tuple((str(each), keys.get(each.stem, "")) for each in sorted(path.glob("*.cert")))
    return Hosts(by_server=Host("", ca=tuple(map(str, sorted(path.glob("*.crt")))), client=client))


def _context(host: Host, *, elsewhere: bool) -> ssl.SSLContext:
    made = ssl.create_default_context()
    for each in host.ca:
        made.load_verify_locations(each)
    if elsewhere:
        return made
    for certificate, key in host.client:
        made.load_cert_chain(certificate, key or None)
    if host.skip_verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino
