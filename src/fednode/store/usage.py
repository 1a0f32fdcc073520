"""How much a store holds: rows, bytes on disk, the version of its tables. For the settings page and its JSON."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Table, func, select

from fednode.store import schema
from fednode.store.engine import revision_of
from fednode.store.opening import FILE_NAME
from fednode.store.sql import SqlStore

COUNTED: Mapping[str, Table] = {
    "clients": schema.client, "runs": schema.run, "rounds": schema.round_, "updates": schema.update,
    "models": schema.model, "metrics": schema.metric, "events": schema.event, "journal": schema.journal,
}


@dataclass(frozen=True, kw_only=True)
class Usage:
    """One store at one moment."""

    revision: str                   # of its tables
    rows: Mapping[str, int]
    database_bytes: int
    params_bytes: int
    free_bytes: int                 # on the disk that it lies on


async def usage_of(store: SqlStore, state_dir: Path) -> Usage:
    return await store.read(lambda c: _usage(c, state_dir))


def _usage(c: Connection, state_dir: Path) -> Usage:
    path = state_dir / FILE_NAME
    return Usage(
        revision=revision_of(c, path) or "",
        rows={name: _num_rows(c, table) for name, table in COUNTED.items()},
        database_bytes=sum(_bytes_of(found) for found in state_dir.glob(f"{FILE_NAME}*")),
        params_bytes=sum(_bytes_of(found) for found in (state_dir / "params").rglob("*")),
        free_bytes=shutil.disk_usage(state_dir).free,
    )


def _num_rows(c: Connection, table: Table) -> int:
    return int(c.execute(select(func.count()).select_from(table)).scalar_one())


def _bytes_of(path: Path) -> int:
    """0 for a folder, and for a file that was swept meanwhile."""
    with suppress(OSError):
        return path.stat().st_size if path.is_file() else 0
    return 0
