"""`python -m services.unpacker.check ROOT`: are snapshots what their layers unpack to?

Reads ChainIDs from its input, one a line. Each layer is unpacked again, privately, from its blob, by the code that made the
snapshot, and the two trees are compared in every name and byte. Answers one `SnapshotCheck` a line, in JSON. Changes nothing in
the store. Whoever asks has verified the blob before.
"""

import asyncio
import os
import sys
from itertools import islice
from pathlib import Path

import msgspec

from pullonce.bus.memory.bus import MemoryBus
from pullonce.errors import Permanent, PullonceError, Retryable
from pullonce.store.checks import SnapshotCheck
from pullonce.store.snapshots import SnapshotMissing
from schemas.oci import ChainID, Descriptor
from schemas.orders import UnpackLayer
from services.unpacker.attempt import Attempt
from services.unpacker.compare import differences
from services.unpacker.handlers import Unpacker
from services.unpacker.service import unpacking
from services.unpacker.work.messages import WorkLimits

_ANY = WorkLimits(size=1 << 50, entries=1 << 30, ratio=1 << 40, window=1 << 31)
"""What was unpacked once may be so again, however the limits were set then."""
_MOST = 5
"""Differences that are told of one snapshot."""


async def check(unpacker: Unpacker, chain_id: ChainID) -> SnapshotCheck:
    """Compare one snapshot with what its layer unpacks to."""
    parts = unpacker.parts
    try:
        snapshot = parts.snapshots.get(chain_id)
        size = parts.content.size(snapshot.blob)
    except SnapshotMissing:
        return SnapshotCheck(chain_id=chain_id, unchecked="it is gone")
    except Permanent:
        return SnapshotCheck(chain_id=chain_id, unchecked=f"its blob {snapshot.blob} is not there")
    order = UnpackLayer(
        chain_id=chain_id,
        diff_id=snapshot.diff_id,
        blob=Descriptor(media_type="", digest=snapshot.blob, size=size),
        parent=snapshot.parent,
    )
    if snapshot.parent and not parts.snapshots.has(snapshot.parent):
        return SnapshotCheck(chain_id=chain_id, unchecked=f"the snapshot {snapshot.parent} below it is not there")
    with parts.news.watch("blob", snapshot.blob) as watch:
        attempt = Attempt(order, parts, watch)
        try:
            draft, fresh = await attempt.draft()
            if (fresh.left_out, fresh.userxattr) != (snapshot.left_out, snapshot.userxattr):
                return SnapshotCheck(chain_id=chain_id, unchecked="it was made by a user with other rights")
            found = await asyncio.to_thread(
                lambda: list(islice(differences(draft.tree, parts.snapshots.path(chain_id)), _MOST))
            )
            return SnapshotCheck(chain_id=chain_id, differences=found)
        except (Permanent, Retryable, OSError) as exc:
            return SnapshotCheck(chain_id=chain_id, unchecked=str(exc))
        finally:
            attempt.discard()


async def main(root: Path) -> None:
    """Answer for every ChainID on standard input."""
    async with unpacking("default", root, MemoryBus().signals, workers=1, limits=_ANY) as unpacker:
        while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
            checked = await check(unpacker, ChainID(line))
            print(msgspec.json.encode(checked).decode(), flush=True)


if __name__ == "__main__":
    os.nice(10)
    try:
        asyncio.run(main(Path(sys.argv[1])))
    except PullonceError as exc:
        sys.exit(str(exc))
