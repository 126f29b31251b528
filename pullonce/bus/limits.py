"""What the bus takes at most, alike for both implementations."""

from pullonce.errors import Permanent

MAX_MESSAGE = 512 * 1024
"""Bytes of headers and body. A message above the server's own limit (1 MiB by default) would cost the whole connection."""


MAX_PARKED = 4 * 1024
"""Bytes that are kept of a message that is put aside: enough to see what it is."""


def check_size(subject: str, size: int, most: int = MAX_MESSAGE) -> None:
    """Raises Permanent (`message.too_large`) for a message that no attempt would bring onto the bus."""
    if size > most:
        raise Permanent(
            f"the message on {subject} has {size} bytes; the bus takes at most {most}",
            code="message.too_large",
            concerns="key",
        )
