"""Which snapshots somebody has mounted: as layers of an overlay, or by bind mounts of their trees.

What cannot be seen from here is not known: see `pullonce.store.tables`.
"""

import re
from collections.abc import Collection, Iterable, Iterator

from pullonce.store.layout import short_name
from pullonce.store.tables import tables as tables_in_sight
from schemas.oci import ChainID
from schemas.subjects import digest_of

_NAMES = re.compile(r"(?<![A-Z2-7])[A-Z2-7]{20}(?![A-Z2-7])|sha256-[0-9a-f]{64}|sha512-[0-9a-f]{128}")


def mounted(chain_ids: Iterable[ChainID], tables: Iterable[str] | None = None) -> set[ChainID]:
    """Those of some snapshots that are mounted anywhere; a snapshot of another store with the same ChainID counts too.

    Args:
        tables: texts of `mountinfo` files; those of this machine where none are given.
    """
    names = {short_name(chain_id): chain_id for chain_id in chain_ids}
    wanted = set(names.values())
    if not names:
        return set()
    found = {name for table in (_texts() if tables is None else tables) for name in _NAMES.findall(table)}
    return {names[name] for name in found & names.keys()} | (wanted & {ChainID(digest_of(n)) for n in found if "-" in n})


def mounted_names(names: Collection[str]) -> set[str]:
    """Those of some short names of trees that are mounted anywhere."""
    return set(names) & {name for table in _texts() for name in _NAMES.findall(table)} if names else set()


def _texts() -> Iterator[str]:
    return (text for _, text in tables_in_sight())
