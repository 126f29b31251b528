"""An image's config as a stranger may have written it: what passes can be started, and what cannot is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pullonce.bundle.errors import ConfigInvalid
from pullonce.bundle.image import read


def of(**config: Any) -> bytes:
    return json.dumps({"os": "linux", "architecture": "amd64", "config": config}).encode()


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"Env": None, "Cmd": None, "Volumes": None, "Labels": None, "ExposedPorts": None, "Entrypoint": None},
        {"Env": ["A="], "Cmd": ["a", ""], "WorkingDir": "/a/../b", "Volumes": {"/data": {}}, "Unknown": [1, {"x": None}]},
        {"Env": ["A=" + "x" * 100_000], "Labels": {"a": "\0"}},
    ],
)
def test_what_can_be_started_is_read(config: dict[str, Any]) -> None:
    read(of(**config))


@pytest.mark.parametrize("content", [b"{}", b'{"config":null}', b'{"CONFIG":{"cmd":["x"]}}'])
def test_a_config_may_say_nothing(content: bytes) -> None:
    assert read(content).config.env == ()


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"Env": ["A=b\0C=d"]}, "Env has a NUL byte"),
        ({"Env": ["novalue"]}, "expected NAME=VALUE"),
        ({"Env": ["=value"]}, "expected NAME=VALUE"),
        ({"Env": [""]}, "expected NAME=VALUE"),
        ({"Env": ["A=" + "x" * (128 << 10)]}, "Linux's limit"),
        ({"Env": [f"A{n}=" + "x" * 100_000 for n in range(22)]}, "at most"),
        ({"Cmd": ["a\0"]}, "Cmd has a NUL byte"),
        ({"Entrypoint": ["a" * (128 << 10)]}, "Linux's limit"),
        ({"User": "a\0b"}, "User has a NUL byte"),
        ({"StopSignal": "\0"}, "StopSignal has a NUL byte"),
        ({"WorkingDir": "here"}, "expected an absolute path"),
        ({"WorkingDir": "/a\0"}, "NUL byte"),
        ({"WorkingDir": "/" + "a" * 4096}, "longer than a path"),
        ({"Cmd": "sh -c x"}, "cannot be read"),
        ({"Env": {"A": "b"}}, "cannot be read"),
        ({"Labels": {"a": 1}}, "cannot be read"),
        ({"User": 0}, "cannot be read"),
    ],
)
def test_what_cannot_is_told(config: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigInvalid, match=told):
        read(of(**config))


@pytest.mark.parametrize("content", [b"", b"[]", b"null x", b'"text"', b"\xff\xfe", b"[" * 100_000])
def test_no_document_is_told(content: bytes) -> None:
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        read(content)


def test_bytes_that_are_no_text_can_be_written_down() -> None:
    found = read(b'{"config":{"Env":["A=\xff\\ud800"],"Cmd":["\\udc80"]}}')
    json.dumps([found.config.env, found.config.cmd]).encode()
    assert found.config.env == ("A=\ufffd\ufffd",)
