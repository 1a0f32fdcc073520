"""What the makers of docs/reference share: pieces of Markdown, and a JSON schema's fields in words."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from fednode.wire import messages

WIDTH = 140

Json = Mapping[str, Any]
Row = Sequence[str]


def table(columns: Row, rows: Sequence[Row]) -> str:
    """Without the columns that are empty in every row; "" without rows."""
    told = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    used = [index for index in range(len(columns)) if any(row[index] for row in told)]
    lines = [[columns[i] for i in used], ["---"] * len(used), *([row[i] for i in used] for row in told)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else ""


def prose(text: str | None) -> str:
    """A docstring as paragraphs of our width; what is indented stays as it is."""
    blocks = re.split(r"\n\s*\n", inspect.cleandoc(text or ""))
    return parts(*(block if block.startswith("    ") else wrapped(block) for block in blocks))


def wrapped(block: str) -> str:
    return textwrap.fill(" ".join(block.split()), WIDTH, break_long_words=False, break_on_hyphens=False)


def parts(*texts: str) -> str:
    return "\n\n".join(text for text in texts if text)


def code(text: object) -> str:
    return f"`{text}`" if str(text) else ""


def json_text(value: object) -> str:
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


# --- schemas --------------------------------------------------------------------------------------------

WORDS = {
    "string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "object": "object",
    "null": "null",
}
LIMITS = {
    "minimum": ">= {}", "exclusiveMinimum": "> {}", "maximum": "<= {}", "exclusiveMaximum": "< {}",
    "minLength": "at least {} characters", "maxLength": "at most {} characters", "minItems": "at least {}",
    "maxItems": "at most {}", "pattern": "`{}`",
}


def schema_type(schema: Json) -> str:
    """A field's type and limits in words; what is named elsewhere as a link."""
    if "$ref" in schema:
        return named(schema["$ref"].rsplit("/", 1)[1])
    if "anyOf" in schema:
        return " or ".join(schema_type(choice) for choice in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(code(json_text(choice)) for choice in schema.get("enum", [schema.get("const")]))
    word = WORDS.get(schema.get("type", ""), "anything")
    if schema.get("type") == "array":
        word = f"list of {schema_type(schema.get('items', {}))}"
    told = [text.format(limit(schema[key])) for key, text in LIMITS.items() if key in schema]
    return ", ".join([word, *told])


def named(name: str) -> str:
    """A body by a link, a closed list of words by its words."""
    kind = getattr(messages, name, None)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(code(word.value) for word in kind)
    return f"[{name}](#{anchor(name)})" if kind else name


def limit(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def config_table(schema: Json) -> str:
    """The settings of a task or of a strategy."""
    return table(("field", "type", "default", "meaning"), [
        (code(name), schema_type(field), code(json_text(field.get("default", ""))), field.get("description", ""))
        for name, field in schema.get("properties", {}).items()
    ])
