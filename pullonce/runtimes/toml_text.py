"""TOML that somebody wrote by hand: read with the lines on which things stand, and added to without touching the rest. Pure.

Whatever is added, the outcome is read again and has to say what was there and what was added, and nothing else.
Source: toml.io, v1.0.0.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from pullonce.runtimes.toml_words import dotted, element_lines, shown
from pullonce.runtimes.trouble import CannotAdd, ConfigInvalid

Path = tuple[str | int, ...]
"""Keys, and indexes into arrays, from the root."""


@dataclass(frozen=True, slots=True)
class _Statement:
    """One statement: lines `first` to `end` (without it), from 0."""

    path: Path
    first: int
    end: int
    opens: str
    """`[` for a table, `[[` for one more of an array of tables, nothing for keys."""


class TomlText:
    """A document.

    Attributes:
        values: what it says.

    Raises:
        ConfigInvalid: it is no TOML.
    """

    def __init__(self, text: str) -> None:
        try:
            self.values: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as exc:
            at = re.search(r"at line (\d+)", str(exc))
            line = int(at[1]) if at else text.count("\n") + 1
            raise ConfigInvalid(f"this is no TOML: {str(exc).partition(' (at ')[0]}", line=line) from None
        except RecursionError:
            raise ConfigInvalid("this is nested too deeply", line=1) from None
        except ValueError as exc:  # a number of more digits than Python reads, a date that there is not
            raise ConfigInvalid(f"this cannot be read: {exc}", line=1) from None
        self.text = text
        self._lines = text.split("\n")
        self._statements = list(_statements(self._lines))

    def get(self, *path: str | int) -> Any:
        """What stands there; None for nothing."""
        found: Any = self.values
        for key in path:
            try:
                found = found[key]
            except (KeyError, IndexError, TypeError):
                return None
        return found

    def line(self, *path: str | int) -> int:
        """The line on which that stands, from 1; that of what holds it where it has none of its own, 0 where nothing does."""
        for length in range(len(path), 0, -1):
            for each in self._statements:
                if each.path[:length] == path[:length]:
                    return each.first + 1
        return 0

    # -- adding --------------------------------------------------------------------------------------------------------

    def with_keys(self, table: tuple[str, ...], keys: Mapping[str, Any], *, above: bool = False) -> "TomlText":
        """The document with some keys in a table. What says the same already stays as it is.

        Args:
            table: its keys from the root; nothing for the root itself.
            above: a table that is new comes before all others, where the order counts.

        Raises:
            CannotAdd: one of them is set otherwise, or the table is written so that nothing can be added.
        """
        there = self.get(*table)
        if there is not None and not isinstance(there, dict):
            raise CannotAdd(f"{dotted(table)} is no table", line=self.line(*table))
        missing: dict[str, Any] = {}
        for key, value in keys.items():
            if there is None or key not in there:
                missing[key] = value
            elif there[key] != value:
                where = self.line(*table, key)
                raise CannotAdd(f"{dotted((*table, key))} is {shown(there[key])}, and not {shown(value)}", line=where)
        if not missing:
            return self
        wanted = deepcopy(self.values)
        self._within(wanted, table).update(missing)
        return self._checked(self._with_lines(table, missing, above=above), wanted, table)

    def with_element(self, array: tuple[str, ...], element: Mapping[str, Any]) -> "TomlText":
        """The document with one more table in an array of tables, unless it has the same.

        Raises:
            CannotAdd: the array is written so that nothing can be added.
        """
        there = self.get(*array)
        if isinstance(there, list) and dict(element) in there:
            return self
        wanted = deepcopy(self.values)
        target = self._within(wanted, array[:-1])
        if not isinstance(target.setdefault(array[-1], []), list):
            raise CannotAdd(f"{dotted(array)} is no array of tables", line=self.line(*array))
        target[array[-1]].append(dict(element))
        return self._checked(self._appended(element_lines(array, element)), wanted, array)

    def with_item(self, table: tuple[str, ...], key: str, item: str) -> "TomlText":
        """The document with one more string at the beginning of an array, which is made where there is none.

        Raises:
            CannotAdd: it is no array, or written so that nothing can be added.
        """
        there = self.get(*table, key)
        if there is None:
            return self.with_keys(table, {key: [item]})
        if not isinstance(there, list):
            raise CannotAdd(f"{dotted((*table, key))} is no array", line=self.line(*table, key))
        if item in there:
            return self
        wanted = deepcopy(self.values)
        target = self._within(wanted, table)
        target[key] = [item, *there]
        for each in self._statements:
            if each.path[: len(table) + 1] == (*table, key) and not each.opens:
                before, bracket, rest = "\n".join(self._lines[each.first : each.end]).partition("[")
                made = [*self._lines[: each.first], f"{before}{bracket}{shown(item)}, {rest}", *self._lines[each.end :]]
                return self._checked("\n".join(made), wanted, (*table, key))
        raise CannotAdd(f"{dotted((*table, key))} is written so that nothing can be added", line=self.line(*table, key))

    def _within(self, values: dict[str, Any], table: tuple[str, ...]) -> dict[str, Any]:
        """A table of some values, made where there is none."""
        for position, key in enumerate(table):
            values = values.setdefault(key, {})
            if not isinstance(values, dict):
                above = table[: position + 1]
                raise CannotAdd(f"{dotted(above)} is no table", line=self.line(*above))
        return values

    def _with_lines(self, table: tuple[str, ...], keys: Mapping[str, Any], *, above: bool) -> str:
        said = [f"{dotted((key,))} = {shown(value)}" for key, value in keys.items()]
        if not table:
            return self._at(self._end_of_root(), said)
        for each in self._statements:
            if each.opens == "[" and each.path == table:
                header = self._lines[each.first]
                indent = self._indent_within(each) or header[: len(header) - len(header.lstrip())] + "  "
                return self._at(self._end_of_keys(each), [indent + line for line in said])
        block = [f"[{dotted(table)}]", *(f"  {line}" for line in said)]
        opened = [each.first for each in self._statements if each.opens]
        if above and opened:
            return self._at(opened[0], [*block, ""])
        return self._appended(block)

    def _end_of_root(self) -> int:
        """The line behind the keys of the root, or behind the comment at the beginning."""
        ends = 0
        for each in self._statements:
            if each.opens:
                return ends or each.first
            ends = each.end
        return ends or len([line for line in self._lines if line.startswith("#")])

    def _end_of_keys(self, header: _Statement) -> int:
        """The line behind the last key that stands under a header."""
        end = header.end
        for each in self._statements:
            if each.first >= header.end:
                if each.opens:
                    break
                end = each.end
        return end

    def _indent_within(self, header: _Statement) -> str:
        """How the keys of a table are indented."""
        following = next((each for each in self._statements if each.first >= header.end), None)
        if following is None or following.opens:
            return ""
        line = self._lines[following.first]
        return line[: len(line) - len(line.lstrip())]

    def _at(self, number: int, lines: list[str]) -> str:
        end = "\r" if "\r\n" in self.text else ""
        return "\n".join([*self._lines[:number], *(line + end for line in lines), *self._lines[number:]])

    def _appended(self, lines: list[str]) -> str:
        newline = "\r\n" if "\r\n" in self.text else "\n"
        head = self.text if not self.text or self.text.endswith("\n") else self.text + newline
        return head + (newline if head.strip() else "") + newline.join(lines) + newline

    def _checked(self, text: str, wanted: dict[str, Any], what: tuple[str, ...]) -> "TomlText":
        line = self.line(*what)
        refused = CannotAdd(f"{dotted(what)} is written so that nothing can be added by itself; add it by hand", line=line)
        try:
            made = TomlText(text)
        except ConfigInvalid:
            raise refused from None
        # NaN is unequal to itself; nobody's configuration has it.
        if made.values != wanted:
            raise refused
        return made


def _statements(lines: list[str]) -> Iterator[_Statement]:
    """The statements of a document that is known to be one."""
    counts: dict[Path, int] = {}
    table: Path = ()
    number = 0
    while number < len(lines):
        line = lines[number].strip()
        if not line or line.startswith("#"):
            number += 1
            continue
        if line.startswith("["):
            opens = "[[" if line.startswith("[[") else "["
            table = _resolved(_only_path(tomllib.loads(line)), counts, grow=opens == "[[")
            yield _Statement(table, number, number + 1, opens)
            number += 1
            continue
        first, said = number, None
        while said is None:
            number += 1
            try:
                said = tomllib.loads("\n".join(lines[first:number]) + "\n")
            except tomllib.TOMLDecodeError:
                if number >= len(lines):
                    return
        for path in _paths(said):
            yield _Statement((*table, *path), first, number, "")


def _only_path(said: dict[str, Any]) -> tuple[str, ...]:
    """The key that a header names."""
    path: list[str] = []
    within: Any = said
    while isinstance(within, dict) and within:
        key, within = next(iter(within.items()))
        path.append(key)
    return tuple(path)


def _resolved(path: tuple[str, ...], counts: dict[Path, int], *, grow: bool) -> Path:
    """The same with the index of the last element wherever a key is that of an array of tables."""
    found: Path = ()
    for position, key in enumerate(path):
        found = (*found, key)
        if grow and position == len(path) - 1:
            counts[found] = counts.get(found, 0) + 1
        if found in counts:
            found = (*found, counts[found] - 1)
    return found


def _paths(said: Any) -> Iterator[Path]:
    """Every key of a value, those of what it holds behind it."""
    items = said.items() if isinstance(said, dict) else enumerate(said)
    for key, value in items:
        yield (key,)
        if isinstance(value, dict | list):
            yield from ((key, *path) for path in _paths(value))
