"""Fixtures of the fault tests: a real registry and a real bus for a module, and a thread that outlives what it starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.nats_server import NatsServer


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what the trouble of `test_chaos.py` cost in all."""
    cost: Counter[str] = Counter()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            if "test_chaos.py" in report.nodeid and report.when == "call":
                cost.update(dict(report.user_properties))
    if cost:
        terminalreporter.write_line(f"chaos: {', '.join(f'{number} {name}' for name, number in cost.items())}")


@pytest.fixture(scope="module")
def bus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats")).start()
    yield server
    server.kill()
