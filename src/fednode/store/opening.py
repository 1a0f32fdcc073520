"""The start of a store whose folder is locked: tables, files, left-overs, leadership. Blocking; once a process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from fednode.failpoints import reach
from fednode.store import rows
from fednode.store.belonging import bind, require_belonging, require_no_orphans
from fednode.store.engine import Database, migrate
from fednode.store.leadership import lead
from fednode.store.params_files import ParamsFiles
from fednode.store.postgres import PostgresDatabase
from fednode.store.sqlite import FILE_NAME, SqliteFile
from fednode.store.sweep import named_files


@dataclass(frozen=True, kw_only=True)
class Engines:
    """The same database twice: for the thread that writes, and for those that read meanwhile."""

    writing: Engine
    reading: Engine

    def dispose(self) -> None:
        self.reading.dispose()
        self.writing.dispose()


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A store that is ready to be written."""

    database: Database
    engines: Engines
    files: ParamsFiles
    epoch: int
    last_event_seq: int


def database_of(state_dir: Path, url: str) -> Database:
    """Where the rows of a state dir are: at `url`, where that is "" in a file of its own. Raises UsageError."""
    return PostgresDatabase.at(url) if url else SqliteFile(state_dir / FILE_NAME)


def prepare(state_dir: Path, database: Database, wall_s: float) -> Opened:
    """Raises VersionMismatch, UsageError, NotAuthorised, and StoreError or any of its kinds."""
    require_belonging(state_dir, database)
    engines = Engines(writing=database.open(is_writer=True), reading=database.open(is_writer=False))
    try:
        migrate(engines.writing, database, on_new=partial(require_no_orphans, state_dir, database))
        reach("tables.migrated")
        return _take(state_dir, database, engines, wall_s)
    except DBAPIError as error:
        engines.dispose()
        raise database.refusal(error) from error
    except BaseException:
        engines.dispose()
        raise


def _take(state_dir: Path, database: Database, engines: Engines, wall_s: float) -> Opened:
    epoch = lead(engines.writing, f"process {os.getpid()}", wall_s)
    reach("leader.written")
    files = ParamsFiles(state_dir)
    with engines.reading.begin() as connection:
        bind(connection, state_dir, files, database)
        files.sweep(named_files(connection))
        seq = rows.last_event_seq(connection)
    reach("store.opened")
    return Opened(database=database, engines=engines, files=files, epoch=epoch, last_event_seq=seq)
