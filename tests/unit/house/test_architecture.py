"""The arrows of the house: which module may import which. Read from the source, nothing is executed.

Imports inside functions and under TYPE_CHECKING count too: an arrow is about what a module knows, not about when.
"""

import ast
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ROOTS = ("schemas", "pullonce", "services")

ROOMS: dict[str, tuple[str, ...]] = {
    # What everybody may know, from the ground up.
    "schemas": (),
    "schemas.derive": ("schemas",),
    "pullonce.errors": ("schemas",),
    "pullonce.environment": (),
    "pullonce.printable": (),
    "pullonce.hostnames": (),
    "pullonce.private": ("pullonce.errors",),
    "pullonce.trace": (),
    "pullonce.failpoints": (),
    "pullonce.unbroken": (),
    "pullonce.config": ("pullonce.environment",),
    "pullonce.oci": ("schemas", "pullonce.errors"),
    # What is on disk knows nothing of the bus, and the bus nothing of disks.
    "pullonce.store": ("schemas", "pullonce.errors", "pullonce.failpoints", "pullonce.private", "pullonce.oci"),
    "pullonce.bus": ("schemas", "pullonce.errors", "pullonce.telemetry"),
    "pullonce.bus.memory": ("schemas", "pullonce.errors", "pullonce.trace", "pullonce.bus"),
    "pullonce.bus.nats": (
        "schemas", "pullonce.errors", "pullonce.trace", "pullonce.unbroken", "pullonce.config", "pullonce.bus",
    ),
    # What services share.
    "pullonce.telemetry": ("pullonce.errors", "pullonce.config", "pullonce.oci"),
    "pullonce.worker": (
        "schemas", "pullonce.errors", "pullonce.failpoints", "pullonce.trace", "pullonce.bus", "pullonce.telemetry",
    ),
    "pullonce.exchange": ("schemas", "pullonce.errors", "pullonce.oci", "pullonce.store"),
    "pullonce.bundle": (
        "schemas", "pullonce.errors", "pullonce.failpoints", "pullonce.private", "pullonce.oci", "pullonce.store",
    ),
    "pullonce.expose": (
        "schemas", "pullonce.errors", "pullonce.failpoints", "pullonce.private", "pullonce.oci", "pullonce.store",
    ),
    "pullonce.care": ("schemas", "pullonce.errors", "pullonce.oci", "pullonce.bus", "pullonce.store"),
    "pullonce.process": (
        "schemas", "pullonce.errors", "pullonce.printable", "pullonce.environment", "pullonce.private", "pullonce.trace",
        "pullonce.config", "pullonce.bus", "pullonce.bus.nats",
    ),
    # One pull, as clients and coordinators see it.
    "pullonce.pulling": (
        "schemas", "pullonce.errors", "pullonce.trace", "pullonce.oci", "pullonce.bus",
        "pullonce.bus.nats",
    ),
    "pullonce.pushing": ("schemas", "pullonce.errors", "pullonce.bus"),
    # The front: what people use. Everything is put together here.
    "pullonce.client": (
        "schemas", "pullonce.errors", "pullonce.environment", "pullonce.config", "pullonce.bus", "pullonce.bus.nats",
        "pullonce.process", "pullonce.pulling", "pullonce.pushing",
    ),
    "pullonce.cli": (
        "schemas", "pullonce.errors",
        "pullonce.printable", "pullonce.environment", "pullonce.trace", "pullonce.config", "pullonce.oci",
        "pullonce.bus", "pullonce.bus.nats", "pullonce.store", "pullonce.care", "pullonce.process", "pullonce.pulling",
        "pullonce.pushing", "pullonce.exchange", "pullonce.bundle", "pullonce.expose", "pullonce.client", "pullonce.runtimes",
    ),
    "pullonce.runtimes": ("pullonce.errors", "pullonce.config"),
    "pullonce.demo": ("schemas", "pullonce.errors", "pullonce.config", "pullonce.oci", "pullonce.store"),
    "pullonce.__main__": ("pullonce.cli",),
    # The services. None knows another one.
    "services.coordinator": (
        "schemas", "pullonce.errors", "pullonce.failpoints", "pullonce.trace", "pullonce.config", "pullonce.bus",
        "pullonce.bus.nats", "pullonce.process", "pullonce.pulling", "pullonce.telemetry",
    ),
    "services.fetcher": (
        "schemas", "pullonce.errors",
        "pullonce.printable", "pullonce.config", "pullonce.oci", "pullonce.bus", "pullonce.bus.nats", "pullonce.store",
        "pullonce.worker", "pullonce.process", "pullonce.telemetry",
    ),
    "services.unpacker": (
        "schemas", "pullonce.errors", "pullonce.failpoints", "pullonce.unbroken", "pullonce.config", "pullonce.bus",
        "pullonce.bus.memory",
        "pullonce.bus.nats", "pullonce.store", "pullonce.worker", "pullonce.process", "pullonce.telemetry",
        "services.unpacker.tar", "services.unpacker.tree", "services.unpacker.work",
    ),
    "services.unpacker.tar": (),
    "services.unpacker.tree": ("pullonce.store", "services.unpacker.tar"),
    "services.unpacker.work": ("pullonce.errors", "pullonce.store", "services.unpacker.tar", "services.unpacker.tree"),
    "services.gateway": (
        "schemas", "pullonce.errors", "pullonce.config", "pullonce.bus", "pullonce.bus.nats", "pullonce.client",
        "pullonce.care", "pullonce.process", "pullonce.store", "pullonce.telemetry", "services.gateway.credentials",
        "services.gateway.cri", "services.gateway.mirror", "services.gateway.rpc", "services.gateway.snapshotter",
    ),
    "services.gateway.mirror": (
        "schemas", "pullonce.errors", "pullonce.printable", "pullonce.hostnames", "pullonce.config", "pullonce.oci",
        "pullonce.bus", "pullonce.store", "services.gateway.rpc",
    ),
    "services.gateway.credentials": ("pullonce.errors", "pullonce.private", "pullonce.store"),
    "services.gateway.protocols": (),
    "services.gateway.rpc": ("pullonce.errors",),
    "services.gateway.cri": (
        "schemas", "pullonce.errors", "pullonce.oci", "pullonce.store", "pullonce.care", "services.gateway.credentials",
        "services.gateway.protocols", "services.gateway.rpc",
    ),
    "services.gateway.snapshotter": (
        "schemas", "pullonce.errors", "pullonce.failpoints", "pullonce.oci", "pullonce.store", "services.gateway.protocols",
        "services.gateway.rpc",
    ),
    "services.ledger": (
        "schemas", "pullonce.errors", "pullonce.private", "pullonce.config", "pullonce.bus.nats", "pullonce.store",
        "pullonce.process", "pullonce.telemetry", "services.ledger.answers", "services.ledger.fold", "services.ledger.web",
    ),
    "services.ledger.fold": (
        "schemas", "pullonce.errors", "pullonce.failpoints", "pullonce.bus", "pullonce.pulling", "pullonce.store",
    ),
    "services.ledger.answers": ("schemas", "pullonce.errors", "pullonce.oci", "pullonce.bus", "services.ledger.fold"),
    "services.ledger.web": ("schemas", "pullonce.hostnames", "services.ledger.answers", "services.ledger.fold"),
}  # fmt: skip
"""Room → the rooms from which its modules may import beside it. A room is a package, or a module of `pullonce/` itself."""

THIRD_PARTY = {
    "msgspec": ("*",),
    "nats": ("pullonce.bus.nats.*",),
    "aiohttp": ("services.fetcher.*", "services.gateway.mirror.*", "services.ledger.web.*", "pullonce.demo.*"),
    "yarl": ("services.fetcher.*",),
    "duckdb": ("services.ledger.*",),
    "uvloop": ("pullonce.process.runtime",),
    "prometheus_client": ("pullonce.telemetry.metrics",),
    "opentelemetry": ("pullonce.telemetry.otel",),
    "google": ("services.gateway.*",),
    "grpclib": ("services.gateway.*",),
    "h2": ("services.gateway.rpc.*",),
    "nacl": ("pullonce.bus.nats.nkeys",),
    "isal": ("services.unpacker.*",),
    "zstandard": ("services.unpacker.*",),
    "yaml": ("pullonce.runtimes.yaml_text",),
    "fastcrc": ("services.unpacker.tar.split",),
}
"""Package → the modules that may import it. What is not listed may be imported by nobody."""

PURE = (
    "schemas",
    "pullonce.printable",
    "pullonce.hostnames",
    "schemas.*",
    "pullonce.oci",
    "pullonce.oci.*",
    "pullonce.errors",
    "pullonce.bundle.defaults",
    "pullonce.bundle.errors",
    "pullonce.bundle.image",
    "pullonce.bundle.options",
    "pullonce.bundle.spec",
    "pullonce.bundle.users",
    "pullonce.bus.limits",
    "pullonce.bus.nats.protocol",
    "pullonce.pulling.attendance",
    "pullonce.pulling.conversation",
    "pullonce.exchange.archive",
    "pullonce.exchange.read",
    "pullonce.expose.records",
    "pullonce.pulling.identity",
    "pullonce.pulling.layers",
    "pullonce.pulling.parts",
    "pullonce.pulling.states",
    "pullonce.pulling.timings",
    "pullonce.care.choice",
    "pullonce.runtimes.containerd",
    "pullonce.runtimes.containerd_names",
    "pullonce.runtimes.docker",
    "pullonce.runtimes.doctor",
    "pullonce.runtimes.facts",
    "pullonce.runtimes.files",
    "pullonce.runtimes.finding",
    "pullonce.runtimes.json_text",
    "pullonce.runtimes.k3s",
    "pullonce.runtimes.kubelet",
    "pullonce.runtimes.loaded",
    "pullonce.runtimes.offer",
    "pullonce.runtimes.plan",
    "pullonce.runtimes.plans",
    "pullonce.runtimes.podman",
    "pullonce.runtimes.rules",
    "pullonce.runtimes.rules.*",
    "pullonce.runtimes.toml_text",
    "pullonce.runtimes.toml_words",
    "pullonce.runtimes.trouble",
    "pullonce.runtimes.yaml_text",
    "pullonce.store.entries",
    "services.coordinator.admission",
    "services.coordinator.board",
    "services.coordinator.claim",
    "services.coordinator.flight",
    "services.coordinator.in_flight",
    "services.coordinator.intents",
    "services.coordinator.key",
    "services.coordinator.leases",
    "services.coordinator.low_water",
    "services.coordinator.mark",
    "services.coordinator.pursuit",
    "services.coordinator.requesters",
    "services.coordinator.slow",
    "services.coordinator.turns",
    "services.coordinator.waits",
    "services.fetcher.auth.challenge",
    "services.fetcher.remote.failures",
    "services.fetcher.remote.inward",
    "services.fetcher.remote.judgement",
    "services.fetcher.servers.hosts",
    "services.fetcher.servers.proxies",
    "services.fetcher.documents.manifest",
    "services.fetcher.remote.notices",
    "services.fetcher.remote.encoding",
    "services.fetcher.remote.ranges",
    "services.fetcher.auth.login_files",
    "services.fetcher.auth.redaction",
    "services.fetcher.auth.secret",
    "services.fetcher.remote.silence",
    "services.gateway.mirror.guests",
    "services.gateway.mirror.names",
    "services.gateway.mirror.ranges",
    "services.gateway.snapshotter.filters",
    "services.gateway.snapshotter.labels",
    "services.gateway.snapshotter.mounts",
    "services.gateway.snapshotter.records",
    "services.ledger.answers.explain",
    "services.ledger.answers.statement",
    "services.ledger.fold.migrations",
    "services.ledger.fold.staging",
    "services.ledger.fold.statements",
    "services.ledger.fold.table",
    "services.ledger.fold.tables",
    "services.ledger.fold.views",
    "services.ledger.web.access",
    "services.unpacker.tar.archive",
    "services.unpacker.tar.entry",
    "services.unpacker.tar.extensions",
    "services.unpacker.tar.fields",
    "services.unpacker.tar.invalid",
    "services.unpacker.tar.split",
    "services.unpacker.tar.stream",
    "services.unpacker.tree.plan",
)
"""Modules that answer from their arguments alone."""

WRITERS = ("schemas.derive.export",)
"""Of those that are called pure, the programs beside them: they write what is derived."""

IMPURE = frozenset(
    (
        "asyncio",
        "ctypes",
        "fcntl",
        "logging",
        "mmap",
        "os",
        "pathlib",
        "random",
        "secrets",
        "select",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "sqlite3",
        "ssl",
        "subprocess",
        "sys",
        "tempfile",
        "threading",
        "time",
        "uuid",
    )
)  # fmt: skip
"""Parts of the standard library by which a module would touch the world, the clock or chance."""

IMPURE_CALLS = frozenset(("open", "input", "print", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"))
"""Calls that do the same without an import that shows it."""

FRONT = (
    "pullonce.client", "pullonce.cli", "pullonce.cli.*", "pullonce.demo*", "pullonce.process.up", "pullonce.cli.full",
    "*.__main__", "services.gateway.link",
)  # fmt: skip
"""Where everything is put together, and where a gateway is a client for others. Only these name an implementation of the bus,
settings and the runtime."""

WIRING = {
    "pullonce.bus.nats*": ("pullonce.bus.nats*", "pullonce.pulling.blocking"),
    "pullonce.config": (
        "pullonce.bus.nats*",
        "pullonce.telemetry.http",
        "pullonce.process.runtime",
        "services.*.settings",
        "pullonce.runtimes.settings",
    ),
    "pullonce.process.runtime": (),
}
"""Module → who may import it beside the front: an implementation knows its own settings."""


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


def room(module: str) -> str:
    """The room that a module stands in: the innermost that has rules of its own."""
    while module not in ROOMS and "." in module:
        module = module.rpartition(".")[0]
    return module


def broken(module: str, target: str) -> Iterator[str]:
    """The arrows that an import of `target` by `module` breaks, in words."""
    root = target.partition(".")[0]
    if root in ROOTS:
        yield from broken_inside(module, target)
    elif root not in sys.stdlib_module_names:
        if not matches(module, THIRD_PARTY.get(root, ())):
            yield f"{root} is imported only by {', '.join(THIRD_PARTY.get(root, ())) or 'nobody'}"
        if room(module) == "schemas" and root != "msgspec":
            yield "schemas import msgspec and nothing else"
    elif is_pure(module) and root in IMPURE:
        yield f"a pure module never imports {root}"


def broken_inside(module: str, target: str) -> Iterator[str]:
    """The same, for a target that is ours."""
    here, there = room(module), room(target)
    if here != there and there not in ROOMS.get(here, ()):
        yield f"{here} may import from {', '.join(ROOMS.get(here, ())) or 'no other room'}"
    if target.endswith(".__main__"):
        yield "nothing imports a __main__"
    if is_pure(module) and not is_pure(target):
        yield "a pure module imports only pure ones"
    if matches(target, FRONT) and not matches(module, FRONT):
        yield "client, command line and `up` are used by people, not by parts"
    for part, friends in WIRING.items():
        if fnmatchcase(target, part) and not matches(module, FRONT + friends):
            yield f"{part} is named only where things are put together"


def is_pure(module: str) -> bool:
    return matches(module, PURE) and not matches(module, WRITERS)


def impure_calls(source: str) -> list[str]:
    """Calls in a source that touch the world or the clock by a name that is always there, or by one of a harmless module."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    names = [ast.unparse(call.func).split(".") for call in calls if isinstance(call.func, ast.Name | ast.Attribute)]
    said = {".".join(name[-2:]) for name in names}
    return sorted(said & IMPURE_CALLS)


def violations(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """One line for each arrow that a module breaks."""
    targets = sorted(set(imports(module, source, is_package=is_package)))
    return [f"{module} imports {target}: {why}" for target in targets for why in broken(module, target)]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_what_it_may(module: str) -> None:
    path = MODULES[module]
    found = violations(module, path.read_text("utf-8"), is_package=path.name == "__init__.py")
    assert not found, f"{path.relative_to(ROOT)} breaks the architecture:\n" + "\n".join(found)


@pytest.mark.parametrize("module", sorted(name for name in MODULES if is_pure(name)))
def test_a_pure_module_opens_nothing_and_asks_no_clock(module: str) -> None:
    assert impure_calls(MODULES[module].read_text("utf-8")) == []


@pytest.mark.parametrize("call", ["open(path)", "datetime.now(UTC)", "datetime.datetime.now()", "print(1)"])
def test_a_call_that_touches_the_world_is_caught(call: str) -> None:
    assert impure_calls(f"def f(path):\n    return {call}")


def circles(arrows: Mapping[str, Collection[str]]) -> list[str]:
    """Rooms from which a way along the arrows leads back to them."""

    def beyond(start: str) -> set[str]:
        found: set[str] = set()
        todo = [start]
        while todo:
            for each in arrows.get(todo.pop(), ()):
                if each not in found:
                    found.add(each)
                    todo.append(each)
        return found

    return sorted(name for name in arrows if name in beyond(name))


def drawn() -> dict[str, set[str]]:
    """The arrows between rooms that the sources really have."""
    arrows: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        source = path.read_text("utf-8")
        targets = {room(each) for each in imports(module, source, is_package=path.name == "__init__.py") if each in MODULES}
        arrows.setdefault(room(module), set()).update(targets - {room(module)})
    return arrows


def test_the_document_names_every_room_once() -> None:
    table = (ROOT / "docs" / "architecture.md").read_text().partition("## The rooms")[2]
    named = re.findall(r"^\| `([a-z_/]+)/` \|", table, re.MULTILINE)
    packages = [path.parent.relative_to(ROOT).as_posix() for path in MODULES.values() if path.name == "__init__.py"]
    assert sorted(named) == sorted(set(packages) - {"services"})


def test_the_rules_have_no_circle() -> None:
    assert circles(ROOMS) == []


def test_no_two_modules_import_each_other() -> None:
    """Not by way of others either, and not for their types alone."""
    arrows = {
        module: {each for each in imports(module, path.read_text("utf-8")) if each in MODULES and each != module}
        for module, path in MODULES.items()
        if path.name != "__init__.py"
    }
    assert circles(arrows) == []


def test_a_circle_is_found() -> None:
    assert circles({"a": ("b",), "b": ("c",), "c": ("b",)}) == ["b", "c"]


def test_every_module_stands_in_a_room_and_every_arrow_of_the_rules_is_drawn() -> None:
    """A rule that nothing needs any more is taken out, so that the table says how the house stands."""
    arrows = drawn()
    assert set(arrows) - {"pullonce", "services"} == set(ROOMS)
    assert {name: set(allowed) - arrows[name] for name, allowed in ROOMS.items() if set(allowed) - arrows[name]} == {}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_that_calls_itself_pure_is_held_to_it(module: str) -> None:
    said = ast.get_docstring(ast.parse(MODULES[module].read_text("utf-8"))) or ""
    if re.search(r"\bPure\b(?! but)", said):
        assert is_pure(module), f"add {module} to PURE in this file, or change its docstring"


@pytest.mark.parametrize("pattern", PURE)
def test_a_rule_for_pure_modules_speaks_of_modules_that_exist(pattern: str) -> None:
    assert any(fnmatchcase(module, pattern) for module in MODULES)


@pytest.mark.parametrize(
    ("module", "source", "why"),
    [
        ("schemas.events", "import pullonce.errors", "schemas may import from no other room"),
        ("schemas.events", "import yaml", "schemas import msgspec"),
        ("schemas.events", "def f():\n    import time", "never imports time"),
        ("pullonce.process.up", "from services.fetcher import handlers", "pullonce.process may import from"),
        ("services.fetcher.handlers", "import services.coordinator.board", "services.fetcher may import from"),
        ("services.fetcher.handlers", "from services.fetcher import __main__", "a __main__"),
        ("services.fetcher.handlers", "from .__main__ import main", "a __main__"),
        ("services.fetcher.handlers", "import pullonce.bus.nats", "put together"),
        ("services.fetcher.handlers", "from pullonce.config import StoreSettings", "put together"),
        ("services.unpacker.attempt", "import aiohttp", "aiohttp is imported only by"),
        ("services.fetcher.handlers", "import requests", "only by nobody"),
        ("services.coordinator.board", "import asyncio.tasks", "never imports asyncio"),
        ("services.coordinator.board", "from os import path", "never imports os"),
        ("services.coordinator.board", "from pathlib import Path", "never imports pathlib"),
        ("services.coordinator.board", "from pullonce.bus import ports", "only pure ones"),
        ("services.coordinator.board", "from . import handlers", "only pure ones"),
        (
            "services.unpacker.tree.layer",
            "if TYPE_CHECKING:\n    from nats.aio import client",
            "nats is imported only by",
        ),
        (
            "services.unpacker.tree.layer",
            "from services.unpacker.work import workers",
            "services.unpacker.tree may import from",
        ),
        ("services.ledger.web.routes", "import nats", "nats is imported only by"),
        ("services.unpacker.handlers", "import duckdb", "duckdb is imported only by"),
        ("pullonce.worker.worker", "from pullonce.store.content import ContentStore", "pullonce.worker may import from"),
        ("pullonce.bus.nats.log", "from pullonce.store.content import ContentStore", "pullonce.bus.nats may import from"),
        ("pullonce.store.content", "from pullonce.bus.ports import Log", "pullonce.store may import from"),
        ("pullonce.worker.worker", "from pullonce.client import connect", "used by people"),
    ],
)
def test_a_forbidden_import_is_caught(module: str, source: str, why: str) -> None:
    assert any(why in line for line in violations(module, source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("schemas.derive.export", "import json, pathlib, msgspec\nfrom schemas.derive import asyncapi"),
        ("pullonce.bus.nats.bus", "import asyncio, nats.js\nfrom pullonce.config import BusSettings"),
        ("pullonce.client", "from pullonce.bus.nats.bus import connect\nfrom pullonce.config import BusSettings"),
        ("services.fetcher.__main__", "from pullonce.process import runtime\nfrom services.fetcher import handlers"),
        ("services.fetcher.remote.registry", "import aiohttp"),
        ("services.coordinator.board", "from services.coordinator import flight\nfrom . import claim"),
        ("services.ledger.fold.projection", "import duckdb"),
    ],
)
def test_an_allowed_import_is_let_through(module: str, source: str) -> None:
    assert violations(module, source) == []
