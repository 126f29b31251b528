"""An import into a store, without a command."""

from pullonce.exchange.holding import importing
from pullonce.exchange.load import Loaded, load
from pullonce.exchange.sources import ArchiveSource
from pullonce.store.content import ContentStore


def load_into(store: ContentStore, source: ArchiveSource) -> Loaded:
    """Read an archive into a store; nothing is listed."""
    with importing(store) as hold:
        return load(store, source, hold)
