"""A JSON schema as the fields of a form, and what was typed into them as JSON values again.

The schema may be a stranger's: whatever it says comes out as a field that can be shown and typed into, and what a
value may be is judged by the schema alone, where the run is asked for.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from fednode.core.json import Json, JsonObject
from fednode.errors import BadConfig

Kind: TypeAlias = Literal["integer", "number", "text", "flag", "choice", "list", "json"]
MAX_FIELDS = 200                # of one schema; the others keep their defaults
MAX_CHOICES = 200               # more: it is typed, as JSON
MAX_DEPTH = 8                   # of references from one schema to another
MAX_HELP = 400                  # characters of a stranger's description
MAX_LABEL = 80
_PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_LIMITS = {
    "minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most", "exclusiveMaximum": "less than",
}


@dataclass(frozen=True, kw_only=True)
class FormField:
    """One input. `text` is what stands in it: a default, or what somebody typed."""

    name: str                           # of the input: `task.epochs`
    key: str = ""                       # the setting's own name, where it is another: `epochs`
    label: str
    kind: Kind
    text: str = ""                      # a flag: "on" or ""
    help: str = ""
    choices: tuple[str, ...] = ()       # as JSON
    minimum: str = ""
    maximum: str = ""
    limits: str = ""                    # in words
    item: str = ""                      # of a list: the type of each
    is_nullable: bool = False           # left empty it is null
    has_default: bool = False           # left empty it is a mistake
    error: str = ""

    @property
    def id(self) -> str:
        return element_id(self.name)

    def typed(self, text: str) -> FormField:
        return replace(self, text=text)

    def told(self, choice: str) -> str:
        """A choice as people read it."""
        value = json.loads(choice)
        return value if isinstance(value, str) else "none" if value is None else choice


def element_id(name: str) -> str:
    """Of the input of that name; a stranger's name may hold what no id may."""
    return f"f-{name}" if _PLAIN.fullmatch(name) else f"f-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def fields_of(schema: JsonObject, place: str) -> list[FormField]:
    """The schema's properties in their order, at most MAX_FIELDS of them."""
    properties = schema.get("properties")
    found = list(properties.items())[:MAX_FIELDS] if isinstance(properties, Mapping) else []
    return [_field(f"{place}.{name}", name, told, schema) for name, told in found]


def value_of(field: FormField) -> Json:
    """What was typed. Raises BadConfig where that is no value of the field's kind. Ask `is_left_out` first."""
    text = field.text.strip()
    if field.kind == "flag":
        return bool(text)
    if field.kind == "text":
        return None if field.is_nullable and not field.text else field.text
    if field.is_nullable and not text:
        return None
    try:
        return _READ[field.kind](text, field)
    except (ValueError, RecursionError):
        told = f"{_short(text, MAX_LABEL)!r} is no {_TOLD[field.kind]}" if text else "nothing stands here"
        raise BadConfig(told, fix=_EXAMPLE[field.kind], field=field.name) from None


def is_left_out(field: FormField) -> bool:
    """Whether nothing was typed, and the schema is to say whether that may be."""
    may_be_empty = field.kind in ("flag", "text") or field.is_nullable or field.has_default
    return not may_be_empty and not field.text.strip()


def text_of(value: Json, kind: Kind) -> str:
    """A JSON value as it stands in an input."""
    if kind == "flag":
        return "on" if value is True else ""
    if kind == "choice" or kind == "json":
        return json.dumps(value, ensure_ascii=False)
    if value is None:
        return ""
    if kind == "list" and isinstance(value, Sequence) and not isinstance(value, str):
        return _list_text(value)
    return f"{value}" if isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)


def _field(input_name: str, name: str, told: Json, root: JsonObject) -> FormField:
    schema, is_nullable = _resolved(told, root)
    choices = _choices(schema, is_nullable)
    kind = _kind(schema, is_nullable, choices)
    default = schema.get("default")
    has_text = "default" in schema or (kind == "choice" and is_nullable)
    return FormField(
        name=input_name, key=name, kind=kind, choices=choices if kind == "choice" else (), is_nullable=is_nullable,
        has_default="default" in schema, label=_short(_label(name, schema.get("title")), MAX_LABEL),
        help=_short(schema.get("description", ""), MAX_HELP), text=text_of(default, kind) if has_text else "",
        minimum=_number(schema, "minimum", "exclusiveMinimum"), maximum=_number(schema, "maximum", "exclusiveMaximum"),
        limits=_limits(schema),
        item=str(_part(schema, "items").get("type", "")),
    )


def _label(name: str, title: object) -> str:
    """The title, unless it is only the name again, as pydantic writes it."""
    words = name.replace("_", " ")
    return str(title) if title and str(title).lower() != words.lower() else words.capitalize()


def _resolved(told: Json, root: JsonObject, depth: int = 0) -> tuple[dict[str, Any], bool]:
    """The field's schema without `$ref`, and whether it may be null. What surrounds a reference wins over it."""
    schema: dict[str, Any] = dict(told) if isinstance(told, Mapping) else {}
    is_nullable = False
    if isinstance(schema.get("type"), list):
        kinds = [kind for kind in schema["type"] if kind != "null"]
        is_nullable = len(kinds) < len(schema["type"])
        schema["type"] = kinds[0] if len(kinds) == 1 else ""
    for word in ("anyOf", "oneOf", "allOf"):
        options = [part for part in _list(schema, word) if part != {"type": "null"}]
        is_nullable = is_nullable or len(options) < len(_list(schema, word))
        if len(options) == 1:
            below, may_be_null = _resolved(options[0], root, depth + 1) if depth < MAX_DEPTH else ({}, False)
            schema, is_nullable = below | schema, is_nullable or may_be_null
    target = _target(schema.get("$ref"), root)
    if target is not None and depth < MAX_DEPTH:
        below, may_be_null = _resolved(target, root, depth + 1)
        schema, is_nullable = below | schema, is_nullable or may_be_null
    return schema, is_nullable


def _target(ref: object, root: JsonObject) -> JsonObject | None:
    """Only what lies in the same schema; nothing is fetched."""
    if not isinstance(ref, str) or not ref.startswith("#/$defs/"):
        return None
    found = _part(root, "$defs").get(ref.removeprefix("#/$defs/"))
    return found if isinstance(found, Mapping) else None


def _choices(schema: Mapping[str, Any], is_nullable: bool) -> tuple[str, ...]:
    values = schema["enum"] if isinstance(schema.get("enum"), list) else [schema["const"]] if "const" in schema else []
    if schema.get("type") == "boolean" and is_nullable:
        values = [True, False]
    values = [None, *values] if is_nullable and values else values
    return tuple(dict.fromkeys(json.dumps(value, ensure_ascii=False) for value in values))


def _kind(schema: Mapping[str, Any], is_nullable: bool, choices: Sequence[str]) -> Kind:
    if choices:
        return "choice" if len(choices) <= MAX_CHOICES else "json"
    kind = schema.get("type")
    if kind == "array" and _part(schema, "items").get("type") in ("integer", "number", "string", "boolean"):
        return "list"
    kinds: Mapping[Any, Kind] = {"integer": "integer", "number": "number", "string": "text", "boolean": "flag"}
    return kinds.get(kind, "json") if isinstance(kind, str) else "json"


def _number(schema: Mapping[str, Any], *names: str) -> str:
    found = next((schema[name] for name in names if isinstance(schema.get(name), int | float)), "")
    return "" if isinstance(found, bool) else str(found)


def _limits(schema: Mapping[str, Any]) -> str:
    """`1 to 10,000`, `more than 0`."""
    found = {name: schema[name] for name in _LIMITS if _number(schema, name)}
    told = {name: f"{value:,}" if isinstance(value, int) else f"{value:g}" for name, value in found.items()}
    if found.keys() == {"minimum", "maximum"}:
        return f"{told['minimum']} to {told['maximum']}"
    return ", ".join(f"{_LIMITS[name]} {value}" for name, value in told.items())


def _part(schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = schema.get(name)
    return found if isinstance(found, Mapping) else {}


def _list(schema: Mapping[str, Any], name: str) -> list[Any]:
    found = schema.get(name)
    return found if isinstance(found, list) else []


def _short(text: object, limit: int) -> str:
    words = " ".join(str(text).split())
    return words if len(words) <= limit else words[: limit - 1] + "…"


def _list_text(values: Sequence[Json]) -> str:
    """`1, 2, 3`; JSON where that would not be read back as the same."""
    simple = all(isinstance(value, int | float) or (isinstance(value, str) and _is_word(value)) for value in values)
    told = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return ", ".join(told) if simple else json.dumps(list(values), ensure_ascii=False)


def _is_word(text: str) -> bool:
    return bool(text) and text == text.strip() and "," not in text and not text.startswith("[")


# --- reading ----------------------------------------------------------------------------------------


def _read_list(text: str, field: FormField) -> Json:
    if text.startswith("["):
        return _read_json(text, field)
    words = [word.strip() for word in text.split(",") if word.strip()]
    return words if field.item == "string" else [_read_json(word, field) for word in words]


def _read_json(text: str, field: FormField) -> Json:
    value: Json = json.loads(text)
    return value


def _read_choice(text: str, field: FormField) -> Json:
    if text not in field.choices:
        raise ValueError(text)
    return _read_json(text, field)


def _read_integer(text: str, field: FormField) -> Json:
    """`1e3` is a whole number too."""
    if text.lstrip("+-").isdecimal():
        return int(text)
    if not float(text).is_integer():
        raise ValueError(text)
    return int(float(text))


_READ = {
    "integer": _read_integer, "number": lambda text, field: float(text), "list": _read_list,
    "json": _read_json, "choice": _read_choice,
}
_TOLD = {
    "integer": "whole number", "number": "number", "list": "list", "json": "JSON", "choice": "choice of this field",
}
_EXAMPLE = {
    "integer": "write digits, such as 5", "number": "write a number, such as 0.1",
    "list": "write the items with commas between them, such as 1, 2, 3",
    "json": 'write JSON, such as 5, "text" or [1, 2]',
    "choice": "take one of the list",
}
