"""Every path name of a store, once.

    oci-layout  index.json              an OCI image layout, for other tools too
    blobs/<algorithm>/<hex>             what is complete and verified
    ingest/<algorithm>-<hex>            growing files
    snapshots/sha256-<hex>/             an unpacked layer: snapshot.json, unsynced, and the link fs to its tree
    l/<20 characters>/                  the tree: the real directory has the short name, so that the options of a mount of a
                                        hundred layers fit a page, and idmapped mounts, which follow no links, find it
    images/<hash of a reference>        what is listed under it: our own index of index.json
    uses/<flight>                       what each flight was resolved to
    holds/<holder>/<name>               what is promised to others
    uploads/<hash>                      pushes of blobs that are under way or were interrupted, each locked by whoever pushes
    exposed/                            a view for podman and others, as an additional image store: links and records (`expose`)
    access.sqlite  access.key           who has proved access to what, and the key of the fingerprints in it
    credentials/                        what clients brought to the gateway to pull with, and the key of their names
    pins.json  store.json               images that stay; who this store is, and the file that its lock lies on
    staging/  quarantine/               private directories of processes; what a verification took out

Stores of earlier versions have the tree in `snapshots/sha256-<hex>/fs` and the link in `l/`: readers follow either, and the
unpacker turns them round when it starts (`placing.take_over`).
"""

import base64
from functools import lru_cache
from pathlib import Path

from schemas.oci import ChainID, Digest

EMPTY_TREE = ".empty"
"""Name in `l/` of an empty tree: overlayfs wants two lower directories where there is no upper one."""

RECORD, UNSYNCED = "snapshot.json", "unsynced"
"""Names in the directory of a snapshot; see `Layout`."""

_SHORT = 20


class Layout:
    """The path names of one store. Nothing is touched.

    Args:
        root: the store's directory (`config.store_root`).
    """

    __slots__ = (
        "access", "access_key",
        "blobs", "credentials", "exposed", "holds", "images", "index", "ingest", "marker", "owed", "pins", "quarantine", "root",
        "snapshots", "staging", "store", "trees", "uploads", "uses",
    )  # fmt: skip

    def __init__(self, root: Path) -> None:
        self.root = root
        self.marker = root / "oci-layout"
        self.index = root / "index.json"
        self.store = root / "store.json"
        self.pins = root / "pins.json"
        self.images = root / "images"
        self.access = root / "access.sqlite"
        self.access_key = root / "access.key"
        self.credentials = root / "credentials"
        self.blobs = root / "blobs"
        self.ingest = root / "ingest"
        self.snapshots = root / "snapshots"
        self.trees = root / "l"
        self.uses = root / "uses"
        self.holds = root / "holds"
        self.uploads = root / "uploads"
        self.exposed = root / "exposed"
        self.staging = root / "staging"
        self.quarantine = root / "quarantine"
        self.owed = self.quarantine / "images.json"

    def blob(self, digest: Digest) -> Path:
        """A complete blob."""
        algorithm, _, name = digest.partition(":")
        return self.blobs / algorithm / name

    def growing(self, digest: Digest) -> Path:
        """The growing file of a blob."""
        return self.ingest / spelled(digest)

    def snapshot(self, chain_id: ChainID) -> Path:
        """The directory that says all of a snapshot but its tree."""
        return self.snapshots / spelled(chain_id)

    def record(self, chain_id: ChainID) -> Path:
        """What is known of a snapshot; while it is there, the snapshot is."""
        return self.snapshot(chain_id) / RECORD

    def unsynced(self, chain_id: ChainID) -> Path:
        """The boot in which it was written, for as long as it may not be on the disk."""
        return self.snapshot(chain_id) / UNSYNCED

    def link(self, chain_id: ChainID) -> Path:
        """The link from a snapshot to its tree."""
        return self.snapshot(chain_id) / "fs"

    def tree(self, chain_id: ChainID) -> Path:
        """The tree of a snapshot, by its short name."""
        return self.trees / short_name(chain_id)


def spelled(digest: Digest | ChainID) -> str:
    """A digest as the name of a file or directory."""
    return digest.replace(":", "-", 1)


def link_to_tree(chain_id: ChainID) -> Path:
    """What the link says: it stays right wherever the store lies."""
    return Path("..", "..", "l", short_name(chain_id))


@lru_cache(maxsize=4096)
def short_name(chain_id: ChainID) -> str:
    """20 characters that name a ChainID on this store: 100 bits of it in base 32."""
    return base64.b32encode(bytes.fromhex(chain_id.partition(":")[2]))[:_SHORT].decode()
