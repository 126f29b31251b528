"""One connection to a NATS server: reconnects for ever, and says of every request whether its outcome is known.

nats-py's own `request` cannot tell a lost request from a lost answer and lets callers sit out their timeout after a break,
so requests go through one inbox of ours: what was in the air when the connection broke ends at once as `Unclear`, and the
caller, who knows whether repeating is harmless, asks again.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import AuthorizationError, ConnectionClosedError, OutboundBufferLimitError

from pullonce.bus.limits import check_size
from pullonce.bus.nats_access import access
from pullonce.config import BusSettings
from pullonce.errors import BusClosed, BusError, BusUnavailable, BusUnsuitable

log = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds after which a request that was not answered counts as unclear."""

RETRY_PAUSE = 0.1
"""Seconds between attempts while the server is up but its streams are not."""

Headers = dict[str, str]


class Unclear(Exception):
    """The request may or may not have been carried out."""


class Unheard(Exception):
    """Nobody listens there: the request was certainly not carried out."""


class Link:
    """A connection and the requests in the air on it. Made by `open_link`."""

    def __init__(self) -> None:
        self.client = Client()
        self._inbox = ""
        self._count = 0
        self._asked: dict[str, asyncio.Future[Msg]] = {}
        self._watched: set[asyncio.Future[Any]] = set()
        self._up = asyncio.Event()
        self._failure: BusError | None = None
        self._refused = asyncio.get_running_loop().create_future()
        self._closing = False
        self.on_reconnect: list[Callable[[], None]] = []
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
        self._inbox = self.client.new_inbox() + "."
        await self.client.subscribe(self._inbox + "*", cb=self._on_answer)
        self._up.set()

    async def close(self) -> None:
        """Send what is still to be sent and close. Whoever waits on this link gets BusClosed."""
        self._closing = True
        self._fail(BusClosed("the connection to the bus was closed"))
        await self.client.close()

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
        if self._failure is not None:
            raise self._failure
        size = len(body) + sum(len(name) + len(value) + 4 for name, value in headers.items()) + 12 if headers else len(body)
        check_size(subject, size)
        task = asyncio.current_task()
        cancels = task.cancelling() if task else 0
        try:
            await self.client.publish(subject, body, reply=reply, headers=headers)
        except OutboundBufferLimitError:
            return
        except ConnectionClosedError:
            raise self._failure or BusClosed("the connection to the bus was closed") from None
        # nats-py swallows a cancellation that arrives while it waits for its full buffer to be written.
        if task and task.cancelling() > cancels:
            raise asyncio.CancelledError

    async def ask(self, subject: str, body: bytes = b"", *, headers: Headers | None = None, timeout: float = PATIENCE) -> Msg:
        """One request, one answer, one attempt.

        Raises:
            Unclear: no answer within `timeout` seconds, or the connection broke meanwhile.
            Unheard: nobody listens on the subject.
            BusClosed: the link ended.
        """
        await self.ready()
        msg = await self._asking(lambda token: self.send(subject, body, reply=self._inbox + token, headers=headers), timeout)
        if not msg.data and msg.headers and msg.headers.get("Status") == "503":
            raise Unheard(subject)
        return msg

    async def _asking(self, send: Callable[[str], Awaitable[None]], timeout: float) -> Msg:
        """Send something under a fresh token of the inbox and wait for what comes back under it."""
        self._count += 1
        token = str(self._count)
        answer = self.future()
        self._asked[token] = answer
        timer = asyncio.get_running_loop().call_later(timeout, _give_up, answer)
        try:
            await send(token)
            msg: Msg = await answer
            return msg
        finally:
            timer.cancel()
            del self._asked[token]
            answer.cancel()

    async def barrier(self) -> None:
        """Return once the server has seen everything sent before, and all it sent before has arrived here.

        An echo, since nats-py's `flush` overtakes commands that still lie in its buffer. After a break there is nothing
        left to wait for: subscriptions are made anew before anything else is sent.
        """
        try:
            await self._asking(lambda token: self.send(self._inbox + token), PATIENCE)
        except Unclear:
            pass

    async def subscribe(self, subject: str, receive: Callable[[Msg], Awaitable[None]], *, queue: str = "") -> Subscription:
        """Subscribe without limits on what may wait here: whoever needs limits uses flow control."""
        try:
            return await self.client.subscribe(subject, queue=queue, cb=receive, pending_msgs_limit=0, pending_bytes_limit=0)
        except ConnectionClosedError:
            raise self._failure or BusClosed("the connection to the bus was closed") from None

    async def retire(self, subscription: Subscription) -> None:
        """End a subscription without losing what is on its way: the server stops first, the callback last."""
        if self._failure is not None or subscription._closed:
            return
        if self.connected:
            await self.client._send_unsubscribe(subscription._id)
            try:
                await self.barrier()
            except BusError:
                return
            while subscription.pending_msgs and self._failure is None:  # noqa: ASYNC110  nats-py offers no event for it
                await asyncio.sleep(0)
        await self.drop(subscription)

    async def drop(self, subscription: Subscription) -> None:
        """End a subscription; what is still on its way is of no interest."""
        if self._failure is None and not subscription._closed:
            try:
                await subscription.unsubscribe()
            except ConnectionClosedError:
                pass

    # -- what the connection tells -------------------------------------------------------------------------------------

    async def _on_answer(self, msg: Msg) -> None:
        answer = self._asked.get(msg.subject[len(self._inbox) :])
        if answer is not None and not answer.done():
            answer.set_result(msg)

    async def _on_disconnect(self) -> None:
        if not self._up.is_set():
            return
        self._up.clear()
        if not self._closing:
            log.warning("the bus is away: trying to reconnect")
        for answer in list(self._asked.values()):
            if not answer.done():
                answer.set_exception(Unclear("the connection broke"))

    async def _on_reconnect(self) -> None:
        log.info("the bus is back")
        self._up.set()
        for notify in list(self.on_reconnect):
            notify()

    async def _on_close(self) -> None:
        self._fail(BusClosed("the connection to the bus was closed for good"))

    async def _on_error(self, error: Exception) -> None:
        text = str(error).lower()
        if isinstance(error, AuthorizationError) or "authorization violation" in text:
            self._refuse(BusUnsuitable(f"the bus refuses these credentials: {error}"))
        elif isinstance(error, ssl.SSLCertVerificationError):
            self._refuse(BusUnsuitable(f"the certificate of the bus is not one to trust, see PULLONCE_NATS_CA: {error}"))
        elif "permissions violation" in text:
            # A denied publish is otherwise only seen as an answer that never comes.
            self._refuse(BusUnsuitable(f"the bus does not permit what pullonce needs: {error}"))
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
        for waiter in list(self._watched):
            if not waiter.done():
                waiter.set_exception(self._failure)
                waiter.exception()  # looked at: one that nobody waits for any more need not be complained about
        self._up.set()  # whoever waits for the server looks at the failure next


def _give_up(answer: asyncio.Future[Msg]) -> None:
    if not answer.done():
        answer.set_exception(Unclear("no answer"))


async def open_link(settings: BusSettings, *, patience: float | None) -> Link:
    """Connect to the server.

    Args:
        patience: seconds to try; None: for ever, saying once in the log that nobody answers.

    Raises:
        BusUnavailable: nobody answered within `patience`.
        BusUnsuitable: the server refuses the credentials, or they cannot be read, or its certificate is none of ours.
    """
    link = Link()
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
