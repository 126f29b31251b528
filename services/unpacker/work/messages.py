"""What the service and its worker processes say to each other: JSON lines over a socket."""

import msgspec
from msgspec import Struct

from services.unpacker.tree.outcome import Outcome

BEATS = 8
"""Times that a worker says how far it is before it is taken for stuck."""
_ALWAYS = 1 << 30
"""Bytes of tar that the ratio forbids no layer."""


class WorkLimits(Struct, frozen=True, kw_only=True):
    """What one layer may ask for: of the disk, of memory, of time without progress."""

    size: int = 1 << 37
    """Bytes of tar, and bytes of its files with their holes: 128 GiB."""
    entries: int = 10_000_000
    ratio: int = 2000
    """Bytes of tar for each byte stored, beyond the first GiB. gzip cannot exceed 1032; zstd can, with a bomb."""

    window: int = 1 << 28
    """Bytes of what was unpacked before that zstd may refer back to, and xz: the memory a layer can make a worker hold."""
    patience: float = 120.0
    """Seconds in which a worker must have read, written or finished something, or it is ended as stuck."""

    @property
    def directories(self) -> int:
        """How many there may be: a worker keeps them, at 0.5 to 0.7 kB each, where it forgets everything else."""
        return max(1000, self.entries // 10)

    def expanded(self, stored: int) -> int:
        """Bytes of tar that a layer of so many stored bytes may have."""
        return min(self.size, max(_ALWAYS, self.ratio * stored))


class Job(Struct, frozen=True, kw_only=True, tag="job"):
    """Service → worker: unpack one layer into an empty directory."""

    tree: str
    trash: str
    blob: str
    """Where the verified blob is, or will be."""
    ingest: str
    """Where it grows until then."""
    size: int
    """Bytes of the blob as stored."""
    verified: bool = False
    """The blob is there: nobody will say that it has grown."""
    media_type: str
    diff_id: str
    opaque: bytes
    links_below: dict[bytes, bytes] = {}
    limits: WorkLimits = WorkLimits()


class Grown(Struct, frozen=True, tag="grown"):
    """Service → worker: the blob has grown, or is verified. Look again."""

    verified: bool = False


class Starving(Struct, frozen=True, tag="starving"):
    """Worker → service: all bytes that are there are used up; nothing happens here until there are more."""


class Working(Struct, frozen=True, tag="working"):
    """Worker → service: so many compressed bytes are consumed."""

    done: int


class Moved(Struct, frozen=True, tag="moved"):
    """Worker → service, `BEATS` times in the patience there is: so much is done, in steps of no certain size."""

    steps: int


class Unpacked(Struct, frozen=True, tag="unpacked"):
    """Worker → service: the tree is complete as far as the layer itself goes, and its diffID is the expected one."""

    outcome: Outcome


class Failed(Struct, frozen=True, tag="failed"):
    """Worker → service: it is not, and this is why.

    `code` is empty where the disk or a defect is to blame, not the layer.
    """

    message: str
    code: str = ""
    errno: int = 0
    entries: int = 0
    """Of the layer that were seen when the inodes of the disk were used up; 0: they are not."""


Order = Job | Grown
Report = Starving | Working | Moved | Unpacked | Failed

_encode = msgspec.json.Encoder().encode
_orders: msgspec.json.Decoder[Order] = msgspec.json.Decoder(Order)
_reports: msgspec.json.Decoder[Report] = msgspec.json.Decoder(Report)


def line(message: Order | Report) -> bytes:
    """A message as one line."""
    return _encode(message) + b"\n"


def order(text: bytes) -> Order:
    """Read what the service says."""
    return _orders.decode(text)


def report(text: bytes) -> Report:
    """Read what a worker says."""
    return _reports.decode(text)
