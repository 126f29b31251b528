"""What each role may say and hear on the bus, as subjects: derived from `schemas.roles`, so that it cannot fall behind them.

A role may publish the messages it sends and make the few JetStream requests that its work takes; it may hear what it
receives, and answers under a prefix of its own. Everything else is refused. Who may not read the log's messages at large may
not choose what is read either: a request to JetStream names the subject under which its answer is published, so a client that
could have any stored message sent to any subject could forge an ending out of a request.

Those who make consumers are trusted that far, since NATS lets them name where messages are delivered: coordinator and ledger
for facts, workers for orders. A consumer of one kind is held to the subjects of its store; one of several kinds, a fetcher's,
can only be held to its name. The queue refuses it the orders of a store whose own workers are there, so what it could take are
those of a store that has none.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from schemas import subjects
from schemas.events import EVENTS, BlobLost, LayerLost, PullCancelled, PullRequested, StoreOpened
from schemas.orders import ORDERS
from schemas.progress import Progress
from schemas.roles import ROLES, Message, Role

EVERY_STORE = "*"
"""In the place of a store: a user that may serve any. For machines that trust each other, such as those of one cluster."""

ADMIN = "admin"
"""Makes the streams, and may do everything on the bus: for operators, and for `pullonce up` on a server of others."""

CLIENTS = "_INBOX"
"""Prefix of the inboxes of clients, which is that of every NATS client."""

_EVENTS, _ORDERS, _PARKED = subjects.EVENTS_STREAM, subjects.ORDERS_STREAM, subjects.PARKED_STREAM
_CLAIMS = subjects.CLAIMS_BUCKET
_API = "$JS.API"
_WITH_FRESH_IDS = (PullRequested, PullCancelled, BlobLost, LayerLost)
"""Facts that nobody could say before under the same message id (`schemas.routing.event_id`)."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects, wildcards included; whatever is not listed is refused."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def permissions(role: str, inbox: str, store: str = "default", askers: Iterable[str] = (CLIENTS,)) -> Permissions:
    """Of one user.

    Who answers may publish into the inboxes of those who ask, and nowhere else: a right to answer wherever a message asks for
    it (`allow_responses`) would let any client name a claim or an ending as the subject of the answer, and runs out.

    Args:
        role: a name of `schemas.roles.ROLES`, or `admin`.
        inbox: prefix of the subjects under which it is answered.
        store: the one that a role of a store is held to, or `EVERY_STORE`; the other roles serve all.
        askers: prefixes of the inboxes of those who ask something that this role answers (`asks_of`).
    """
    if role == ADMIN:
        return Permissions((">",), (">",))
    of = ROLES[role]
    scope = store if of.of_a_store else ""
    return Permissions(
        publish=(
            *_said(of, scope),
            f"{inbox}.>",
            *_answers(of, inbox, askers),
            *_requests(of, scope),
            *_order_requests(of, store),
        ),
        subscribe=(*_heard(role, of, scope), f"{inbox}.>"),
    )


def asks_of(asker: str, asker_store: str, role: str, store: str) -> bool:
    """Whether users of one role, held to a store or (empty) to none, ask something that those of another one answer."""
    if asker == ADMIN:
        return True
    asking, answering = ROLES[asker], ROLES[role]
    same_store = not {"", EVERY_STORE}.isdisjoint((asker_store, store)) or asker_store == store
    return any(same_store or "{store}" not in question for question in set(asking.asks) & set(answering.answers))


def _answers(role: Role, inbox: str, askers: Iterable[str]) -> list[str]:
    return [f"{each}.>" for each in dict.fromkeys(askers) if each != inbox] if role.answers else []


def _kind(message: type[Message]) -> str:
    return str(message.__struct_config__.tag)


def _subject(message: type[Message], scope: str) -> str:
    """All subjects of one kind of message, of one store or of all."""
    kind = "progress" if issubclass(message, Progress) else _kind(message)
    if message is StoreOpened and scope:
        return f"{kind}.{scope}"  # the store is all it says
    return f"{kind}.{scope}.>" if scope else f"{kind}.>"


def _question(subject: str, scope: str) -> str:
    """The subject of a question, of one store or of all."""
    return subject.format(store=scope or "*", push="*")


def _said(role: Role, scope: str) -> list[str]:
    said = list(dict.fromkeys(_subject(each, scope) for each in role.sends))
    if "pull.requested.>" in said:
        said.append("pull.requested")  # from any NATS client, with nothing but a reference
    return [*said, *(_question(each, scope) for each in role.asks), *([subjects.HERE_SUBJECT] if role.answers else [])]


def _heard(name: str, role: Role, scope: str) -> list[str]:
    """Core messages. What is read by a consumer arrives in the inbox."""
    heard = [_question(each, scope) for each in role.answers]
    if name == "ledger":
        heard.append(subjects.LEDGER_SUBJECT)
    if name == "client":
        heard.append(subjects.HERE_SUBJECT)
    for message in role.receives:
        kind = _kind(message)
        if kind in ORDERS or (role.folds and kind in EVENTS):
            continue
        noun = kind.partition(".")[0]
        # A worker listens to its store by noun: it looks at the disk again whatever was said of a blob.
        by_noun = scope and kind in EVENTS and noun != "pull"
        heard.append(f"{noun}.*.{scope}.*" if by_noun else _subject(message, scope))
    return list(dict.fromkeys(heard))


def _requests(role: Role, scope: str) -> list[str]:
    """What it asks of JetStream about facts and claims."""
    asked = [f"{_API}.INFO", f"{_API}.STREAM.INFO.{_EVENTS}"]
    if role.folds:
        asked += [f"{_API}.CONSUMER.CREATE.{_EVENTS}.*", f"{_API}.CONSUMER.MSG.NEXT.{_EVENTS}.*", f"$JS.FC.{_EVENTS}.>"]
        asked.append(f"{_API}.CONSUMER.INFO.{_EVENTS}.*")
    elif role.asks:  # one that waits for endings, and reads the last one after a reconnection
        pulls = [each for each in role.receives if _kind(each).startswith("pull.")]
        asked += [f"{_API}.DIRECT.GET.{_EVENTS}.{_subject(each, scope)}" for each in pulls]
    if any(_kind(each) in EVENTS and each not in _WITH_FRESH_IDS for each in role.sends):
        # Whoever says facts under ids that can be guessed looks who had one first. What is found comes within a document.
        asked.append(f"{_API}.STREAM.MSG.GET.{_EVENTS}")
    if any(_kind(each) in ORDERS for each in role.sends):  # what is no event is put aside
        asked += [
            f"{_API}.STREAM.MSG.DELETE.{_EVENTS}",
            f"parked.{_EVENTS}.*",
            f"{_API}.STREAM.MSG.GET.{_PARKED}",
            f"{_API}.STREAM.PURGE.{_ORDERS}",
        ]
        asked.append(f"{_API}.STREAM.PURGE.{_EVENTS}")  # and what the log need not keep is cut off
    return [*asked, *_claim_requests(role, scope)]


def _claim_requests(role: Role, scope: str) -> list[str]:
    """What it takes to claim keys of its nouns, of one store or of all.

    A claim is read by a request that names it in its body, so this shows the claims of all stores. It is not read directly,
    though that would be held to a subject: the value would come back as it was written, under whatever subject its writer
    names, and a claim could hold an ending.
    """
    if not role.claims:
        return []
    keys = [f"$KV.{_CLAIMS}.{noun}.{f'{scope}.>' if scope else '>'}" for noun in role.claims]
    # Whether an order is out is told by a count: nobody need read one for that.
    return [*keys, f"{_API}.STREAM.MSG.GET.KV_{_CLAIMS}", f"{_API}.STREAM.INFO.{_ORDERS}"]


def _order_requests(role: Role, store: str) -> list[str]:
    """What it takes to receive the orders of its kinds and store, and no others."""
    asked: list[str] = []
    kinds = [_kind(each) for each in role.receives if _kind(each) in ORDERS]
    for group in sorted({subjects.order_group(kind) for kind in kinds}):
        served = subjects.ORDER_GROUPS[group]
        # The name of a consumer is one token of a subject, so there is no wildcard for the store in it alone.
        name = EVERY_STORE if store == EVERY_STORE else subjects.order_consumer(group, store)
        # A filter can be held to where there is one. A consumer of several kinds is held to its name.
        held = f".{subjects.order_filter(served[0], store)}" if len(served) == 1 else ""
        asked += [
            f"{_API}.CONSUMER.CREATE.{_ORDERS}.{name}{held}",
            f"{_API}.CONSUMER.MSG.NEXT.{_ORDERS}.{name}",
            f"$JS.ACK.{_ORDERS}.{name}.>",
            *(f"{_API}.CONSUMER.DELETE.{_ORDERS}.{each}" for each in _older_names(served, store)),
        ]
    return [*asked, f"parked.{_ORDERS}.*"] if asked else []


def _older_names(kinds: Iterable[str], store: str) -> list[str]:
    """Consumers that versions before this one made, and that are removed."""
    return [EVERY_STORE] if store == EVERY_STORE else [subjects.order_durable(kind, store) for kind in kinds]
