"""The bus as one AsyncAPI 3.0 document: who says what, under which subject, in which shape. Derived and pure.

Addresses are read off `subjects.py` by asking it for the subject of a message whose fields are holes, so the document
cannot drift from what is really published. AsyncAPI describes one application at a time; here an operation's name and tag
say which part of pullonce performs it.
"""

import re
from typing import Any, TypeAlias

import msgspec

from schemas import routing, subjects
from schemas.derive import core_channels
from schemas.derive.json_schema import answer_kind, file_name, meaning, question_kind
from schemas.derive.samples import SAMPLES
from schemas.events import Event, PullRequested
from schemas.orders import FetchBlob, Order
from schemas.progress import BlobProgress, LayerProgress, Progress, PullProgress
from schemas.roles import ASKED, QUESTIONS, ROLES, Message, Role

Json: TypeAlias = Any
"""A JSON value."""

VERSION = "1.0.0"
"""Of the contract. A new field with a default raises the second number; a changed meaning is a new message."""

PARAMETERS = {
    "store": "Name of a store: letters, digits, `-` and `_`.",
    "image": "The normalised reference; everything but letters, digits and `:/_@-` is percent-encoded: "
    f"`{subjects.image_token('docker.io/library/redis:latest')}`.",
    "flight": "Short hash of the flight key: 16 hex digits.",
    "digest": "Digest of a blob, or ChainID of a layer, with `-` in place of `:`.",
    "chain": "ChainID of a layer, with `-` in place of `:`.",
    "revision": "Revision of the claim that justifies the order.",
    "push": "What its asker called a push: 16 to 64 hex digits.",
    **core_channels.PARAMETERS,
}
"""What the holes in a subject stand for."""

_BARE = "pull.requested.bare"
_PROGRESS = "progress"
_HERE = subjects.HERE_SUBJECT


def document() -> dict[str, Json]:
    """The whole document as JSON values."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "pullonce",
            "version": VERSION,
            "description": "Many pulls, one fetch, one unpack: the messages on the bus.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"local": {"host": "127.0.0.1:4222", "protocol": "nats", "description": "The embedded default."}},
        "channels": _channels(),
        "operations": {name: operation for role in ROLES for name, operation in _operations(role, ROLES[role]).items()},
        "components": {"messages": _messages(), "parameters": {name: {"description": PARAMETERS[name]} for name in PARAMETERS}},
    }


def address(message: Message) -> str:
    """The subject of a message with a hole in place of each value: `blob.fetched.{store}.{digest}`."""
    holes: dict[str, Json] = {"store": "STORE", "reference": "IMAGE", "flight": "FLIGHT"}
    holes |= {"digest": "DIGEST", "chain_id": "CHAIN", "revision": "REVISION"}
    if isinstance(message, FetchBlob):
        holes["blob"] = msgspec.structs.replace(message.blob, digest="DIGEST")
    subject = _subject(msgspec.structs.replace(message, **{name: holes[name] for name in holes if hasattr(message, name)}))
    # Capitals appear in no fixed part of a subject, so they are the holes.
    return re.sub(r"[A-Z]+", lambda hole: f"{{{hole[0].lower()}}}", subject)


def _subject(message: Message) -> str:
    match message:
        case PullRequested():
            return subjects.request_subject(message, "FLIGHT", message.reference)
        case Event():
            return routing.event_subject(message)
        case Order():
            return routing.order_subject(message)
        case BlobProgress() | LayerProgress() | PullProgress():
            return routing.progress_subject(message)
    raise TypeError(f"{type(message).__name__} has no subject")


def _channel_of(cls: type[Message]) -> str:
    """Progress of blobs and of layers passes through one channel; every other message has its own."""
    return _PROGRESS if issubclass(cls, Progress) and cls is not PullProgress else str(cls.__struct_config__.tag)


def _channels() -> dict[str, Json]:
    channels: dict[str, Json] = {}
    for kind, sample in SAMPLES.items():
        channel = channels.setdefault(_channel_of(type(sample)), _channel(address(sample), _life(sample)))
        channel["messages"][kind] = _ref("components", "messages", kind)
    request = SAMPLES["pull.requested"]
    channels[_BARE] = _channel("pull.requested", f"For any NATS client, whatever it can compute. {_life(request)}")
    channels[_BARE]["messages"]["pull.requested"] = _ref("components", "messages", "pull.requested")
    channels[_HERE] = _channel(
        _HERE, "Core NATS, not stored: what a process answers to a ping, said once when it begins its work."
    )
    channels[_HERE]["messages"]["answer"] = _ref("components", "messages", answer_kind(subjects.PING_SUBJECT))
    for subject in QUESTIONS:
        names = {"type": ["array", "null"], "items": {"type": "string"}}
        named = subject == subjects.PROGRESS_NOW_SUBJECT
        body = "may name digests, ChainIDs and flights" if named else "has an empty body"
        body = "is a message" if subject in ASKED else body
        channels[subject] = _channel(subject, f"Core NATS request; the question {body}.")
        question = {"name": f"{subject}.question", "payload": names if named else {"type": "null"}}
        channels[subject]["messages"] = {
            "question": _ref("components", "messages", question_kind(subject)) if subject in ASKED else question,
            "answer": _ref("components", "messages", answer_kind(subject)),
        }
    for name, at in core_channels.ADDRESSES.items():
        channels[name] = _channel(at, core_channels.DESCRIPTIONS[name])
        channels[name]["messages"] = {kind: _ref("components", "messages", kind) for kind in core_channels.MESSAGES[name]}
    return channels


def _channel(subject: str, life: str) -> dict[str, Json]:
    channel: dict[str, Json] = {"address": subject, "description": life, "messages": {}}
    if names := re.findall(r"\{(\w+)\}", subject):
        channel["parameters"] = {name: _ref("components", "parameters", name) for name in names}
    return channel


def _life(message: Message) -> str:
    """How long a message of this sort lives."""
    match message:
        case Event():
            return f"Stored in the stream {subjects.EVENTS_STREAM} as long as the log keeps it, 30 days by default."
        case Order():
            return f"Stored in the work queue {subjects.ORDERS_STREAM} until it is carried out; one message a subject."
        case Progress():
            return "Core NATS, never stored; nothing depends on one arriving."


def _operations(name: str, role: Role) -> dict[str, Json]:
    operations: dict[str, Json] = {}
    for action, classes in (("send", role.sends), ("receive", role.receives)):
        for cls in classes:
            kind = str(cls.__struct_config__.tag)
            operations[f"{name}.{action}.{kind}"] = _operation(name, action, _channel_of(cls), [kind])
    if PullRequested in role.sends and not role.of_a_store:
        operations[f"{name}.send.{_BARE}"] = _operation(name, "send", _BARE, ["pull.requested"])
    if subjects.PING_SUBJECT in (*role.answers, *role.asks):
        announce = "send" if subjects.PING_SUBJECT in role.answers else "receive"
        operations[f"{name}.{announce}.{_HERE}"] = _operation(name, announce, _HERE, ["answer"])
    for action, asked in (("send", role.asks), ("receive", role.answers)):
        for subject in asked:
            if subject in core_channels.REPLIES:
                continue  # told below, with the kinds of its questions
            reply = {"channel": _ref("channels", subject), "messages": [_ref("channels", subject, "messages", "answer")]}
            operations[f"{name}.{action}.{subject}"] = _operation(name, action, subject, ["question"]) | {"reply": reply}
    for action, channel in core_channels.DOES.get(name, ()):
        operations[f"{name}.{action}.{channel}"] = _other_operation(name, action, channel)
    return operations


def _other_operation(role: str, action: str, channel: str) -> dict[str, Json]:
    if channel not in core_channels.REPLIES:
        return _operation(role, action, channel, list(core_channels.MESSAGES[channel]))
    questions, answers = core_channels.REPLIES[channel]
    reply = {
        "channel": _ref("channels", channel),
        "messages": [_ref("channels", channel, "messages", kind) for kind in answers],
    }
    return _operation(role, action, channel, list(questions)) | {"reply": reply}


def _operation(role: str, action: str, channel: str, messages: list[str]) -> dict[str, Json]:
    return {
        "action": action,
        "channel": _ref("channels", channel),
        "tags": [{"name": role}],
        "messages": [_ref("channels", channel, "messages", message) for message in messages],
    }


def _messages() -> dict[str, Json]:
    messages = {
        kind: _message(kind, type(sample)) | {"examples": [{"payload": msgspec.to_builtins(sample)}]}
        for kind, sample in SAMPLES.items()
    }
    answers = {answer_kind(subject): cls for subject, cls in QUESTIONS.items()}
    asked = {question_kind(subject): cls for subject, cls in ASKED.items()}
    return messages | {kind: _message(kind, cls) for kind, cls in (answers | asked | core_channels.KINDS).items()}


def _message(kind: str, cls: type[msgspec.Struct]) -> dict[str, Json]:
    return {
        "name": kind,
        "title": cls.__name__,
        "summary": meaning(cls),
        "payload": {"$ref": f"./json/{file_name(kind)}"},
    }


def _ref(*path: str) -> dict[str, str]:
    """A reference into this document; names hold dots, never slashes."""
    return {"$ref": "#/" + "/".join(path)}
