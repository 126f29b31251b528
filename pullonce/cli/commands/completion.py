"""Completion of these commands by a shell."""

import argparse

from pullonce.cli.commands.arguments import Command


def _completion(completion: argparse.ArgumentParser) -> None:
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell to write a script for")


COMMANDS = {
    "completion": Command("print a script by which a shell completes these commands", "completion:completion", _completion),
}
