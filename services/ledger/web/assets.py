"""The files of the page, read once: what is served is what lies in `page/`, and nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_PAGE = Path(__file__).with_name("page")
START = "index.html"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file."""

    body: bytes
    kind: str
    """Its media type."""
    tag: str
    """Changes with the body."""


def load(directory: Path = _PAGE) -> dict[str, Asset]:
    """All files by name."""
    found = {}
    for path in sorted(directory.iterdir()):
        if path.suffix in _TYPES:
            body = path.read_bytes()
            found[path.name] = Asset(body, _TYPES[path.suffix], hashlib.sha256(body).hexdigest()[:16])
    return found
