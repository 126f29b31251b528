"""Every setting is told of once, in docs/settings.md, and read in one place."""

from __future__ import annotations

import ast
import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

READERS = (
    "pullonce/config.py",
    "pullonce/environment.py",
    "pullonce/failpoints.py",
    "services/*/settings.py",
    "pullonce/runtimes/settings.py",
)
"""Who may look a setting up. All others are given what they need; who starts processes hands the environment on."""

_NAME = re.compile(r"PULLONCE_[A-Z0-9_]*[A-Z0-9]")
_SHELL = ("dev", ".ci/run", "compose.yaml", "Dockerfile", "deploy/**/*")


def told() -> list[str]:
    """The variables of the tables of docs/settings.md."""
    rows = [line for line in (ROOT / "docs" / "settings.md").read_text().splitlines() if line.startswith("| `PULLONCE_")]
    return [name for row in rows for name in re.findall(r"`(PULLONCE_[A-Z0-9_]+)`", row.split("|")[1])]


def constants(path: Path) -> set[str]:
    """The variables that a module names outside its texts for people."""
    if "PULLONCE_" not in (text := path.read_text("utf-8")):
        return set()  # to take all modules apart takes seconds
    tree = ast.parse(text)
    texts = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }  # docstrings
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts
        if _NAME.fullmatch(node.value)
    }


def modules(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def named_anywhere() -> set[str]:
    """By programs, tests, benchmarks, and whatever starts them."""
    found = set().union(*map(constants, modules("pullonce", "services", "schemas", "tests", "bench")))
    for pattern in _SHELL:
        for path in ROOT.glob(pattern):
            if path.is_file():
                found |= set(_NAME.findall(path.read_text("utf-8")))
    return found


def test_every_setting_is_told_of_and_nothing_else_is() -> None:
    assert sorted(named_anywhere() - set(told()) - {"PULLONCE_NOSUCH"}) == []
    assert sorted(set(told()) - named_anywhere()) == []


def test_no_setting_is_told_of_twice() -> None:
    assert sorted({name for name in told() if told().count(name) > 1}) == []


def looked_up(path: Path) -> list[str]:
    """The variables that a module takes out of an environment: by `get`, by brackets, or by a reader of `config`."""
    found: list[str] = []
    for node in ast.walk(ast.parse(text if "PULLONCE_" in (text := path.read_text("utf-8")) else "")):
        words: list[ast.expr] = []
        if isinstance(node, ast.Call):
            words = node.args
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            words = [node.slice]
        found += [
            word.value
            for word in words
            if isinstance(word, ast.Constant) and isinstance(word.value, str) and _NAME.fullmatch(word.value)
        ]
    return found


@pytest.mark.parametrize("path", modules("pullonce", "services", "schemas"), ids=lambda path: str(path.relative_to(ROOT)))
def test_settings_are_read_where_settings_are(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    if not any(fnmatchcase(name, pattern) for pattern in READERS):
        assert looked_up(path) == []


@pytest.mark.parametrize(
    "service", sorted(path.name for path in (ROOT / "services").iterdir() if (path / "__main__.py").exists())
)
def test_each_service_has_settings_of_the_same_shape(service: str) -> None:
    """A frozen class `<Service>Settings` with `from_env(environ)`, in `settings.py`."""
    tree = ast.parse((ROOT / "services" / service / "settings.py").read_text("utf-8"))
    (made,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == f"{service.capitalize()}Settings"]
    assert [ast.unparse(each) for each in made.decorator_list] == ["dataclass(frozen=True, slots=True)"]
    (read,) = [node for node in made.body if isinstance(node, ast.FunctionDef) and node.name == "from_env"]
    assert [each.arg for each in read.args.args] == ["environ"] and [ast.unparse(each) for each in read.args.defaults] == [
        "os.environ"
    ]
    assert any(isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "bus" for node in made.body)
