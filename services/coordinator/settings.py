"""How long a coordinator waits for others, what counts as slow, and how long the log may become."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from pullonce.config import BusSettings, number
from services.coordinator.claim import HOLD
from services.coordinator.keeper import LOG_BYTES
from services.coordinator.watching import RATE, SECONDS


@dataclass(frozen=True, slots=True)
class CoordinatorSettings:
    """How a coordinator works."""

    bus: BusSettings
    lease: float
    """Seconds without a beat after which the stores of a coordinator are another's to take."""
    log_bytes: int
    """Beyond so many, what is settled is cut off the log; 0: never by size."""
    slow_seconds: float
    slow_rate: float
    """A transfer that brings fewer bytes a second, for so many seconds, is asked for elsewhere where that is possible."""

    @staticmethod
    def from_env(environ: Mapping[str, str] = os.environ) -> CoordinatorSettings:
        """`PULLONCE_CLAIM_LEASE`, `PULLONCE_LOG_BYTES`, `PULLONCE_SLOW_SECONDS`, `PULLONCE_SLOW_RATE`.

        Raises:
            SettingInvalid: one of them cannot be used.
        """
        return CoordinatorSettings(
            bus=BusSettings.from_env("coordinator", environ),
            lease=number(environ, "PULLONCE_CLAIM_LEASE", HOLD, low=1.0, high=3600.0),
            log_bytes=int(number(environ, "PULLONCE_LOG_BYTES", LOG_BYTES, low=0, high=2**60)),
            slow_seconds=number(environ, "PULLONCE_SLOW_SECONDS", SECONDS, low=0.5, high=3600.0),
            slow_rate=number(environ, "PULLONCE_SLOW_RATE", RATE, low=0.0, high=1e12),
        )
