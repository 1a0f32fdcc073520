"""How much a store holds: rows, bytes on disk, the version of its tables. For the settings page and its JSON."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Table, func, select

from fednode.store import schema
from fednode.store.engine import Database, revision_of
from fednode.store.sql import SqlStore
from fednode.store.sqlite import size_of

COUNTED: Mapping[str, Table] = {
    "clients": schema.client, "runs": schema.run, "rounds": schema.round_, "updates": schema.update,
    "models": schema.model, "metrics": schema.metric, "events": schema.event, "journal": schema.journal,
}


@dataclass(frozen=True, kw_only=True)
class Usage:
    """One store at one moment."""

    database: str                   # where its rows are: a file, or an address without its secrets
    revision: str                   # of its tables
    rows: Mapping[str, int]
    database_bytes: int
    params_bytes: int
    free_bytes: int                 # on the disk of the params


async def usage_of(store: SqlStore, state_dir: Path) -> Usage:
    return await store.read(lambda c: _usage(c, store.database, state_dir))


def _usage(c: Connection, database: Database, state_dir: Path) -> Usage:
    return Usage(
        database=database.name, revision=revision_of(c, database.name) or "",
        rows={name: _num_rows(c, table) for name, table in COUNTED.items()},
        database_bytes=database.num_bytes(c),
        params_bytes=sum(size_of(found) for found in (state_dir / "params").rglob("*")),
        free_bytes=shutil.disk_usage(state_dir).free,
    )


def _num_rows(c: Connection, table: Table) -> int:
    return int(c.execute(select(func.count()).select_from(table)).scalar_one())
