"""What a client is told where we cannot: in the specification's form, and so that it asks the registry itself.

Source: distribution-spec 1.1, "Error Codes".
"""

import msgspec
from aiohttp import web

from pullonce.errors import PullFailed, PullonceError
from pullonce.printable import printable
from services.gateway.mirror.guests import CHALLENGE

_LONGEST = 1000
_SECRET_WANTED = ("UNAUTHORIZED", "DENIED")
_NOT_THERE = ("NAME_UNKNOWN", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN")


class Refusal(PullonceError):
    """A request is not answered with what it asks for.

    Attributes:
        code: of the specification, or of ours.
        status: of HTTP. 404 makes every client go on without us.
    """

    def __init__(self, message: str, code: str, status: int = 404) -> None:
        super().__init__(message)
        self.code = code
        self.status = status

    @property
    def wants_secret(self) -> bool:
        """Whether somebody who shows another secret, or one at all, may have it."""
        return self.code in _SECRET_WANTED or self.code.startswith("credential.")

    @property
    def not_there(self) -> bool:
        """Whether the registry says that there is no such thing."""
        return self.code in _NOT_THERE


def refusal_of(failure: PullonceError) -> Refusal:
    """An error of a pull, or of a question, as a refusal."""
    if isinstance(failure, Refusal):
        return failure
    code = failure.code if isinstance(failure, PullFailed) else "pullonce.unavailable"
    return Refusal(str(failure), code)


def response_of(refusal: Refusal, *, anonymous: bool) -> web.Response:
    """A refusal as an answer. Who showed nothing, and may have it with a secret, is asked for one.

    Args:
        anonymous: whether this client showed none, and one is of use.
    """
    body = {"errors": [{"code": refusal.code, "message": printable(str(refusal), _LONGEST)}]}
    headers = {"Docker-Distribution-Api-Version": "registry/2.0"}
    status = refusal.status
    if status == 404 and anonymous and refusal.wants_secret:
        status, headers["WWW-Authenticate"] = 401, CHALLENGE
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json", headers=headers)
