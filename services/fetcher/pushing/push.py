"""One push: all blobs, several at a time, then the manifests, the one that the target names last."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import TypeVar

from msgspec.structs import replace

from pullonce.errors import Permanent, PlatformInvalid, ReferenceInvalid, Retryable
from pullonce.oci import platform as platforms
from pullonce.oci.reference import Reference, parse
from pullonce.store.content import ContentStore
from pullonce.store.images import ImageRecord
from pullonce.worker.worker import backoff
from schemas.events import Source
from schemas.oci import Descriptor, Digest
from schemas.push import PushedBlob, PushImage, PushStatus
from services.fetcher.pushing.blobs import PART, BlobPush, Way
from services.fetcher.pushing.outgoing import Document, OpenFiles, Outgoing, chosen, gather, half_of_all, origins
from services.fetcher.pushing.records import UploadRecords
from services.fetcher.remembered import Remembered
from services.fetcher.remote.registry import Registry
from services.fetcher.remote.sessions import Destination
from services.fetcher.slots import Slots

log = logging.getLogger(__name__)

_LACKING = ("MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_UNKNOWN")
"""What a registry says of a manifest or an index that names what it has not, whatever it said before."""
_MOST_SERVERS = 1000
_AS_LEARNT = 3600.0
"""Seconds for which a server is spoken to as was learnt of it."""
T = TypeVar("T")


@dataclass(slots=True)
class Pusher:
    """What the pushes of one store share.

    Attributes:
        slots: blobs that are pushed to one registry at a time.
        attempts: without progress, before a failure is final.
        files: those that all pushes together have open.
        part: bytes that are sent in one request, as long as a server does not want fewer.
    """

    registry: Registry
    content: ContentStore
    records: UploadRecords
    slots: Slots
    attempts: int
    part: int = PART
    files: OpenFiles = field(default_factory=half_of_all)
    _ways: Remembered[str, Way] = field(default_factory=lambda: Remembered(_MOST_SERVERS, seconds=_AS_LEARNT))

    def way(self, to: Destination) -> Way:
        """How a server takes blobs."""
        known = self._ways.get(to.host.origin) or Way(self.part)
        self._ways.put(to.host.origin, known)
        return known


class Push:
    """One push of one image.

    Args:
        told: called with each change of how it stands.
    """

    def __init__(self, pusher: Pusher, wanted: PushImage, status: PushStatus, told: Callable[[PushStatus], None]) -> None:
        self._pusher = pusher
        self._wanted = wanted
        self._told = told
        self._blobs: dict[Digest, PushedBlob] = {}
        self._status = status

    async def run(self) -> None:
        """Carry it out; what becomes of it is told.

        Raises:
            Permanent, Retryable: it cannot be done.
        """
        reference, target, platform = _read(self._wanted)
        self._say(target=str(target))
        record = await asyncio.to_thread(
            chosen, self._pusher.content, str(reference), platform, any_platform=self._wanted.all_platforms
        )
        with closing(await self._gathered(record)) as out:
            _check_target(target, out)
            await asyncio.to_thread(self._pusher.records.tidy)
            single = len(out.documents) == 1
            self._blobs = {each.digest: PushedBlob(digest=each.digest, size=each.size) for each in out.blobs.values()}
            self._blobs |= {
                each.digest: PushedBlob(digest=each.digest, size=each.size, state="left") for each in out.left.values()
            }
            self._say(digest=out.top.digest, media_type=out.top.media_type, platform=record.platform if single else "")
            await self._push(out, target, str(reference))

    async def _gathered(self, record: ImageRecord) -> Outgoing:
        """What goes out; where the push is given up meanwhile, the thread's work comes to nobody, and is closed."""
        wanted = self._wanted
        work = asyncio.get_running_loop().run_in_executor(
            None,
            lambda: gather(
                self._pusher.content, record, self._pusher.files, index=wanted.all_platforms,
                nondistributable=wanted.nondistributable,
            ),
        )  # fmt: skip
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            work.add_done_callback(lambda done: done.result().close() if done.exception() is None else None)
            raise

    async def _push(self, out: Outgoing, target: Reference, reference: str) -> None:
        source = Source(registry=target.registry, repository=target.repository, credential=self._wanted.credential)
        to = await self._repeated(lambda: self._pusher.registry.destination(source))
        neighbours = await asyncio.to_thread(
            origins, self._pusher.content, target.registry, target.repository, reference, out.blobs
        )
        await self._push_blobs(out, to, neighbours, doubted=False)
        try:
            await self._name_all(out, to, target, doubted=False)
        except Permanent as exc:
            if exc.code not in _LACKING:
                raise
            log.warning("all is pushed again, though the registry said that it had it: %s", exc)
            await self._push_blobs(out, to, {}, doubted=True)
            await self._name_all(out, to, target, doubted=True)

    async def _name_all(self, out: Outgoing, to: Destination, target: Reference, *, doubted: bool) -> None:
        for document in out.documents[:-1]:
            await self._name(to, document.described.digest, document, doubted=doubted)
        await self._name(to, target.tag or target.digest, out.documents[-1], doubted=doubted)

    async def _push_blobs(self, out: Outgoing, to: Destination, origins: dict[Digest, str], *, doubted: bool) -> None:
        way = self._pusher.way(to)

        async def push(blob: Descriptor) -> None:
            async with self._pusher.slots.of(to.source.registry), self._pusher.records.of(to, blob.digest) as record:
                self._tell(blob, "pushing", 0, "")
                outcome = await BlobPush(
                    uploads=self._pusher.registry.uploads,
                    to=to,
                    blob=blob,
                    file=out.files[blob.digest],
                    record=record,
                    origin=origins.get(blob.digest, ""),
                    way=way,
                    attempts=self._pusher.attempts,
                    tell=lambda state, done, error: self._tell(blob, state, done, error),
                    doubted=doubted,
                ).run()
                self._tell(blob, outcome, blob.size, "")

        try:
            async with asyncio.TaskGroup() as tasks:
                for blob in out.blobs.values():
                    tasks.create_task(push(blob))
        except* (Permanent, Retryable) as group:
            raise _first(group) from None

    async def _name(self, to: Destination, locator: str, document: Document, *, doubted: bool) -> None:
        """Put a manifest where it belongs, unless it is there, and see that it is. `doubted`: put it there in any case."""
        uploads, digest = self._pusher.registry.uploads, document.described.digest
        if not doubted and await self._repeated(lambda: uploads.named(to, locator)) == digest:
            return
        if await self._repeated(lambda: uploads.name(to, locator, document.described, document.content)):
            return
        found = await self._repeated(lambda: uploads.named(to, locator))
        if found is None:
            held = await self._repeated(lambda: uploads.holds(to, locator, document.described))
            if held is False:
                what = f"{to.named} took {digest} as {locator}, and gives something else there"
                raise Permanent(what, code="registry.answer")
        elif found != digest:
            what = f"{to.named} has {found} as {locator}, where {digest} was pushed"
            raise Permanent(what, code="digest.mismatch")

    async def _repeated(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What a registry says in the end, asked again as long as it may come right."""
        attempt = 0
        while True:
            try:
                found = await ask()
            except Retryable as exc:
                attempt += 1
                if attempt >= self._pusher.attempts or (exc.brief and attempt >= 5):
                    raise
                delay = backoff(attempt, random.random()) if exc.after is None else exc.after
                self._say(note=f"again in {delay:.1f} s: {exc}")
                await asyncio.sleep(delay)
            else:
                if self._status.note:
                    self._say(note="")
                return found

    def _tell(self, blob: Descriptor, state: str, done: int, error: str) -> None:
        error = self._pusher.registry.secrets.told(error, 500) if error else ""
        self._blobs[blob.digest] = PushedBlob(digest=blob.digest, size=blob.size, done=done, state=state, error=error)  # type: ignore[arg-type]
        self._say()

    def _say(self, **changed: str) -> None:
        self._status = replace(self._status, change=self._status.change + 1, blobs=tuple(self._blobs.values()), **changed)
        self._told(self._status)


def _read(wanted: PushImage) -> tuple[Reference, Reference, str]:
    """Reference, target and platform.

    Raises:
        Permanent: `NAME_INVALID`, `platform.invalid`.
    """
    try:
        reference = parse(wanted.reference)
        target = parse(wanted.target) if wanted.target else reference
        return reference, target, platforms.normalise(wanted.platform) if wanted.platform else ""
    except ReferenceInvalid as exc:
        raise Permanent(str(exc), code="NAME_INVALID") from exc
    except PlatformInvalid as exc:
        raise Permanent(str(exc), code="platform.invalid") from exc


def _check_target(target: Reference, out: Outgoing) -> None:
    if target.digest and target.digest != out.top.digest:
        what = f"{target} names another digest than the {out.top.digest} that would be pushed; give a tag"
        raise Permanent(what, code="digest.mismatch")


def _first(group: BaseException) -> BaseException:
    """The first failure of several that came together."""
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
