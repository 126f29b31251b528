"""However a log is cut into batches, and whichever way it is loaded, the ledger's tables come out the same."""

import random
from pathlib import Path

import pytest

from tests.support.ledgers import Scribbler, cut, folded, loaded, rows


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
