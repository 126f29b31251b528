"""The table of commands: what is listed is declared, by modules that stay light, and each can be carried out."""

import argparse
import pkgutil
import subprocess
import sys
from importlib import import_module

import pytest

from pullonce.cli import commands
from pullonce.cli.commands.arguments import Command, subcommands

MODULES = {each.name for each in pkgutil.iter_modules(commands.__path__)} - {"arguments"}


def declared_in(module: str) -> dict[str, Command]:
    return dict(import_module(f"pullonce.cli.commands.{module}").COMMANDS)


def test_every_declaration_is_in_the_table_and_the_other_way_round() -> None:
    assert {(name, module) for module in MODULES for name in declared_in(module)} == set(commands.GROUPS.items())


def handlers(name: str, command: Command) -> list[str]:
    """What carries a command out, or those below it."""
    parser = command.parser(name)
    below = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    return [one.get_default("handler") for each in below for one in each.choices.values()] or [command.handler]


@pytest.mark.parametrize("name", commands.GROUPS)
def test_a_command_is_carried_out_by_a_function_that_is_there(name: str) -> None:
    for handler in handlers(name, commands.declared(name)):
        module, _, function = handler.partition(":")
        assert callable(getattr(import_module(f"pullonce.cli.{module}"), function))


def loaded_by(*words: str) -> set[str]:
    """Modules of ours that reading a command line loads."""
    code = f"import sys; from pullonce.cli.commands import read; read({list(words)!r}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {each for each in done.stderr.split() if each.partition(".")[0] in ("pullonce", "services", "schemas")}


def test_reading_a_pull_loads_no_other_command() -> None:
    loaded = loaded_by("pull", "redis", "--timeout", "5")
    assert {each for each in loaded if each.startswith("pullonce.cli.commands.")} == {
        "pullonce.cli.commands.arguments", "pullonce.cli.commands.pull"
    }  # fmt: skip


def test_help_loads_declarations_only() -> None:
    code = (
        "import sys; from pullonce.cli.commands import all_commands; list(all_commands()); "
        "print(*(each for each in sys.modules if each.startswith(('pullonce.', 'schemas', 'services', 'msgspec', 'asyncio'))))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    allowed = {"pullonce.cli", "pullonce.environment", "pullonce.cli.commands", "pullonce.cli.commands.arguments"}
    assert set(loaded) == allowed | {f"pullonce.cli.commands.{module}" for module in MODULES}


def below(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pullonce some")
    parser.add_argument("--home")
    subcommands(
        parser, {"one": Command("first", "a:one", lambda sub: None), "two": Command("second", "b:two", lambda sub: None)}
    )
    return parser.parse_args(words)


@pytest.mark.parametrize("words", [("--home", "/h", "two"), ("two", "--home", "/h")])
def test_a_command_below_another_takes_the_home_before_and_after_its_name(words: tuple[str, ...]) -> None:
    args = below(*words)
    assert (args.handler, args.home) == ("b:two", "/h")


def test_a_command_below_another_must_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        below()
    assert "COMMAND" in capsys.readouterr().err
