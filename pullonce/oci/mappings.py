"""User namespaces: which ids of a container are which of this machine. Pure.

Source: user_namespaces(7).
"""

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from pullonce.errors import PullonceError

_IDS = (1 << 32) - 1
_NOBODY = 65534
_MOST = 340
"""Lines of a map that Linux takes. Source: user_namespaces(7)."""


class MappingInvalid(PullonceError):
    """What was given is no mapping of ids, or leaves somebody out."""

    usage = True


class IdRange(msgspec.Struct, frozen=True):
    """Some ids of a container, and as many of this machine."""

    container: int
    host: int
    size: int


class Mappings(msgspec.Struct, frozen=True):
    """The ids of one user namespace."""

    uids: tuple[IdRange, ...]
    gids: tuple[IdRange, ...]

    def owner(self, uid: int, gid: int) -> tuple[int, int]:
        """Who an owner in the container is on this machine.

        Raises:
            MappingInvalid: one of them is nobody there.
        """
        return _outside(uid, self.uids, "user"), _outside(gid, self.gids, "group")

    def inside(self, uid: int, gid: int) -> tuple[int, int]:
        """Who an owner on this machine is in the container; who is nobody there is shown as Linux shows him, by 65534."""
        return _inside(uid, self.uids), _inside(gid, self.gids)


def mappings(uids: Sequence[str], gids: Sequence[str]) -> Mappings | None:
    """Read `CONTAINER:HOST:SIZE` of users and groups; where only one of the two is given, it counts for both.

    Raises:
        MappingInvalid: one cannot be read, two overlap, or the container's root is left out.
    """
    if not uids and not gids:
        return None
    return Mappings(_ranges(uids or gids), _ranges(gids or uids))


def _ranges(texts: Sequence[str]) -> tuple[IdRange, ...]:
    found = tuple(_range(each) for each in texts)
    if len(found) > _MOST:
        raise MappingInvalid(f"{len(found)} ranges of ids are more than Linux takes, {_MOST}")
    for side in ("container", "host"):
        inside = sorted(found, key=lambda each: int(getattr(each, side)))
        for one, other in pairwise(inside):
            if getattr(one, side) + one.size > getattr(other, side):
                raise MappingInvalid(f"{_text(one)} and {_text(other)} overlap in their {side} ids")
    if not any(each.container == 0 for each in found):
        raise MappingInvalid("the container's root is nobody there; expected a range that begins at 0, such as 0:100000:65536")
    return found


def _range(text: str) -> IdRange:
    parts = text.split(":")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) <= 10 for part in parts):
        raise MappingInvalid(f"{text[:60]!r} is no range of ids; expected CONTAINER:HOST:SIZE, such as 0:100000:65536")
    container, host, size = map(int, parts)
    if size < 1 or container + size > _IDS or host + size > _IDS:
        raise MappingInvalid(f"{text} goes beyond the ids there are; expected a size from 1, and ids below {_IDS}")
    return IdRange(container, host, size)


def _outside(number: int, ranges: Sequence[IdRange], what: str) -> int:
    for each in ranges:
        if each.container <= number < each.container + each.size:
            return each.host + number - each.container
    there = ", ".join(map(_text, ranges))
    raise MappingInvalid(f"{what} {number} of the container is nobody on this machine: {there} does not have it")


def _inside(number: int, ranges: Sequence[IdRange]) -> int:
    for each in ranges:
        if each.host <= number < each.host + each.size:
            return each.container + number - each.host
    return _NOBODY


def _text(given: IdRange) -> str:
    return f"{given.container}:{given.host}:{given.size}"
