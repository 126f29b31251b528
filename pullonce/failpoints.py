"""Named steps at which a test may have a process die, as by `kill -9`, or stand still: each step can be the last one.

    PULLONCE_FAILPOINTS=DIR     a file DIR/<step> arms a step: the first process that reaches it removes the file and dies,
                                or stops until it is continued where the file says `stop`

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
    "snapshot.placed",
    "snapshot.renamed",
    "fact.ready",
    "fact.stored",
    "ending.ready",
    "ending.stored",
)
"""In the order in which one pull passes them."""

LEDGER_STEPS = (
    "fold.staged",
    "fold.made",
    "fold.committed",
    "export.written",
    "roll-up.made",
    "roll-up.committed",
    "rebuild.loaded",
    "rebuild.folded",
    "exchange.closed",
    "rebuild.carried",
    "rebuild.replaced",
)
"""Those of the ledger: of a batch, of an export that rolls up, and of a rebuild, which has a process of its own until it is
folded."""

GATEWAY_STEPS = (
    "layer.held",
    "layer.recorded",
    "container.made",
    "container.recorded",
    "layer.committed",
    "removal.recorded",
    "removal.unheld",
)
"""Those of the snapshot service: a layer that is promised, a container's directory, one that becomes a layer, a removal."""

BUNDLE_STEPS = (
    "bundle.opened",
    "bundle.begun",
    "bundle.held",
    "bundle.laid",
    "bundle.mounted",
    "bundle.written",
    "unbundle.unmounted",
    "unbundle.unwritten",
    "unbundle.unheld",
    "unbundle.emptied",
)
"""Those of `pullonce bundle`, and of `pullonce unbundle` behind them."""

VIEW_STEPS = (
    "view.held",
    "view.split",
    "view.promised",
    "view.synced",
    "view.layers",
    "view.images",
    "view.listed",
    "view.leaving",
)
"""Those of an image that is shown to podman and others, and of one that is not any more: what is promised, what is listed."""


def _pass(step: str) -> None:
    """Nothing is armed here, ever."""


def _end_if_armed(step: str) -> None:
    armed = Path(_ARMED, step)
    try:
        how = armed.read_text()
        armed.unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGSTOP if how == "stop" else signal.SIGKILL)


_ARMED = os.environ.get("PULLONCE_FAILPOINTS", "")

reach = _end_if_armed if _ARMED else _pass
"""`reach(step)`: this step is being passed now."""
