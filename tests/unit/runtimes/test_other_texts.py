"""Additions to JSON and YAML, with the same promises."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pullonce.runtimes.json_text import JsonText
from pullonce.runtimes.toml_text import TomlText
from pullonce.runtimes.trouble import CannotAdd, ConfigInvalid
from pullonce.runtimes.yaml_text import YamlText


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", '{\n  "m": ["x"]\n}\n'),
        ("{}", '{\n  "m": ["x"]\n}'),
        ('{"a": 1}', '{"m": ["x"], "a": 1}'),
        ('{\n\t"a": 1,\n\t"b": {}\n}\n', '{\n\t"m": ["x"],\n\t"a": 1,\n\t"b": {}\n}\n'),
        ('{"a": {"m": 1}, "m": []}', '{"a": {"m": 1}, "m": ["x"]}'),
        ('{\n  "m": [\n    "y"\n  ]\n}', '{\n  "m": ["x", \n    "y"\n  ]\n}'),
        ('{"m": ["y", "x"]}', '{"m": ["y", "x"]}'),
    ],
)
def test_an_item_of_json(text: str, wanted: str) -> None:
    assert JsonText(text).with_item("m", "x").text == wanted


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{\n "a": 1,\n}', 3),
        ("[]", 1),
        ("{", 1),
        ('{\n"a": 1,\n"a": 2}', 3),
        ("null", 1),
        ('{"a": 1} x', 1),
        ("[" * 100_000, 1),
        ('{"a": ' + "9" * 5000 + "}", 1),
    ],
)
def test_what_is_no_object_of_json_is_said_with_its_line(text: str, line: int) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        JsonText(text)
    assert caught.value.line == line


@pytest.mark.parametrize("text", ["a = " + "9" * 5000, "a = " + "[" * 100_000])
def test_what_python_does_not_read_of_toml_is_said(text: str) -> None:
    with pytest.raises(ConfigInvalid):
        TomlText(text)


@pytest.mark.parametrize(
    "text", ["a: !!bool maybe\n", "a: !!int x\n", "a: !!float x\n", "a: !!timestamp x\n", "? [1]\n: 2\n", "a: !!binary ü\n",
             "a: 2026-99-01\n", "a: " + "9" * 5000 + "\n", "a: " + "[" * 100_000, "a: !!set [1]\n", "a: !!omap {}\n"]
)  # fmt: skip
def test_what_yaml_does_not_keep_of_its_word_is_said(text: str) -> None:
    with pytest.raises(ConfigInvalid):
        YamlText(text)


@pytest.mark.parametrize("text", ["k: 2026-01-01\n", "k: &a [*a]\n", "k: &a {b: *a}\n", "k: {1: 2}\n", "k: !!set {a}\n",
                                  "k: !!binary aGk=\n", "k: {2026-01-01: 1}\n"])  # fmt: skip
def test_values_that_json_has_no_word_for_are_told_of(text: str) -> None:
    with pytest.raises(CannotAdd):
        YamlText(text).with_key("k", "unix:///x")
    with suppress(CannotAdd):
        assert YamlText(text).with_key("new", "x").values["new"] == "x"
    with pytest.raises(CannotAdd):
        YamlText(f"m:\n  {text}").with_entry("m", "k", "x")
    with suppress(CannotAdd):
        YamlText(f"m:\n  {text}").with_entry("m", "new", "x")


_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["m", "a", "b {", "ü"]), _json, max_size=3), st.sampled_from([None, 1, 2, "\t"]))
def test_json_says_what_it_said_and_the_item(values: dict[str, object], indent: int | str | None) -> None:
    text = json.dumps(values, indent=indent, ensure_ascii=False)
    there = values.get("m", [])
    if not isinstance(there, list):
        with pytest.raises(CannotAdd):
            JsonText(text).with_item("m", "x")
        return
    made = JsonText(text).with_item("m", "x")
    assert json.loads(made.text) == {**values, "m": there if "x" in there else ["x", *there]}
    assert made.with_item("m", "x") is made
    assert all(JsonText(text).line(key) > 0 for key in values)


REGISTRIES = """\
# ours
mirrors:
  docker.io:   # the hub
    endpoint:
      - "https://mine"
configs: {}
"""


def test_entries_of_yaml() -> None:
    made = YamlText(REGISTRIES).with_entry("mirrors", "*", {"endpoint": ["http://m"]})
    assert made.text == REGISTRIES.replace("mirrors:\n", 'mirrors:\n  "*": {"endpoint": ["http://m"]}\n')
    assert made.with_entry("mirrors", "*", {"endpoint": ["http://m"]}) is made
    assert YamlText("").with_entry("mirrors", "*", {"e": 1}).values == {"mirrors": {"*": {"e": 1}}}
    assert YamlText(REGISTRIES).line("mirrors", "docker.io", "endpoint") == 4
    assert YamlText("mirrors:\n").with_entry("mirrors", "*", 1).values == {"mirrors": {"*": 1}}


@pytest.mark.parametrize("text", ["mirrors: {a: 1}\n", "{mirrors: {}}\n", "mirrors: {}\n", "- a\n", "mirrors: 5\n"])
def test_yaml_that_cannot_be_added_to_is_left_alone(text: str) -> None:
    with pytest.raises((CannotAdd, ConfigInvalid)):
        YamlText(text).with_entry("mirrors", "*", {"e": 1})


def test_a_key_of_yaml() -> None:
    text = "kind: KubeletConfiguration\nlist:\n- a"
    made = YamlText(text).with_key("imageServiceEndpoint", "unix:///run/x")
    assert (
        made.text == f"{text}\nimageServiceEndpoint: unix:///run/x\n" and made.with_key("kind", "KubeletConfiguration") is made
    )
    with pytest.raises(CannotAdd, match="kind is"):
        made.with_key("kind", "Other")


@pytest.mark.parametrize(
    ("text", "line"), [("a: [\n", 2), ("a: 1\n b: 2\n", 2), ("- 1\n", 1), ("a: 1\n---\nb: 2\n", 2), ("a: \t@\n", 1)]
)
def test_what_is_no_mapping_of_yaml_is_said_with_its_line(text: str, line: int) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        YamlText(text)
    assert caught.value.line == line


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "mirrors", "b"]), _json, max_size=3), st.booleans())
def test_yaml_says_what_it_said_and_the_key(values: dict[str, object], flow: bool) -> None:
    text = yaml.safe_dump(values, default_flow_style=flow)
    try:
        made = YamlText(text).with_key("new", "unix:///x")
    except CannotAdd:
        return
    assert yaml.safe_load(made.text) == {**values, "new": "unix:///x"}
    assert made.text.startswith(text) or not values
