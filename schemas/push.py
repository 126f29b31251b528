"""Pushing an image of a store: one question that begins it, and one that is asked again and again until it has ended.

    push.image.<store>          any fetcher of the store begins the push, and says how it stands
    push.now.<store>.<id>       the fetcher that is at it says how it stands, as soon as there is news; nobody answers where it
                                has died: then the push is begun again, and what is there already is not sent twice

Whoever stops asking has left, and the push is given up. Nothing of it is stored on the bus: what was pushed, the
registry knows.
"""

from typing import Literal

import msgspec
from msgspec import Struct

from schemas.malformed import read
from schemas.oci import Digest


class PushImage(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="push.image", tag_field="type"):
    """Push what the store lists under a reference."""

    id: str
    """Names the push: 16 to 64 hex digits, as its asker drew them. Said again, it begins nothing new."""
    reference: str
    store: str = "default"
    target: str = ""
    """Where to: registry, repository and tag or digest; empty: what the reference itself names."""
    platform: str = ""
    """`os/arch[/variant]`; empty: that of the store's machine, or the only one that is there."""
    all_platforms: bool = False
    """Push the index that the reference named, with the images of all its platforms."""
    nondistributable: bool = False
    """Push layers too that their publisher does not let registries pass on."""
    credential: str = ""
    """A name that the fetcher knows; empty: the fetcher's own logins."""
    requester: str = ""
    """For people."""


class PushNow(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="push.now", tag_field="type"):
    """How does a push stand?"""

    heard: int = -1
    """The `change` of the last answer: the next one comes when it is another, or after a moment."""
    leave: bool = False
    """Nobody waits for it any more."""


class PushedBlob(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One blob of a push."""

    digest: Digest
    size: int
    done: int = 0
    """Bytes that the registry has, as far as is known."""
    state: Literal["waiting", "pushing", "retrying", "pushed", "mounted", "there", "left"] = "waiting"
    """`mounted`: taken over from another repository of the registry; `there`: nothing was to do; `left`: not passed on."""
    error: str = ""
    """Why an attempt is repeated."""


class PushStatus(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="push.status", tag_field="type"):
    """How a push stands."""

    id: str
    state: Literal["pushing", "pushed", "failed"] = "pushing"
    change: int = 0
    """Grows with each change of what is told here."""
    target: str = ""
    """Where to, normalised."""
    digest: str = ""
    """What is pushed under the target: of a manifest, or of an index."""
    media_type: str = ""
    platform: str = ""
    """Of the image; empty for an index."""
    blobs: tuple[PushedBlob, ...] = ()
    note: str = ""
    """What holds the whole push up."""
    code: str = ""
    message: str = ""
    """Why it failed."""
    by: str = ""
    """Who is at it: the service, its process and its machine."""


_image = msgspec.json.Decoder(PushImage)
_now = msgspec.json.Decoder(PushNow)
_status = msgspec.json.Decoder(PushStatus)


def decode_image(body: bytes) -> PushImage:
    """Read the wish for a push; raises Malformed where it is none."""
    return read(_image, body, "push.image")


def decode_now(body: bytes) -> PushNow:
    """Read a question about one; raises Malformed where it is none."""
    return read(_now, body, "push.now")


def decode_status(body: bytes) -> PushStatus:
    """Read an answer to either; raises Malformed where it is none."""
    return read(_status, body, "push.status")
