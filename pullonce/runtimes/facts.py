"""What is so at this moment, beside what files say. Pure: it is looked up elsewhere (`probing`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

DoorState = Literal["answers", "absent", "refused", "forbidden", "silent"]
"""Of a listener: it answers as it should; nothing is there; nobody listens; we may not ask; what answers is something else."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process of a runtime.

    Attributes:
        started: seconds since the epoch.
    """

    words: tuple[str, ...]
    started: float


@dataclass(frozen=True, slots=True)
class Facts:
    """Of this machine; of another one's root nothing is known but what lies on its disk.

    Attributes:
        live: whether the root that is looked at is this machine's.
        doors: door → whether it answers.
        bus: why the bus is not there; empty where it is.
        unknown: why nothing is known of the bus: we have no key for it.
        missing: parts of pullonce that do not answer there.
        processes: name of a program → its processes, the oldest first.
        devices: directory → its file system.
        changed: file → when it was last written, seconds since the epoch.
    """

    live: bool = False
    root: bool = True
    doors: Mapping[str, DoorState] = field(default_factory=dict)
    bus: str = ""
    unknown: str = ""
    missing: tuple[str, ...] = ()
    processes: Mapping[str, Sequence[Process]] = field(default_factory=dict)
    devices: Mapping[str, int] = field(default_factory=dict)
    changed: Mapping[str, float] = field(default_factory=dict)
