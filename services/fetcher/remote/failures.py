"""A registry's answer → what it means for the order: try again later, or give up, and whom that concerns. Pure.

Source: distribution-spec 1.1, error codes; RFC 9110 section 10.2.3 (`Retry-After`).
"""

import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from pullonce.errors import Permanent, Retryable
from pullonce.printable import printable
from schemas.events import Concerns
from schemas.oci import Descriptor

Asked = Literal["manifest", "blob", "token", "push"]

_MALFORMED = "a malformed address"
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""What a code may look like: it is a name for machines, and part of what is counted."""
_LATER = frozenset({408, 425, 429, 499})
"""With every 5xx, those of proxies before a registry too (520 to 530): what may be right another time."""
_LONGEST_WAIT = 300.0
_UNKNOWN: dict[str, str] = {
    "manifest": "MANIFEST_UNKNOWN",
    "blob": "BLOB_UNKNOWN",
    "token": "UNAUTHORIZED",
    "push": "NAME_UNKNOWN",
}


class _Error(msgspec.Struct):
    code: str = ""
    message: str | None = ""


class _Errors(msgspec.Struct):
    errors: list[_Error] = []


def failure(
    asked: Asked,
    what: str,
    status: int,
    body: bytes,
    *,
    after: float | None = None,
    clean: Callable[[str], str] = str,
) -> Permanent | Retryable:
    """Translate an answer that is no success.

    Args:
        what: what was asked for, in words people know (`docker.io/library/redis:latest`).
        body: of the answer; what the spec's `errors` in it say is passed on.
        after: seconds the registry asks us to wait, see `retry_after`.
        clean: takes secrets out of what the registry says.
    """
    told = _first_error(body, clean)
    message = f"{what}: the registry answers {status}{': ' + told.message if told.message else ''}"
    if status in _LATER or status >= 500:
        code = told.code or ("TOOMANYREQUESTS" if status == 429 else "registry.unavailable")
        concerns: Concerns = "credential" if status == 429 else "source"
        return Retryable(message, code=code, after=after, concerns=concerns)
    if status in (401, 403):
        code = told.code or ("UNAUTHORIZED" if status == 401 else "DENIED")
        hint = "; it does not exist, or the credential may not " + ("push to it" if asked == "push" else "read it")
        return Permanent(message + hint, code=code, concerns="credential")
    if status in (404, 410):
        return Permanent(message, code=_unknown_code(asked, told.code), concerns="source")
    return Permanent(message, code=told.code or "registry.refused", concerns="source")


def explain_blob(blob: Descriptor, found: Permanent | Retryable) -> Permanent | Retryable:
    """The failure to fetch a blob; one that says more where its publisher does not let registries pass it on.

    Such a layer (docker: foreign; OCI: nondistributable) names URLs. They are not followed: whoever made the manifest would
    have us ask any address for anything. Registries that hold the layer serve it as any other.
    """
    foreign = blob.urls or ".foreign." in blob.media_type or ".nondistributable." in blob.media_type
    if not foreign or found.code not in ("BLOB_UNKNOWN", "NAME_UNKNOWN"):
        return found
    offered = redacted(blob.urls[0])[:200] if blob.urls and blob.urls[0].isprintable() else ""
    there = f" It is offered at {offered}." if offered and offered != _MALFORMED else ""
    message = (
        f"{found}. The layer is one that its publisher does not let registries pass on, and other places are not asked.{there}"
        " Push the image with all its layers to a registry of your own (docker: allow-nondistributable-artifacts)"
    )
    return Permanent(message, code="layer.foreign", concerns=found.concerns)


def retry_after(header: str | None, now: float) -> float | None:
    """Seconds that `Retry-After` asks for: given as seconds or as a date, at most five minutes. None where it says nothing.

    Args:
        now: seconds since the epoch.
    """
    if not header:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), _LONGEST_WAIT)
    try:
        wait = parsedate_to_datetime(text).timestamp() - now
    except Exception:  # the library's reader of dates meets junk with several kinds of errors
        return None
    return min(max(wait, 0.0), _LONGEST_WAIT)


def whole_number(text: str) -> int | None:
    """A number of bytes as HTTP writes one: ASCII digits, and no more of them than any size has. None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def redacted(url: str) -> str:
    """A URL that may be logged: without user, password, query and parameters (RFC 3986, 3.3), where signatures travel."""
    try:
        parts = urlsplit(url)
        path = re.sub(r"(;|%3b)[^/]*", ";…", parts.path, flags=re.IGNORECASE)
        return printable(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}", 500)
    except ValueError:
        return _MALFORMED


def _unknown_code(asked: Asked, code: str) -> str:
    """Registries answer a 404 with any code, or none; people look for the spec's."""
    return code if code in ("NAME_UNKNOWN", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN") else _UNKNOWN[asked]


def _first_error(body: bytes, clean: Callable[[str], str]) -> _Error:
    """The first error in an answer, cut to a length fit for one line: first cleaned, or half a secret could stay."""
    try:
        errors = msgspec.json.decode(body, type=_Errors).errors
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        errors = []
    first = errors[0] if errors else _Error()
    code = clean(first.code)
    return _Error(code=code if _CODE.fullmatch(code) else "", message=printable(clean(first.message or ""), 300))
