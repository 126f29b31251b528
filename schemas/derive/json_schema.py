"""Message class → self-contained JSON Schema (draft 2020-12), described by the docstrings in the source. Pure."""

import ast
import functools
import inspect
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from schemas import claims, fact, ledger, oci, orders, progress, pull_facts, push, registry, status, work_facts
from schemas.events import Event
from schemas.orders import Order
from schemas.progress import Progress

Json: TypeAlias = Any
"""A JSON value."""

_MODULES = (oci, fact, pull_facts, work_facts, orders, progress, status, push, claims, ledger, registry)
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_HERE = "#/$defs/{name}"


def file_name(kind: str) -> str:
    """File of a message type's schema, which is also its `$id`."""
    return f"{kind}.schema.json"


def answer_kind(subject: str) -> str:
    """What the answer to a question is called among the messages: `pullonce.ping.answer`."""
    return f"{_plain(subject)}.answer"


def question_kind(subject: str) -> str:
    """The same of the question itself, where it says something."""
    return _plain(subject)


def _plain(subject: str) -> str:
    return re.sub(r"\.\{\w+\}", "", subject)


def json_schema(kind: str, cls: type[Struct]) -> dict[str, Json]:
    """Derive the schema of one kind of message. Fields it does not name are allowed, as readers skip them."""
    _, found = msgspec.json.schema_components([cls], ref_template=_HERE)
    components = {name: _described(part) for name, part in found.items()}
    message = components.pop(cls.__name__)
    schema: dict[str, Json] = {"$schema": _DIALECT, "$id": file_name(kind)} | message
    if components:
        schema["$defs"] = dict(sorted(components.items()))
    return schema


def meaning(cls: type[Struct]) -> str:
    """What a message says, in the first paragraph of its docstring."""
    return _text(cls).partition("\n\n")[0].replace("\n", " ")


def _text(cls: type[Struct]) -> str:
    return inspect.getdoc(cls) or ""


def _described(component: dict[str, Json]) -> dict[str, Json]:
    """A component with clean descriptions, its own and those of its fields."""
    cls = _classes()[component["title"]]
    properties = dict(component["properties"])
    for field in msgspec.structs.fields(cls):
        if said := _field_text(cls, field.name):
            properties[field.encode_name] = {"description": said} | properties[field.encode_name]
    described = component | {"description": _text(cls), "properties": properties}
    if issubclass(cls, Event | Order | Progress):
        _name_type(cls, described)
    if not described["required"]:
        del described["required"]
    return described


def _name_type(cls: type[Event | Order | Progress], message: dict[str, Json]) -> None:
    """The subject of a stored message names its type, so there the body may leave it out."""
    message["properties"]["type"] = {"const": cls.__struct_config__.tag}
    if not issubclass(cls, Progress):
        message["properties"]["type"]["description"] = "May be left out: the subject names the type."
        message["required"] = [name for name in message["required"] if name != "type"]


def _field_text(cls: type[Struct], field: str) -> str:
    """What the source says of a field, in the class that brings it."""
    docs = _docs()
    names = (f"{base.__name__}.{field}" for base in cls.__mro__)
    return next((docs[name] for name in names if name in docs), "")


@functools.cache
def _classes() -> dict[str, type[Struct]]:
    """Every struct of the published language by name."""
    named = (item for module in _MODULES for item in vars(module).items())
    return {name: item for name, item in named if isinstance(item, type) and issubclass(item, Struct)}


@functools.cache
def _docs() -> dict[str, str]:
    """`Class.field` → the string literal below it in the source, else the one below the alias that is its type.

    Such literals exist only in the source, never at run time.
    """
    docs: dict[str, str] = {}
    trees = [ast.parse(inspect.getsource(module)) for module in _MODULES]
    for tree in trees:
        docs |= {name: text for name, _, text in _assignments(tree.body) if text}
    for cls in (node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)):
        for name, annotation, text in _assignments(cls.body):
            if said := text or docs.get(annotation):
                docs[f"{cls.name}.{name}"] = said
    return docs


def _assignments(body: list[ast.stmt]) -> Iterator[tuple[str, str, str]]:
    """(name, annotation, documentation or "") of every assignment of a block."""
    for statement, below in pairwise((*body, ast.Pass())):
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                yield name, ast.unparse(annotation), _literal(below)
            case ast.Assign(targets=[ast.Name(id=name)]):
                yield name, "", _literal(below)


def _literal(statement: ast.stmt) -> str:
    match statement:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return inspect.cleandoc(text)
        case _:
            return ""
