"""What an unpacker serves, how many layers at once, and what one layer may come to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from pullonce.config import BusSettings, StoreSettings, number
from services.unpacker.work.messages import WorkLimits


@dataclass(frozen=True, slots=True)
class UnpackerSettings:
    """How an unpacker works."""

    bus: BusSettings
    store: StoreSettings
    workers: int
    limits: WorkLimits

    @staticmethod
    def from_env(environ: Mapping[str, str] = os.environ) -> UnpackerSettings:
        """`PULLONCE_STORE` below `PULLONCE_HOME`; `PULLONCE_UNPACK_WORKERS` (one a processor), `PULLONCE_LAYER_MAX_BYTES`,
        `PULLONCE_LAYER_MAX_RATIO`, `PULLONCE_LAYER_MAX_ENTRIES`, `PULLONCE_ZSTD_WINDOW`, `PULLONCE_UNPACK_PATIENCE`.

        Raises:
            SettingInvalid: one of them cannot be used.
        """
        cores = len(os.sched_getaffinity(0))
        default = WorkLimits()
        return UnpackerSettings(
            bus=BusSettings.from_env("unpacker", environ),
            store=StoreSettings.from_env(environ),
            workers=int(number(environ, "PULLONCE_UNPACK_WORKERS", cores, low=1, high=256)),
            limits=WorkLimits(
                size=int(number(environ, "PULLONCE_LAYER_MAX_BYTES", default.size, low=1, high=1 << 50)),
                ratio=int(number(environ, "PULLONCE_LAYER_MAX_RATIO", default.ratio, low=1, high=1 << 40)),
                entries=int(number(environ, "PULLONCE_LAYER_MAX_ENTRIES", default.entries, low=1, high=1 << 30)),
                window=int(number(environ, "PULLONCE_ZSTD_WINDOW", default.window, low=1 << 20, high=1 << 31)),
                patience=number(environ, "PULLONCE_UNPACK_PATIENCE", default.patience, low=1, high=86_400),
            ),
        )
