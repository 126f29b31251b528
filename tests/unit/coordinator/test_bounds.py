"""What a coordinator remembers does not grow with what ever happened. The million is `./dev bench soak`."""

from __future__ import annotations

import tracemalloc

import pytest

from bench.soak import Fold
from pullonce.pulling import identity
from services.coordinator import waits


def test_memory_stays_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Present images, new ones, failing ones; with the traces and the mark."""
    monkeypatch.setattr(waits, "FORGOTTEN_AFTER", 500)
    fold, held = Fold(), []
    tracemalloc.start()
    try:
        for number in range(1, 1501):
            fold.flight(number)
            if number % 500 == 0:
                identity._identified.cache_clear()  # a cache of a fixed size, which takes longer to fill
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert fold.board.position > 15_000 and not fold.board.flights
    assert len(fold.board.waits) < 500
    assert held[-1] < held[-2] * 1.1, f"bytes after 500, 1000 and 1500 flights: {held}"
