"""Build an unpacker bottom-up and keep it running."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pullonce.bus.ports import Signals
from pullonce.store.content import open_store
from pullonce.store.snapshots import Snapshots
from services.unpacker.attempt import Tools
from services.unpacker.durability import Durability
from services.unpacker.handlers import Unpacker
from services.unpacker.news import News
from services.unpacker.progress import UnpackProgress
from services.unpacker.staging import Staging
from services.unpacker.work.messages import WorkLimits
from services.unpacker.work.workers import Pool


@asynccontextmanager
async def unpacking(store: str, root: Path, signals: Signals, *, workers: int, limits: WorkLimits) -> AsyncIterator[Unpacker]:
    """An unpacker of one store, with its processes and background tasks, for as long as the context lasts.

    Raises:
        Permanent: the disk refuses.
    """
    content = open_store(root)
    snapshots = Snapshots(root)
    staging = Staging(root)
    staging.open()
    pool = Pool(workers)
    news = News(store)
    announcer = UnpackProgress(signals)
    durability = Durability(snapshots, pool.idle)
    try:
        await news.open(signals)
        await pool.open()
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(part()) for part in (staging.clean, announcer.run, durability.run)]
            yield Unpacker(
                Tools(
                    content=content,
                    snapshots=snapshots,
                    staging=staging,
                    pool=pool,
                    news=news,
                    announcer=announcer,
                    durability=durability,
                    limits=limits,
                )
            )
            for task in background:
                task.cancel()
    finally:
        await pool.close()
        staging.close()
