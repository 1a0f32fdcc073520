"""docs/reference/api.md: paths and bodies of a central node's OpenAPI, and who may call what."""

from __future__ import annotations

import asyncio
import inspect
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reference_text import Json, code, json_text, named, parts, prose, schema_type, table, wrapped

from fednode.central.app import create_app
from fednode.central.models_api import member_or_operator
from fednode.central.node import CentralSettings, client_of, operator_of
from fednode.clock import SystemClock
from fednode.store.sql import SqlStore
from fednode.wire import messages

WHO: Mapping[Any, str] = {
    operator_of: "an operator", client_of: "a client", member_or_operator: "a client or an operator",
}
ASKS_ITSELF = {                 # paths whose own code decides who may
    "GET /healthz": "everybody",
    "POST /api/v1/clients": "whoever has a join token, or the key of a client that is known",
    "POST /api/v1/nonces": "everybody",
    "GET /api/v1/whoami": "everybody",
}


def api() -> str:
    app = asyncio.run(described_app())
    schema = app.openapi()
    guards = {f"{method} {route.path}": guard_of(route.dependant) for route in leaves(app) for method in route.methods}
    found: dict[str, list[str]] = {}
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            name = f"{method.upper()} {path}"
            who = guards.get(name) or ASKS_ITSELF.get(name)
            if who is None:
                raise SystemExit(f"{name} has no guard that is known: say in ASKS_ITSELF who may call it")
            found.setdefault(operation["tags"][0], []).append(operation_section(name, who, operation))
    bodies = {name: body for name, body in schema["components"]["schemas"].items() if "[" in named(name)}
    return parts(
        *(parts(f"## {tag.capitalize()}", *sections) for tag, sections in found.items()),
        "## Bodies", *(body_section(name, bodies[name]) for name in sorted(bodies)),
    )


async def described_app() -> Any:
    with tempfile.TemporaryDirectory() as name:
        store = await SqlStore.open(Path(name), SystemClock())
        try:
            return create_app(store, SystemClock(), CentralSettings(state_dir=Path(name), user_state_dir=Path(name)))
        finally:
            await store.close()


def leaves(router: Any) -> Iterator[Any]:
    """The routes with functions of ours behind them, out of the routers that are included."""
    for route in router.routes:
        if hasattr(route, "dependant"):
            yield route
        yield from leaves(route.original_router) if hasattr(route, "original_router") else ()


def guard_of(dependant: Any) -> str:
    return " and ".join(sorted({WHO[call] for call in calls(dependant) if call in WHO}))


def calls(dependant: Any) -> Iterator[Any]:
    for child in dependant.dependencies:
        yield child.call
        yield from calls(child)


def operation_section(name: str, who: str, operation: Json) -> str:
    params = [
        (code(param["name"]), schema_type(param["schema"]), code(param["schema"].get("default", "")))
        for param in operation.get("parameters", []) if param["in"] == "query"
    ]
    body = operation.get("requestBody", {}).get("content")
    answers = [
        f"{status} {content_text(row.get('content', {}))}".rstrip()
        for status, row in operation["responses"].items() if status[0] in "23"
    ]
    told = f"Who may: {who}.{f' Body: {content_text(body)}.' if body else ''} Answer: {', '.join(answers)}."
    return parts(
        f"### {name}", prose(operation.get("description")), wrapped(told),
        table(("parameter", "type", "default"), params),
    )


def content_text(content: Json) -> str:
    media, told = next(iter(content.items()), ("", {}))
    if "json" not in media:
        return code(media)
    return schema_type(told["schema"]) if told.get("schema") else ""


def body_section(name: str, schema: Json) -> str:
    required, meanings = schema.get("required", []), comments_of(getattr(messages, name))
    rows = [
        (code(field), schema_type(row), "required" if field in required else code(json_text(row.get("default", ""))),
         meanings.get(field, ""))
        for field, row in schema.get("properties", {}).items()
    ]
    return parts(f"### {name}", prose(schema.get("description")), table(("field", "type", "default", "meaning"), rows))


def comments_of(kind: type) -> dict[str, str]:
    """What the source says of each field: behind it, or in the lines before."""
    found, before = {}, ""
    for line in inspect.getsource(kind).splitlines():
        if line.strip().startswith("#"):
            before = f"{before} {line.strip().lstrip('# ')}".strip()
            continue
        if field := re.match(r"    (\w+?)_?: ", line):
            behind = re.search(r"\s#\s(.+)$", line)
            found[field[1]] = (behind[1] if behind else before).replace("<", "\\<")
        before = ""
    return found
