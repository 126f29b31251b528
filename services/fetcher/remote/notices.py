"""What a registry says beside its answer, and people should know: warnings, and a limit that is nearly used up. Pure.

Sources: distribution-spec 1.1, "Warnings"; RFC 7234 section 5.5, for the header's form; docker's
documentation of `ratelimit-limit` and `ratelimit-remaining` (`100;w=21600`: so many in so many seconds).
"""

import re
from collections.abc import Callable, Iterable, Mapping

from pullonce.printable import printable

_WARNING = re.compile(r'\s*299\s+(?:[^\s"]+\s+)?"(?P<text>(?:[^"\\]|\\.)*)"')
"""`299 - "text"`: the one code that the spec uses. More of them in one header are separated by commas."""
_LIMIT = re.compile(r"\s*(?P<count>\d{1,9})\s*(?:[;,].*)?")
_WINDOW = re.compile(r";\s*w=(?P<seconds>\d{1,9})")
_LOW = 0.1
_LONGEST = 300
_MOST = 100
"""Warnings of one host, and hosts, that are remembered: a registry must not fill our memory or log with what it makes up."""


class Notices:
    """Remembers what was said already, so that it is said once."""

    def __init__(self) -> None:
        self._said: dict[str, set[str]] = {}
        self._low: set[tuple[str, str]] = set()

    def heard(
        self,
        host: str,
        credential: str,
        headers: Mapping[str, str],
        warnings: Iterable[str] = (),
        clean: Callable[[str], str] = str,
    ) -> list[str]:
        """Lines for the log, out of the headers of one answer.

        Args:
            host: whose answer it is.
            credential: name of the one that it was asked with; limits are counted for each.
            headers: found under names in any case.
            warnings: the `Warning` headers.
            clean: takes secrets out of what the registry says.
        """
        return [*self._warnings(host, warnings, clean), *self._limits(host, credential, headers)]

    def _warnings(self, host: str, warnings: Iterable[str], clean: Callable[[str], str]) -> list[str]:
        lines = []
        for header in warnings:
            for found in _WARNING.finditer(header):
                text = printable(clean(re.sub(r"\\(.)", r"\1", found["text"])), _LONGEST)
                if host not in self._said and len(self._said) >= _MOST:
                    continue
                said = self._said.setdefault(host, set())
                if text and text not in said and len(said) < _MOST:
                    said.add(text)
                    lines.append(f"{host} warns: {text}")
        return lines

    def _limits(self, host: str, credential: str, headers: Mapping[str, str]) -> list[str]:
        """Once while less than a tenth is left, and again after there was more."""
        limit, left = (_LIMIT.fullmatch(headers.get(f"RateLimit-{name}", "")) for name in ("Limit", "Remaining"))
        if not limit or not left or not int(limit["count"]):
            return []
        door = (host, credential)
        if int(left["count"]) >= _LOW * int(limit["count"]):
            self._low.discard(door)
            return []
        if door in self._low or len(self._low) >= _MOST:
            return []
        self._low.add(door)
        window = _WINDOW.search(headers.get("RateLimit-Limit", ""))
        within = f" in {int(window['seconds'])} s" if window else ""
        hint = "" if credential else "; a login may have a higher limit"
        return [f"{host} lets us pull {int(left['count'])} more times of {int(limit['count'])}{within}{hint}"]
