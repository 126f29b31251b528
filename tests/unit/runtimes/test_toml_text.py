"""Additions to TOML: what stands stays to the letter, and the outcome says what was there and what was added."""

from __future__ import annotations

import string
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pullonce.runtimes.toml_text import TomlText
from pullonce.runtimes.toml_words import dotted, shown
from pullonce.runtimes.trouble import CannotAdd, ConfigInvalid

HAND_WRITTEN = """\
# at the head
version = 2   # of the file

[plugins]
  [plugins."io.x.cri"]   # ours
    a = [
      "one", # [not.a.table]
    ]
    text = \"\"\"
[not.a.table]
b = 1
\"\"\"
    [plugins."io.x.cri".cni]
      bin_dir = '/usr/lib/cni'
[[list]]
  name = "first"
  [list.inner]
    x = 1
[[list]]
  name = "second"
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("version",), 2),
        (("plugins", "io.x.cri"), 5),
        (("plugins", "io.x.cri", "a"), 6),
        (("plugins", "io.x.cri", "a", 0), 6),
        (("plugins", "io.x.cri", "text"), 9),
        (("plugins", "io.x.cri", "cni", "bin_dir"), 14),
        (("list", 0, "name"), 16),
        (("list", 0, "inner", "x"), 18),
        (("list", 1, "name"), 20),
        (("plugins", "io.x.cri", "missing"), 5),
        (("nothing",), 0),
    ],
)
def test_everything_has_its_line(path: tuple[str | int, ...], line: int) -> None:
    assert TomlText(HAND_WRITTEN).line(*path) == line


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_keys_are_added_where_their_table_is(newline: str) -> None:
    text = HAND_WRITTEN.replace("\n", newline)
    made = TomlText(text).with_keys(("plugins", "io.x.cri", "cni"), {"conf_dir": "/etc/cni"})
    assert made.text == text.replace("cni'" + newline, f'cni\'{newline}      conf_dir = "/etc/cni"{newline}', 1)


@pytest.mark.parametrize(
    ("table", "before"),
    [
        ((), "version = 2   # of the file\nnew = 1\n"),
        (("plugins", "io.x.cri"), '"""\n    new = 1\n    [plugins."io.x.cri".cni]\n'),
        (("plugins",), "[plugins]\n  new = 1\n"),
        (("fresh", "a b"), '  name = "second"\n\n[fresh."a b"]\n  new = 1\n'),
    ],
)
def test_a_key_goes_where_it_counts(table: tuple[str, ...], before: str) -> None:
    made = TomlText(HAND_WRITTEN).with_keys(table, {"new": 1})
    assert before in made.text and made.get(*table, "new") == 1
    assert made.with_keys(table, {"new": 1}) is made, "a second time there is nothing to do"


def test_what_is_set_otherwise_stays_and_is_told_of() -> None:
    with pytest.raises(CannotAdd, match=r"cni\.bin_dir is \"/usr/lib/cni\", and not \"/opt\"") as caught:
        TomlText(HAND_WRITTEN).with_keys(("plugins", "io.x.cri", "cni"), {"bin_dir": "/opt"})
    assert caught.value.line == 14


@pytest.mark.parametrize(
    "text", ["a = { b = 1 }\n", "a.b = 1\n", "a = 1\n", "a = [1]\n", "[[a]]\nb = 1\n", "x = [{ a = 1 }]\na = { }\n"]
)
def test_a_table_that_cannot_be_added_to_is_left_alone(text: str) -> None:
    try:
        made = TomlText(text).with_keys(("a",), {"c": 2})
    except CannotAdd as exc:
        assert "a" in exc.reason
    else:
        assert made.get("a", "c") == 2 and made.text.startswith(text)


def test_elements_and_items_are_added_once() -> None:
    element = {"platform": "linux/amd64", "snapshotter": "pullonce", "mirror": [{"location": "l", "insecure": True}]}
    made = TomlText(HAND_WRITTEN).with_element(("plugins", "t", "unpack"), element)
    assert made.get("plugins", "t", "unpack") == [element] and made.with_element(("plugins", "t", "unpack"), element) is made
    made = TomlText(HAND_WRITTEN).with_item(("plugins", "io.x.cri"), "a", "zero")
    assert made.get("plugins", "io.x.cri", "a") == ["zero", "one"] and "# [not.a.table]" in made.text
    assert made.with_item(("plugins", "io.x.cri"), "a", "zero") is made
    assert TomlText("").with_item(("storage", "options"), "stores", "/v").text == '[storage.options]\n  stores = ["/v"]\n'


def test_a_table_above_the_others() -> None:
    made = TomlText('server = "https://s"\n\n[host."http://a"]\n  x = 1\n').with_keys(
        ("host", "http://b"), {"y": [1]}, above=True
    )
    assert list(made.get("host")) == ["http://b", "http://a"]


@pytest.mark.parametrize(
    ("text", "line"),
    [("a = 1\nb = \n", 2), ("a = 1\n[x\n", 2), ("a = 1\na = 2\n", 2), ('a = """\nopen', 2), ("x = 1\n\n\nwhat is this\n", 4)],
)
def test_what_is_no_toml_is_said_with_its_line(text: str, line: int) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        TomlText(text)
    assert caught.value.line == line


_words = st.text(string.ascii_letters + "_-. \"'äß\t", min_size=1, max_size=5)
_plain = st.one_of(st.integers(-5, 5), st.booleans(), _words)
_values = st.recursive(
    _plain, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_words, inner, max_size=3)), max_leaves=6
)
_tables = st.recursive(
    st.dictionaries(_words, _values, max_size=3), lambda inner: st.dictionaries(_words, inner, max_size=3), max_leaves=4
)


def written(values: dict[str, Any], draw: st.DataObject, path: tuple[str, ...] = ()) -> str:
    """A document that says this, by tables or in line as it comes."""
    lines, below = [], ""
    for key, value in values.items():
        if isinstance(value, dict) and draw.draw(st.booleans()):
            below += f"# {key!r}\n[{dotted((*path, key))}]\n{written(value, draw, (*path, key))}"
        else:
            lines.append(f"{dotted((key,))} = {shown(value)}{draw.draw(st.sampled_from(['', ' # said']))}\n")
    return "".join(lines) + below


@settings(deadline=None)
@given(_tables, st.lists(_words, max_size=3).map(tuple), _words, _plain, st.data())
def test_an_addition_adds_just_that_or_says_that_it_cannot(
    values: dict[str, Any], table: tuple[str, ...], key: str, value: object, data: st.DataObject
) -> None:
    text = written(values, data)
    assert tomllib.loads(text) == values
    document = TomlText(text)
    try:
        made = document.with_keys(table, {key: value})
    except CannotAdd:
        return
    assert made.get(*table, key) == value
    wanted = tomllib.loads(text)
    inner = wanted
    for each in table:
        inner = inner.setdefault(each, {})
    inner[key] = value
    assert tomllib.loads(made.text) == wanted
    remaining = iter(made.text.splitlines())
    assert all(line in remaining for line in text.splitlines()), "each line that was there is there, in its order"


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_with_a_line(text: str) -> None:
    try:
        made = TomlText(text)
    except ConfigInvalid as exc:
        assert exc.line > 0
    else:
        assert made.values == tomllib.loads(text)
