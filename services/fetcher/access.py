"""Who may have what the store holds: whoever has proved to its registry that they may, or proves it now.

A registry gives access; a store only remembers that it did, to whom (by a fingerprint of what was shown, never the secret)
and for how long. What is asked of a registry anyway proves access by the way; what is answered from the disk is proved by one
HEAD. The model is Kubernetes' KEP-2535, and containerd's content sharing policies for what is below images.
"""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import aclosing

from pullonce.errors import Permanent, Retryable
from pullonce.oci.digest import Verifier
from pullonce.oci.reference import Reference
from pullonce.store.proofs import ANYBODY, DELIVERED, Proofs
from schemas.events import Source
from schemas.oci import Descriptor, Digest
from schemas.registry import REMEMBERED
from services.fetcher.auth.credentials import Credentials
from services.fetcher.remote.judgement import Judgement, Kind
from services.fetcher.remote.registry import Registry
from services.fetcher.settings import AccessSettings
from services.fetcher.slots import Slots

_AT_ONCE = 6
_COMPARED_AT_ONCE = 3
"""Blobs of one registry that are read again to see that it has them."""
_START = 60.0
_SLOWEST = 256 << 10
"""Bytes a second, after so many seconds, at which a blob has to come that is read again."""
_LIES = ("BLOB_UNKNOWN", "MANIFEST_UNKNOWN", "digest.mismatch", "size.mismatch", "registry.encoding", "registry.ranges")


class AccessRules:
    """Decides, and remembers what registries decided."""

    def __init__(self, registry: Registry, credentials: Credentials, proofs: Proofs, settings: AccessSettings) -> None:
        self._registry = registry
        self._credentials = credentials
        self._proofs = proofs
        self._settings = settings
        self._comparing = Slots(_COMPARED_AT_ONCE)
        registry.tell(self._judged)

    @property
    def isolated(self) -> bool:
        """Whether content is given to a repository only where its registry has it there too."""
        return self._settings.isolated

    def check_name(self, credential: str) -> None:
        """A credential that is named exists, whether or not anybody will ask for it.

        Raises:
            Permanent: `credential.unknown`, `credential.invalid`.
        """
        self._credentials.check(credential)

    def imported(self, source: Source, digest: Digest) -> bool:
        """Whether the operator put an image there, for everybody, whatever a registry would say."""
        return self._proofs.proved(_place(source), ANYBODY, digest)

    async def proved(self, source: Source, digest: Digest) -> bool:
        """Whether whoever asks may have an image that is there without a question to the registry.

        Args:
            digest: what its reference names.
        """
        verify = self._settings.verify
        place = _place(source)
        if self.imported(source, digest):
            return True
        if verify == "never" or (verify == "if-private" and self._proofs.proved(place, ANYBODY)):
            return True
        return self._proofs.proved(place, await self._whom(source))

    async def prove(self, source: Source, locator: str) -> None:
        """Ask the registry by one HEAD.

        Raises:
            Permanent, Retryable: it gives no access; see `Registry`.
        """
        await self._registry.check(source, "manifests", locator)

    async def remembered(self, source: Source) -> float:
        """Seconds for which whoever serves others may remember that access to a repository was proved."""
        if self._settings.verify == "always":
            return 0.0
        if self._settings.verify == "never":
            return REMEMBERED
        place = _place(source)
        left = max(self._proofs.left(place, ANYBODY), self._proofs.left(place, await self._whom(source)))
        return min(left, REMEMBERED)

    async def known(self, source: Source, reference: Reference) -> Descriptor | None:
        """What the reference was a moment ago, where the registry said so to the same credential."""
        if not self._settings.fresh:
            return None
        return self._proofs.resolved(str(reference), await self._whom(source), self._settings.fresh)

    async def learn(self, source: Source, reference: Reference, named: Descriptor) -> None:
        """The registry has just said what a reference is."""
        if self._settings.fresh:
            plain = Descriptor(media_type=named.media_type, digest=named.digest, size=named.size)
            self._proofs.note_resolved(str(reference), await self._whom(source), plain)

    async def delivered(self, source: Source, digest: Digest) -> None:
        """A registry has just sent all of some content, and it was verified: it has it, and whoever asked may."""
        if self._settings.isolated:
            self._proofs.prove(source.registry, DELIVERED, digest)
            self._proofs.prove(_place(source), await self._whom(source), digest)

    async def separate(self, source: Source, documents: Iterable[Digest], blobs: Mapping[Digest, int | None]) -> None:
        """Whoever asks may have each of these in this very repository: where content is isolated, that is asked once.

        A registry that has delivered the content before, to whomever, is believed by a HEAD. Any other could be the asker's own
        and say of everything that it has it: it has to send it.

        Args:
            blobs: and their sizes in bytes, where they are known.

        Raises:
            Permanent: `content.isolated`, or why there is no access; Retryable: the registry cannot say now.
        """
        whom, place = await self._whom(source), _place(source)
        wanted: list[tuple[Kind, Digest]] = [("manifests", each) for each in dict.fromkeys(documents)]
        wanted += [("blobs", each) for each in dict.fromkeys(blobs)]
        slots = asyncio.Semaphore(_AT_ONCE)

        async def check(kind: Kind, digest: Digest) -> None:
            async with slots:
                try:
                    if self._proofs.proved(source.registry, DELIVERED, digest):
                        await self._registry.check(source, kind, digest)
                        self._proofs.prove(place, whom, digest)
                    else:
                        await self._compare(source, kind, digest, blobs.get(digest))
                except Permanent as exc:
                    if exc.code not in _LIES:
                        raise
                    what = f"{digest} is in this store, but {place} does not have it, and content is isolated by repository"
                    raise Permanent(f"{what}: push it there, or use another store ({exc})", code="content.isolated") from exc

        missing = [each for each in wanted if not self._proofs.proved(place, whom, each[1])]
        found = await asyncio.gather(*(check(*each) for each in missing), return_exceptions=True)
        for failure in found:
            if isinstance(failure, BaseException):
                raise failure

    async def _compare(self, source: Source, kind: Kind, digest: Digest, size: int | None) -> None:
        """Have a registry send what it says it has.

        Raises:
            Permanent, Retryable: it sends something else, or nothing, or takes too long.
        """
        async with self._comparing.of(source.registry):
            if kind == "manifests":
                await self._registry.manifest(source, digest)
            elif size is None:
                raise Permanent("its size is not known, so that it cannot be compared", code="size.mismatch")
            else:
                try:
                    async with asyncio.timeout(_START + size / _SLOWEST):
                        blob = Descriptor(media_type="", digest=digest, size=size)
                        if not await self._sends(source, blob, anew=False) and not await self._sends(source, blob, anew=True):
                            raise Permanent(f"{_place(source)} sends something else", code="digest.mismatch")
                except TimeoutError as exc:
                    what = f"{_place(source)} sends {digest} too slowly to see whether it has it"
                    raise Retryable(what, code="registry.unavailable") from exc
        await self.delivered(source, digest)

    async def _sends(self, source: Source, blob: Descriptor, *, anew: bool) -> bool:
        """Whether a registry sends a blob, from its first byte to its last."""
        verifier = Verifier(blob.digest)
        async with aclosing(self._registry.blob(source, blob, anew=anew)) as body:
            async for chunk in body:
                verifier.update(chunk)
                if verifier.size > blob.size:
                    return False
        return verifier.verified()

    async def _judged(self, found: Judgement) -> None:
        """A registry gave something: to anybody, if it was shown no secret. Or it refused."""
        place, whom = _place(found.source), await self._whom(found.source)
        if not found.given:
            if found.kind == "manifests" and not found.by_mirror:
                self._proofs.withdraw(place, whom)
            return
        self._proofs.prove(place, whom)
        if not found.secret:
            self._proofs.prove(place, ANYBODY)

    async def _whom(self, source: Source) -> str:
        """Whoever asks, by what they have to show to the registry of the reference, mirrors or not."""
        secret = await self._credentials.find(source.registry, source.repository, source.credential, needed=False)
        shown = (secret.username, secret.password, secret.identity_token, secret.registry_token) if secret else ()
        return self._proofs.fingerprint(source.registry, source.credential, *shown)


def _place(source: Source) -> str:
    return f"{source.registry}/{source.repository}"
