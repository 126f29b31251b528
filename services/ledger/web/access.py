"""Who may read the ledger over HTTP. Pure."""

import base64
import binascii
import hmac
from collections.abc import Mapping


def authorized(authorization: str, token: str) -> bool:
    """Whether an `Authorization` header carries the token: as `Bearer`, or as the password of `Basic`, which browsers ask for.

    Sources: RFC 6750, section 2.1; RFC 7617, section 2.
    """
    scheme, _, given = authorization.partition(" ")
    given = given.strip()
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(given.encode(), token.encode())


def is_from_elsewhere(headers: Mapping[str, str], host: str, *, page: bool) -> bool:
    """Whether a browser asks on behalf of another site, which may not read the answer, and may not have the work done either.

    `same-site` counts as elsewhere: other ports of this machine are the same site, and belong to other people. What is no
    browser sends none of these headers.

    Args:
        host: the `Host` header.
        page: it is the page itself that is asked for, which holds nothing: a link may lead there from anywhere.

    Source: Fetch Metadata Request Headers, W3C; the Fetch standard on `Origin`.
    """
    site = headers.get("Sec-Fetch-Site", "").lower()
    if site:
        opened = (
            headers.get("Sec-Fetch-Mode", "").lower() == "navigate" and headers.get("Sec-Fetch-Dest", "").lower() == "document"
        )
        return site not in ("same-origin", "none") and not (page and opened)
    origin = headers.get("Origin", "")
    return bool(origin) and origin.partition("://")[2].lower() != host.lower()
