"""The database of a store, whichever it is: its door, and the version of its tables.

What only SQLite does is in `sqlite.py`, what only PostgreSQL does in `postgres.py`; nothing else knows the difference.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Protocol

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, inspect
from sqlalchemy.exc import DBAPIError

from fednode.errors import FednodeError, StoreDamaged, VersionMismatch
from fednode.failpoints import reach

MIGRATIONS = Path(__file__).parent / "migrations"
OF_A_FILE = "restore the backup that the newer one made (store-before-*.sqlite)"


class Database(Protocol):
    """Where the rows are."""

    @property
    def name(self) -> str:
        """What people read in an error: a path, an address; never a secret."""

    @property
    def way_back(self) -> str:
        """What to do where a newer fednode brought the tables up to date."""

    def open(self, *, is_writer: bool) -> Engine:
        """It connects on first use."""

    def keep_before(self, head: str) -> None:
        """Called before the tables become those of revision `head`."""

    def num_bytes(self, c: Connection) -> int:
        """How much it takes."""

    def refusal(self, error: DBAPIError) -> FednodeError:
        """Why it does not open."""


def migrate(
    engine: Engine, database: Database, migrations: Path = MIGRATIONS, *, on_new: Callable[[], None] = lambda: None
) -> None:
    """Bring the tables up to date: all of it or nothing. `on_new` may refuse to make the first ones.

    Raises VersionMismatch where a newer fednode wrote them, StoreDamaged where this is no store.
    """
    config, head = _config(migrations), newest_revision(migrations)
    try:
        with engine.begin() as connection:
            found = revision_of(connection, database.name)
            if found == head:
                return
            if found is None:
                on_new()
            else:
                require_known_revision(found, database.name, migrations, way_back=database.way_back)
                database.keep_before(head)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            reach("tables.migrating")
    except DBAPIError as error:
        raise database.refusal(error) from error


def newest_revision(migrations: Path = MIGRATIONS) -> str:
    """That of the tables which this fednode makes."""
    return _scripts(migrations).get_current_head() or ""


def revision_of(connection: Connection, name: Path | str) -> str | None:
    """The revision of the tables; None where there are none yet. Raises StoreDamaged where they are not ours."""
    found = MigrationContext.configure(connection).get_current_revision()
    if found is None and inspect(connection).get_table_names():
        raise StoreDamaged(
            f"{name} is a database, but not one of fednode's",
            fix="choose another folder with --state-dir, or an empty database",
        )
    return found


def require_known_revision(
    revision: str, name: Path | str, migrations: Path = MIGRATIONS, *, way_back: str = OF_A_FILE
) -> None:
    """Raises VersionMismatch where only a newer fednode knows the tables of `name`, StoreDamaged where it has none."""
    if not revision:
        raise StoreDamaged(
            f"{name} holds no tables", fix="restore the state dir from a backup; if there never was a run, just start"
        )
    try:
        _scripts(migrations).get_revision(revision)
    except CommandError:
        raise VersionMismatch(
            f"{name} was written by a newer fednode (its revision {revision} is unknown here)",
            fix=f"upgrade fednode, or {way_back}",
        ) from None


@cache
def _scripts(migrations: Path) -> ScriptDirectory:
    """Read once a process."""
    return ScriptDirectory.from_config(_config(migrations))


def _config(migrations: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    return config
