"""What the gateway of a home offers to others, and under which names they find it. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Offer:
    """The doors of a gateway; nothing for one that is left out."""

    home: str
    """The home as runtimes see it."""
    store: str
    snapshotter: str
    """Socket of containerd's snapshot service."""
    mirror: str
    """URL of the mirror; one that listens on a socket has none."""
    cri: str
    """Socket of the CRI image service."""
    behind: str
    """Socket of the runtime that the image service stands in front of."""
    view: str
    """Directory of the additional image store, for podman and CRI-O."""
    hosts_dir: str = ""
    """The fetcher's own hosts.toml, where that is a directory of containerd's."""

    @property
    def mirror_host(self) -> str:
        """Host and port of the mirror."""
        return self.mirror.rpartition("://")[2]
