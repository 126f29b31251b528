"""Questions that only a fetcher can answer, on `registry.ask.<store>`: it has registries' logins, certificates and limits.

A core NATS request; any fetcher of the store answers, with what the question asks for or with `refused`. Nothing of it is
stored, and secrets do not travel: a question names a credential.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from schemas.fact import Source
from schemas.malformed import read
from schemas.oci import Digest

ANONYMOUS = "anonymous"
"""The credential of who has none, whatever the login files of the fetcher's machine hold."""
LEASE = 20.0
"""Seconds for which a blob that was asked for alone is fetched, unless whoever wants it says so again."""
REMEMBERED = 600.0
"""Seconds for which access that was given may be remembered, at most."""

_Text = Annotated[str, Meta(max_length=512)]


class RegistryQuestion(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="ask"):
    """Something that a registry knows, of one repository and for one credential."""

    source: Source


class AskTags(RegistryQuestion, frozen=True, kw_only=True, tag="tags"):
    """Which tags are there? In the registry's order, a page of them."""

    count: Annotated[int, Meta(ge=0)] | None = None
    """How many at most; None: as many as the registry sends, and one message holds."""
    last: _Text = ""
    """Those behind this one."""


class AskReferrers(RegistryQuestion, frozen=True, kw_only=True, tag="referrers"):
    """Which manifests say that they are about this one?"""

    digest: Digest
    artifact_type: _Text = ""
    """Only those of this type; empty: all."""
    page: Annotated[str, Meta(max_length=2048)] = ""
    """What the answer before said of the next page."""


class AskAccess(RegistryQuestion, frozen=True, kw_only=True, tag="access"):
    """May this credential have an image of this repository, or some of its content?"""

    digest: Digest
    """What its reference named: a manifest or an index."""
    blob: Digest = Digest("")
    """Content that belongs to it; empty: the image."""
    kind: Literal["blobs", "manifests"] = "blobs"
    """By which path of the distribution API that content is asked for."""
    size: Annotated[int, Meta(ge=0)] = 0
    """Bytes of that content."""


class AskBlob(RegistryQuestion, frozen=True, kw_only=True, tag="blob"):
    """How large is a blob of which no manifest is known?"""

    digest: Digest
    begin: bool = False
    """Fetch it too, if it may be had: for as long as that is asked again, every few seconds (`LEASE`)."""


class RegistryAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="answer"):
    """What the registry says."""


class Tags(RegistryAnswer, frozen=True, kw_only=True, tag="tags"):
    tags: tuple[str, ...] = ()
    more: bool = False
    """There are more behind the last one."""


class Referrers(RegistryAnswer, frozen=True, kw_only=True, tag="referrers"):
    index: msgspec.Raw
    """An image index, as the registry sent it, or with those of the type that was asked for."""
    filtered: bool = False
    """The type that was asked for was heeded."""
    page: str = ""
    """By which the next page is asked for; empty: this was the last one."""


class Access(RegistryAnswer, frozen=True, kw_only=True, tag="access"):
    """It may be had."""

    of: Literal["repository", "image", "content"] = "repository"
    """How much: everything of that repository, that image alone, or, where content is isolated, what was asked for."""
    seconds: Annotated[float, Meta(ge=0)] = 0.0
    """For how long that may be remembered; 0: it is asked again each time."""


class BlobFound(RegistryAnswer, frozen=True, kw_only=True, tag="blob"):
    """The registry says that it has it, and that it may be had."""

    size: int
    of: Literal["repository", "content"] = "repository"
    """Where content is isolated, what is in the store is not given for that: access to it is asked for (`AskAccess`)."""


class Refused(RegistryAnswer, frozen=True, kw_only=True, tag="refused"):
    """There is no answer, and why."""

    code: str
    message: str


Question = AskTags | AskReferrers | AskAccess | AskBlob
Answer = Tags | Referrers | Access | BlobFound | Refused

_encoder = msgspec.json.Encoder()
_question: msgspec.json.Decoder[Question] = msgspec.json.Decoder(Question)
_answer: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)


def encode(message: Question | Answer) -> bytes:
    """Write a question or an answer."""
    return _encoder.encode(message)


def decode(body: bytes) -> Question:
    """Read a question; raises Malformed where it is none."""
    return read(_question, body, "question about a registry")


def decode_answer(body: bytes) -> Answer:
    """Read an answer; raises Malformed where it is none."""
    return read(_answer, body, "answer about a registry")
