"""The filters of List: a record passes if any of them lets it; each is conditions with commas between them. Pure.

    labels."containerd.io/snapshot.ref"==sha256:…,parent=="pullonce/sha256:…"      what containerd asks after a Prepare

A condition is a field (`name`, `parent`, `kind`, `labels.<key>`, parts in quotes where they need it) alone, for "has one", or
with `==`, `!=` or `~=` (a regular expression) and a value. Source: containerd, pkg/filters.
"""

import json
import re
from collections.abc import Callable, Iterable

from pullonce.errors import PullonceError
from schemas.oci import ChainID
from services.gateway.snapshotter.records import Record

Filter = Callable[[Record], bool]

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_CONDITION = re.compile(
    rf"(?P<field>[A-Za-z][\w]*)(?:\.(?P<key>{_QUOTED}|[\w./-]+?))?(?:(?P<operator>==|!=|~=)(?P<value>{_QUOTED}|[^,\"]*))?(?:,|$)"
)
_AFTER_PREPARE = re.compile(rf'labels\."containerd\.io/snapshot\.ref"==(sha256:[0-9a-f]{{64}}),parent==({_QUOTED})')
_FIELDS: dict[str, Callable[[Record], str]] = {
    "name": lambda record: record.name,
    "parent": lambda record: record.parent,
    "kind": lambda record: record.kind.name.capitalize(),
}


class FilterInvalid(PullonceError):
    """A filter cannot be understood."""


def asks_for(filters: list[str]) -> tuple[ChainID, str] | None:
    """The layer and the parent that containerd asks for after a Prepare; None for every other filter."""
    found = _AFTER_PREPARE.fullmatch(filters[0]) if len(filters) == 1 else None
    return (ChainID(found[1]), _plain(found[2])) if found else None


def passes(filters: Iterable[str]) -> Filter:
    """Whether a record passes any of some filters, or all do where there are none; raises FilterInvalid."""
    made = [_filter(each) for each in filters]
    return lambda record: not made or any(each(record) for each in made)


def _filter(text: str) -> Filter:
    conditions, at = [], 0
    while at < len(text):
        found = _CONDITION.match(text, at)
        if found is None:
            raise FilterInvalid(f"the filter {text!r} cannot be read from character {at + 1} on")
        conditions.append(_condition(found))
        at = found.end()
    return lambda record: all(each(record) for each in conditions)


def _condition(found: re.Match[str]) -> Filter:
    read = _reader(found["field"], _plain(found["key"] or ""))
    value = _plain(found["value"] or "")
    match found["operator"]:
        case None:
            return lambda record: bool(read(record))
        case "==":
            return lambda record: read(record) == value
        case "!=":
            return lambda record: read(record) != value
    try:
        pattern = re.compile(value)
    except re.error as exc:
        raise FilterInvalid(f"{value!r} is no regular expression: {exc}") from None
    return lambda record: pattern.search(read(record)) is not None


def _reader(field: str, key: str) -> Callable[[Record], str]:
    if field == "labels" and key:
        return lambda record: record.labels.get(key, "")
    if field in _FIELDS and not key:
        return _FIELDS[field]
    known = ", ".join(_FIELDS)
    raise FilterInvalid(f"snapshots have no field {field}{f'.{key}' if key else ''}: expected {known} or labels.<key>")


def _plain(text: str) -> str:
    try:
        return str(json.loads(text)) if text.startswith('"') else text
    except ValueError:
        raise FilterInvalid(f"{text} is no quoted text") from None
