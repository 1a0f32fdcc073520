"""The store's rows as one SQLite file in the state dir: all that is SQLite's own.

WAL, `synchronous=FULL`: a commit that returned survives a loss of power. Writers begin IMMEDIATE, so that no
transaction finds out at its end that another was first. The twin for a database elsewhere is `postgres.py`.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from fednode.errors import StoreDamaged, StoreError
from fednode.store.engine import OF_A_FILE
from fednode.store.writer import as_store_error

FILE_NAME = "store.sqlite"
BUSY_TIMEOUT_MS = 30_000        # a backup, or a reader from outside, may hold the file for a while
# Of each connection, and SQLite keeps what it has filled: with its own 2 MB a central node grew for hours. A page of
# the file that is not in it comes from the system's cache; in a store of 10,000 rounds no query was measurably slower.
CACHE_KIB = 256
SETTINGS = (
    "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON",
    f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}", f"PRAGMA cache_size=-{CACHE_KIB}",
)
# What the process before this one wrote and could not fsync can still be read, and will never be on the disk. It is
# written anew, into the database, before anything is built on it. In one process SQLite needs no such care: after a
# commit that failed, the next one writes over it from its first byte.
AT_THE_START = ("PRAGMA wal_checkpoint(TRUNCATE)",)


@dataclass(frozen=True)
class SqliteFile:
    """`engine.Database` in a file."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def way_back(self) -> str:
        return OF_A_FILE

    def open(self, *, is_writer: bool) -> Engine:
        """It connects on first use."""
        return open_engine(self.path, is_writer=is_writer)

    def keep_before(self, head: str) -> None:
        """A copy of the tables as they are, before they become those of revision `head`."""
        back_up(self.path, self.path.with_name(f"{self.path.stem}-before-{head}{self.path.suffix}"))

    def num_bytes(self, c: Connection) -> int:
        """With what SQLite keeps beside it."""
        return sum(size_of(path) for path in self.path.parent.glob(f"{self.path.name}*"))

    def refusal(self, error: DBAPIError) -> StoreError:
        """Why it does not open."""
        said = str(error.orig)
        if "not a database" in said or "malformed" in said:
            return StoreDamaged(f"{self.path} is damaged: {said}", fix="restore the state dir from a backup")
        return as_store_error(error)


def open_engine(path: Path, *, is_writer: bool) -> Engine:
    """An engine on the SQLite file `path`; it connects on first use."""
    engine = create_engine(URL.create("sqlite", database=str(path)))
    begin = "BEGIN IMMEDIATE" if is_writer else "BEGIN"

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, record: object) -> None:
        connection.isolation_level = None       # the driver begins and commits nothing on its own
        for setting in (*SETTINGS, *(AT_THE_START if is_writer else ())):
            connection.execute(setting)

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def size_of(path: Path) -> int:
    """In bytes; 0 for a folder, and for a file that was deleted meanwhile."""
    with suppress(OSError):
        return path.stat().st_size if path.is_file() else 0
    return 0


def back_up(source: Path, target: Path) -> None:
    """Copy a database that may be in use to `target`, whole and consistent: it appears there at once, or not at all."""
    part = target.with_suffix(".part")
    part.unlink(missing_ok=True)        # of a process that was killed here
    with closing(sqlite3.connect(source)) as original, closing(sqlite3.connect(part)) as copied:
        original.backup(copied)
    part.replace(target)


def copy_database(view: Connection, target: Path) -> None:
    """Copy the database as `view`, which has begun to read, sees it: others may write meanwhile."""
    with closing(sqlite3.connect(target)) as copied:
        raw: Any = view.connection.driver_connection
        raw.backup(copied)
