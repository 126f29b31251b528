"""Keys, values and tables as TOML writes them. Pure."""

import re
from collections.abc import Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def element_lines(array: tuple[str, ...], element: Mapping[str, Any]) -> list[str]:
    """A table of an array of tables, those that it holds behind it."""
    plain = {key: value for key, value in element.items() if not _holds_tables(value)}
    lines = [f"[[{dotted(array)}]]", *(f"  {dotted((key,))} = {shown(value)}" for key, value in plain.items())]
    for key, value in element.items():
        if _holds_tables(value):
            lines += [line for each in value for line in element_lines((*array, key), each)]
    return lines


def _holds_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)


def dotted(path: tuple[str | int, ...]) -> str:
    """A key as TOML writes it."""
    return ".".join(str(key) if _BARE.fullmatch(str(key)) else _quoted(str(key)) for key in path) or "the root"


def shown(value: Any) -> str:
    """A value as TOML writes it."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _quoted(value)
        case list():
            return f"[{', '.join(map(shown, value))}]"
        case dict():
            return "{ " + ", ".join(f"{dotted((key,))} = {shown(each)}" for key, each in value.items()) + " }"
        case _:
            return str(value)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return (
        '"'
        + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" if ord(c) < 65536 else f"\\U{ord(c):08x}" for c in escaped)
        + '"'
    )
