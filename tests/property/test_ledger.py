"""However a log is cut into batches, and whichever way it is loaded, the tables come out the same, and true to the board."""

import random
from pathlib import Path

import pytest

from pullonce.pulling.identity import identify_request
from schemas.events import Event, PullCompleted, PullFailed, PullRequested
from services.coordinator.board import Board
from services.ledger.fold.projection import Ledger
from services.ledger.fold.staging import stage
from tests.property import world
from tests.support.ledgers import START, Scribbler, cut, folded, loaded, rows


@pytest.mark.parametrize("seed", range(40))
def test_a_fold_in_any_batches_equals_a_rebuild(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    staged = Scribbler(chance).log(chance.choice((1, 20, 120)))
    live = folded(tmp_path / "live" / "ledger.duckdb", cut(staged, chance))
    rebuilt = loaded(tmp_path / "rebuilt" / "ledger.duckdb", staged)
    one, other = rows(live), rows(rebuilt)
    for name in one:
        assert one[name] == other[name], name
    assert sum(map(len, one.values())) > len(staged)
    live.close()
    rebuilt.close()


@pytest.mark.parametrize("seed", range(12))
def test_the_ledger_sees_the_flights_that_the_coordinators_see(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log of a world full of trouble, folded up to any point: what is in flight is the same as on a board."""
    log = log_of_a_world(seed, monkeypatch)
    chance = random.Random(seed)
    board, ledger, at = Board(), Ledger(tmp_path / "ledger.duckdb"), 0
    reader = ledger.reader()
    answered: dict[int, tuple[int, int]] = {}
    while at < len(log):
        batch = list(enumerate(log[at : at + chance.choice((1, 3, 10, 40))], at + 1))
        for sequence, event in batch:
            answers(board, event, sequence, log, answered)
            board.apply(event, sequence)
        ledger.fold([stage(sequence, START + sequence, event) for sequence, event in batch])
        at += len(batch)
        in_air = reader.execute("SELECT flight, opened FROM flights WHERE ended IS NULL").fetchall()
        assert sorted(in_air) == sorted((flight.name, flight.opened) for flight in board.flights.values()), at
    found = reader.execute("SELECT sequence, opened, ended FROM requests WHERE ended IS NOT NULL").fetchall()
    assert {sequence: (opened, ended) for sequence, opened, ended in found} == answered
    assert len(answered) >= 20
    reader.close()
    ledger.close()


def log_of_a_world(seed: int, monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """What the coordinators, workers and clients of tests/property/world.py wrote."""
    worlds: list[world.World] = []
    judge = world.judge

    def keep(of: world.World, *args: object, **kwargs: object) -> object:
        worlds.append(of)
        return judge(of, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(world, "judge", keep)
    world.run(seed)
    return worlds[0].log


def answers(board: Board, event: Event, sequence: int, log: list[Event], answered: dict[int, tuple[int, int]]) -> None:
    """Note which requests an ending answers, by its own words: those of its flight, if that is in flight, below `covers`."""
    if not isinstance(event, PullCompleted | PullFailed):
        return
    flight = board.flights.get(event.flight)
    if flight is None or flight.opened != event.opened:
        return
    for earlier, request in enumerate(log[: event.covers - 1], 1):
        if isinstance(request, PullRequested) and identify_request(request).flight == event.flight:
            answered.setdefault(earlier, (event.opened, sequence))
