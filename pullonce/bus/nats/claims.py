"""The bucket `claims` over JetStream: raw compare-and-set on the bucket's stream.

Not nats-py's KV helper: that takes an expired key for a live one and cannot renew a TTL. The bucket keeps no limit markers:
an expired key is simply absent again, and a compare-and-set that expects 0 succeeds.
"""

from __future__ import annotations

from collections.abc import Callable

from pullonce.bus.nats.jetstream import WRONG_SEQUENCE, Ack, Refused, Stored, call, last_message, store
from pullonce.bus.nats.link import Headers, Link
from pullonce.bus.nats.setup import CLAIMS_PREFIX, CLAIMS_STREAM
from pullonce.bus.ports import ClaimEntry
from pullonce.errors import WrongRevision

_MARKERS = ("KV-Operation", "Nats-Marker-Reason")


class NatsClaims:
    """`bus.Claims` on a link."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def put(self, key: str, value: bytes, *, expected: int, ttl: float | None = None) -> int:
        try:
            return await self._put(key, value, expected, ttl)
        except Refused as exc:
            if exc.err_code not in WRONG_SEQUENCE:
                raise
            found = await self._last(key)
            if found is not None and exc.unclear and found.body == value:
                return found.sequence  # the attempt whose answer was lost had won
            if found is None or expected or not _is_marker(found):
                raise WrongRevision(f"{key} has not revision {expected}") from exc
        # Somebody deleted the key by hand: it is absent, though its last message is a marker.
        try:
            return await self._put(key, value, found.sequence, ttl)
        except Refused as exc:
            if exc.err_code not in WRONG_SEQUENCE:
                raise
            raise WrongRevision(f"{key} has not revision {expected}") from exc

    def put_soon(
        self, key: str, value: bytes, *, expected: int, ttl: float | None = None, done: Callable[[int | None], None]
    ) -> None:
        def take(ack: Ack | None) -> None:
            done(ack.seq if ack is not None and ack.error is None else None)

        call(self._link, CLAIMS_PREFIX + key, value, _headers(expected, ttl), take)

    def tell(self, key: str, value: bytes, *, expected: int, ttl: float | None = None) -> None:
        self._link.post(CLAIMS_PREFIX + key, value, headers=_headers(expected, ttl))

    async def get(self, key: str) -> ClaimEntry | None:
        found = await self._last(key)
        if found is None or _is_marker(found):
            return None
        return ClaimEntry(found.body, found.sequence)

    async def _put(self, key: str, value: bytes, expected: int, ttl: float | None) -> int:
        return (await store(self._link, CLAIMS_PREFIX + key, value, _headers(expected, ttl))).seq

    async def _last(self, key: str) -> Stored | None:
        return await last_message(self._link, CLAIMS_STREAM, CLAIMS_PREFIX + key)


def _headers(expected: int, ttl: float | None) -> Headers:
    headers: Headers = {"Nats-Expected-Last-Subject-Sequence": str(expected)}
    if ttl is not None:
        if ttl < 1:
            raise ValueError(f"a claim lives at least 1 s, not {ttl} s")
        headers["Nats-TTL"] = f"{round(ttl * 1000)}ms"
    return headers


def _is_marker(found: Stored) -> bool:
    return any(name in found.headers for name in _MARKERS)
