"""A small deterministic world in which real boards and real pursuits meet crashes, races, losses and lies of timing.

Everything that decides is the product's own code (`Board`, `Pursuer`, `claim.judge`, `subjects`); the world only plays the
bus, the disk and the workers, one step at a time, in an order drawn from a seed. Between any two steps of a pursuit anything
else may happen, the death of its coordinator included.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol as Port

from pullonce.pulling.identity import identify_request
from schemas import routing, subjects
from schemas.events import (
    CONTENT_MISSING,
    BlobFailed,
    BlobFetched,
    BlobLost,
    Concerns,
    Event,
    LayerFailed,
    LayerLost,
    LayerUnpacked,
    PullCancelled,
    PullCompleted,
    PullFailed,
    PullRecorded,
    PullRequested,
    PullResolved,
    PullUnrecorded,
    PullUnresolved,
    ResolvedLayer,
    Source,
)
from schemas.oci import ChainID, Descriptor, DiffID, Digest
from schemas.orders import FetchBlob, Order, RecordImage, ResolveReference, UnpackLayer
from schemas.subjects import seal_of
from services.coordinator import claim
from services.coordinator.board import Board
from services.coordinator.intents import End, Intent, Settle, Want, Withdraw, withdrawn
from services.coordinator.leases import LeaseTable, partition_of, renewed
from services.coordinator.low_water import LowWater
from services.coordinator.mark import Mark
from services.coordinator.pursuit import Announce, Get, LookAtClaim, Outcome, Pause, Pursuer, Pursuit, Put, Send, Step
from services.coordinator.slow import said_slow

STORE = "default"
SECRET = "only the requester knows"
HERE = partition_of(STORE)
LOCK = 6.0
"""The world's ack_wait: an order whose worker died is handed out again after this long."""


def digest(kind: str, *numbers: int) -> str:
    """Any stable digest; the first letter of the kind stays readable in it."""
    return f"sha256:{hashlib.sha256(f'{kind}{numbers}'.encode()).hexdigest()}"


def blob(number: int) -> Descriptor:
    return Descriptor(
        media_type="application/vnd.oci.image.layer.v1.tar+gzip", digest=Digest(digest("b", number)), size=number + 1
    )


@dataclass(frozen=True)
class Image:
    """A reference and the numbers of its layers' blobs, bottom first; chain n stands on chain n-1."""

    reference: str
    repository: str
    layers: tuple[int, ...]

    @property
    def needs(self) -> dict[str, str]:
        """What must be on the disk for it: name there → claim key."""
        blobs = {blob(number).digest: subjects.blob_key(STORE, blob(number).digest) for number in self.layers}
        return blobs | {self.chain(n): subjects.layer_key(STORE, self.chain(n)) for n in range(len(self.layers))}

    def chain(self, depth: int) -> str:
        return digest("chain", *self.layers[: depth + 1])

    def resolved(self, order: ResolveReference, world: "World") -> PullResolved:
        layers = tuple(
            ResolvedLayer(
                blob=blob(number),
                diff_id=DiffID(digest("d", number)),
                chain_id=ChainID(self.chain(depth)),
                fetched=blob(number).digest in world.disk,
                unpacked=self.chain(depth) in world.disk,
            )
            for depth, number in enumerate(self.layers)
        )
        return PullResolved(
            store=order.store, reference=order.reference, flight=order.flight, opened=order.opened, platform="linux/amd64",
            source=Source(registry="docker.io", repository=self.repository, credential=order.credential),
            digest=Digest(digest("m", len(self.layers))),
            manifest=Descriptor(media_type="m", digest=Digest(digest("m", len(self.layers))), size=1),
            config=Descriptor(media_type="c", digest=Digest(digest("f", len(self.layers))), size=1),
            layers=layers, recorded=self.reference in world.records, revision=order.revision,
        )  # fmt: skip


@dataclass
class Faults:
    """How often what goes wrong. The defaults are a hostile world; `Faults.none()` is a quiet one."""

    worker_dies: float = 0.15
    attempt_fails: float = 0.05
    coordinator_dies: float = 0.02
    blob_lost: float = 0.01
    resolve_fails: float = 0.03
    leaves: float = 0.01
    """A requester withdraws its request."""
    power_cut: float = 0.002
    """The bus forgets half of the orders it had accepted and everybody starts again."""
    slow: float = 0.1
    """A worker is stopped between what it does and what it says of it."""

    @classmethod
    def none(cls) -> "Faults":
        return cls(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass
class Protocol:
    """Parts of the protocol that a test can take out, to show that they are needed."""

    lease: bool = True
    """A held claim runs out; without, it is as if the dead went on renewing it."""
    ensure: bool = True
    """A coordinator that starts makes sure of orders it did not give itself."""
    ending_id: bool = True
    """An ending has a message id, so that one copy is stored."""
    claim_over: bool = True
    """A key that is wanted again may be claimed over its spent claim."""
    own_names: bool = True
    """Each claim's order has a name of its own, so that a stale one does not stand in for a new one."""
    fence: bool = True
    """A claim is a compare-and-set; without, everybody wins."""
    uses: bool = True
    """What a flight uses is noted on the disk in the step in which it looks there; without, the collector knows of none."""
    owners: bool = True
    """Only who owns the partition acts; without, all do, like one that was stopped and does not know that it lost its lease."""
    marks: bool = True
    """A coordinator starts at the low-water mark; without, at the beginning of the log."""
    elsewhere: bool = True
    """What a source does not bring is ordered from another waiter's."""
    look_again: bool = True
    """A collector looks once more in the step in which it removes."""
    holds: bool = True
    """A collector knows what was promised to others."""
    hold_first: bool = True
    """Who is promised something holds it before it looks whether it is there."""


@dataclass
class Queued:
    order: Order
    locked_until: float = 0.0


@dataclass
class World:
    """The bus, the disk and the clock."""

    seed: int
    images: list[Image]
    faults: Faults = field(default_factory=Faults)
    protocol: Protocol = field(default_factory=Protocol)
    silent: frozenset[str] = frozenset()
    """Repositories that never send a blob."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.now = 0.0
        self.log: list[Event] = []
        self.mark: Mark | None = None
        """The newest low-water mark that a coordinator wrote down: others start there."""
        self.table = LeaseTable()
        """Who acts for which stores."""
        self.marks: list[Mark] = []
        """All of them."""
        self.ids: dict[str, int] = {}
        self.kv: dict[str, tuple[int, bytes, float]] = {}
        self.revision = 0
        self.orders: dict[str, Queued] = {}
        self.disk: set[str] = set()
        self.records: set[str] = set()
        self.uses: dict[str, tuple[int, str]] = {}
        """Flight → position at which it was opened and the reference it resolved, as noted when it looked at the disk."""
        self.holds: set[str] = set()
        """Layers that somebody outside holds, as the disk says."""
        self.promised: set[str] = set()
        """Those of them that it was told are there, and that must stay there."""
        self.kept = 0
        """Times something was promised."""
        self.broken: list[str] = []
        """What was removed all the same."""
        self.unsaid: list[tuple[str, list[Event]]] = []
        """What stopped workers have done and not said yet, with the subjects of their orders."""
        self.executions: Counter[str] = Counter()
        """Claim key → times its order did real work."""
        self.deliveries: Counter[str] = Counter()
        """Claim key → times an order for it was carried out, with or without real work."""
        self.collected = 0
        """Times a collector removed something."""
        self.taken_over = 0
        """Times it claimed over what a coordinator that died had left as ordered."""
        self.failures: dict[str, BlobFailed | LayerFailed] = {}
        """What attempts came to nothing, by their messages: the ending that repeats one tells whose failure it was."""
        self.premature: list[int] = []
        """Positions of good endings whose image was not complete on disk."""

    @property
    def hostile(self) -> bool:
        return self.faults != Faults.none()

    def remove(self, name: str) -> None:
        """A collector takes something off the disk."""
        self.disk.discard(name)
        self.collected += 1
        if name in self.promised:
            self.broken.append(name)

    # -- the bus -------------------------------------------------------------------------------------------------------

    def append(self, event: Event, identity: str | None = "") -> int:
        identity = identity or routing.event_id(event)
        if not self.protocol.ending_id and isinstance(event, PullCompleted | PullFailed):
            identity = None
        if identity is not None and identity in self.ids:
            return self.ids[identity]
        if isinstance(event, PullCompleted) and not self._holds(event):
            self.premature.append(len(self.log) + 1)
        self.log.append(event)
        if identity is not None:
            self.ids[identity] = len(self.log)
        return len(self.log)

    def put(self, put: Put) -> int | None:
        self._expire()
        if not self.protocol.claim_over and isinstance(put.value, claim.Held) and put.expected:
            return None
        present = self.kv.get(put.key)
        if self.protocol.fence and (present[0] if present else 0) != put.expected:
            return None
        self.revision += 1
        expires = self.now + put.ttl if self.protocol.lease else float("inf")
        self.kv[put.key] = (self.revision, claim.encode(put.value), expires)
        return self.revision

    def get(self, key: str) -> Outcome:
        self._expire()
        present = self.kv.get(key)
        if present is not None and not self.protocol.lease:
            self.revision += 1
            present = self.kv[key] = (self.revision, *present[1:])
        return None if present is None else (claim.decode(present[1]), present[0])

    def send(self, order: Order) -> None:
        name = routing.order_subject(order) if self.protocol.own_names else routing.claim_key(order)
        self.orders.setdefault(name, Queued(order))

    def is_out(self, subject: str) -> bool:
        return any(routing.order_subject(queued.order) == subject for queued in self.orders.values())

    def _expire(self) -> None:
        for key in [key for key, (_, _, expires) in self.kv.items() if self.now >= expires]:
            del self.kv[key]

    # -- the workers ---------------------------------------------------------------------------------------------------

    def work(self) -> bool:
        """One worker takes one order; it may die before or after it has published what it did. False: there was none."""
        free = [subject for subject, queued in self.orders.items() if self.now >= queued.locked_until]
        if not free:
            return False
        subject = self.random.choice(free)
        queued = self.orders[subject]
        queued.locked_until = self.now + LOCK
        if self._chance(self.faults.worker_dies):
            return True
        facts = self._carry_out(queued.order)
        if not facts:
            queued.locked_until = self.now  # an unpacker goes on waiting for its blob
            return False
        if self._chance(self.faults.slow):
            self.unsaid.append((subject, facts))
            return True
        self._say(subject, facts)
        return True

    def say_late(self) -> None:
        """A worker that was stopped wakes up, however late, and says what it did."""
        if self.unsaid:
            self._say(*self.unsaid.pop(self.random.randrange(len(self.unsaid))))

    def _say(self, subject: str, facts: list[Event]) -> None:
        for fact in facts:
            self.append(fact)
        if not self._chance(self.faults.worker_dies):
            self.orders.pop(subject, None)

    def _carry_out(self, order: Order) -> list[Event]:
        if isinstance(order, RecordImage):
            facts = self._list(order)
        else:
            fact = self._work_on(order)
            facts = [] if fact is None else [fact]
        if facts:
            self.deliveries[routing.claim_key(order)] += 1
        return facts

    def _list(self, order: RecordImage) -> list[Event]:
        """One step, since the disk is locked in it: nothing is missing, and the list has it."""
        self._did(order)
        about = {"store": order.store, "reference": order.reference, "flight": order.flight, "opened": order.opened}
        missing = [name for name in self.image(order.reference).needs if name not in self.disk and self._needed(order, name)]
        if missing:
            unrecorded = PullUnrecorded(**about, code=CONTENT_MISSING, message="gone", revision=order.revision)  # type: ignore[arg-type]
            return [*map(self.lost, missing), unrecorded]
        self.records.add(order.reference)
        return [PullRecorded(**about, revision=order.revision)]  # type: ignore[arg-type]

    def _needed(self, order: RecordImage, name: str) -> bool:
        return bool(order.chain_ids) or not self.is_layer(name)

    def image(self, reference: str) -> Image:
        return next(image for image in self.images if image.reference == reference)

    def is_layer(self, name: str) -> bool:
        return any(name == image.chain(n) for image in self.images for n in range(len(image.layers)))

    def lost(self, name: str) -> Event:
        """The fact that something is not there any more."""
        if self.is_layer(name):
            return LayerLost(store=STORE, chain_id=ChainID(name))
        return BlobLost(store=STORE, digest=Digest(name))

    def _work_on(self, order: Order) -> Event | None:
        match order:
            case ResolveReference():
                if self._chance(self.faults.resolve_fails):
                    return PullUnresolved(
                        store=order.store, reference=order.reference, flight=order.flight, opened=order.opened,
                        code="MANIFEST_UNKNOWN", message="gone", revision=order.revision,
                    )  # fmt: skip
                self._did(order)
                if self.uses.get(order.flight, (0, ""))[0] <= order.opened:
                    self.uses[order.flight] = (order.opened, order.reference)
                return self.image(order.reference).resolved(order, self)
            case FetchBlob() if order.source.repository in self.silent and order.blob.digest not in self.disk:
                return None
            case FetchBlob():
                return self._fetch(order)
            case UnpackLayer():
                return self._unpack(order)
        raise AssertionError(order)

    def _fetch(self, order: FetchBlob) -> Event:
        name = order.blob.digest
        if self._chance(self.faults.attempt_fails):
            concerns: Concerns = self.random.choice(("key", "source", "credential", "nobody"))
            return self._broke(
                BlobFailed(
                    store=order.store, digest=name, revision=order.revision, source=order.source, concerns=concerns,
                    code="broken", message=f"broken {len(self.failures)}",
                )
            )  # fmt: skip
        reused = name in self.disk
        if not reused:
            self._did(order)
        self.disk.add(name)
        return BlobFetched(store=order.store, digest=name, size=order.blob.size, revision=order.revision, reused=reused)

    def _unpack(self, order: UnpackLayer) -> Event | None:
        if self._chance(self.faults.attempt_fails):
            concerns: Concerns = self.random.choice(("key", "source", "nobody"))
            return self._broke(
                LayerFailed(
                    store=order.store, chain_id=order.chain_id, blob=order.blob.digest, revision=order.revision,
                    concerns=concerns, code="broken", message=f"broken {len(self.failures)}",
                )
            )  # fmt: skip
        if order.chain_id not in self.disk and order.blob.digest not in self.disk:
            return None
        reused = order.chain_id in self.disk
        if not reused:
            self._did(order)
        self.disk.add(order.chain_id)
        return LayerUnpacked(
            store=order.store, chain_id=order.chain_id, diff_id=order.diff_id, revision=order.revision, reused=reused
        )

    def _broke(self, failure: BlobFailed | LayerFailed) -> BlobFailed | LayerFailed:
        self.failures[failure.message] = failure
        return failure

    def suffers(self, request: PullRequested, ending: PullFailed) -> bool:
        """Whether a failure that ended a flight is one that its requests had to fear."""
        failure = self.failures.get(ending.message)
        if failure is None:
            return True  # of the flight's own steps
        image = self.image(ending.reference)
        if isinstance(failure, LayerFailed):
            return failure.concerns != "nobody" and failure.chain_id in image.needs
        if failure.digest not in image.needs or failure.concerns == "nobody":
            return False
        same_place, same_credential = (
            image.repository == failure.source.repository, request.credential == failure.source.credential
        )  # fmt: skip
        return failure.concerns == "key" or (same_place and (failure.concerns == "source" or same_credential))

    def _did(self, order: Order) -> None:
        self.executions[routing.claim_key(order)] += 1

    def _holds(self, ending: PullCompleted) -> bool:
        needs = {name for name in self.image(ending.reference).needs if ending.chain_id or not self.is_layer(name)}
        return ending.reference in self.records and needs <= self.disk

    def lose(self) -> None:
        blobs = sorted(self.disk & {blob(number).digest for number in range(8)})
        if blobs:
            name = self.random.choice(blobs)
            self.disk.discard(name)
            self.append(BlobLost(store=STORE, digest=Digest(name)))

    def withdraw(self, order: Order) -> None:
        self.orders.pop(routing.order_subject(order), None)

    def forget_orders(self) -> None:
        for subject in sorted(self.orders):
            if self._chance(0.5):
                del self.orders[subject]

    def _chance(self, probability: float) -> bool:
        return self.random.random() < probability


class Coordinator:
    """Board and pursuits of one coordinator, driven step by step."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.board = Board(world.mark if world.protocol.marks else None)
        self.low_water = LowWater(self.board)
        self.pursuer = Pursuer(self.board, name)
        self.live = False
        self.pursuits: dict[str, tuple[Pursuit, Step | None]] = {}
        self.again: set[str] = set()
        self.asleep: dict[str, float] = {}
        self.endings: list[End] = []
        self.withdrawals: list[Withdraw] = []
        self.puts: list[Put] = []
        self.owned: frozenset[int] = frozenset()
        self.written = float("-inf")
        self.seen: dict[str, tuple[int, float]] = {}

    def step(self) -> bool:
        """Fold a little, or take one step of one of the things under way. False: there was nothing to do."""
        world = self.world
        behind = self.board.position < len(world.log)
        if self.live and world.random.random() < 0.4:
            self._mark()
        if self.live and world.random.random() < 0.1:
            self._beat()
        if behind and (not self.live or world.random.random() < 0.6):
            for _ in range(world.random.randint(1, 3)):
                if self.board.position < len(world.log):
                    self._fold()
        elif not self.live:
            self.live = True
            self.board.waits.trusted = self.board.position if world.protocol.ensure else 0
            self._beat()
        else:
            return self._carry_on() or behind
        return True

    def _beat(self) -> None:
        """What `holding.py` does: beat, take a share, notice the dead by one's own clock."""
        now, table = self.world.now, self.world.table
        dead = set()
        for name, beat in table.beats.items():
            known = self.seen.get(name)
            if known is None or known[0] != beat:
                self.seen[name] = (beat, now)
            elif name != self.name and now - known[1] >= claim.HOLD and self.world.protocol.lease:
                dead.add(name)
        busy = frozenset([HERE]) if len(self.pursuits) > len(self.asleep) else frozenset()
        self.world.table = renewed(table, self.name, dead=dead, keep=busy)
        before = self.owned if now < self.written + claim.HOLD else frozenset()
        self.owned, self.written = self.world.table.of(self.name), now
        if HERE in self.owned - before:
            in_hand = self.board.waits.in_hand
            self._act([each for each in self.board.intents() if not (isinstance(each, Want) and in_hand(each.key))])

    @property
    def acts(self) -> bool:
        return not self.world.protocol.owners or (HERE in self.owned and self.world.now < self.written + claim.HOLD)

    def _mark(self) -> None:
        mark = self.low_water.look()
        if mark is not None and mark.position > (self.world.mark or Mark()).position:
            self.world.mark = mark
            self.world.marks.append(mark)

    def _carry_on(self) -> bool:
        if self.world.silent and self.world.random.random() < 0.05:
            self._order_elsewhere()
        awake = [key for key in self.pursuits if self.world.now >= self.asleep.get(key, 0.0)]
        options = [*awake, *["END"] * bool(self.endings), *["PUT"] * bool(self.puts), *["STOP"] * bool(self.withdrawals)]
        if not options:
            return False
        match self.world.random.choice(options):
            case "END":
                end = self.endings.pop(self.world.random.randrange(len(self.endings)))
                if self.board.flight_in_air(end.ending):
                    self.world.append(end.ending)
            case "STOP":
                withdraw = self.withdrawals.pop()
                if self.board.waits.unwanted(withdraw):
                    self.world.append(withdrawn(withdraw.order))
                    self.world.withdraw(withdraw.order)
            case "PUT":
                self.world.put(self.puts.pop(self.world.random.randrange(len(self.puts))))
            case key:
                self._advance(key)
        return True

    def _order_elsewhere(self) -> None:
        """What `Watching` does when a source has brought nothing for a while."""
        contested = sorted(filter(self.board.waits.has_rivals, sorted(self.board.waits.contested)))
        contest = self.board.waits.contest(self.world.random.choice(contested)) if contested else None
        if contest is not None and self.world.protocol.elsewhere:
            self.world.append(said_slow(contest))
            self.world.withdraw(contest.order)

    @property
    def idle(self) -> bool:
        return self.live and self.board.position == len(self.world.log) and not self.board.flights

    def _fold(self) -> None:
        sequence = self.board.position + 1
        event = self.world.log[sequence - 1]
        intents = self.board.apply(event, sequence)
        self.low_water.note(event)
        if self.live:
            self._act(intents)

    def _act(self, intents: list[Intent]) -> None:
        for intent in intents:
            match intent:
                case Settle(key=key, at=at):
                    if (put := self.pursuer.settle(key, at)) is not None:
                        self.puts.append(put)
                    self.asleep.pop(key, None)
                case _ if not self.acts:
                    continue
                case Want(key=key) if key in self.pursuits:
                    self.again.add(key)
                case Want(key=key):
                    self.pursuits[key] = (self.pursuer.pursue(key), None)
                case End():
                    self.endings.append(intent)
                case Withdraw():
                    self.withdrawals.append(intent)

    def _advance(self, key: str) -> None:
        pursuit, step = self.pursuits[key]
        try:
            following = next(pursuit) if step is None else pursuit.send(self._take(key, step))
            self.pursuits[key] = (pursuit, following)
            if isinstance(following, Pause):
                self.asleep[key] = self.world.now + following.seconds
        except StopIteration:
            del self.pursuits[key]
            if key in self.again:
                self.again.discard(key)
                if (want := self.board.waits.want(key)) is not None:
                    self._act([want])

    def _take(self, key: str, step: Step) -> Outcome:
        match step:
            case Put():
                return self.world.put(step)
            case Get():
                return self.world.get(step.key)
            case Send(order=order):
                self.world.send(order)
                return 1
            case LookAtClaim(subject=subject):
                return self._look(subject)
            case Announce(event=event, message_id=identity):
                return self.world.append(event, identity)
            case Pause():
                return 1 if self.asleep.pop(key, None) is not None else None
        raise AssertionError(step)

    def _look(self, subject: str) -> Outcome:
        if self.world.is_out(subject):
            return 1
        while self.board.position < len(self.world.log):
            self._fold()
        return None


class Cleaner(Port):
    """Whoever removes things from the disk, one step at a time."""

    def step(self, crew: list[Coordinator]) -> None: ...


@dataclass
class Report:
    """What a run left behind."""

    unanswered: list[int]
    """Sequences of requests that no ending covers."""
    ended_twice: list[str]
    """Flights with two stored endings for one opening."""
    premature: list[int]
    stuck: bool
    wronged: list[str]
    """Messages of failures that ended flights which they did not concern."""
    executions: Counter[str]
    deliveries: Counter[str]
    collected: int = 0
    taken_over: int = 0
    kept: int = 0
    broken: list[str] = field(default_factory=list)
    """What was removed although it was promised."""
    log: list[Event] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    waiting: set[str] = field(default_factory=set)
    """Repositories of the images that unanswered requests ask for."""

    @property
    def wrong(self) -> bool:
        return bool(self.unanswered or self.ended_twice or self.stuck or self.wronged)


Asked = list[tuple[int, PullRequested]]
"""Requests with their sequences."""


def run(
    seed: int,
    *,
    requests: int = 60,
    coordinators: int = 3,
    faults: Faults | None = None,
    protocol: Protocol | None = None,
    cleaners: Callable[[World], list[Cleaner]] = lambda world: [],
    most_steps: int = 60_000,
    silent: frozenset[str] = frozenset(),
) -> Report:
    """Let a world run until all is quiet, and say what became of every request."""
    images = pictures(random.Random(seed ^ 0x5EED))
    world = World(seed, images, faults or Faults(), protocol or Protocol(), silent)
    crew = [Coordinator(world, f"c{n}") for n in range(coordinators)]
    clean = cleaners(world)
    asked: Asked = []
    quiet, moved = 0, True
    for steps in range(most_steps):
        world.now += 0.05 if world.hostile and not moved else 0.002
        draw = world.random.random()
        busy = len(asked) < requests
        if busy and draw < 0.03 and (asked or all(c.live for c in crew)):
            asked.append(ask(world))
        elif draw < 0.75:
            moved = world.random.choice(crew).step()
        elif draw < 0.95:
            moved = world.work()
        elif draw < 0.97:
            world.say_late()
        elif draw < 0.985 or not busy:
            for cleaner in clean[: 1 + steps % 2]:
                cleaner.step(crew)
        else:
            crew = trouble(world, crew, asked, f"{steps}")
        quiet = quiet + 1 if not busy and not world.orders and not world.unsaid and all(c.idle for c in crew) else 0
        if quiet > 300:
            break
    return judge(world, asked, stuck=quiet <= 300)


def trouble(world: World, crew: list[Coordinator], asked: Asked, mark: str) -> list[Coordinator]:
    """Perhaps a coordinator dies and another starts, a blob is lost, a requester leaves, the power fails."""
    faults, draw = world.faults, world.random.random() * 0.05
    if draw < faults.coordinator_dies:
        number = world.random.randrange(len(crew))
        return [Coordinator(world, f"c{n}.{mark}") if n == number else c for n, c in enumerate(crew)]
    if draw < faults.coordinator_dies + faults.blob_lost:
        world.lose()
    elif draw < faults.coordinator_dies + faults.blob_lost + faults.leaves and asked:
        leave(world, *world.random.choice(asked))
    elif draw < faults.coordinator_dies + faults.blob_lost + faults.leaves + faults.power_cut:
        world.forget_orders()
        return [Coordinator(world, f"c{n}.{mark}") for n in range(len(crew))]
    return crew


def leave(world: World, sequence: int, request: PullRequested) -> None:
    identity = identify_request(request)
    told = {"store": request.store, "reference": identity.reference, "flight": identity.flight, "request": sequence}
    world.append(PullCancelled(**told, secret=SECRET))


def pictures(source: random.Random) -> list[Image]:
    """Five images over eight blobs, from two repositories: many share layers."""
    return [
        Image(
            f"docker.io/library/image{n}:latest", f"library/repo{n % 2}", tuple(source.sample(range(8), source.randint(0, 4)))
        )
        for n in range(5)
    ]


def ask(world: World) -> tuple[int, PullRequested]:
    request = PullRequested(
        store=STORE,
        reference=world.random.choice(world.images).reference,
        credential=world.random.choice(("", "", "other")),
        unpack=world.random.random() < 0.8,
        seal=seal_of(SECRET),
    )
    return world.append(request), request


def judge(world: World, asked: Asked, *, stuck: bool) -> Report:
    """Match every request with the endings of its flight key: the first that covers it is its answer."""
    endings = [event for event in world.log if isinstance(event, PullCompleted | PullFailed)]
    covers: dict[str, int] = {}
    for ending in endings:
        covers[ending.flight] = max(covers.get(ending.flight, 0), ending.covers)
    stored = Counter(f"{ending.flight}.{ending.opened}" for ending in endings)
    of_flight = {identify_request(request).flight: request for _, request in asked}
    failed = [ending for ending in endings if isinstance(ending, PullFailed) and ending.message in world.failures]
    unanswered = [
        (sequence, request) for sequence, request in asked if covers.get(identify_request(request).flight, 0) <= sequence
    ]
    return Report(
        unanswered=[sequence for sequence, _ in unanswered],
        waiting={world.image(request.reference).repository for _, request in unanswered},
        ended_twice=[name for name, times in stored.items() if times > 1],
        premature=world.premature,
        stuck=stuck,
        wronged=[ending.message for ending in failed if not world.suffers(of_flight[ending.flight], ending)],
        executions=world.executions,
        deliveries=world.deliveries,
        collected=world.collected,
        taken_over=world.taken_over,
        kept=world.kept,
        broken=world.broken,
        log=world.log,
        marks=world.marks,
    )
