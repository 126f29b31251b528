"""`python -m services.gateway`: its settings and its wiring.

Environment: `PULLONCE_NATS_URL` and the other variables of the bus, `PULLONCE_HOME`, `PULLONCE_STORE` (see `pullonce.config`),
and one variable a listener (`services.gateway.settings`). The gateway runs where the store lies, for a snapshotter as root.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from pullonce.care.flights import ActiveFlights, ask
from pullonce.care.listing import ImageList, Kept, NotListed
from pullonce.process.runtime import run, tell_supervisor, version
from pullonce.store.content import ContentStore
from pullonce.telemetry.http import telling
from pullonce.telemetry.metrics import Meter
from schemas.events import PullCompleted
from services.gateway.credentials import Credentials, Login
from services.gateway.cri import opening as cri
from services.gateway.cri.pulls import Pull as CriPull
from services.gateway.link import BusLink
from services.gateway.mirror.counts import measure
from services.gateway.mirror.guests import Login as Shown
from services.gateway.mirror.listening import PortTaken
from services.gateway.mirror.opening import Mirror, build, mirroring
from services.gateway.mirror.opening import Outside as MirrorOutside
from services.gateway.mirror.pulls import Begin, Order
from services.gateway.mirror.routes import Rules
from services.gateway.mirror.settings import MirrorSettings
from services.gateway.rpc.sockets import SocketUnusable
from services.gateway.settings import GatewaySettings
from services.gateway.snapshotter.arrivals import Pull, Tell
from services.gateway.snapshotter.opening import Outside, hear_resolved, snapshotting
from services.gateway.snapshotter.unlisting import Unlist

log = logging.getLogger(__name__)


async def main() -> None:
    settings = GatewaySettings.from_env()
    counts: dict[str, Callable[[], Mapping[str, str | int]]] = {}
    meter = Meter("gateway", settings.store.name, version())
    async with (
        telling(meter) as health,
        AsyncExitStack() as listeners,
        asyncio.TaskGroup() as tasks,
    ):
        link = BusLink(settings.bus, settings.store.name, lambda: {**_told(counts), **health.details()})
        health.ready = lambda: link.connected
        credentials = Credentials(settings.store.root, settings.store.group)
        if settings.snapshotter is not None:
            outside = Outside(_puller(link), _unlister(link, settings), lambda: link.connected, _shower(settings))
            link.hear(f"pull.resolved.{settings.store.name}.>", hear_resolved(outside.resolved))
            counts["snapshotter"] = await listeners.enter_async_context(
                snapshotting(settings.store.root, settings.place, settings.snapshotter, outside)
            )
        if settings.cri is not None:
            counts["cri"] = await listeners.enter_async_context(
                cri.image_service(
                    settings.store.root, settings.cri, settings.cri_behind, _around_cri(link, settings, credentials)
                )
            )
        if settings.mirror is not None:
            mirror = await _mirror(settings.mirror, link, settings.store.root, credentials, listeners)
            if mirror is not None:
                counts["mirror"] = mirror.details
                measure(meter, mirror.counts)
        tell_supervisor()  # the listeners answer, with the bus or without it
        tasks.create_task(link.run())
        tasks.create_task(credentials.sweep_forever())


def _told(counts: Mapping[str, Callable[[], Mapping[str, str | int]]]) -> dict[str, str | int]:
    """What the answer to a ping says of the listeners."""
    return {f"{listener}.{name}": each for listener, told in counts.items() for name, each in told().items()}


async def _mirror(
    settings: MirrorSettings, link: BusLink, store: Path, credentials: Credentials, listeners: AsyncExitStack
) -> Mirror | None:
    """The mirror, which answers from now on; None where it cannot, and nobody has asked for it.

    Raises:
        PortTaken, SocketUnusable: it cannot.
    """
    mirror, parts = build(store, link.store, MirrorOutside(_beginner(link), lambda: link.signals, lambda: link.connected))
    link.hear(f"pull.resolved.{link.store}.>", mirror.hear)
    try:
        await listeners.enter_async_context(mirroring(mirror, parts, _rules(settings, credentials), settings.place))
    except (PortTaken, SocketUnusable) as exc:
        if settings.asked_for:
            raise
        log.warning("the mirror is left out: %s; set PULLONCE_GATEWAY_MIRROR to another place, or to off", exc)
        return None
    return mirror


def _beginner(link: BusLink) -> Begin:
    async def begin(order: Order, tell: Tell) -> PullCompleted:
        return await link.client.pull(
            order.reference, store=link.store, policy=order.policy, credential=order.credential, unpack=False,
            requester="mirror", door="mirror", progress=tell,
        )  # fmt: skip

    return begin


def _rules(settings: MirrorSettings, credentials: Credentials) -> Rules:
    @asynccontextmanager
    async def hold(registry: str, login: Shown) -> AsyncIterator[str]:
        async with credentials.held(registry, Login(login.username, login.password)) as name:
            yield name

    plain = settings.place.path is not None or bool(settings.password)
    return Rules(settings.default, settings.credential, settings.password, any_host=plain, hold=hold)


def _shower(settings: GatewaySettings) -> Callable[[Path], str]:
    """Paths below the home as containerd sees them."""
    here = settings.store.root.parent.parent
    return lambda path: str(settings.seen_at / path.relative_to(here))


def _puller(link: BusLink) -> Pull:
    async def pull(reference: str, tell: Tell) -> PullCompleted:
        return await link.client.pull(
            reference, store=link.store, policy="if-not-present", requester="containerd", door="snapshotter",
            progress=tell,
        )  # fmt: skip

    return pull


def _around_cri(link: BusLink, settings: GatewaySettings, credentials: Credentials) -> cri.Outside:
    async def active() -> ActiveFlights:
        return await ask(link.signals, settings.store.name)

    return cri.Outside(
        _cri_puller(link), credentials, active, lambda: link.connected, _shower(settings), version()
    )  # fmt: skip


def _cri_puller(link: BusLink) -> CriPull:
    async def pull(reference: str, credential: str, tell: Tell) -> str:
        ending = await link.client.pull(
            reference, store=link.store, credential=credential, requester="cri", door="cri", progress=tell
        )
        return ending.image_id

    return pull


def _unlister(link: BusLink, settings: GatewaySettings) -> Unlist:
    images = ImageList(ContentStore(settings.store.root))

    async def unlist(reference: str) -> bool:
        active = await ask(link.signals, settings.store.name)
        try:
            await asyncio.to_thread(images.remove, reference, "", active)
        except NotListed:
            return True
        except Kept as exc:
            pinned = reference in images.pins.all()
            log.info("an image stays on the list: %s", exc)
            return pinned
        log.info("an image that containerd let go of is off the list", extra={"reference": reference})
        return True

    return unlist


if __name__ == "__main__":
    run(main, "gateway")
