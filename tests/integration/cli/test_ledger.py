"""`pullonce up` with its ledger, asked as a user would: history, stats, explain, sql, ledger; and without one."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pullonce.cli.ledger import moment
from pullonce.client import connect
from pullonce.errors import LedgerRefused
from schemas.ledger import AskExplain, AskSql, Explanation, Table
from schemas.status import Pong
from tests.support.buses import eventually
from tests.support.chaos_line import Line
from tests.support.deployment import Deployment
from tests.support.gate import Gate
from tests.support.images import Image, image, layer, tar_of
from tests.support.registry import RegistryServer

TIMEOUT = "60"
SLOW = 600_000


@dataclass
class Place:
    """A registry and a running pullonce with a ledger."""

    registry: RegistryServer
    pullonce: Deployment

    def ask(self, *words: str) -> Any:
        """The JSON that a command prints."""
        ran = self.pullonce.run(*words, "--json")
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    def pull(self, reference: str, *words: str) -> None:
        assert self.pullonce.run("pull", reference, "--timeout", TIMEOUT, *words).returncode == 0
        asyncio.run(self.settled())

    async def settled(self) -> None:
        """Return when the ledger has folded everything that is in the log now."""
        async with connect(self.pullonce.url) as client:
            last = await client.last_sequence()

            async def folded() -> bool:
                answer = await client.ask(AskSql(query="SELECT sequence FROM position"))
                assert isinstance(answer, Table)
                return bool(answer.rows[0][0] >= last)

            await eventually(folded)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    registry = RegistryServer(tmp_path_factory.mktemp("registry")).start()
    deployment = Deployment(
        tmp_path_factory.mktemp("home"), environ={"PULLONCE_LEDGER_HTTP": "127.0.0.1:0"}, ledger=True
    ).start()
    asyncio.run(until_ledger(deployment))
    yield Place(registry, deployment)
    deployment.stop()
    registry.stop()


async def until_ledger(deployment: Deployment) -> Pong:
    """Nothing waits for a ledger, so a test that needs one does."""
    found: list[Pong] = []
    async with connect(deployment.url) as client:

        async def there() -> bool:
            found[:] = [pong for pong in await client.ping(0.3) if pong.service == "ledger"]
            return bool(found)

        await eventually(there)
    return found[0]


def picture(*seeds: int) -> Image:
    return image(layer(tar_of({f"file-{seed}": random.Random(seed).randbytes(300_000)})) for seed in seeds)


def test_history_and_stats_tell_what_was_pulled(place: Place) -> None:
    reference = place.registry.push("history/app", "1", picture(1, 2))
    place.pull(reference)
    place.pull(reference)
    pulls = place.ask("history", reference)["pulls"]
    assert [(pull["outcome"], pull["requests"], pull.get("fetched", 0), pull.get("reused", 0)) for pull in pulls] == [
        ("completed", 1, 0, 2),
        ("completed", 1, 2, 0),
    ]
    assert [pull["doors"] for pull in pulls] == [{"cli": 1}, {"cli": 1}]
    assert [each["name"] for each in place.ask("stats", reference, "--by", "door")["figures"]] == ["cli"]
    assert all(pull["requesters"][0].startswith("pullonce pull") and pull["seconds"] > 0 for pull in pulls)
    (figures,) = place.ask("stats", reference)["figures"]
    assert (figures["flights"], figures["requests"], figures["fetched_bytes"]) == (2, 2, pulls[1]["size"])
    assert figures["saved_bytes"] == pulls[1]["size"] and figures["p50"] <= figures["p99"]
    said = place.pullonce.run("history", reference).stdout.splitlines()
    assert said[0].split()[:3] == ["PULL", "WHEN", "IMAGE"] and reference in said[1]
    assert "DOOR" in said[0].split() and "cli" in said[1].split()
    assert reference in place.pullonce.run("stats", "--by", "image", reference).stdout
    hours = place.ask("stats", "--by", "hour", reference)["figures"]
    assert all(hour["name"].endswith(":00") for hour in hours) and sum(hour["flights"] for hour in hours) == 2
    found = [place.ask("history", "--search", text).get("pulls", ()) for text in ("History/App", "nothing of the kind")]
    assert [len(each) for each in found] == [2, 0]


def test_failures_are_kept_with_their_reason(place: Place) -> None:
    missing = f"{place.registry.host}/no/such:image"
    assert place.pullonce.run("pull", missing).returncode == 1
    asyncio.run(place.settled())
    (pull,) = place.ask("history", missing, "--failed", "--since", "1h")["pulls"]
    assert (pull["outcome"], pull["code"]) == ("failed", "MANIFEST_UNKNOWN")
    assert place.ask("history", missing, "--since", (datetime.now(UTC) + timedelta(days=2)).isoformat())["answer"] == "history"
    assert "MANIFEST_UNKNOWN" in place.pullonce.run("explain", missing).stdout


async def test_an_explanation_is_true_of_what_the_client_saw(place: Place) -> None:
    """The time goes where the test has it go, on a slow line, and the client has a clock of its own."""
    made = image([layer(tar_of({"slow": random.Random(3).randbytes(SLOW)}))])
    behind = place.registry.push("explain/app", "1", made)
    with Line(place.registry.host, rate=SLOW / 2) as line:
        async with connect(place.pullonce.url) as client:
            began = time.monotonic()
            await client.pull(line.reference(behind), timeout=60)
            seen = time.monotonic() - began
    await place.settled()
    told = place.ask("explain", line.reference(behind))
    assert told["wall"] == pytest.approx(seen, rel=0.05) and told["wall"] < seen
    assert told["wall"] == pytest.approx(told["pull"]["seconds"], rel=0.05)
    spent: Counter[str] = Counter()
    for part in told["parts"]:
        spent[part["step"]] += part["seconds"]
    assert spent["transfer"] > 0.9 * 2, "a line that brings half of it a second takes two"
    waited = sum(spent[each] for each in ("order", "claim", "queue", "release"))
    assert waited < 0.2 * told["wall"], "what no worker accounts for is a remainder"
    assert told["advice"][0].startswith("transfer, ")
    steps = [(part.get("work", ""), part["step"]) for part in told["parts"]]
    assert {("resolve", "head"), ("fetch", "claim"), ("record", "record"), ("", "release")} <= set(steps)
    for piece in told["pieces"]:
        assert piece["state"] == "done" and sum(piece["steps"].values()) > 0
        assert piece["end"] <= told["wall"] + 0.01
    readable = await asyncio.to_thread(place.pullonce.run, "explain", str(told["pull"]["opened"]))
    assert "what was waited for, in order:" in readable.stdout


async def test_a_pull_in_the_air_says_what_it_waits_for(place: Place) -> None:
    held = picture(6, 7)
    reference = place.registry.push("stuck/app", "1", held)
    with Gate(place.registry.host, holds=held.layers[1].encode()) as gate:
        stuck = gate.reference(reference)
        async with connect(place.pullonce.url) as client:
            pulling = asyncio.ensure_future(client.pull(stuck, timeout=60))
            told: list[Explanation] = []

            async def known() -> bool:
                try:
                    answer = await client.ask(AskExplain(pull=stuck))
                except LedgerRefused:
                    return False
                assert isinstance(answer, Explanation)
                told[:] = [answer]
                return [piece.state for piece in answer.pieces if piece.work == "fetch"] == ["done", "ordered"]

            await eventually(known)
            (answer,) = told
            assert answer.pull.outcome == "in the air"
            assert (answer.parts[-1].step, answer.parts[-1].work) == ("waiting", "fetch")
            assert sum(part.seconds for part in answer.parts) == pytest.approx(answer.wall)
            fetch = [piece for piece in answer.pieces if piece.work == "fetch"][1]
            assert fetch.holder.startswith("coordinator-") and fetch.ordered is not None
            gate.open()
            await pulling


def test_sql_reads_and_nothing_else(place: Place) -> None:
    found = place.ask("sql", "SELECT kind, count(*) FROM events GROUP BY kind")
    assert found["columns"] == ["kind", "count_star()"] and found["rows"]
    refused = place.pullonce.run("sql", "DELETE FROM events")
    assert refused.returncode == 1 and "one SELECT at a time" in refused.stderr
    hidden = place.pullonce.run("sql", "FROM read_text('/etc/passwd')")
    assert hidden.returncode == 1 and "read_text is not for queries" in hidden.stderr
    hostile = place.pullonce.run("sql", "SELECT chr(27) || '[31mred' AS \"a\x1b[0m\"").stdout
    assert "\x1b" not in hostile and "\\x1b[31mred" in hostile


def test_rebuild_and_export(place: Place) -> None:
    before = place.ask("sql", "SELECT * FROM flights ORDER BY opened")["rows"]
    assert "made anew" in place.pullonce.run("ledger", "rebuild").stdout
    asyncio.run(place.settled())
    assert place.ask("sql", "SELECT * FROM flights ORDER BY opened")["rows"] == before
    told = place.ask("ledger", "export")
    directory = Path(told["message"].rpartition(" in ")[2])
    assert {"flights.parquet", "requests.parquet", "events.parquet"} <= {each.name for each in directory.iterdir()}
    assert place.pullonce.run("ledger", "export", "--roll-up").returncode == 2


def test_what_cannot_be_answered_says_why(place: Place) -> None:
    unknown = place.pullonce.run("explain", "nobody/pulled:this")
    assert unknown.returncode == 1 and "knows no pull" in unknown.stderr
    wrong = place.pullonce.run("history", "--since", "yesterday")
    assert wrong.returncode == 2 and "expected 2h" in wrong.stderr


def test_a_ledger_that_dies_disturbs_nobody_and_comes_back(place: Place) -> None:
    pong = asyncio.run(until_ledger(place.pullonce))
    os.kill(pong.pid, signal.SIGKILL)
    reference = place.registry.push("dead/ledger", "1", picture(8))
    assert place.pullonce.run("pull", reference, "--timeout", TIMEOUT).returncode == 0
    assert place.pullonce.run("ping").returncode == 0
    asyncio.run(until_ledger(place.pullonce))
    asyncio.run(place.settled())
    assert [pull["outcome"] for pull in place.ask("history", reference)["pulls"]] == ["completed"]


def test_without_a_ledger_everything_else_works(place: Place, tmp_path: Path) -> None:
    deployment = Deployment(tmp_path / "home", ledger=False).start()
    try:
        assert deployment.run("ping").returncode == 0
        reference = place.registry.push("no/ledger", "1", picture(9))
        assert deployment.run("pull", reference, "--timeout", TIMEOUT).returncode == 0
        asked = deployment.run("history")
        assert asked.returncode == 3 and "no ledger answers" in asked.stderr
    finally:
        deployment.stop()


NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", None),
        ("90m", NOW - timedelta(minutes=90)),
        ("2h", NOW - timedelta(hours=2)),
        ("3d", NOW - timedelta(days=3)),
        ("1w", NOW - timedelta(weeks=1)),
        ("2026-03-01T10:00:00+02:00", datetime(2026, 3, 1, 8, tzinfo=UTC)),
        ("2026-03-01T10:00:00Z", datetime(2026, 3, 1, 10, tzinfo=UTC)),
    ],
)
def test_times_are_read_as_people_write_them(text: str, meant: datetime | None) -> None:
    assert moment(text, NOW) == meant


@pytest.mark.parametrize("text", ["yesterday", "h", "-1h", "1.5h", "2026-13-01", "99999999999999999999d"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(LedgerRefused):
        moment(text, NOW)
