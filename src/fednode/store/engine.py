"""The database itself: connections with the right settings, the version of its tables, its backup.

All that is SQLite's own is in this module. WAL, `synchronous=FULL`: a commit that returned survives a loss of
power. Writers begin IMMEDIATE, so that no transaction finds out at its end that another was first.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect
from sqlalchemy.exc import DatabaseError

from fednode.errors import StoreDamaged, VersionMismatch
from fednode.store.writer import as_store_error

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_MS = 30_000        # a backup, or a reader from outside, may hold the file for a while
SETTINGS = (
    "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON",
    f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}",
)


def open_engine(path: Path, *, is_writer: bool) -> Engine:
    """An engine on the SQLite file `path`; it connects on first use."""
    engine = create_engine(URL.create("sqlite", database=str(path)))
    begin = "BEGIN IMMEDIATE" if is_writer else "BEGIN"

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, record: object) -> None:
        connection.isolation_level = None       # the driver begins and commits nothing on its own
        for setting in SETTINGS:
            connection.execute(setting)

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def migrate(engine: Engine, path: Path, migrations: Path = MIGRATIONS) -> None:
    """Bring the tables up to date, after a backup where there are some: all of it or nothing.

    Raises VersionMismatch where a newer fednode wrote them, StoreDamaged where this is no store.
    """
    config = _config(migrations)
    head = ScriptDirectory.from_config(config).get_current_head()
    try:
        with engine.begin() as connection:
            found = revision_of(connection, path)
            if found is not None:
                require_known_revision(found, path, migrations)
            if found == head:
                return
            if found is not None:
                back_up(path, path.with_name(f"{path.stem}-before-{head}{path.suffix}"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except DatabaseError as error:
        raise _damaged(path, error) from error


def back_up(source: Path, target: Path) -> None:
    """Copy a database that may be in use to `target`, whole and consistent."""
    with closing(sqlite3.connect(source)) as original, closing(sqlite3.connect(target)) as copied:
        original.backup(copied)


def copy_database(view: Connection, target: Path) -> None:
    """Copy the database as `view`, which has begun to read, sees it: others may write meanwhile."""
    with closing(sqlite3.connect(target)) as copied:
        raw: Any = view.connection.driver_connection
        raw.backup(copied)


def newest_revision(migrations: Path = MIGRATIONS) -> str:
    """That of the tables which this fednode makes."""
    return ScriptDirectory.from_config(_config(migrations)).get_current_head() or ""


def revision_of(connection: Connection, path: Path) -> str | None:
    """The revision of the tables; None where there are none yet. Raises StoreDamaged where they are not ours."""
    found = MigrationContext.configure(connection).get_current_revision()
    if found is None and inspect(connection).get_table_names():
        raise StoreDamaged(
            f"{path} is a database, but not one of fednode's", fix="choose another folder with --state-dir"
        )
    return found


def require_known_revision(revision: str, path: Path, migrations: Path = MIGRATIONS) -> None:
    """Raises VersionMismatch where only a newer fednode knows the revision of the tables in `path`."""
    try:
        ScriptDirectory.from_config(_config(migrations)).get_revision(revision)
    except CommandError:
        raise VersionMismatch(
            f"{path} was written by a newer fednode (its revision {revision} is unknown here)",
            fix="upgrade fednode, or restore the backup that the newer one made (store-before-*.sqlite)",
        ) from None


def _config(migrations: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    return config


def _damaged(path: Path, error: DatabaseError) -> StoreDamaged | Exception:
    said = str(error.orig)
    if "not a database" in said or "malformed" in said:
        return StoreDamaged(f"{path} is damaged: {said}", fix="restore the state dir from a backup")
    return as_store_error(error)
