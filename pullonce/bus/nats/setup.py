"""The streams and the bucket pullonce needs: what they look like, made once, left alone where an operator made them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from pullonce.bus.limits import MAX_MESSAGE
from pullonce.bus.nats.asked import PATIENCE, Unclear
from pullonce.bus.nats.jetstream import NAME_IN_USE, NO_STREAM, Refused, api
from pullonce.bus.nats.link import RETRY_PAUSE, Link, Unheard
from pullonce.bus.nats.protocol import too_small
from pullonce.config import BusSettings
from pullonce.errors import BusUnsuitable
from schemas import subjects

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
_DAY = 86_400 * _SECOND

NEEDED_API_LEVEL = 2
"""JetStream's own count of its abilities. Without level 1 (server 2.11) a claim would never expire and nobody would be told,
since an old server skips what it does not know; 2 is that of server 2.12, the oldest that pullonce is installed with."""

_KEPT_AGE = 30 * _DAY
_DEDUPE_WINDOW = 300 * _SECOND
"""Longer than an outage after which a writer still repeats what was unclear; ids cost the server some 150 bytes each."""

CLAIMS_STREAM = f"KV_{subjects.CLAIMS_BUCKET}"
CLAIMS_PREFIX = f"$KV.{subjects.CLAIMS_BUCKET}."

MOST_CONSUMERS = 100_000
"""Of ORDERS: two a store. A server refuses the 1,001st of a stream that does not say how many it takes."""

_COMMON: dict[str, Any] = {"storage": "file", "max_msg_size": MAX_MESSAGE, "allow_direct": True}

STREAMS: dict[str, dict[str, Any]] = {
    subjects.EVENTS_STREAM: {
        "subjects": list(subjects.EVENT_SUBJECTS),
        "retention": "limits",
        "discard": "old",
        "max_age": _KEPT_AGE,
        "duplicate_window": _DEDUPE_WINDOW,
    },
    subjects.ORDERS_STREAM: {
        "subjects": list(subjects.ORDER_SUBJECTS),
        "retention": "workqueue",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "discard_new_per_subject": True,
        "max_consumers": MOST_CONSUMERS,
    },
    subjects.PARKED_STREAM: {
        "subjects": list(subjects.PARKED_SUBJECTS),
        "retention": "limits",
        "discard": "old",
        "max_age": _KEPT_AGE,
        "max_msgs": 10_000,
        "max_msgs_per_subject": 1,
    },
    CLAIMS_STREAM: {
        "subjects": [CLAIMS_PREFIX + ">"],
        "retention": "limits",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "allow_msg_ttl": True,
        # With roll-ups, one message with `Nats-Rollup: all` under a key of one's own would empty the bucket of everybody.
        "allow_rollup_hdrs": False,
        "deny_delete": True,
    },
}

_ESSENTIAL = ("retention", "discard_new_per_subject", "allow_msg_ttl", "allow_direct")
"""Settings without which a stream does not do its work; all others are the operator's to choose."""

_FORBIDDEN = ("sealed", "no_ack", "mirror", "subject_transform")
"""Settings with which a stream takes nothing, takes it under other subjects, or does not answer."""

_ESSENTIAL_OF_CLAIMS_AND_ORDERS = ("max_msgs_per_subject", "discard")


async def check_server(link: Link) -> None:
    """Refuse a server that would misunderstand us silently.

    Raises:
        BusUnsuitable: it has no JetStream, is too old, or takes too little.
    """
    version = link.client.connected_server_version
    if why := too_small(link.client.max_payload):
        raise BusUnsuitable(why)
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while True:
        try:
            answer = msgspec.json.decode((await link.ask("$JS.API.INFO")).data)
            break
        except Unclear:
            continue
        except Unheard:
            if asyncio.get_running_loop().time() > deadline:
                raise BusUnsuitable(f"the server ({version}) has no JetStream: start nats-server with `--jetstream`") from None
            await asyncio.sleep(RETRY_PAUSE)
    if "error" in answer:
        raise BusUnsuitable(f"the server ({version}) offers no JetStream: {answer['error'].get('description')}")
    level = answer.get("api", {}).get("level", 0)
    if level < NEEDED_API_LEVEL:
        raise BusUnsuitable(
            f"nats-server {version} is too old (JetStream API level {level}): "
            f"pullonce needs level {NEEDED_API_LEVEL}, nats-server 2.12 or newer"
        )


async def prepare(link: Link, settings: BusSettings) -> None:
    """Make the streams that are missing. Repetition, by several processes at once too, is harmless.

    Without `settings.setup`: wait until somebody else has. EVENTS comes last, so whoever sees it sees all.

    Raises:
        BusUnsuitable: a stream exists and cannot serve, or the server will not make one.
    """
    if not settings.setup:
        await _until_made(link, subjects.EVENTS_STREAM)
        return
    others = (name for name in STREAMS if name != subjects.EVENTS_STREAM)
    await asyncio.gather(*(_prepare_stream(link, name, settings.replicas) for name in others))
    await _prepare_stream(link, subjects.EVENTS_STREAM, settings.replicas)


async def _until_made(link: Link, name: str) -> None:
    told = False
    while True:
        try:
            await api(link, f"STREAM.INFO.{name}")
            return
        except Refused as exc:
            if exc.err_code != NO_STREAM:
                raise BusUnsuitable(f"cannot look at stream {name}: {exc}") from exc
        if not told:
            log.warning("stream %s is missing: waiting until `pullonce bus setup` makes it", name)
            told = True
        await asyncio.sleep(RETRY_PAUSE)


async def _prepare_stream(link: Link, name: str, replicas: int) -> None:
    wanted = {"name": name, "num_replicas": replicas, **_COMMON, **STREAMS[name]}
    try:
        existing = (await api(link, f"STREAM.INFO.{name}"))["config"]
    except Refused as exc:
        if exc.err_code != NO_STREAM:
            raise BusUnsuitable(f"cannot look at stream {name}: {exc}") from exc
        existing = await _create(link, name, wanted | _beginning(name))
    if faults := conflicts(existing, wanted):
        raise BusUnsuitable(f"stream {name} exists but cannot serve pullonce: {'; '.join(faults)}. Remove or edit it")
    if missing := sorted(set(wanted["subjects"]) - set(existing["subjects"])):
        log.info("stream %s gains the subjects %s", name, missing)
        existing["subjects"] = [*existing["subjects"], *missing]
        existing = await _call(link, f"STREAM.UPDATE.{name}", existing)
    if existing.get("allow_rollup_hdrs"):
        log.info("stream %s takes no roll-ups from now on", name)
        existing = await _call(link, f"STREAM.UPDATE.{name}", {**existing, "allow_rollup_hdrs": False})
    if existing["num_replicas"] < replicas:  # whoever made it, a client perhaps, had not been told
        await _copy(link, name, existing, replicas)


async def _copy(link: Link, name: str, existing: dict[str, Any], replicas: int) -> None:
    """Have a stream kept more often. It serves as it is, so a cluster that cannot do that now is no reason to stop."""
    try:
        await _call(link, f"STREAM.UPDATE.{name}", {**existing, "num_replicas": replicas})
        log.info("stream %s is kept %d times from now on", name, replicas)
    except Refused as exc:
        log.warning("stream %s is kept %d times, not %d: %s", name, existing["num_replicas"], replicas, exc)


def _beginning(name: str) -> dict[str, int]:
    """Where the sequences of a new stream begin.

    Those of the claims are the revisions that orders and facts bear, and the larger one is the newer one. They must not begin
    anew should the bucket be lost while the log remains, so they go on from the clock, which no bucket outruns: it would take
    a thousand claims a second, all the time.
    """
    return {"first_seq": time.time_ns() // 1_000_000} if name == CLAIMS_STREAM else {}


async def _create(link: Link, name: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return await _call(link, f"STREAM.CREATE.{name}", wanted)
    except Refused as exc:  # somebody else was first, with settings of their own
        if exc.err_code != NAME_IN_USE:
            raise BusUnsuitable(f"cannot make stream {name}: {exc}") from exc
        return await _call(link, f"STREAM.INFO.{name}")


async def _call(link: Link, name: str, request: object = None) -> dict[str, Any]:
    config: dict[str, Any] = (await api(link, name, request))["config"]
    return config


def conflicts(existing: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What makes an existing stream useless for its purpose, one line a setting."""
    return _unlike(existing, wanted) + _taking_nothing(existing)


def _taking_nothing(existing: Mapping[str, Any]) -> list[str]:
    """Settings by which a stream takes no message of ours, or never says that it has: whoever waits for that waits for ever."""
    faults = [f"{setting} is {existing[setting]!r}" for setting in _FORBIDDEN if existing.get(setting)]
    size = existing.get("max_msg_size", -1)
    if 0 <= size < MAX_MESSAGE:
        faults.append(f"max_msg_size is {size}, and messages may have {MAX_MESSAGE} bytes")
    limits = [name for name in ("max_msgs", "max_bytes") if existing.get(name, -1) > 0]
    if limits and existing.get("discard") == "new":
        faults.append(f"discard is 'new' with {' and '.join(limits)}: once full, it takes nothing more")
    return faults


def _unlike(existing: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    essential: tuple[str, ...] = _ESSENTIAL
    if wanted.get("max_msgs_per_subject") == 1 and wanted["discard"] == "new":
        essential += _ESSENTIAL_OF_CLAIMS_AND_ORDERS
    return [
        f"{setting} is {existing.get(setting)!r}, not {wanted[setting]!r}"
        for setting in essential
        if setting in wanted and existing.get(setting) != wanted[setting]
    ]
