"""Calls of Linux that Python has no names for."""

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int) -> int:
    """What a call answered.

    Raises:
        OSError: it failed.
    """
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
