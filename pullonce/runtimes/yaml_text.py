"""A YAML mapping that somebody wrote by hand: read with the lines on which its keys stand, and added to. Pure."""

import json
from copy import deepcopy
from typing import Any

import yaml

from pullonce.runtimes.trouble import CannotAdd, ConfigInvalid


class YamlText:
    """A document whose value is a mapping; an empty one counts as one without keys.

    Attributes:
        values: what it says.

    Raises:
        ConfigInvalid: it is no YAML, no mapping, or several documents.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            values = yaml.safe_load(text)
        except yaml.MarkedYAMLError as exc:
            mark = exc.problem_mark or exc.context_mark
            raise ConfigInvalid(f"this is no YAML: {exc.problem or exc.context}", line=mark.line + 1 if mark else 0) from None
        except (yaml.YAMLError, RecursionError, ValueError, TypeError, KeyError, AttributeError) as exc:
            # What a tag promises and the value does not keep comes out of the parser as any of these.
            raise ConfigInvalid(f"this is no YAML: {str(exc).partition(chr(10))[0]}") from None
        if values is not None and not isinstance(values, dict):
            raise ConfigInvalid("a mapping is expected", line=1)
        self.values: dict[str, Any] = values or {}
        self._node = node if isinstance(node, yaml.MappingNode) else None

    def get(self, *path: str) -> Any:
        """What stands there; None for nothing."""
        found: Any = self.values
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    def line(self, *path: str) -> int:
        """The line on which that stands, from 1; that of what holds it where it has none, 0 where nothing does."""
        node: Any = self._node
        line = 0
        for key in path:
            if not isinstance(node, yaml.MappingNode):
                break
            pair = next((pair for pair in node.value if pair[0].value == key), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        return line

    def with_key(self, key: str, value: Any) -> "YamlText":
        """The document with one more key. What says the same already stays as it is.

        Raises:
            CannotAdd: it is set otherwise, or the document is written so that nothing can be added.
        """
        if key in self.values:
            if self.values[key] == value:
                return self
            raise CannotAdd(f"{key} is {_told(self.values[key])}, and not {_told(value)}", line=self.line(key))
        head = self.text if not self.text or self.text.endswith("\n") else self.text + "\n"
        return self._checked(
            head + f"{json.dumps(key) if key == '*' else key}: {_shown(value)}\n", {**self.values, key: value}, key
        )

    def with_entry(self, key: str, name: str, value: Any) -> "YamlText":
        """The document with one more entry in a mapping under a key, which is made where there is none.

        Raises:
            CannotAdd: the entry is there and says something else, or the mapping is written so that nothing can be added.
        """
        there = self.values.get(key) or {}
        if not isinstance(there, dict):
            raise CannotAdd(f"{key} is no mapping", line=self.line(key))
        if name in there:
            if there[name] == value:
                return self
            raise CannotAdd(f"{key}.{name} is {_told(there[name])}, and not {_told(value)}", line=self.line(key, name))
        entry = f"{json.dumps(name)}: {_shown(value)}"
        lines = self.text.split("\n")
        wanted = deepcopy(self.values)
        wanted[key] = {**there, name: value}
        if key not in self.values:
            head = self.text if not self.text or self.text.endswith("\n") else self.text + "\n"
            return self._checked(f"{head}{key}:\n  {entry}\n", wanted, key)
        line = self.line(key)
        children = [pair[1] for pair in (self._node.value if self._node else ()) if pair[0].value == key]
        indent = 2
        if there and isinstance(children[0], yaml.MappingNode) and children[0].value:
            indent = children[0].value[0][0].start_mark.column
        return self._checked("\n".join([*lines[:line], " " * indent + entry, *lines[line:]]), wanted, key)

    def _checked(self, text: str, wanted: dict[str, Any], key: str) -> "YamlText":
        refused = CannotAdd(f"{key} is written so that nothing can be added by itself; add it by hand", line=self.line(key))
        try:
            made = YamlText(text)
        except ConfigInvalid:
            raise refused from None
        try:
            same = made.values == wanted
        except RecursionError:  # what holds itself
            raise refused from None
        if not same:
            raise refused
        return made


def _told(value: Any) -> str:
    """A value for a message; a date and what else JSON has no word for as Python writes it."""
    try:
        return json.dumps(value, default=str)
    except (TypeError, ValueError, RecursionError):  # keys that JSON does not have; what holds itself
        return repr(value)


def _shown(value: Any) -> str:
    """A value in flow style, which is JSON; plain where a string needs no quotes."""
    text = json.dumps(value)
    return (
        value if isinstance(value, str) and yaml.safe_load(value) == value and "#" not in value and ": " not in value else text
    )
