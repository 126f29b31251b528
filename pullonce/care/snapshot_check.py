"""Have snapshots compared with what their layers unpack to, by the code that unpacks: a process that is asked over a pipe."""

import asyncio
import sys
from pathlib import Path
from types import TracebackType

import msgspec

from pullonce.errors import PullonceError
from pullonce.store.checks import SnapshotCheck

_LINE = 1 << 20


class CheckerFailed(PullonceError):
    """The process that compares snapshots ended."""


class Checker:
    """`async with Checker(root) as checker`: the process lives as long as the block.

    Args:
        root: the store's directory.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    async def __aenter__(self) -> "Checker":
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.unpacker.check", str(self._root),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=_LINE,
        )  # fmt: skip
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        if kind is not None and self._process.returncode is None:
            self._process.terminate()
        await self._process.wait()

    async def check(self, chain_id: str) -> SnapshotCheck:
        """Compare one snapshot.

        Raises:
            CheckerFailed: the process ended.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{chain_id}\n".encode())
        line = await self._process.stdout.readline()
        if not line:
            raise CheckerFailed(f"the process that compares snapshots ended with code {await self._process.wait()}")
        return msgspec.json.decode(line, type=SnapshotCheck)
