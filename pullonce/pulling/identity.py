"""Which flight a request joins. Pure and light: the coordinator, the client and the command line ask the same question here.

Two requests share a flight, and so an answer, when they name the same store, image, platform, credential and policy and
agree on whether to unpack. What differs in spelling only (`redis`, `docker.io/library/redis:latest`) is the same image.
"""

from __future__ import annotations

from functools import lru_cache
from operator import attrgetter

from pullonce.oci import reference
from schemas import subjects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from schemas.events import PullRequested


class Identity:
    """The normalised reference and platform of a request, and the name of the flight it joins. Requests share it."""

    __slots__ = ("flight", "platform", "reference")

    def __init__(self, reference: str, platform: str, flight: str) -> None:
        self.reference = reference
        self.platform = platform
        self.flight = flight


def identify(text: str, **fields: Any) -> Identity:
    """Name the flight of a request.

    Args:
        text: the reference as the user gave it.
        fields: those of `subjects.FLIGHT_FIELDS`; what is left out has its default.

    Raises:
        ReferenceInvalid: the text is no image reference.
        PlatformInvalid: the platform cannot be read.
    """
    return _identified(text, *({**subjects.FLIGHT_FIELDS, **fields}[name] for name in subjects.FLIGHT_FIELDS))


@lru_cache(maxsize=4096)  # a thousand requests for one image ask the same question a thousand times
def _identified(text: str, *values: Any) -> Identity:
    fields = dict(zip(subjects.FLIGHT_FIELDS, values, strict=True))
    normal = str(reference.parse(text))
    if fields["platform"]:
        from pullonce.oci.platform import normalise  # few requests name one, and a light client feels every import

        fields["platform"] = normalise(fields["platform"])
    return Identity(normal, fields["platform"], subjects.flight_of(normal, fields))


def identify_request(request: PullRequested) -> Identity:
    """Name the flight of a stored request; raises as `identify`."""
    return _identified(request.reference, *_values(request))


def flight_fields(request: PullRequested) -> dict[str, Any]:
    """What of a request tells its flight apart, beside its reference."""
    return dict(zip(subjects.FLIGHT_FIELDS, _values(request), strict=True))


_values = attrgetter(*subjects.FLIGHT_FIELDS)
