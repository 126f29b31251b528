"""Write what is derived from the message classes: JSON Schemas, golden examples, the AsyncAPI document.

python -m schemas.derive.export            write the files
python -m schemas.derive.export --check    compare them; say what differs and exit 1
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from schemas.derive import asyncapi, core_channels
from schemas.derive.json_schema import Json, answer_kind, file_name, json_schema, question_kind
from schemas.derive.samples import SAMPLES
from schemas.roles import ASKED, QUESTIONS

HERE = Path(__file__).parents[1]

_PLAIN_KEY = re.compile(r"[A-Za-z$_][\w$./-]*")
_NOT_PLAIN = frozenset(("true", "false", "null", "yes", "no", "on", "off", "y", "n"))


def derived() -> dict[str, str]:
    """Every derived file, by path relative to this package, with its text."""
    files = {"asyncapi.yaml": yaml_text(asyncapi.document())}
    for kind, sample in SAMPLES.items():
        files[f"json/{file_name(kind)}"] = json_text(json_schema(kind, type(sample)))
        files[f"examples/{kind}.json"] = json_text(msgspec.to_builtins(sample))
    for subject, answer in QUESTIONS.items():
        kind = answer_kind(subject)
        files[f"json/{file_name(kind)}"] = json_text(json_schema(kind, answer))
    for subject, question in ASKED.items():
        kind = question_kind(subject)
        files[f"json/{file_name(kind)}"] = json_text(json_schema(kind, question))
    for kind, cls in core_channels.KINDS.items():
        files[f"json/{file_name(kind)}"] = json_text(json_schema(kind, cls))
    return files


def stored(root: Path = HERE) -> dict[str, str]:
    """Every file that lies where derived ones do."""
    paths = (*root.glob("asyncapi.yaml"), *root.glob("json/*"), *root.glob("examples/*"))
    return {path.relative_to(root).as_posix(): path.read_text("utf-8") for path in sorted(paths)}


def differences(root: Path = HERE) -> list[str]:
    """What a reader must know of stored and derived files that differ, one line each."""
    want, have = derived(), stored(root)
    words = {name: "missing" if name not in have else "changed" for name in want if want[name] != have.get(name)}
    words |= dict.fromkeys(have.keys() - want.keys(), "derived from nothing")
    return [f"{name}: {words[name]}" for name in sorted(words)]


def write(root: Path = HERE) -> None:
    """Make the stored files equal to the derived ones; files derived from nothing are removed."""
    want = derived()
    for name in stored(root).keys() - want.keys():
        (root / name).unlink()
    for name, text in want.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def json_text(value: Json) -> str:
    """Indented JSON with a newline at the end."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def yaml_text(value: Json) -> str:
    """A JSON value as block-style YAML. Strings are written as in JSON, which YAML 1.2 reads alike."""
    return "\n".join(_block(value)) + "\n"


def _block(value: Json) -> Iterator[str]:
    """The lines of a value."""
    match value:
        case dict() if value:
            for key, inner in value.items():
                lines = list(_block(inner))
                if _is_block(inner):
                    yield from (f"{_key(key)}:", *(f"  {line}" for line in lines))
                else:
                    yield f"{_key(key)}: {lines[0]}"
        case list() | tuple() if value:
            for inner in value:
                first, *rest = _block(inner)
                yield from (f"- {first}", *(f"  {line}" for line in rest))
        case _:
            yield json.dumps(value, ensure_ascii=False)


def _is_block(value: Json) -> bool:
    return isinstance(value, dict | list | tuple) and bool(value)


def _key(key: str) -> str:
    plain = _PLAIN_KEY.fullmatch(key) and key.lower() not in _NOT_PLAIN
    return key if plain else json.dumps(key)


def main() -> int:
    """Command line of `python -m schemas.derive.export`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m schemas.derive.export", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 where something differs")
    if not parser.parse_args().check:
        write()
        return 0
    found = differences()
    for line in found:
        print(f"schemas/{line}; run python -m schemas.derive.export", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
