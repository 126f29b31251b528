"""What a comparison of a snapshot with its layer found: said by the process that compares, read by who asked it."""

import msgspec


class SnapshotCheck(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What was found of one snapshot."""

    chain_id: str
    differences: list[str] = []
    """Empty: the snapshot is what its layer unpacks to, unless it could not be checked."""
    unchecked: str = ""
    """Why it could not be checked."""
