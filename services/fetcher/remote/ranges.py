"""Which part of a blob an answer holds. Pure.

Source: RFC 9110 sections 14 and 15.3.7.
"""

import re
from collections.abc import Mapping

from pullonce.errors import Permanent
from schemas.oci import Descriptor
from services.fetcher.remote.failures import whole_number

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


def bytes_to_skip(status: int, headers: Mapping[str, str], position: int, blob: Descriptor) -> int | None:
    """How many bytes at the beginning of a body are known already. None: this answer is of no use, ask for the whole.

    Args:
        status: 200, 206 or 416.
        position: first byte that is wanted.

    Raises:
        Permanent: `size.mismatch`, where the source's blob has another size than the descriptor says; `registry.encoding`.
    """
    if status == 206:
        given = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        if given is None or int(given[1]) > position:
            return None
        if given[3] != "*":
            _check_size(int(given[3]), blob)
        return position - int(given[1])
    if status == 200:
        # The server knows no ranges, or was asked for the whole.
        length = headers.get("Content-Length", "")
        encoding = headers.get("Content-Encoding", "identity")
        if encoding != "identity" and length != str(blob.size):
            # Storage may label a gzip layer so, which is then the blob itself; a body that was compressed on the way is not.
            why = f"something before the source compresses {blob.digest} ({encoding[:40]!r}), though it was asked not to"
            raise Permanent(why, code="registry.encoding")
        if (size := whole_number(length)) is not None:
            _check_size(size, blob)
        return position
    return None


def _check_size(size: int, blob: Descriptor) -> None:
    if size != blob.size:
        raise Permanent(f"the source holds {size} bytes for {blob.digest}, its manifest says {blob.size}", code="size.mismatch")
