"""Which images may go: those not used for long, and the longest unused ones until the rest is small enough. Pure."""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

I = TypeVar("I")  # noqa: E741
T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Listed(Generic[I, T]):
    """A listed image as the choice sees it."""

    image: I
    used: float
    """Seconds since the epoch at which it was pulled last."""
    kept: bool
    """It is pinned, or being pulled: it stays in any case."""
    needs: frozenset[T]
    """The things it needs; several images may need the same."""


@dataclass(frozen=True, slots=True)
class Retention:
    """What is asked for. None: no limit."""

    unused_since: float | None = None
    """Images that were not used since then, in seconds since the epoch, go."""
    most_bytes: int | None = None
    """The longest unused images go until what is needed by the rest has at most so many bytes."""


def to_go(images: Iterable[Listed[I, T]], always: Iterable[T], sizes: Mapping[T, int], limits: Retention) -> list[Listed[I, T]]:
    """The images to take off the list, longest unused first.

    Args:
        always: things that stay whatever is chosen; they count towards the bytes.
        sizes: bytes of things; what is not in it has none.
    """
    everything = list(images)
    oldest_first = sorted((each for each in everything if not each.kept), key=lambda each: each.used)
    gone = [each for each in oldest_first if limits.unused_since is not None and each.used < limits.unused_since]
    if limits.most_bytes is None:
        return gone
    users = Counter(thing for each in everything for thing in each.needs)
    users.update(always)
    held = sum(sizes.get(thing, 0) for thing in users)
    held -= sum(_freed(each, users, sizes) for each in gone)
    for each in oldest_first[len(gone) :]:
        if held <= limits.most_bytes:
            break
        held -= _freed(each, users, sizes)
        gone.append(each)
    return gone


def _freed(image: Listed[I, T], users: Counter[T], sizes: Mapping[T, int]) -> int:
    """Let an image go; returns the bytes that nobody needs any more."""
    users.subtract(image.needs)
    return sum(sizes.get(thing, 0) for thing in image.needs if not users[thing])
