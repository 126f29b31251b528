"""Where the ledger lies, what it may take, and where it answers over HTTP."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pullonce.config import BusSettings, SettingInvalid, home, number

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

    @staticmethod
    def from_env(environ: Mapping[str, str] = os.environ) -> LedgerSettings:
        """`PULLONCE_HOME` (the file is `ledger/ledger.duckdb` below it), `PULLONCE_LEDGER_MEMORY` (megabytes, default 512),
        `PULLONCE_LEDGER_HTTP` (host:port, default 127.0.0.1:4280, or any free port of that host where it is taken).

        Raises:
            SettingInvalid: one of them cannot be used.
        """
        host, port = address(environ.get("PULLONCE_LEDGER_HTTP") or HTTP)
        megabytes = int(number(environ, "PULLONCE_LEDGER_MEMORY", 512, low=64, high=1 << 20))
        return LedgerSettings(
            bus=BusSettings.from_env("ledger", environ),
            path=home(environ) / "ledger" / "ledger.duckdb",
            memory=f"{megabytes}MB",
            host=host,
            port=port,
        )


def address(text: str) -> tuple[str, int]:
    """Host and port of `host:port`; raises SettingInvalid."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise SettingInvalid(f"PULLONCE_LEDGER_HTTP is {text!r}; expected host:port, such as 127.0.0.1:4280")
    return host.strip("[]"), int(port)
