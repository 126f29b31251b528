"""What the snapshotter keeps: one record a snapshot, under the name that containerd uses for it. Pure."""

import enum

import msgspec

from schemas.oci import ChainID

_OURS = "pullonce/"
_VARIANT = "@"

REF = "containerd.io/snapshot.ref"
"""Label that names the ChainID a snapshot is, or is to become."""


class Kind(enum.IntEnum):
    """As the protocol numbers them."""

    VIEW = 1
    ACTIVE = 2
    COMMITTED = 3


class Usage(msgspec.Struct, frozen=True):
    """What a snapshot takes of the disk: bytes, and files with directories."""

    size: int
    inodes: int


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One snapshot."""

    name: str
    kind: Kind
    parent: str = ""
    """Name of the record below; empty where there is none."""
    labels: dict[str, str] = {}
    created: int
    """Nanoseconds since the epoch, as all times here."""
    updated: int
    chain_id: ChainID = ChainID("")
    """The snapshot of the store that it is; empty where it has a directory of its own."""
    reference: str = ""
    """The image, by digest, by whose pull a snapshot of the store comes and comes again; empty where nobody told."""
    listed: bool = False
    """The pull that was asked for on containerd's behalf had this reference listed: it goes with the last record of it."""
    directory: int = 0
    """Number of its own directory: containers, views, and layers that containerd unpacked itself have one."""
    usage: Usage | None = None
    """Of a committed one, once it was counted."""


def name_of(chain_id: ChainID) -> str:
    """The one name by which all of containerd's namespaces share a snapshot of the store."""
    return f"{_OURS}{chain_id}"


def variant_of(chain_id: ChainID, mark: str) -> str:
    """The name of a snapshot of the store above one that containerd unpacked itself: records name their parents, so it is
    another record. `mark` tells the parents apart."""
    return f"{_OURS}{chain_id}{_VARIANT}{mark}"


def chain_named(name: str) -> ChainID | None:
    """The ChainID in a name that needs no record to be understood; None for every other name."""
    chain_id = name.removeprefix(_OURS)
    return None if chain_id == name or _VARIANT in chain_id else ChainID(chain_id)
