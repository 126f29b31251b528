"""`pullonce completion`: a script by which a shell completes commands, options and their choices, made of the parsers.

pullonce completion bash >/etc/bash_completion.d/pullonce
pullonce completion zsh  >/usr/local/share/zsh/site-functions/_pullonce
pullonce completion fish >~/.config/fish/completions/pullonce.fish
"""

import argparse
from collections.abc import Iterator, Mapping

from pullonce.cli.commands import COMMANDS


def completion(args: argparse.Namespace) -> int:
    """Carry out `pullonce completion`."""
    print({"bash": _bash, "zsh": _zsh, "fish": _fish}[args.shell](), end="")
    return 0


def _actions(name: str) -> list[argparse.Action]:
    """The arguments of a command, hidden ones aside."""
    return [each for each in COMMANDS[name].parser(name)._actions if each.help != argparse.SUPPRESS]


def _words(name: str) -> list[str]:
    """What may come after a command: its options, and the choices of its positional arguments."""
    actions = _actions(name)
    options = [option for action in actions for option in action.option_strings]
    return options + [str(choice) for action in actions if not action.option_strings for choice in action.choices or ()]


def _choices(name: str) -> Mapping[str, str]:
    """Options of a command whose values can be completed: option → the values."""
    return {
        option: " ".join(map(str, action.choices))
        for action in _actions(name)
        if action.choices
        for option in action.option_strings
    }


def _bash() -> str:
    return f"""\
_pullonce() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} command=${{COMP_WORDS[1]}} words=
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{" ".join(COMMANDS)} --help --version" -- "$word"))
        return
    fi
    case "$command $before" in
{_cases((f"{name} {option}", values) for name in COMMANDS for option, values in _choices(name).items())}
        *) case $command in
{_cases((name, " ".join(_words(name))) for name in COMMANDS)}
        esac ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    [ ${{#COMPREPLY[@]}} -gt 0 ] || COMPREPLY=($(compgen -f -- "$word"))
}}
complete -F _pullonce pullonce
"""


def _cases(pairs: Iterator[tuple[str, str]]) -> str:
    return "\n".join(f"        '{pattern}') words='{words}' ;;" for pattern, words in pairs)


def _zsh() -> str:
    """Zsh understands bash's."""
    return f"#compdef pullonce\nautoload -U +X bashcompinit && bashcompinit\n{_bash()}"


def _fish() -> str:
    lines = [
        "complete -c pullonce -n __fish_use_subcommand -f -l help",
        "complete -c pullonce -n __fish_use_subcommand -l version",
    ]
    for name, command in COMMANDS.items():
        lines.append(f"complete -c pullonce -n __fish_use_subcommand -f -a {name} -d {_quoted(command.help)}")
        for action in _actions(name):
            lines.append(_fish_line(name, action))
    return "\n".join(filter(None, lines)) + "\n"


def _fish_line(name: str, action: argparse.Action) -> str:
    names = [f"-l {each[2:]}" if each.startswith("--") else f"-s {each[1:]}" for each in action.option_strings]
    values = f"-a {_quoted(' '.join(map(str, action.choices)))}" if action.choices else ""
    if not names and not values:
        return ""
    needs = "-x" if values and names else "-r" if names and action.nargs != 0 else "-f"
    parts = [f"complete -c pullonce -n '__fish_seen_subcommand_from {name}'", needs, *names, values]
    return " ".join(filter(None, [*parts, f"-d {_quoted(action.help or '')}"]))


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
