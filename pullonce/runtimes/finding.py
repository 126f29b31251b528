"""What keeps a runtime from using pullonce, wholly or in part, and how to mend it. Pure."""

from dataclasses import dataclass
from typing import Literal

from pullonce.runtimes.trouble import ConfigInvalid

Severity = Literal["blocks", "limits", "note"]
"""`blocks`: pullonce is not used; `limits`: it is used less than it could be; `note`: good to know."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes:
        runtime: `containerd`, `kubelet`…, `gateway` for what concerns all of them.
        path: the file in which it is; empty where it is in none.
        line: from 1; 0 where it is on none.
        what: what is so.
        why: why that matters.
        mend: what to do.
    """

    runtime: str
    severity: Severity
    what: str
    why: str
    mend: str
    path: str = ""
    line: int = 0

    @property
    def place(self) -> str:
        """`file:line`, as far as it is known."""
        return f"{self.path}:{self.line}" if self.path and self.line else self.path


def unreadable(runtime: str, exc: ConfigInvalid) -> Finding:
    """A file that is not what it should be."""
    return Finding(
        runtime, "blocks", exc.reason, f"{runtime} cannot read it either, and starts without it or not at all",
        "mend the file; `pullonce gateway config` can add nothing to it before", exc.path, exc.line,
    )  # fmt: skip
