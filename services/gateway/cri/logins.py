"""The secret that comes with a call of PullImage.

Source: the CRI's AuthConfig, as containerd reads it: what names another server is not for this one.
"""

import base64
import binascii

from pullonce.errors import PullonceError
from pullonce.oci.servers import server_of
from services.gateway.credentials import Login
from services.gateway.protocols.images_pb2 import AuthConfig


class AuthInvalid(PullonceError):
    """What a call brings is no secret that can be shown to a registry. The message does not quote it."""


def login_of(auth: AuthConfig, registry: str) -> Login | None:
    """What is shown to a registry; None where nothing was brought, or for another server.

    Args:
        registry: as references have it (`docker.io`).

    Raises:
        AuthInvalid: `auth` is no base64 of a user and a password.
    """
    if auth.server_address and server_of(auth.server_address).partition("/")[0] != registry.lower():
        return None
    username, password = (auth.username, auth.password) if auth.username or not auth.auth else _pair(auth.auth)
    if not (username or auth.identity_token or auth.registry_token):
        return None  # a password of nobody
    return Login(username, password, auth.identity_token, auth.registry_token)


def _pair(auth: str) -> tuple[str, str]:
    try:
        text = base64.b64decode(auth.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        raise AuthInvalid("the credentials of the pull are wrong: auth is no base64") from None
    username, colon, password = text.rstrip("\0").partition(":")
    if not colon:
        raise AuthInvalid("the credentials of the pull are wrong: auth is no user and password with a colon between them")
    return username, password
