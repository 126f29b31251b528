"""One call of PullImage: pulled with the secret that came with it, and what its failure is for kubelet."""

from collections.abc import Awaitable, Callable

from grpclib.const import Status

from pullonce.errors import Permanent, PullFailed, PullonceError, ReferenceInvalid
from pullonce.oci import reference
from services.gateway.credentials import Credentials
from services.gateway.cri.logins import AuthInvalid, login_of
from services.gateway.protocols.images_pb2 import PullImageRequest

Tell = Callable[[object], None]
Pull = Callable[[str, str, Tell], Awaitable[str]]
"""Pulls a reference with a credential of some name, and tells of what happens on the way; returns the image ID.

Raises PullonceError.
"""

_NOT_FOUND = ("MANIFEST_UNKNOWN", "NAME_UNKNOWN", "BLOB_UNKNOWN", "platform.unavailable")
_BUSY = ("TOOMANYREQUESTS", "disk.full")
UNREACHABLE = "RegistryUnavailable"
"""What kubelet looks for at the beginning of a message that has no status of its own. Source: cri-api, pkg/errors."""


def ignore(_: object) -> None:
    """For whoever needs not be told."""


async def carry_out(request: PullImageRequest, pull: Pull, credentials: Credentials, tell: Tell = ignore) -> str:
    """Pull what a call asks for; the image ID.

    Raises:
        PullonceError: it cannot be pulled.
    """
    name = request.image.image
    registry = reference.parse(name).registry
    async with credentials.held(registry, login_of(request.auth, registry)) as credential:
        return await pull(name, credential, tell)


def refusal(reference: str, error: PullonceError) -> tuple[Status, str]:
    """Status and message of a pull that failed; kubelet shows both in the events of the pod."""
    if isinstance(error, ReferenceInvalid | AuthInvalid):
        return Status.INVALID_ARGUMENT, str(error)
    if not isinstance(error, PullFailed | Permanent):
        return Status.UNAVAILABLE, f"pullonce: {error}"
    said = f"{reference} cannot be pulled: {error} ({error.code})"
    if error.code in ("registry.unavailable", "registry.interrupted"):
        return Status.UNKNOWN, f"{UNREACHABLE}: {said}"
    if error.code == "UNAUTHORIZED" or error.code.startswith("credential."):
        return Status.UNAUTHENTICATED, said
    if error.code == "DENIED":
        return Status.PERMISSION_DENIED, said
    if error.code in _NOT_FOUND:
        return Status.NOT_FOUND, said
    return Status.RESOURCE_EXHAUSTED if error.code in _BUSY else Status.UNKNOWN, said
