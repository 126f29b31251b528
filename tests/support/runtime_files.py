"""Files of configuration in memory, as the rules see them."""

from __future__ import annotations

from collections.abc import Mapping

from pullonce.runtimes.offer import Offer
from pullonce.runtimes.plan import Plan

OFFER = Offer(
    home="/var/lib/pullonce", store="default", snapshotter="/run/pullonce/snapshots.sock", mirror="http://127.0.0.1:577",
    cri="/run/pullonce/cri.sock", behind="/run/containerd/containerd.sock", view="/var/lib/pullonce/stores/default/exposed",
)  # fmt: skip
"""What a gateway of the system offers."""


class MemoryFiles:
    """`Files` in a dictionary."""

    def __init__(self, texts: Mapping[str, str] | None = None) -> None:
        self.texts = dict(texts or {})

    def read(self, path: str) -> str | None:
        return self.texts.get(path)

    def names(self, directory: str) -> list[str]:
        below = (path.removeprefix(directory + "/") for path in self.texts if path.startswith(directory + "/"))
        return sorted({name.split("/")[0] for name in below})

    def with_plan(self, plan: Plan) -> MemoryFiles:
        """The files after what a plan says."""
        assert not plan.conflicts
        return MemoryFiles({**self.texts, **{change.path: change.after for change in plan.changes}})
