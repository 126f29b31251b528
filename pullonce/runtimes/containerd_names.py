"""Where containerd has its files, and what its settings are called in each version of them. Pure."""

from dataclasses import dataclass

CONFIG = "/etc/containerd/config.toml"
DROP_IN = "/etc/containerd/conf.d/pullonce.toml"
CERTS = "/etc/containerd/certs.d"
DEFAULT = "_default"
"""The directory of hosts.toml for all registries that have none of their own."""

CAPABILITIES = ["pull", "resolve"]

Table = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Names:
    """Where the settings stand that concern us, in a file of some version."""

    cri: Table
    images: Table
    registry: Table

    @staticmethod
    def of(version: int) -> "Names":
        if version >= 3:
            images = ("plugins", "io.containerd.cri.v1.images")
            return Names(images, images, (*images, "registry"))
        cri = ("plugins", "io.containerd.grpc.v1.cri" if version == 2 else "cri")
        return Names(cri, (*cri, "containerd"), (*cri, "registry"))


UNPACK: Table = ("plugins", "io.containerd.transfer.v1.local", "unpack_config")
PROXY: Table = ("proxy_plugins", "pullonce")


def version_of(values: dict[str, object], *, there: bool) -> int:
    """The version that a file has: without a word of it version 1; no file counts as one of version 3."""
    version = values.get("version", 1 if there else 3)
    return version if isinstance(version, int) else 1
