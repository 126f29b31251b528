"""Named steps at which a test may have a process die, as by `kill -9`, so that each step of the protocol can be the last one.

    PULLONCE_FAILPOINTS=DIR     a file DIR/<step> arms a step: the first process that reaches it removes the file and dies

Without the variable, which production never sets, `reach` does nothing at all.
"""

import os
import signal
from pathlib import Path

STEPS = (
    "claim.held",
    "order.sent",
    "claim.ordered",
    "order.received",
    "body.middle",
    "blob.verified",
    "blob.renamed",
    "snapshot.made",
    "snapshot.renamed",
    "fact.ready",
    "fact.stored",
    "ending.ready",
    "ending.stored",
)
"""In the order in which one pull passes them."""


def _pass(step: str) -> None:
    """Nothing is armed here, ever."""


def _die_if_armed(step: str) -> None:
    try:
        Path(_ARMED, step).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


_ARMED = os.environ.get("PULLONCE_FAILPOINTS", "")

reach = _die_if_armed if _ARMED else _pass
"""`reach(step)`: this step is being passed now."""
