"""`python -m services.ledger.fold.copying SOURCE TARGET`: copy a file, by sharing its blocks where the file system can.

A process of its own, since DuckDB holds its database by a record lock, and a process that closes any descriptor of a file lets
go of all such locks that it has on it. Ends with the number of the error. Source: fcntl(2), "Advisory record locking";
ioctl_ficlone(2).
"""

import fcntl
import shutil
import sys

_FICLONE = 0x40049409


def copy(source: str, target: str) -> None:
    """Copy; raises OSError."""
    with open(source, "rb") as given, open(target, "xb") as made:
        try:
            fcntl.ioctl(made, _FICLONE, given.fileno())
        except OSError:  # not every file system can, and not from one to another
            shutil.copyfileobj(given, made, 1 << 20)


if __name__ == "__main__":
    try:
        copy(*sys.argv[1:])
    except OSError as exc:
        sys.exit(exc.errno or 1)
