"""Describe structs in Markdown from their own annotations, so that no reference can differ from the code."""

import json
import typing
from collections.abc import Iterator

import msgspec
from msgspec import Struct, inspect

_BOUNDS = (
    ("ge", "≥"),
    ("gt", ">"),
    ("le", "≤"),
    ("lt", "<"),
    ("multiple_of", "multiple of"),
    ("pattern", "matches"),
)


def config_reference(config: type[Struct]) -> str:
    """Every key of a configuration struct: the top level first, then a section for each table."""
    lines = ["# Configuration reference", "", *_table(config), *_tables(config, "")]
    return "\n".join(lines) + "\n"


def _tables(struct: type[Struct], prefix: str) -> Iterator[str]:
    """The tables in ``struct``, and those in them."""
    for field in msgspec.structs.fields(struct):
        table = _struct_of(field.type)
        if table is None:
            continue
        name = prefix + field.encode_name
        heading = f"[[{name}]]" if _is_sequence(field.type) else f"[{name}]"
        yield from ("", f"## `{heading}`", "", (table.__doc__ or "").strip(), "", *_table(table))
        yield from _tables(table, f"{name}.")


def _table(struct: type[Struct]) -> Iterator[str]:
    yield "| key | type | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for field in msgspec.structs.fields(struct):
        if _struct_of(field.type) is None:
            cells = (
                f"`{field.encode_name}`",
                type_words(field.type),
                _default(field),
                meaning(struct, field.name),
            )
            yield f"| {' | '.join(cells)} |"


def _struct_of(annotation: object) -> type[Struct] | None:
    """The struct that an annotation holds, directly or in a tuple."""
    kind = inspect.type_info(annotation)
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    if isinstance(kind, inspect.VarTupleType):
        kind = kind.item_type
    return kind.cls if isinstance(kind, inspect.StructType) else None


def _is_sequence(annotation: object) -> bool:
    kind = inspect.type_info(annotation)
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    return isinstance(kind, inspect.VarTupleType)


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.default is msgspec.NODEFAULT:
        return "required"
    if field.default is None:
        return "none"
    return f"`{json.dumps(field.default)}`"


def meaning(struct: type[Struct], name: str) -> str:
    """What a field's annotation says of it."""
    hint = typing.get_type_hints(struct, include_extras=True)[name]
    parts = [meta.description for meta in getattr(hint, "__metadata__", ()) if meta.description]
    return " ".join(parts)


def type_words(annotation: object) -> str:
    """A type in words: ``number``, ``text``, ``one of "a", "b"``, with its bounds."""
    return _words(inspect.type_info(annotation))


def _words(kind: inspect.Type) -> str:
    match kind:
        case inspect.Metadata():
            return _words(kind.type)
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType() | inspect.FloatType() | inspect.StrType():
            base = {"IntType": "whole number", "FloatType": "number", "StrType": "text"}[type(kind).__name__]
            bounds = [
                f"{sign} {value}" for key, sign in _BOUNDS if (value := getattr(kind, key, None)) is not None
            ]
            return ", ".join([base, *bounds]).replace("|", "\\|")
        case inspect.NoneType():
            return "none"
        case inspect.LiteralType():
            return "one of " + ", ".join(f"`{value}`" for value in kind.values)
        case inspect.UnionType():
            return " or ".join(_words(each) for each in kind.types)
        case inspect.VarTupleType() | inspect.ListType():
            return f"list of {_words(kind.item_type)}"
        case inspect.TupleType():
            return "list of " + ", ".join(_words(each) for each in kind.item_types)
        case inspect.DictType():
            return f"{_words(kind.key_type)} → {_words(kind.value_type)}"
        case inspect.StructType():
            return f"`{kind.cls.__name__}`"
        case _:
            return type(kind).__name__
