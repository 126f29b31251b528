"""Who says what, and who listens: the parts of pullonce by the messages they publish and read."""

from dataclasses import dataclass

from schemas import subjects
from schemas.events import (
    EVENTS,
    BlobClaimed,
    BlobFailed,
    BlobFetched,
    BlobLost,
    Event,
    LayerClaimed,
    LayerFailed,
    LayerLost,
    LayerUnpacked,
    PullCancelled,
    PullCompleted,
    PullFailed,
    PullRecorded,
    PullRequested,
    PullResolved,
    PullUnrecorded,
    PullUnresolved,
    StoreOpened,
)
from schemas.orders import ORDERS, FetchBlob, Order, RecordImage, ResolveReference, UnpackLayer
from schemas.progress import BlobProgress, LayerProgress, Progress, ProgressNow, PullProgress
from schemas.push import PushImage, PushNow, PushStatus
from schemas.status import Pong, Status, StoreNow

Message = Event | Order | Progress
"""Whatever is published and has a type."""

QUESTIONS: dict[str, type[Pong | Status | ProgressNow | StoreNow | PushStatus]] = {
    subjects.PING_SUBJECT: Pong,
    subjects.STATUS_SUBJECT: Status,
    subjects.PROGRESS_NOW_SUBJECT: ProgressNow,
    subjects.STORE_NOW_SUBJECT: StoreNow,
    subjects.PUSH_IMAGE_SUBJECT: PushStatus,
    subjects.PUSH_NOW_SUBJECT: PushStatus,
}
"""Requests over core NATS: subject → what is answered. Their bodies are empty but for those of `ASKED`, and the one for
progress, which may name works."""

ASKED: dict[str, type[PushImage | PushNow]] = {
    subjects.PUSH_IMAGE_SUBJECT: PushImage,
    subjects.PUSH_NOW_SUBJECT: PushNow,
}
"""Questions that say something: subject → what."""

_PUSHES = (subjects.PUSH_IMAGE_SUBJECT, subjects.PUSH_NOW_SUBJECT)
_OF_WORKERS = (subjects.PING_SUBJECT, subjects.PROGRESS_NOW_SUBJECT, subjects.STORE_NOW_SUBJECT)


@dataclass(frozen=True, slots=True)
class Role:
    """One part of pullonce: the messages it publishes and reads, the subjects it asks and answers."""

    sends: tuple[type[Message], ...]
    receives: tuple[type[Message], ...]
    asks: tuple[str, ...] = ()
    answers: tuple[str, ...] = (subjects.PING_SUBJECT,)
    folds: bool = False
    """Reads the log from its beginning, by a consumer. Others hear facts as they pass by."""
    claims: tuple[str, ...] = ()
    """Nouns of the keys that it claims."""
    of_a_store: bool = False
    """Has to do with one store only. Others have with all."""


_WITHDRAWN = (BlobFailed, LayerFailed)
"""What a worker hears to stop work that nobody waits for any more."""
_NEWS = tuple(event for kind, event in EVENTS.items() if kind.startswith(("blob.", "layer.")))
"""What an unpacker hears to look at the disk again."""

ROLES = {
    "client": Role(
        sends=(PullRequested, PullCancelled),
        receives=(
            *(PullCompleted, PullFailed, PullResolved, BlobFetched, LayerUnpacked),
            *(BlobProgress, LayerProgress, PullProgress),
        ),
        asks=(subjects.PING_SUBJECT, subjects.STATUS_SUBJECT, subjects.PROGRESS_NOW_SUBJECT),
        answers=(),
    ),
    "coordinator": Role(
        # An order that nobody waits for any more comes to nothing: that is a failure too, and the coordinator says it.
        sends=(BlobClaimed, LayerClaimed, PullCompleted, PullFailed, BlobFailed, LayerFailed, *ORDERS.values()),
        receives=(*EVENTS.values(), BlobProgress),
        answers=(subjects.PING_SUBJECT, subjects.STATUS_SUBJECT),
        folds=True,
        claims=("blob", "layer", "resolve", "record", "fold", "lease"),
    ),
    "fetcher": Role(
        sends=(
            *(PullResolved, PullUnresolved, PullRecorded, PullUnrecorded),
            *(BlobFetched, BlobFailed, BlobLost, LayerLost, BlobProgress, PullProgress, StoreOpened),
        ),
        receives=(ResolveReference, FetchBlob, RecordImage, *_WITHDRAWN, PullFailed),
        asks=(subjects.STORE_NOW_SUBJECT,),
        answers=(*_OF_WORKERS, *_PUSHES, subjects.REGISTRY_SUBJECT),
        of_a_store=True,
    ),
    "unpacker": Role(
        sends=(LayerUnpacked, LayerFailed, LayerLost, LayerProgress),
        receives=(UnpackLayer, BlobProgress, *_NEWS),
        asks=(subjects.STORE_NOW_SUBJECT,),
        answers=_OF_WORKERS,
        of_a_store=True,
    ),
    "gateway": Role(
        # Whoever serves containerd and others pulls for them, and takes off the list what they let go.
        sends=(PullRequested, PullCancelled),
        receives=(
            *(PullCompleted, PullFailed, PullResolved, BlobFetched, LayerUnpacked),
            *(BlobProgress, LayerProgress, PullProgress),
        ),
        asks=(subjects.STATUS_SUBJECT, subjects.PROGRESS_NOW_SUBJECT, subjects.REGISTRY_SUBJECT),
        of_a_store=True,
    ),
    "ledger": Role(
        sends=(),
        receives=(*EVENTS.values(), BlobProgress, LayerProgress, PullProgress),
        asks=(subjects.PING_SUBJECT, subjects.PROGRESS_NOW_SUBJECT),
        folds=True,
    ),
    "caretaker": Role(
        # Whoever runs rm, gc and verify: says what is not there any more, and has it pulled again. And whoever pushes: that
        # gives away what the store holds, with the logins of its fetchers.
        sends=(BlobLost, LayerLost, PullRequested, PullCancelled),
        receives=(PullCompleted, PullFailed),
        asks=(subjects.STATUS_SUBJECT, *_PUSHES),
        answers=(),
        claims=("blob", "layer"),
        of_a_store=True,
    ),
}
"""By name. Whoever else reads the log (a dashboard) changes nothing for these."""
