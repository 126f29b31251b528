"""Which flight a request joins. Pure and light: the coordinator, the client and the command line ask the same question here.

Two requests share a flight, and so an answer, when they name the same store, image, platform, credential and policy and
agree on whether to unpack. What differs in spelling only (`redis`, `docker.io/library/redis:latest`) is the same image.
"""

from __future__ import annotations

from functools import lru_cache

from pullonce.oci import reference
from schemas import subjects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from schemas.events import PullRequested


class Identity:
    """The normalised reference and platform of a request, and the name of the flight it joins. Requests share it."""

    __slots__ = ("flight", "platform", "reference")

    def __init__(self, reference: str, platform: str, flight: str) -> None:
        self.reference = reference
        self.platform = platform
        self.flight = flight


def identify(
    text: str,
    *,
    store: str = "default",
    platform: str = "",
    credential: str = "",
    policy: str = "always",
    unpack: bool = True,
) -> Identity:
    """Name the flight of a request.

    Args:
        text: the reference as the user gave it.
        platform: `os/architecture[/variant]`, or empty for the platform of the machine that owns the store.

    Raises:
        ReferenceInvalid: the text is no image reference.
        PlatformInvalid: the platform cannot be read.
    """
    return _identified(text, store, platform, credential, policy, unpack)


@lru_cache(maxsize=4096)  # a thousand requests for one image ask the same question a thousand times
def _identified(text: str, store: str, platform: str, credential: str, policy: str, unpack: bool) -> Identity:
    normal = str(reference.parse(text))
    if platform:
        from pullonce.oci.platform import normalise  # few requests name one, and a light client feels every import

        platform = normalise(platform)
    flight = subjects.flight_of(
        store=store, reference=normal, platform=platform, credential=credential, policy=policy, unpack=unpack
    )
    return Identity(normal, platform, flight)


def identify_request(request: PullRequested) -> Identity:
    """Name the flight of a stored request; raises as `identify`."""
    return _identified(request.reference, request.store, request.platform, request.credential, request.policy, request.unpack)
