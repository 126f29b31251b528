"""JSON as Go's encoding/json reads it into the structs of the image-spec: what registries, containerd and docker take. Pure.

`null` stands for what is not there; bytes that are no UTF-8, and lone surrogates, become U+FFFD; names of fields are found in
any case, the last one counts; what is not named is skipped. Strict all the same: a number of bytes is a whole number of 64
bits, a text is a text, and what is no JSON is refused, with a byte order mark, `NaN`, or nested without end.

Source: the documentation of Go's encoding/json, `Unmarshal`. Where duplicate fields are structs, Go merges them; here the last
one counts.
"""

import json
import re
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, NewType, TypeVar, cast, get_args, get_origin

import msgspec

T = TypeVar("T")
Fill = Callable[[Any, str], Any]

_SURROGATE = re.compile("[\ud800-\udfff]")
_FOLDS = str.maketrans({0x17F: "s", 0x212A: "k"})
"""The two letters beyond ASCII that Go takes for letters of ASCII: the long s, and the sign of Kelvin."""


class NoDocument(ValueError):
    """The bytes are no JSON, or not of the expected form; the message says where."""


def decode(content: bytes, kind: type[T]) -> T:
    """Read JSON into a struct.

    Raises:
        NoDocument: it is none.
    """
    return fill(parse(content), kind)


def parse(content: bytes) -> Any:
    """Read JSON as dicts, lists, texts, numbers. Texts can be encoded as UTF-8 again. Raises NoDocument."""
    text = content.decode("utf-8", "replace")
    try:
        value = json.loads(text, parse_constant=_refuse)
        return _clean(value) if "\\u" in text else value
    except ValueError as exc:
        raise NoDocument(f"it is no JSON: {exc}") from None
    except RecursionError:
        raise NoDocument("it is no JSON that can be read: nested too deep") from None


def fill(value: Any, kind: type[T]) -> T:
    """Make a struct of what `parse` read. Raises NoDocument."""
    return cast(T, _filler(cast(Any, kind))(value, "$"))


def fields(value: dict[str, Any]) -> dict[str, Any]:
    """An object by its names in lower case; of several that differ in case only, the last one."""
    return {_fold(name): each for name, each in value.items()}


def _fold(name: str) -> str:
    return name.translate(_FOLDS).lower()


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _clean(value: Any) -> Any:
    match value:
        case str():
            return _SURROGATE.sub("\ufffd", value)
        case list():
            return [_clean(each) for each in value]
        case dict():
            return {_clean(name): _clean(each) for name, each in value.items()}
        case _:
            return value


@cache
def _filler(kind: Any) -> Fill:
    """How a value of some type is made."""
    if isinstance(kind, NewType):
        return _filler(kind.__supertype__)
    if get_origin(kind) is Annotated:
        return _filler(get_args(kind)[0])
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _struct(kind)
    arguments = get_args(kind)
    if type(None) in arguments:
        (other,) = (each for each in arguments if each is not type(None))
        return lambda value, where: None if value is None else _filler(other)(value, where)
    if get_origin(kind) is tuple:
        return lambda value, where: tuple(
            _filler(arguments[0])(each, f"{where}[{number}]") for number, each in enumerate(_typed(value, list, where))
        )
    if get_origin(kind) is dict:
        return lambda value, where: {
            name: _filler(arguments[1])(each, f"{where}.{name[:60]}") for name, each in _typed(value, dict, where).items()
        }
    return {str: _text, int: _whole}[kind]


def _struct(kind: type[msgspec.Struct]) -> Fill:
    known = [(each.name, _fold(each.encode_name), each.type) for each in msgspec.structs.fields(kind)]

    def make(value: Any, where: str) -> Any:
        given = fields(_typed(value, dict, where))
        return kind(**{name: _filler(of)(given.get(key), f"{where}.{key}") for name, key, of in known})

    return make


def _text(value: Any, where: str) -> str:
    return cast(str, _typed(value, str, where))


def _whole(value: Any, where: str) -> int:
    number = cast(int, _typed(value, int, where))
    if isinstance(number, bool) or not -(1 << 63) <= number < 1 << 63:
        raise NoDocument(f"{where} is no whole number of 64 bits")
    return number


def _typed(value: Any, kind: type, where: str) -> Any:
    """A value, or what Go has in place of `null`."""
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise NoDocument(f"{where} is {_SAID.get(type(value), 'something else')}, expected {_SAID[kind]}")
    return value


_SAID = {dict: "an object", list: "an array", str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
