"""Where the ledger lies, what it may take, and where it answers over HTTP."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pullonce.config import BusSettings, SettingInvalid, address, home, is_loopback, number, yes

HTTP = "127.0.0.1:4280"


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """How a ledger works."""

    bus: BusSettings
    path: Path
    memory: str
    host: str
    port: int
    """0: any that is free."""
    days: int
    """After so many, what happened is rolled up; 0: never by age."""
    size: int
    """Bytes beyond which the oldest days are; 0: never by size."""
    token: str
    """Whoever reads over HTTP must know it; empty: whoever is on this machine may read."""

    @staticmethod
    def from_env(environ: Mapping[str, str] = os.environ) -> LedgerSettings:
        """`PULLONCE_HOME` (the file is `ledger/ledger.duckdb` below it), `PULLONCE_LEDGER_MEMORY` (megabytes, default 512),
        `PULLONCE_LEDGER_DAYS` and `PULLONCE_LEDGER_BYTES` (beyond which what happened is rolled up, defaults 400 and 8 GiB),
        `PULLONCE_LEDGER_HTTP` (host:port, default 127.0.0.1:4280, or any free port of that host where it is taken),
        `PULLONCE_LEDGER_TOKEN` (needed where others than this machine can reach that), `PULLONCE_LEDGER_OPEN` (`yes`: it is
        not, since something else keeps them away: a port that is published on loopback alone, a proxy that asks who is there).

        Raises:
            SettingInvalid: one of them cannot be used.
        """
        host, port = address(environ, "PULLONCE_LEDGER_HTTP", HTTP) or ("", 0)
        token = environ.get("PULLONCE_LEDGER_TOKEN", "").strip()  # out of a file, it ends a line
        if not token and not is_loopback(host) and not yes(environ, "PULLONCE_LEDGER_OPEN", default=False):
            why = "which others can reach; PULLONCE_LEDGER_TOKEN must say what they have to know (or PULLONCE_LEDGER_OPEN=yes)"
            raise SettingInvalid(f"PULLONCE_LEDGER_HTTP is {host}:{port}, {why}")
        megabytes = int(number(environ, "PULLONCE_LEDGER_MEMORY", 512, low=64, high=1 << 20))
        return LedgerSettings(
            bus=BusSettings.from_env("ledger", environ),
            path=home(environ) / "ledger" / "ledger.duckdb",
            memory=f"{megabytes}MB",
            days=int(number(environ, "PULLONCE_LEDGER_DAYS", 400, low=0, high=100_000)),
            size=int(number(environ, "PULLONCE_LEDGER_BYTES", 8 << 30, low=0, high=1 << 50)),
            host=host,
            port=port,
            token=token,
        )
