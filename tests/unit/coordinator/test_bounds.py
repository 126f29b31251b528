"""What a coordinator remembers does not grow with what ever happened. The million is `./dev bench soak`."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from bench.soak import Fold
from pullonce.pulling import identity
from services.coordinator import waits


def test_memory_stays_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Present images, new ones, failing ones; with the traces and the mark."""
    monkeypatch.setattr(waits, "FORGOTTEN_AFTER", 500)
    fold = Fold()
    held: dict[int, list[int]] = {1: [], 2: []}
    """Bytes, every 25 flights of the second and of the third 500: more is forgotten at some moments than at others."""
    tracemalloc.start()
    try:
        for number in range(1500):
            fold.flight(number + 1)
            if number % 25 == 0 and number >= 500:
                identity._identified.cache_clear()  # a cache of a fixed size, which takes longer to fill
                gc.collect()  # what is nobody's and lies in circles counts for nothing
                held[number // 500].append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert fold.board.position > 15_000 and not fold.board.flights
    assert len(fold.board.waits) < 500
    assert max(held[2]) < max(held[1]) * 1.1, f"bytes in the second and in the third 500 flights: {held}"
