"""Who may have what the store holds: whoever has proved to its registry that they may, or proves it now.

A registry gives access; a store only remembers that it did, to whom (by a fingerprint of what was shown, never the secret)
and for how long. What is asked of a registry anyway proves access by the way; what is answered from the disk is proved by one
HEAD. The model is Kubernetes' KEP-2535, and containerd's content sharing policies for what is below images.
"""

import asyncio
from collections.abc import Iterable

from pullonce.errors import Permanent
from pullonce.oci.reference import Reference
from pullonce.store.proofs import ANYBODY, Proofs
from schemas.events import Source
from schemas.oci import Descriptor, Digest
from services.fetcher.auth.credentials import Credentials
from services.fetcher.remote.judgement import Judgement, Kind
from services.fetcher.remote.registry import Registry
from services.fetcher.settings import AccessSettings

_AT_ONCE = 6


class Access:
    """Decides, and remembers what registries decided."""

    def __init__(self, registry: Registry, credentials: Credentials, proofs: Proofs, settings: AccessSettings) -> None:
        self._registry = registry
        self._credentials = credentials
        self._proofs = proofs
        self._settings = settings
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

    async def separate(self, source: Source, documents: Iterable[Digest], blobs: Iterable[Digest]) -> None:
        """Whoever asks may have each of these in this very repository: where content is isolated, that is asked once.

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
                    await self._registry.check(source, kind, digest)
                except Permanent as exc:
                    if exc.code not in ("BLOB_UNKNOWN", "MANIFEST_UNKNOWN"):
                        raise
                    what = f"{digest} is in this store, but {place} does not have it, and content is isolated by repository"
                    raise Permanent(f"{what}: push it there, or use another store", code="content.isolated") from exc

        missing = [each for each in wanted if not self._proofs.proved(place, whom, each[1])]
        found = await asyncio.gather(*(check(*each) for each in missing), return_exceptions=True)
        for failure in found:
            if isinstance(failure, BaseException):
                raise failure

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
        if self._settings.isolated and ":" in found.locator:
            self._proofs.prove(place, whom, found.locator)

    async def _whom(self, source: Source) -> str:
        """Whoever asks, by what they have to show to the registry of the reference, mirrors or not."""
        secret = await self._credentials.find(source.registry, source.repository, source.credential, needed=False)
        shown = (secret.username, secret.password, secret.identity_token, secret.registry_token) if secret else ()
        return self._proofs.fingerprint(source.registry, source.credential, *shown)


def _place(source: Source) -> str:
    return f"{source.registry}/{source.repository}"
