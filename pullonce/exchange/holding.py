"""What an import has found or brought stays until its images are listed, whatever is collected meanwhile.

A hold of the holder `import`, for as long as the process lives: what was read by one that was killed goes with the next
collection, or is gone past by the next import.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from pullonce.store.content import ContentStore
from pullonce.store.disk import disk_errors
from pullonce.store.holds import Hold, Holds
from schemas.oci import Digest

HOLDER = "import"
_TOGETHER = 64


class ImportHold:
    """The hold of one import under way; made by `importing`."""

    def __init__(self, content: ContentStore, holds: Holds, name: str) -> None:
        self._content = content
        self._holds = holds
        self._name = name
        self._kept: set[Digest] = set()
        self._groups: list[list[Digest]] = []
        """A hold names those of one group: a few of them are written anew for each, and not all."""

    def keep(self, digest: Digest) -> bool:
        """Keep a blob from now on; whether it is there.

        Raises:
            Permanent: the disk refuses.
        """
        if digest not in self._kept:
            self._kept.add(digest)
            if not self._groups or len(self._groups[-1]) == _TOGETHER:
                self._groups.append([])
            self._groups[-1].append(digest)
            name, blobs = self._named(len(self._groups) - 1), tuple(self._groups[-1])
            self._holds.put(Hold(holder=HOLDER, name=name, blobs=blobs, alive=self._name), sync=False)
        with self._content.images.hold():  # a collection that did not see the hold has ended now
            return self._content.has(digest)

    def drop(self) -> None:
        """Let all go."""
        for number in range(len(self._groups)):
            self._holds.drop(HOLDER, self._named(number))

    def _named(self, number: int) -> str:
        return f"{self._name}-{number}"


@contextmanager
def importing(content: ContentStore) -> Iterator[ImportHold]:
    """Keep what an import needs, for as long as the block lasts.

    Raises:
        Permanent: the disk refuses.
    """
    holds, name = Holds(content.root), secrets.token_hex(8)
    made, sign = ImportHold(content, holds, name), holds.sign_of_life(HOLDER, name)
    with disk_errors(sign):
        sign.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(sign, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield made
    finally:
        made.drop()
        sign.unlink(missing_ok=True)
        os.close(descriptor)
