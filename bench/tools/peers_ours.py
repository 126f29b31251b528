"""pullonce itself, as it comes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bench.tools.peer import Peer
from bench.tools.usage import Group
from pullonce.process import discovery


class Ours(Peer):
    """pullonce, embedded: nats-server, coordinator, fetcher, unpacker, ledger."""

    name = "pullonce"

    def __init__(self, place: Path, host: str, group: Group) -> None:
        super().__init__(place, host, group)
        self._script = str(Path(sys.executable).parent / "pullonce")
        self.home = place / "home"
        self.environ = {key: value for key, value in os.environ.items() if not key.startswith("PULLONCE_")}
        self.environ["PULLONCE_HOME"] = str(self.home)

    @classmethod
    def present(cls) -> bool:
        return True

    def command(self) -> list[str]:
        return [self._script, "up"]

    def ready(self) -> list[str]:
        return [self._script, "ping"]

    def pull(self, image: str) -> list[str]:
        return [self._script, "pull", "--quiet", f"{self.host}/{image}"]

    def requester(self, image: str, count: int) -> list[str]:
        """One connected client that asks so many times at once; see `bench.tools.requester`."""
        served = discovery.served(str(self.home))
        assert served is not None, "pullonce up has not said where it serves"
        return [sys.executable, "-m", "bench.tools.requester", served.url, str(count), f"{self.host}/{image}"]
