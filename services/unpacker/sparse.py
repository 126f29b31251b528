"""Write sparse files: what is stored goes where it belongs, the rest stays a hole."""

import os

from services.unpacker.entry import Entry
from services.unpacker.invalid import LayerError
from services.unpacker.tar import Archive


def write_sparse(file: int, entry: Entry, archive: Archive) -> None:
    """Write the stored stretches to where they belong; between them lie holes."""
    os.ftruncate(file, entry.size)
    for offset, length in entry.sparse or ():
        while length:
            data = archive.data(length)
            if data is None:
                raise LayerError("a sparse file whose content ends too early")
            written = os.pwrite(file, data, offset)
            while written < len(data):
                written += os.pwrite(file, data[written:], offset + written)
            offset += len(data)
            length -= len(data)
