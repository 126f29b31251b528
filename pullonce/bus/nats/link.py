"""One connection to a NATS server: reconnects for ever, and says of every request whether its outcome is known.

nats-py's own `request` cannot tell a lost request from a lost answer and lets callers sit out their timeout after a break,
so requests go through one inbox of ours: what was in flight when the connection broke ends at once as `Unclear`, and the
caller, who knows whether repeating is harmless, asks again.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import AuthorizationError, ConnectionClosedError

from pullonce.bus.nats import insides
from pullonce.bus.nats.access import access
from pullonce.bus.nats.asked import PATIENCE, Asked, Unclear
from pullonce.bus.nats.credentials import distrusted, not_permitted, refused
from pullonce.bus.nats.parser import LeanParser, Raw, Take
from pullonce.bus.nats.protocol import written
from pullonce.config import BusSettings
from pullonce.errors import BusClosed, BusError, BusUnavailable, BusUnsuitable

log = logging.getLogger(__name__)

RETRY_PAUSE = 0.1
"""Seconds between attempts while the server is up but its streams are not."""

LAST_WORD = 1.0
"""Seconds for the server to take in what was sent before a connection is closed."""

_NOWHERE = "nats://127.0.0.1:1"

Headers = dict[str, str]


class Unheard(Exception):
    """Nobody listens there: the request was certainly not carried out."""


class Link:
    """A connection and the requests in flight on it. Made by `open_link`."""

    def __init__(self, find: Callable[[], str] | None = None) -> None:
        self.client = Client()
        self._find = find
        self._aimed_at = ""
        self._seeking: asyncio.Future[None] | None = None
        insides.check(self.client)
        self._parser = LeanParser(self.client)
        insides.exchange_parser(self.client, self._parser)
        self._prefix = ""
        self._inbox = ""
        self._asked = Asked()
        self._watched: set[asyncio.Future[Any]] = set()
        self._up = asyncio.Event()
        self._failure: BusError | None = None
        self._refused = asyncio.get_running_loop().create_future()
        self._closing = False
        self.on_disconnect: list[Callable[[], None]] = []
        self.on_reconnect: list[Callable[[], None]] = []
        self.on_missing: Callable[[], Awaitable[None]] | None = None
        """Makes the streams that are missing, where that is ours to do."""
        self._remade = 0.0
        self.refusing: set[str] = set()
        """First tokens of the subjects that nothing could be stored on lately."""

    # -- life ----------------------------------------------------------------------------------------------------------

    async def open(self, settings: BusSettings, options: dict[str, Any]) -> None:
        """Connect, however long it takes. Raises BusUnsuitable if the server refuses us, or we refuse it."""
        dial = asyncio.ensure_future(
            self.client.connect(
                [each.strip() for each in settings.url.split(",")],
                name=settings.name,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.1,  # type: ignore[arg-type]
                ping_interval=10,
                error_cb=self._on_error,
                disconnected_cb=self._on_disconnect,
                reconnected_cb=self._on_reconnect,
                closed_cb=self._on_close,
                **options,
            )
        )
        try:
            await asyncio.wait({dial, self._refused}, return_when=asyncio.FIRST_COMPLETED)
            if self._refused.done():
                raise self._refused.result()
            await dial
        finally:
            dial.cancel()
        self._prefix = settings.inbox
        self._inbox = self.new_inbox() + "."
        await self.listen(self._inbox + "*", self._on_answer)
        self._up.set()

    async def close(self) -> None:
        """Send what is still to be sent and close. Whoever waits on this link gets BusClosed.

        A server that is there has all of it before the connection ends: where one end closes a connection while something has
        yet to be read from it, the kernel throws away what has yet to be sent.
        """
        self._closing = True
        if self._failure is None and self._up.is_set() and self.client.is_connected:
            with suppress(BusError):
                await self.barrier(LAST_WORD)
        if self._seeking is not None:
            self._seeking.cancel()
        self._fail(BusClosed("the connection to the bus was closed"))
        self._asked.close()
        try:
            await self.client.close()
        except (RuntimeError, OSError) as exc:
            # nats-py writes what is left to a socket that broke a moment ago, and event loops take that ill, each in its way.
            log.debug("the connection to the bus broke while it was closed: %r", exc)

    async def remake(self) -> None:
        """A stream that was there is missing: somebody removed it. Have it made again; at most once a second."""
        now = asyncio.get_running_loop().time()
        if self.on_missing is None or now < self._remade + 1.0:
            return
        self._remade = now
        try:
            await self.on_missing()
        except BusUnsuitable as exc:
            log.warning("%s", exc)

    def new_inbox(self) -> str:
        """A subject of our own to be answered under. Not nats-py's: whoever has seen one of those can guess the next, and
        those who may answer us could write into it."""
        return f"{self._prefix}.{secrets.token_hex(11)}"

    def future(self) -> asyncio.Future[Any]:
        """A future that fails with BusClosed when the link ends before it is done."""
        made: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._failure is not None:
            made.set_exception(self._failure)
        else:
            self._watched.add(made)
            made.add_done_callback(self._watched.discard)
        return made

    @property
    def connected(self) -> bool:
        return self._up.is_set()

    async def ready(self) -> None:
        """Wait until the server is there. Raises BusClosed."""
        if not self._up.is_set() and self._failure is None:
            await self._up.wait()
        if self._failure is not None:
            raise self._failure

    # -- messages ------------------------------------------------------------------------------------------------------

    async def send(self, subject: str, body: bytes = b"", *, reply: str = "", headers: Headers | None = None) -> None:
        """Hand a message to the connection. While the server is away up to 2 MiB are kept; what is more is dropped.

        Raises:
            BusClosed: the link ended.
            Permanent: the message is too large (`message.too_large`).
        """
        self.post(subject, body, reply=reply, headers=headers)
        client = self.client
        if insides.has_room(client) or not client.is_connected:
            return
        task = asyncio.current_task()
        cancels = task.cancelling() if task else 0
        await insides.write_out(client)
        # nats-py swallows a cancellation that arrives while it waits for its full buffer to be written.
        if task and task.cancelling() > cancels:
            raise asyncio.CancelledError

    def post(self, subject: str, body: bytes = b"", *, reply: str = "", headers: Headers | None = None) -> None:
        """`send`, for what is small and seldom: does not wait while the buffer is full. All that is sent in one turn of the
        event loop is written at once."""
        if self._failure is not None:
            raise self._failure
        client = self.client
        if client.is_closed:
            raise self._failure or BusClosed("the connection to the bus was closed")
        command = written(subject, body, reply, headers, insides.most(client))
        if client.is_connected or insides.has_room(client, len(command)):
            insides.queue(client, command)

    async def ask(self, subject: str, body: bytes = b"", *, headers: Headers | None = None, timeout: float = PATIENCE) -> Raw:
        """One request, one answer, one attempt.

        Raises:
            Unclear: no answer within `timeout` seconds, or the connection broke meanwhile.
            Unheard: nobody listens on the subject.
            BusClosed: the link ended.
        """
        if self._failure is not None or not self._up.is_set():
            await self.ready()
        token, answer = self._asked.expect(timeout)
        try:
            await self.send(subject, body, reply=self._inbox + token.decode(), headers=headers)
            raw = await answer
        finally:
            self._asked.forget(token)
        if not raw.data and raw.status == 503:
            raise Unheard(subject)
        return raw

    def call(self, subject: str, body: bytes, headers: Headers, take: Callable[[Raw | None], None]) -> None:
        """`ask`, without a task that waits: `take` is called with the answer; with None where none came or nothing was sent."""
        if self._failure is None and self._up.is_set():
            token = self._asked.expect_call(take)
            try:
                self.post(subject, body, reply=self._inbox + token.decode(), headers=headers)
            except BusError:
                pass  # the link has ended: `take` is told with all others
        else:
            asyncio.get_running_loop().call_soon(take, None)

    async def barrier(self, timeout: float = PATIENCE) -> bool:
        """Return once the server has seen everything sent before, and all it sent before has arrived here; whether it has.

        An echo, since nats-py's `flush` overtakes commands that still lie in its buffer. After a break there is nothing
        left to wait for: subscriptions are made anew before anything else is sent.
        """
        token, answer = self._asked.expect(timeout)
        try:
            await self.send(self._inbox + token.decode())
            await answer
        except Unclear:
            return False
        finally:
            self._asked.forget(token)
        return True

    async def subscribe(self, subject: str, receive: Callable[[Msg], Awaitable[None]], *, queue: str = "") -> Subscription:
        """Subscribe without limits on what may wait here: whoever needs limits uses flow control."""
        try:
            return await self.client.subscribe(subject, queue=queue, cb=receive, pending_msgs_limit=0, pending_bytes_limit=0)
        except ConnectionClosedError:
            raise self._failure or BusClosed("the connection to the bus was closed") from None

    async def listen(self, subject: str, take: Take, *, queue: str = "") -> Subscription:
        """Subscribe, and be handed each message as it is cut out of what was read, without queue and task."""
        number = insides.next_number(self.client)
        self._parser.takers[number] = take
        try:
            return await self.client.subscribe(subject, queue=queue, cb=_nobody)
        except ConnectionClosedError:
            del self._parser.takers[number]
            raise self._failure or BusClosed("the connection to the bus was closed") from None

    async def hush(self, subscription: Subscription) -> None:
        """Have the server send no more of a subscription; what is on its way is still taken. `retire` should follow."""
        if self.connected and self._failure is None and not insides.has_ended(subscription):
            await insides.end_at_server(self.client, subscription)

    async def retire(self, subscription: Subscription) -> None:
        """End a subscription without losing what is on its way: the server stops first, the callback last."""
        if self._failure is not None or insides.has_ended(subscription):
            return
        if self.connected:
            await self.hush(subscription)
            try:
                await self.barrier()
            except BusError:
                return
            while subscription.pending_msgs and self._failure is None:  # noqa: ASYNC110  nats-py offers no event for it
                await asyncio.sleep(0)
        await self.drop(subscription)

    async def drop(self, subscription: Subscription) -> None:
        """End a subscription; what is still on its way is of no interest."""
        self._parser.takers.pop(insides.number_of(subscription), None)
        if self._failure is None and not insides.has_ended(subscription):
            try:
                await subscription.unsubscribe()
            except ConnectionClosedError:
                pass

    # -- what the connection tells -------------------------------------------------------------------------------------

    def _on_answer(self, subject: bytes, reply: bytes, head: bytes, data: bytes) -> None:
        self._asked.answered(subject[len(self._inbox) :], Raw(subject, reply, head, data))

    async def _on_disconnect(self) -> None:
        if not self._up.is_set():
            return
        self._up.clear()
        if not self._closing:
            log.warning("the bus is away: trying to reconnect")
        self._asked.fail_all(Unclear("the connection broke"))
        if self._find is not None and not self._closing:
            self._aim(self._find)
            self._seeking = asyncio.ensure_future(self._seek(self._find))
        for notify in list(self.on_disconnect):
            notify()

    def _aim(self, find: Callable[[], str]) -> None:
        """Point the connection at where the server is now. Where it is nowhere, what listens at its old address is another's:
        then at a port where nobody does."""
        url = find() or _NOWHERE
        if url != self._aimed_at:
            self._aimed_at = url
            self.client.set_server_pool([each.strip() for each in url.split(",")])

    async def _seek(self, find: Callable[[], str]) -> None:
        while not self._up.is_set() and not self.client.is_closed:
            await asyncio.sleep(RETRY_PAUSE)
            self._aim(find)

    async def _on_reconnect(self) -> None:
        log.info("the bus is back")
        self._up.set()
        for notify in list(self.on_reconnect):
            try:
                notify()
            except Exception:  # a defect of one must not keep the others from following the log again
                log.exception("what was to be done after the bus came back failed")

    async def _on_close(self) -> None:
        self._fail(BusClosed("the connection to the bus was closed for good"))

    async def _on_error(self, error: Exception) -> None:
        text = str(error).lower()
        if isinstance(error, AuthorizationError) or "authorization violation" in text:
            self._refuse(refused(error))
        elif isinstance(error, insides.NoTls):
            self._refuse(BusUnsuitable(str(error)))
        elif isinstance(error, ssl.SSLCertVerificationError):
            self._refuse(distrusted(error))
        elif 'violation for publish to "_inbox' in text:
            # An answer that came too late, or to somebody whom we do not answer: no reason to end.
            log.warning("an answer was not permitted: %s", error)
        elif "permissions violation" in text:
            # A denied publish is otherwise only seen as an answer that never comes.
            self._refuse(not_permitted(error))
        else:
            log.debug("bus: %r", error)

    def _refuse(self, error: BusUnsuitable) -> None:
        if not self._refused.done():
            self._refused.set_result(error)
        if self._up.is_set():
            self._fail(error)

    def _fail(self, error: BusError) -> None:
        if self._failure is None:
            self._failure = error
            if not self._closing:
                log.error("%s", error)
        self._asked.fail_all(self._failure)
        for waiter in list(self._watched):
            if not waiter.done():
                waiter.set_exception(self._failure)
                waiter.exception()  # looked at: one that nobody waits for any more need not be complained about
        self._up.set()  # whoever waits for the server looks at the failure next


async def _nobody(_: Msg) -> None:
    """nats-py's way to a subscription whose messages are taken before they get there."""


async def open_link(settings: BusSettings, *, patience: float | None, find: Callable[[], str] | None = None) -> Link:
    """Connect to the server.

    Args:
        find: says where the server is while it is away, if it may come back at another address; empty: nowhere now.
        patience: seconds to try; None: for ever, saying once in the log that nobody answers.

    Raises:
        BusUnavailable: nobody answered within `patience`.
        BusUnsuitable: the server refuses the credentials, or they cannot be read, or its certificate is none of ours.
    """
    link = Link(find)
    options = access(link.client, settings)
    opening = asyncio.ensure_future(link.open(settings, options))
    try:
        done, _ = await asyncio.wait({opening}, timeout=patience if patience is not None else 2.0)
        if not done and patience is None:
            log.warning("no bus answers at %s yet: still trying", settings.shown)
            await asyncio.wait({opening})
        elif not done:
            raise BusUnavailable(f"no NATS server answers at {settings.shown}: start one, or set PULLONCE_NATS_URL")
        await opening
    except BaseException:
        opening.cancel()
        await asyncio.wait({opening})
        await link.close()
        raise
    return link
