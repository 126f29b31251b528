"""Who asks: the secret that was shown, and what no runtime would send. Pure."""

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

CHALLENGE = 'Basic realm="pullonce mirror: the login of the registry", charset="UTF-8"'
PASSWORD_CHALLENGE = 'Basic realm="pullonce mirror: any name, and its password", charset="UTF-8"'


@dataclass(frozen=True, slots=True)
class Login:
    """A name and a password that a client showed."""

    username: str
    password: str = field(repr=False)


def login_of(authorization: str) -> Login | None:
    """What an `Authorization` header of the scheme Basic says; None where it says nothing, or nothing that can be read.

    Source: RFC 7617, section 2.
    """
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        username, colon, password = base64.b64decode(given.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
    return Login(username, password) if colon and (username or password) else None


def is_password(login: Login | None, password: str) -> bool:
    """Whether a client knows the password of this mirror; by whatever name."""
    return login is not None and hmac.compare_digest(login.password.encode(), password.encode())


def is_browser(headers: Mapping[str, str]) -> bool:
    """Whether a page of a browser has it asked: that could have images pulled here, though it may not read the answer."""
    return "Origin" in headers or "Sec-Fetch-Site" in headers or "Sec-Fetch-Mode" in headers


def is_fetcher(headers: Mapping[str, str]) -> bool:
    """Whether it is a fetcher that asks. One of this machine asks for what it is being asked to fetch, if the configuration of
    its mirrors is that of a runtime, and names this one."""
    return headers.get("User-Agent", "").startswith("pullonce/")
