"""The names on the bus, of parts that are text: subjects, filters, claim keys. Nobody else formats or parses one.

Imports nothing heavy: the command line computes its subjects here without loading a schema. Which name a message has is said
in `routing.py`.

    EVENTS   pull.requested                                   a bare request, from any NATS client
             pull.<verbed>.<store>.<image>.<flight>           image: the normalised reference, percent-encoded
             blob.<verbed>.<store>.<digest>   layer.<verbed>.<store>.<chain>   store.opened.<store>
    ORDERS   resolve.reference.<store>.<flight>.<revision>    fetch.blob.<store>.<digest>.<revision>
             unpack.layer.<store>.<chain>.<revision>          record.image.<store>.<flight>.<revision>
    claims   fold.events                                      where a fold of the log may begin
             lease.coordinators                               who acts for which stores
             resolve.<store>.<flight>.<opened>                record.<store>.<flight>.<opened>
             blob.<store>.<digest>   layer.<store>.<chain>
    core     progress.<store>.<digest, chain or flight>       progress.now.<store>
             registry.ask.<store> (`registry.py`)
             pullonce.here   pullonce.ping   coordinator.status (`status.py`)
             push.image.<store>   push.now.<store>.<push> (`push.py`)

Digests and ChainIDs are written `sha256-<hex>`: a KV key may hold no colon.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from schemas.events import PullRequested


def _light_sha256() -> Callable[[bytes], Any]:
    """SHA-256, not from hashlib where it can be helped: that loads OpenSSL, an eighth of a light client's time."""
    for module in ("_sha2", "_sha256", "hashlib"):  # Python 3.12, 3.11, any
        try:
            made: Callable[[bytes], Any] = __import__(module).sha256
        except ImportError:
            continue
        return made
    raise ImportError("hashlib")


_sha256 = _light_sha256()

EVENTS_STREAM = "EVENTS"
ORDERS_STREAM = "ORDERS"
PARKED_STREAM = "PARKED"
CLAIMS_BUCKET = "claims"
MARK_KEY = "fold.events"
LEASE_KEY = "lease.coordinators"

EVENT_SUBJECTS = ("pull.requested", "pull.*.*.*.*", "blob.*.*.*", "layer.*.*.*", "store.opened.*")
ORDER_SUBJECTS = ("resolve.reference.>", "fetch.blob.>", "unpack.layer.>", "record.image.>")
PARKED_SUBJECTS = ("parked.>",)
PING_SUBJECT = "pullonce.ping"
HERE_SUBJECT = "pullonce.here"
STATUS_SUBJECT = "coordinator.status"
PROGRESS_NOW_SUBJECT = "progress.now.{store}"
STORE_NOW_SUBJECT = "store.now.{store}"
REGISTRY_SUBJECT = "registry.ask.{store}"
PUSH_IMAGE_SUBJECT = "push.image.{store}"
PUSH_NOW_SUBJECT = "push.now.{store}.{push}"
LEDGER_SUBJECT = "ledger.query"

_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:/_@-")


# A server closes the connection on a command line above 4096 bytes. Every reference that can be resolved is far shorter; a
# refused one is echoed in the subject of its ending, and could be 512 characters of twelve bytes each.
_LONGEST = 2048
_CUT = _LONGEST // 12


def image_token(reference: str) -> str:
    """Write a reference as one subject token: everything but letters, digits and `:/_@-` is percent-encoded.

    What would be longer than 2048 bytes, as no valid reference is, is cut; the flight beside it still tells it apart.
    """
    token = reference
    if not _PLAIN.issuperset(reference):
        token = "".join(c if c in _PLAIN else "".join(f"%{b:02X}" for b in c.encode()) for c in reference)
    return token if len(token) <= _LONGEST else image_token(reference[:_CUT])


def image_of(token: str) -> str:
    """Read back what `image_token` wrote; raises ValueError where that is no percent-encoded UTF-8."""
    head, *rest = token.split("%")
    raw = head.encode() + b"".join(bytes([int(part[:2], 16)]) + part[2:].encode() for part in rest)
    return raw.decode()


def digest_token(digest: str) -> str:
    """`sha256:ab…` → `sha256-ab…`."""
    return digest.replace(":", "-", 1)


def digest_of(token: str) -> str:
    """`sha256-ab…` → `sha256:ab…`."""
    return token.replace("-", ":", 1)


FLIGHT_FIELDS: dict[str, Any] = {"store": "default", "platform": "", "credential": "", "policy": "always", "unpack": True}
"""What tells flights apart beside the reference: fields of `PullRequested` with their defaults.

A new field of a request that may not share its answer is added here and there. Clients, coordinators and the ledger take
it from here.
"""

_FIRST = ("store", "platform", "credential", "policy", "unpack")
"""Those that have always been part of a flight's name. A later one counts where it is not at its default, so that flights
that do not know it keep their names."""


def flight_of(reference: str, fields: Mapping[str, Any]) -> str:
    """Name the flight that a request joins: 16 hex digits over all that must be equal for two requests to share an answer.

    Two flights with one name can differ only in what an attacker ground out by hash collision; subjects carry the store and
    the image in clear beside it.

    Args:
        reference: the normalised one.
        fields: those of `FLIGHT_FIELDS`; what is left out has its default.
    """
    store, platform, credential, policy, unpack = (fields.get(name, FLIGHT_FIELDS[name]) for name in _FIRST)
    named = [store, reference, platform, credential, policy, "unpack" if unpack else "fetch"]
    later = (name for name in FLIGHT_FIELDS if name not in _FIRST)
    named += [f"{name}={fields[name]}" for name in later if fields.get(name, FLIGHT_FIELDS[name]) != FLIGHT_FIELDS[name]]
    return str(_sha256("\n".join(named).encode()).hexdigest()[:16])


def seal_of(secret: str) -> str:
    """What a request says of the secret by which it can be withdrawn: its SHA-256, in hexadecimal."""
    return str(_sha256(secret.encode()).hexdigest())


def withdrawal_id(request: int, secret: str) -> str:
    """Message id of a withdrawal. With the secret in it, nobody can take it before it is said."""
    return f"pull.cancelled.{request}.{secret}"


def pull_subject(verbed: str, store: str, reference: str, flight: str) -> str:
    """Subject of one pull event: `pull.<verbed>.<store>.<image>.<flight>`."""
    return f"pull.{verbed}.{store}.{image_token(reference)}.{flight}"


def request_subject(request: PullRequested, flight: str, reference: str) -> str:
    """Subject under which a client appends a request whose flight it has computed (`reference`: normalised)."""
    return pull_subject("requested", request.store, reference, flight)


def order_of_claim(key: str, revision: int) -> str:
    """Subject of the order that a claim of a blob or a layer justified under a revision."""
    noun, _, rest = key.partition(".")
    return f"{'fetch.blob' if noun == 'blob' else 'unpack.layer'}.{rest}.{revision}"


def order_filter(kind: str, store: str) -> str:
    """All orders of one kind for one store: what a worker's consumer is filtered to."""
    return f"{kind}.{store}.>"


ORDER_GROUPS = {
    "fetcher": ("resolve.reference", "fetch.blob", "record.image"),
    "unpacker": ("unpack.layer",),
}
"""Which kinds of order one worker serves, and so one consumer: a server pays for each consumer it has."""


def order_group(kind: str) -> str:
    """Whose kind of order it is."""
    return next(group for group, kinds in ORDER_GROUPS.items() if kind in kinds)


def order_consumer(group: str, store: str) -> str:
    """Name of the consumer that the workers of a group and a store share; consumer names may hold no dot."""
    return f"{group}-{store}"


def order_durable(kind: str, store: str) -> str:
    """Name of the consumer that versions up to 0.1 had for each kind of order."""
    return f"{kind.replace('.', '-')}-{store}"


def failure_filters(store: str) -> tuple[str, str]:
    """All facts of one store that an order for a blob or a layer has failed."""
    return f"blob.failed.{store}.*", f"layer.failed.{store}.*"


def failed_filter(store: str) -> str:
    """All endings of one store's flights that failed or were left."""
    return f"pull.failed.{store}.*.*"


def store_of_key(key: str) -> str:
    """The store that a claim key is of."""
    start = key.find(".") + 1
    return key[start : key.find(".", start)]


def blob_key(store: str, digest: str) -> str:
    return f"blob.{store}.{digest_token(digest)}"


def layer_key(store: str, chain_id: str) -> str:
    return f"layer.{store}.{digest_token(chain_id)}"


def resolve_key(store: str, flight: str, opened: int) -> str:
    return f"resolve.{store}.{flight}.{opened}"


def record_key(store: str, flight: str, opened: int) -> str:
    return f"record.{store}.{flight}.{opened}"


def progress_filter(store: str) -> str:
    """All progress of one store."""
    return f"progress.{store}.*"


def progress_now_subject(store: str) -> str:
    """Where the workers of a store are asked how far they are."""
    return PROGRESS_NOW_SUBJECT.format(store=store)


def store_now_subject(store: str) -> str:
    """Where the workers of a store are asked which incarnation of it they serve."""
    return STORE_NOW_SUBJECT.format(store=store)


def registry_subject(store: str) -> str:
    """Where the fetchers of a store are asked what only a registry knows."""
    return REGISTRY_SUBJECT.format(store=store)


def push_image_subject(store: str) -> str:
    """Where a fetcher of a store is asked to push an image."""
    return PUSH_IMAGE_SUBJECT.format(store=store)


def push_now_subject(store: str, push: str) -> str:
    """Where the fetcher that is at a push is asked how it stands."""
    return PUSH_NOW_SUBJECT.format(store=store, push=push)


def parked_subject(stream: str, sequence: int) -> str:
    """Where a message that is no event is kept with its reason: `parked.<stream>.<sequence>`."""
    return f"parked.{stream}.{sequence}"
