"""`pullonce completion`: a script by which a shell completes commands, options and their choices, made of the parsers.

pullonce completion bash >/etc/bash_completion.d/pullonce
pullonce completion zsh  >/usr/local/share/zsh/site-functions/_pullonce
pullonce completion fish >~/.config/fish/completions/pullonce.fish
"""

import argparse
from collections.abc import Iterable, Iterator, Mapping

from pullonce.cli.commands import all_commands


def completion(args: argparse.Namespace) -> int:
    """Carry out `pullonce completion`."""
    print({"bash": _bash, "zsh": _zsh, "fish": _fish}[args.shell](), end="")
    return 0


class _Said:
    """A command as it is typed, and what its parser accepts.

    Args:
        words: its name; two words for one that is said below another (`gateway config`).
    """

    def __init__(self, words: str, help: str, parser: argparse.ArgumentParser) -> None:
        self.words = words
        self.help = help
        shown = [each for each in parser._actions if each.help != argparse.SUPPRESS]
        self.below = {
            name: _Said(f"{words} {name}", one.description or "", one)
            for each in shown
            if isinstance(each, argparse._SubParsersAction)
            for name, one in each.choices.items()
        }
        self.actions = [each for each in shown if not isinstance(each, argparse._SubParsersAction)]

    def all(self) -> "Iterator[_Said]":
        """This one, and those below it."""
        yield self
        for each in self.below.values():
            yield from each.all()

    def next(self) -> list[str]:
        """What may come after it: commands below, options, and the choices of positional arguments."""
        options = [option for action in self.actions for option in action.option_strings]
        choices = [str(choice) for action in self.actions if not action.option_strings for choice in action.choices or ()]
        return [*self.below, *options, *choices]

    def choices(self) -> Mapping[str, str]:
        """Options whose values can be completed: option → the values."""
        return {
            option: " ".join(map(str, action.choices))
            for action in self.actions
            if action.choices
            for option in action.option_strings
        }


def _commands() -> list[_Said]:
    return [_Said(name, command.help, command.parser(name)) for name, command in all_commands()]


def _bash() -> str:
    top = _commands()
    every = [each for command in top for each in command.all()]
    below = [each.words for command in top for each in command.below.values()]
    return f"""\
_pullonce() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} command=${{COMP_WORDS[1]}} words=
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{" ".join(each.words for each in top)} --help --version" -- "$word"))
        return
    fi
    if [ "$COMP_CWORD" -gt 2 ]; then
        case "$command ${{COMP_WORDS[2]}}" in
            {"|".join(f"'{words}'" for words in below) or "''"}) command="$command ${{COMP_WORDS[2]}}" ;;
        esac
    fi
    case "$command $before" in
{_cases((f"{each.words} {option}", values) for each in every for option, values in each.choices().items())}
        *) case $command in
{_cases((each.words, " ".join(each.next())) for each in every)}
        esac ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    [ ${{#COMPREPLY[@]}} -gt 0 ] || COMPREPLY=($(compgen -f -- "$word"))
}}
complete -F _pullonce pullonce
"""


def _cases(pairs: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"        '{pattern}') words='{words}' ;;" for pattern, words in pairs)


def _zsh() -> str:
    """Zsh understands bash's."""
    return f"#compdef pullonce\nautoload -U +X bashcompinit && bashcompinit\n{_bash()}"


def _fish() -> str:
    lines = [
        "complete -c pullonce -n __fish_use_subcommand -f -l help",
        "complete -c pullonce -n __fish_use_subcommand -l version",
    ]
    for command in _commands():
        lines.append(f"complete -c pullonce -n __fish_use_subcommand -f -a {command.words} -d {_quoted(command.help)}")
        lines.extend(_fish_lines(command))
    return "\n".join(filter(None, lines)) + "\n"


def _fish_lines(command: _Said) -> Iterator[str]:
    seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in command.words.split(" "))
    none_below = f"{seen}; and not __fish_seen_subcommand_from {' '.join(command.below)}" if command.below else seen
    for action in command.actions:
        yield _fish_line(none_below, action)
    for name, each in command.below.items():
        yield f"complete -c pullonce -n {_quoted(none_below)} -f -a {name} -d {_quoted(each.help)}"
        yield from _fish_lines(each)


def _fish_line(when: str, action: argparse.Action) -> str:
    names = [f"-l {each[2:]}" if each.startswith("--") else f"-s {each[1:]}" for each in action.option_strings]
    values = f"-a {_quoted(' '.join(map(str, action.choices)))}" if action.choices else ""
    if not names and not values:
        return ""
    needs = "-x" if values and names else "-r" if names and action.nargs != 0 else "-f"
    parts = [f"complete -c pullonce -n {_quoted(when)}", needs, *names, values]
    return " ".join(filter(None, [*parts, f"-d {_quoted(action.help or '')}"]))


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
