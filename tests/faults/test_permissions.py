"""Who may say what: a requester's account can ask and listen, and can tell no facts, whatever it tries."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import msgspec
import nats
import pytest

from pullonce.client import connect
from pullonce.errors import BusUnsuitable
from schemas import subjects
from schemas.events import Event
from schemas.progress import BlobProgress, LayerProgress
from schemas.roles import ROLES
from schemas.samples import SAMPLES
from tests.support.chaos import Crew
from tests.support.chaos_check import damage, picture, read_log, stack, trees
from tests.support.nats_server import NatsServer
from tests.support.registry import RegistryServer

LIMIT = 60
USERS = """
authorization { users: [
  { user: service, password: s }
  { user: requester, password: r, permissions: {
      publish: [ "pull.requested", "pull.requested.>", "pull.cancelled.>", "pullonce.ping", "pullonce.status",
                 "$JS.API.INFO", "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.MSG.GET.EVENTS", "_INBOX.>" ]
      subscribe: [ "pull.*.>", "blob.fetched.>", "layer.unpacked.>", "progress.>", "_INBOX.>" ] } }
] }
"""
"""As docs/faults.md shows it."""

SPOKEN = [each for each in SAMPLES.values() if not isinstance(each, (BlobProgress, LayerProgress))]
MAY_NOT = [each for each in SPOKEN if type(each) not in ROLES["client"].sends]


async def test_a_requester_asks_and_listens_and_tells_no_facts(registry: RegistryServer, tmp_path: Path) -> None:
    tars = stack(random.Random("permitted"), 2)
    reference = registry.push("permitted", "latest", picture(tars))
    server = NatsServer(tmp_path / "nats", more=USERS).start()
    service, requester = (server.url.replace("//", f"//{who}@") for who in ("service:s", "requester:r"))
    try:
        with Crew(tmp_path / "home", service, coordinator=1, fetcher=1, unpacker=1) as crew:
            async with connect(requester, patience=LIMIT) as client:
                tidings: list[object] = []
                await client.pull(reference, timeout=LIMIT, progress=tidings.append)
                assert tidings
                before = await client.last_sequence()
            for message in MAY_NOT:
                assert await is_refused(requester, message), type(message).__name__
            for subject in ("$JS.API.STREAM.DELETE.EVENTS", "$JS.API.STREAM.PURGE.EVENTS", f"$KV.{subjects.CLAIMS_BUCKET}.x"):
                assert await is_refused(requester, subject), subject
            assert len(await read_log(service)) == before, "nothing was stored"
            assert damage(crew.store, trees(tars)) == []
    finally:
        server.kill()


async def is_refused(url: str, message: object) -> bool:
    """Publish something; whether the server said that this user may not."""
    told: asyncio.Queue[str] = asyncio.Queue()

    async def hear(error: Exception) -> None:
        told.put_nowait(str(error).lower())

    if isinstance(message, str):
        subject, body = message, b""
    elif isinstance(message, Event):
        subject, body = subjects.event_subject(message), msgspec.json.encode(message)
    else:
        subject, body = subjects.order_subject(message), msgspec.json.encode(message)  # type: ignore[arg-type]
    client = await nats.connect(url, error_cb=hear)
    try:
        await client.publish(subject, body)
        return "permissions violation for publish" in await asyncio.wait_for(told.get(), 5)
    except TimeoutError:
        return False
    finally:
        await client.close()


@pytest.mark.parametrize("who", ["requester:wrong", "nobody:x"])
async def test_a_stranger_is_told_so_at_once(tmp_path: Path, who: str) -> None:
    server = NatsServer(tmp_path / "nats", more=USERS).start()
    try:
        with pytest.raises(BusUnsuitable, match="refuses these credentials"):
            async with connect(server.url.replace("//", f"//{who}@"), patience=LIMIT):
                pass
    finally:
        server.kill()
