"""Which part of a blob an answer holds. Pure.

Source: RFC 9110 sections 14 and 15.3.7.
"""

import re
from collections.abc import Mapping

from pullonce.errors import Permanent
from schemas.oci import Descriptor
from services.fetcher.remote.failures import whole_number

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


def bytes_to_skip(
    status: int, headers: Mapping[str, str], position: int, blob: Descriptor, *, encoded: bool = False
) -> int | None:
    """How many bytes at the beginning of a body are known already. None: this answer is of no use, ask for the whole.

    Args:
        status: 200, 206 or 416.
        position: first byte that is wanted.
        encoded: what the headers count are bytes of another representation: nothing follows from them, and a part is of no use.

    Raises:
        Permanent: `size.mismatch`, where the source's blob has another size than the descriptor says.
    """
    if status == 206:
        given = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        if given is None or int(given[1]) > position or encoded:
            return None
        if given[3] != "*":
            _check_size(int(given[3]), blob)
        return position - int(given[1])
    if status == 200:
        # The server knows no ranges, or was asked for the whole.
        if not encoded and (size := length_of(status, headers)) is not None:
            _check_size(size, blob)
        return position
    return None


def length_of(status: int, headers: Mapping[str, str]) -> int | None:
    """Bytes of the whole that an answer holds or is a part of; None where it does not say. A chunked one never does."""
    if status == 206:
        given = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        return int(given[3]) if given and given[3] != "*" else None
    return None if "Transfer-Encoding" in headers else whole_number(headers.get("Content-Length", ""))


def _check_size(size: int, blob: Descriptor) -> None:
    if size != blob.size:
        raise Permanent(f"the source holds {size} bytes for {blob.digest}, its manifest says {blob.size}", code="size.mismatch")
