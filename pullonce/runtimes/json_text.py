"""A JSON object that somebody wrote by hand: read with the lines on which its keys stand, and added to. Pure."""

import json
import re
from typing import Any

from pullonce.runtimes.trouble import CannotAdd, ConfigInvalid

_SPACE = re.compile(r"[ \t\r\n]*")


class JsonText:
    """A document whose value is an object; an empty one counts as `{}`.

    Attributes:
        values: what it says.

    Raises:
        ConfigInvalid: it is no JSON, or no object.
    """

    def __init__(self, text: str) -> None:
        self.text = text if text.strip() else "{\n}\n"
        try:
            values = json.loads(self.text, object_pairs_hook=_once)
        except json.JSONDecodeError as exc:
            raise ConfigInvalid(f"this is no JSON: {exc.msg}", line=exc.lineno) from None
        except _Twice as exc:
            raise ConfigInvalid(f"{json.dumps(exc.args[0])} is there twice", line=self._line_of_text(exc.args[0])) from None
        except RecursionError:
            raise ConfigInvalid("this is nested too deeply", line=1) from None
        except ValueError as exc:  # a number of more digits than Python reads
            raise ConfigInvalid(f"this cannot be read: {exc}", line=1) from None
        if not isinstance(values, dict):
            raise ConfigInvalid("an object is expected", line=1)
        self.values: dict[str, Any] = values
        self._spans = dict(self._read_spans())

    def line(self, key: str) -> int:
        """The line on which a key of the object stands, from 1; 0 where there is none."""
        return self.text.count("\n", 0, self._spans[key][0]) + 1 if key in self._spans else 0

    def with_item(self, key: str, item: str) -> "JsonText":
        """The document with one more string at the beginning of an array of the object, which is made where there is none.

        Raises:
            CannotAdd: what is there is no array.
        """
        there = self.values.get(key)
        if isinstance(there, list) and item in there:
            return self
        if key not in self.values:
            made = self._with_first(f"{json.dumps(key)}: [{json.dumps(item)}]")
        elif isinstance(there, list):
            start = self._spans[key][1] + 1
            made = f"{self.text[:start]}{json.dumps(item)}{', ' if there else ''}{self.text[start:]}"
        else:
            raise CannotAdd(f"{json.dumps(key)} is no array", line=self.line(key))
        return JsonText(made)

    def _with_first(self, member: str) -> str:
        """The text with one more member at the beginning of the object, laid out as the first one is."""
        start = self.text.index("{") + 1
        rest = self.text[start:]
        if not self.values:
            return f"{self.text[:start]}\n  {member}\n{rest.lstrip()}"
        space = _SPACE.match(rest)
        return f"{self.text[:start]}{space[0] if space else ''}{member},{rest if rest[:1].isspace() else ' ' + rest}"

    def _read_spans(self) -> "list[tuple[str, tuple[int, int]]]":
        """Each key of the object: where it begins, and where its value does."""
        decoder, spans = json.JSONDecoder(), []
        at = self._after_space(self.text.index("{") + 1)
        while self.text[at] != "}":
            key, end = decoder.raw_decode(self.text, at)
            value = self._after_space(self._after_space(end) + 1)
            spans.append((key, (at, value)))
            at = self._after_space(decoder.raw_decode(self.text, value)[1])
            if self.text[at] == ",":
                at = self._after_space(at + 1)
        return spans

    def _after_space(self, at: int) -> int:
        found = _SPACE.match(self.text, at)
        return found.end() if found else at

    def _line_of_text(self, key: str) -> int:
        last = self.text.rfind(json.dumps(key))
        return self.text.count("\n", 0, last) + 1 if last >= 0 else 0


class _Twice(ValueError):
    """A key is there twice: which of them counts, is for nobody to guess."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))
    return made
