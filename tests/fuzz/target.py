"""What a target is, and how bytes are drawn that are nearly right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.support.steps import at_most

_OVERHEAD, _EACH = 20_000, 200
"""Lines of the project that a check may run for nothing at all, and for each byte."""


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        strategy: draws what it is given.
        check: parses it; whatever this raises is a failure. A typed refusal is none, and is caught in here.
    """

    name: str
    strategy: st.SearchStrategy[Any]
    check: Callable[[Any], None]


def bounded(size: int) -> Any:
    """Let the block run a number of lines that fits so many bytes: a loop that stands still fails, with its bytes."""
    return at_most(_OVERHEAD + _EACH * size)


@st.composite
def nearly(draw: st.DrawFn, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """One of some good examples with a few edits: bytes overwritten, cut out, doubled, or words of the format put in."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 4)):
            case 0:
                piece = draw(st.binary(min_size=1, max_size=8))
                data[at : at + len(piece)] = piece
            case 1:
                del data[at : at + draw(st.integers(1, 64))]
            case 2:
                data[at:at] = data[at : at + draw(st.integers(1, 600))]
            case 3:
                data[at:at] = draw(st.sampled_from(words))
            case 4:
                word = draw(st.sampled_from(words))
                data[at : at + len(word)] = word
    return bytes(data)
