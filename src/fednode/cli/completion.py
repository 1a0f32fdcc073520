"""What the shell offers after a TAB: runs, clients, tasks and models of the central node. Within a second, or nothing.

A shell waits for this and shows what it prints: whatever goes wrong, nothing is said.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import typer

LIMIT_S = 1.0

Choices: TypeAlias = list[tuple[str, str]]      # what can be typed, and a word about it


def runs(context: typer.Context, incomplete: str) -> Choices:
    rows = [(str(run["number"]), f"{run['task']} {run['status']}") for run in _found(context, "runs")]
    return _begun(rows, incomplete.removeprefix("#"))


def clients(context: typer.Context, incomplete: str) -> Choices:
    return _begun([(client["name"], client["status"]) for client in _found(context, "clients")], incomplete)


def tasks(context: typer.Context, incomplete: str) -> Choices:
    rows = dict.fromkeys((task["task"], "") for task in _found(context, "tasks"))
    return _begun(list(rows), incomplete)


def models(context: typer.Context, incomplete: str) -> Choices:
    rows = [(model["id"], f"run #{model['run_number']} round {model['round']}") for model in _found(context, "models")]
    return _begun(rows, incomplete)


def _begun(rows: Choices, incomplete: str) -> Choices:
    return [row for row in rows if row[0].startswith(incomplete)]


def _found(context: typer.Context, path: str) -> list[dict[str, Any]]:
    """A list of the central node that the line so far names, else the settings."""
    try:
        return asyncio.run(_ask(context, path))
    except Exception:       # the shell has no place for a reason
        return []


async def _ask(context: typer.Context, path: str) -> list[dict[str, Any]]:
    from fednode.cli.api import open_api
    from fednode.settings import load_settings

    given = {name: context.params.get(name) for name in ("central", "token", "ca")}
    async with asyncio.timeout(LIMIT_S), open_api(load_settings(**given)) as api:
        return list(await api.get(path))
