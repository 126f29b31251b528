"""The arrows of the house: which module may import which. Read from the source, nothing is executed.

Imports inside functions and under TYPE_CHECKING count too: an arrow is about what a module knows, not about when.
"""

import ast
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOTS = ("schemas", "pullonce", "services")

THIRD_PARTY = {
    "msgspec": ("*",),
    "nats": ("pullonce.bus.nats*",),
    "aiohttp": (
        "services.fetcher.registry",
        "services.fetcher.transport",
        "services.fetcher.answers",
        "services.fetcher.auth.*",
        "services.ledger.web",
        "pullonce.demo*",
    ),
    "yarl": ("services.fetcher.registry", "services.fetcher.transport", "services.fetcher.auth.*"),
    "duckdb": ("services.ledger.*",),
    "uvloop": ("pullonce.runtime",),
    "prometheus_client": ("pullonce.metrics",),
    "opentelemetry": ("pullonce.spans_otel",),
    "nacl": ("pullonce.nkeys",),
    "isal": ("services.unpacker.*",),
    "zstandard": ("services.unpacker.*",),
}
"""Package → the modules that may import it. What is not listed may be imported by nobody."""

PURE = (
    "schemas",
    "schemas.*",
    "pullonce.oci",
    "pullonce.oci.*",
    "pullonce.errors",
    "pullonce.identity",
    "pullonce.layer_view",
    "pullonce.lifecycle.choice",
    "services.coordinator.board",
    "services.coordinator.claim",
    "services.coordinator.flight",
    "services.coordinator.intents",
    "services.coordinator.key",
    "services.coordinator.pursuit",
    "services.coordinator.waits",
    "services.fetcher.auth.challenge",
    "services.fetcher.failures",
    "services.fetcher.hosts",
    "services.fetcher.manifest",
    "services.fetcher.notices",
    "services.fetcher.ranges",
    "services.ledger.access",
    "services.ledger.explain",
    "services.ledger.fold",
    "services.ledger.staging",
    "services.ledger.table",
    "services.ledger.tables",
    "services.ledger.views",
    "services.unpacker.entry",
    "services.unpacker.extensions",
    "services.unpacker.fields",
    "services.unpacker.invalid",
    "services.unpacker.plan",
    "services.unpacker.stream",
    "services.unpacker.tar",
)
"""Modules that answer from their arguments alone."""

IMPURE = frozenset(
    ("asyncio", "logging", "os", "random", "secrets", "selectors", "signal", "socket", "subprocess", "threading", "time")
)
"""Parts of the standard library by which a module would touch the world, the clock or chance."""

FRONT = ("pullonce.client", "pullonce.full_pull", "pullonce.cli*", "pullonce.embedded*", "pullonce.demo*", "*.__main__")
"""Where everything is put together. Only these name an implementation of the bus, settings and the runtime."""

WIRING = {
    "pullonce.bus.nats*": ("pullonce.bus.nats*",),
    "pullonce.config": ("pullonce.bus.nats*", "pullonce.metrics_http", "pullonce.runtime", "services.*.settings"),
    "pullonce.runtime": (),
}
"""Module → who may import it beside the front: an implementation knows its own settings."""

STORAGE = tuple(f"pullonce.{name}" for name in ("content", "disk", "images", "ingest", "pins", "snapshots", "uses"))


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def modules() -> dict[str, Path]:
    """Every module of the three roots, by import name."""
    found: dict[str, Path] = {}
    for path in (path for root in ROOTS for path in sorted((ROOT / root).rglob("*.py"))):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(module: str, source: str, *, is_package: bool = False) -> Iterator[str]:
    """Names of the modules that a source imports. `from package import name` names the submodule where there is one."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=base, names=names, level=level):
                above = package[: len(package) - level + 1] if level else []
                origin = ".".join([*above, *([base] if base else [])])
                for alias in names:
                    inner = f"{origin}.{alias.name}"
                    yield inner if inner in MODULES or alias.name == "__main__" else origin


def broken(module: str, target: str) -> Iterator[str]:
    """The arrows that an import of `target` by `module` breaks, in words."""
    root, package = target.partition(".")[0], module.split(".")
    if root in ROOTS:
        yield from broken_inside(module, package, target)
    elif root not in sys.stdlib_module_names:
        if not matches(module, THIRD_PARTY.get(root, ())):
            yield f"{root} is imported only by {', '.join(THIRD_PARTY.get(root, ())) or 'nobody'}"
        if package[0] == "schemas" and root != "msgspec":
            yield "schemas import msgspec and nothing else"
    elif matches(module, PURE) and root in IMPURE:
        yield f"a pure module never imports {root}"


def broken_inside(module: str, package: list[str], target: str) -> Iterator[str]:
    """The same, for a target that is ours."""
    if target.endswith(".__main__"):
        yield "nothing imports a __main__"
    if package[0] == "schemas" and not target.startswith("schemas"):
        yield "schemas import msgspec and nothing else"
    if package[0] == "pullonce" and target.startswith("services"):
        yield "pullonce never imports services: it starts them as processes"
    if package[0] == "services" and target.startswith("services.") and target.split(".")[1:2] != package[1:2]:
        yield "a service never imports another one"
    if matches(module, PURE) and not matches(target, PURE):
        yield "a pure module imports only pure ones"
    if matches(target, FRONT) and not matches(module, FRONT):
        yield "client, command line and embedded are used by people, not by parts"
    for part, friends in WIRING.items():
        if fnmatchcase(target, part) and not matches(module, FRONT + friends):
            yield f"{part} is named only where things are put together"
    if matches(module, ("pullonce.bus", "pullonce.bus.*")) and matches(target, STORAGE):
        yield "the bus knows nothing of disks"
    if matches(module, STORAGE) and matches(target, ("pullonce.bus", "pullonce.bus.*")):
        yield "what lies on disk knows nothing of the bus"


def violations(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """One line for each arrow that a module breaks."""
    targets = sorted(set(imports(module, source, is_package=is_package)))
    return [f"{module} imports {target}: {why}" for target in targets for why in broken(module, target)]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_what_it_may(module: str) -> None:
    path = MODULES[module]
    found = violations(module, path.read_text("utf-8"), is_package=path.name == "__init__.py")
    assert not found, f"{path.relative_to(ROOT)} breaks the architecture:\n" + "\n".join(found)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_that_calls_itself_pure_is_held_to_it(module: str) -> None:
    said = ast.get_docstring(ast.parse(MODULES[module].read_text("utf-8"))) or ""
    if re.search(r"\bPure\b(?! but)", said):
        assert matches(module, PURE), f"add {module} to PURE in this file, or change its docstring"


@pytest.mark.parametrize("pattern", PURE)
def test_a_rule_for_pure_modules_speaks_of_modules_that_exist(pattern: str) -> None:
    assert any(fnmatchcase(module, pattern) for module in MODULES)


@pytest.mark.parametrize(
    ("module", "source", "why"),
    [
        ("schemas.events", "import pullonce.errors", "schemas import msgspec"),
        ("schemas.events", "import yaml", "schemas import msgspec"),
        ("schemas.events", "def f():\n    import time", "never imports time"),
        ("pullonce.embedded", "from services.fetcher import handlers", "never imports services"),
        ("services.fetcher.handlers", "import services.coordinator.board", "another one"),
        ("services.fetcher.handlers", "from services.fetcher import __main__", "a __main__"),
        ("services.fetcher.handlers", "from .__main__ import main", "a __main__"),
        ("services.fetcher.handlers", "import pullonce.bus.nats", "put together"),
        ("services.fetcher.handlers", "from pullonce.config import StoreSettings", "put together"),
        ("services.fetcher.handlers", "import aiohttp", "aiohttp is imported only by"),
        ("services.fetcher.handlers", "import requests", "only by nobody"),
        ("services.coordinator.board", "import asyncio.tasks", "never imports asyncio"),
        ("services.coordinator.board", "from os import path", "never imports os"),
        ("services.coordinator.board", "from pullonce import bus", "only pure ones"),
        ("services.coordinator.board", "from . import handlers", "only pure ones"),
        ("services.unpacker.layer", "if TYPE_CHECKING:\n    from nats.aio.client import Client", "nats is imported only by"),
        ("services.ledger.web", "import nats", "nats is imported only by"),
        ("services.unpacker.handlers", "import duckdb", "duckdb is imported only by"),
        ("pullonce.bus.worker", "from pullonce.content import ContentStore", "nothing of disks"),
        ("pullonce.content", "from pullonce.bus import Log", "nothing of the bus"),
        ("pullonce.bus.worker", "from pullonce.client import connect", "used by people"),
    ],
)
def test_a_forbidden_import_is_caught(module: str, source: str, why: str) -> None:
    assert any(why in line for line in violations(module, source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("schemas.export", "import json, pathlib, msgspec\nfrom schemas import asyncapi"),
        ("pullonce.bus.nats", "import asyncio, nats.js\nfrom pullonce.config import BusSettings"),
        ("pullonce.client", "from pullonce.bus.nats import connect\nfrom pullonce.config import BusSettings"),
        ("services.fetcher.__main__", "from pullonce import runtime\nfrom services.fetcher import handlers"),
        ("services.fetcher.registry", "import aiohttp"),
        ("services.coordinator.board", "from services.coordinator import flight\nfrom . import claim"),
        ("services.ledger.projection", "import duckdb"),
    ],
)
def test_an_allowed_import_is_let_through(module: str, source: str) -> None:
    assert violations(module, source) == []
