"""Configurations that are well formed and say nonsense, a number where a table belongs: an answer comes all the same."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import yaml

from pullonce.runtimes.containerd import Wanted
from pullonce.runtimes.doctor import examine
from pullonce.runtimes.facts import Facts
from pullonce.runtimes.plans import plan_for
from pullonce.runtimes.toml_words import shown
from tests.support.runtime_files import OFFER, MemoryFiles
from tests.unit.runtimes.test_doctor import CONF, CONTAINERD, DAEMON, ENTRY, HOSTS, KUBELET, MIRROR, SEEN, STORAGE, V2, V3

ODD: tuple[Any, ...] = (5, True, "text", [], [1], ["text"], {}, {"x": 1}, [{"x": 1}])

REGISTRIES = 'mirrors:\n  "*":\n    endpoint: ["http://127.0.0.1:577"]\n  quay.io:\n    endpoint: ["https://q"]\n'


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def with_odd(values: dict[str, Any], path: tuple[Any, ...], odd: Any) -> dict[str, Any]:
    made = deepcopy(values)
    inner: Any = made
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = odd
    return made


def toml(values: dict[str, Any]) -> str:
    return "".join(f"{shown_key(key)} = {shown(value)}\n" for key, value in values.items())


def shown_key(key: str) -> str:
    return json.dumps(key)


@pytest.mark.parametrize(
    ("runtime", "path", "text"),
    [
        ("containerd", CONTAINERD, V2),
        ("containerd", CONTAINERD, V3),
        ("containerd", HOSTS, MIRROR),
        ("containerd", HOSTS, MIRROR.replace("resolve", "push")),
        ("docker", DAEMON, '{"registry-mirrors": ["http://127.0.0.1:577"], "features": {"containerd-snapshotter": true}}'),
        ("podman", CONF, ENTRY),
        ("podman", STORAGE, SEEN),
        ("crio", "/etc/crio/crio.conf", '[crio]\nstorage_option = ["a=b"]\n'),
        ("kubelet", KUBELET, "imageServiceEndpoint: unix:///run/pullonce/cri.sock\nserializeImagePulls: false\n"),
        ("k3s", "/etc/rancher/k3s/registries.yaml", REGISTRIES),
        ("k3s", "/etc/rancher/k3s/config.yaml", "snapshotter: pullonce\n"),
    ],
)
def test_whatever_stands_where_something_else_belongs(runtime: str, path: str, text: str) -> None:
    read = {"toml": tomllib.loads, "conf": tomllib.loads, "json": json.loads, "yaml": yaml.safe_load}[path.rpartition(".")[2]]
    write = {"json": json.dumps, "yaml": yaml.safe_dump}.get(path.rpartition(".")[2], toml)
    others = {CONTAINERD: V3 if "resolve" in text else V3.replace("config_path", "other")} if path == HOSTS else {HOSTS: MIRROR}
    values = read(text)
    for place in places(values):
        for odd in ODD:
            files = MemoryFiles({**others, path: write(with_odd(values, place, odd))})
            for major in (1, 2):
                found = examine(runtime, files, OFFER, Wanted(major=major), Facts())
                assert all(each.what and each.mend for each in found), (place, odd)
                made = plan_for(runtime, files, OFFER, Wanted(major=major))
                assert made.conflicts or not plan_for(runtime, files.with_plan(made), OFFER, Wanted(major=major)).changes, (
                    place,
                    odd,
                )
