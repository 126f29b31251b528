"""Channels of the AsyncAPI document whose subject does not name one kind of message. Pure.

The ledger's questions share one subject, and so do those about registries; a claim is a value that changes under its key, and
what is put aside is whatever came.
"""

from typing import Any

import msgspec

from schemas import registry, subjects
from schemas.claims import Collecting, Held, Ordered, Settled
from schemas.ledger import (
    AskExplain,
    AskExport,
    AskHistory,
    AskRebuild,
    AskSql,
    AskStats,
    Done,
    Error,
    Explanation,
    History,
    Stats,
    Table,
)

_ASKED = (AskHistory, AskStats, AskExplain, AskSql, AskExport, AskRebuild)
_ANSWERED = (History, Stats, Explanation, Table, Done, Error)
_CLAIMS = (Held, Ordered, Settled, Collecting)

_ABOUT_REGISTRIES = (registry.AskTags, registry.AskReferrers, registry.AskAccess, registry.AskBlob)
_OF_REGISTRIES = (registry.Tags, registry.Referrers, registry.Access, registry.BlobFound, registry.Refused)

CLAIMS = "claims"
PARKED = "parked"


def _kinds(prefix: str, classes: tuple[type[msgspec.Struct], ...]) -> dict[str, type[msgspec.Struct]]:
    return {f"{prefix}.{cls.__struct_config__.tag}": cls for cls in classes}


QUESTIONS = _kinds("ledger.ask", _ASKED)
ANSWERS = _kinds("ledger.answer", _ANSWERED)
CLAIMED = _kinds("claim", _CLAIMS)
REPLIES = {
    subjects.LEDGER_SUBJECT: (QUESTIONS, ANSWERS),
    subjects.REGISTRY_SUBJECT: (_kinds("registry.ask", _ABOUT_REGISTRIES), _kinds("registry.answer", _OF_REGISTRIES)),
}
"""Channel → the questions that are asked on it, and their answers."""
KINDS = {kind: cls for pair in REPLIES.values() for each in pair for kind, cls in each.items()} | CLAIMED
"""What these messages are called → their class."""

PARAMETERS = {
    "key": "What is claimed: `blob.<store>.<digest>`, `layer.<store>.<chain>`, `resolve.<store>.<flight>.<opened>` or "
    "`record.<store>.<flight>.<opened>`.",
    "stream": f"Where the message was stored: {subjects.EVENTS_STREAM} or {subjects.ORDERS_STREAM}.",
    "sequence": "Its position there.",
}
"""What the further holes stand for."""

ADDRESSES = {
    subjects.LEDGER_SUBJECT: subjects.LEDGER_SUBJECT,
    subjects.REGISTRY_SUBJECT: subjects.REGISTRY_SUBJECT,
    CLAIMS: f"$KV.{subjects.CLAIMS_BUCKET}.{{key}}",
    PARKED: "parked.{stream}.{sequence}",
}

DESCRIPTIONS = {
    subjects.LEDGER_SUBJECT: "Core NATS request; any ledger answers. The HTTP address takes the same questions. On a bus with "
    "users only `admin` may ask, since an answer tells of everybody's pulls, and some questions change the ledger.",
    subjects.REGISTRY_SUBJECT: "Core NATS request; any fetcher of the store answers. Secrets do not travel: a question names a "
    "credential.",
    CLAIMS: f"The key-value bucket {subjects.CLAIMS_BUCKET}: written by compare-and-set, the last value of a key is kept. A "
    "key without a value is free.",
    PARKED: f"Stored in the stream {subjects.PARKED_STREAM}: what was no event or no order, byte by byte, with its subject and "
    "the reason in the headers `Pullonce-Subject` and `Pullonce-Reason`.",
}

MESSAGES: dict[str, dict[str, Any]] = {
    subjects.LEDGER_SUBJECT: QUESTIONS | ANSWERS,
    subjects.REGISTRY_SUBJECT: REPLIES[subjects.REGISTRY_SUBJECT][0] | REPLIES[subjects.REGISTRY_SUBJECT][1],
    CLAIMS: CLAIMED,
    PARKED: {},
}
"""By channel. What is parked has no form that could be told."""

DOES: dict[str, tuple[tuple[str, str], ...]] = {
    "client": (("send", subjects.LEDGER_SUBJECT),),
    "ledger": (("receive", subjects.LEDGER_SUBJECT),),
    "coordinator": (("send", CLAIMS), ("receive", CLAIMS), ("send", PARKED)),
    "caretaker": (("send", CLAIMS), ("receive", CLAIMS)),
    "fetcher": (("send", PARKED), ("receive", subjects.REGISTRY_SUBJECT)),
    "gateway": (("send", subjects.REGISTRY_SUBJECT),),
    "unpacker": (("send", PARKED),),
}
"""By role: what it does to which of these channels."""
