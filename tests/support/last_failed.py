"""`python -m tests.support.last_failed`: the names of the tests that failed in the last run of pytest here, on one line."""

import json
from pathlib import Path

_CACHE = Path(".pytest_cache/v/cache/lastfailed")


def names(cache: Path = _CACHE) -> list[str]:
    """What pytest would run again by `--last-failed`."""
    try:
        return sorted(json.loads(cache.read_text()))
    except FileNotFoundError:
        return []


if __name__ == "__main__":
    print(", ".join(names()))
