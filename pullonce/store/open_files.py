"""How many files a process may have open at once."""

import resource

TOO_MANY_FILES = "this process may not open enough files at once (`ulimit -n`)"


def open_as_many_as_may_be() -> None:
    """Raise the limit that a shell gives to the one that the system gives. Nothing here uses select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
