"""What a look at a central node's store tells, without a write and beside a central node that runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, Table, create_engine, func, select
from sqlalchemy.exc import DatabaseError

from fednode.errors import FednodeError, NotFound, StoreDamaged
from fednode.store.belonging import require_belonging
from fednode.store.engine import Database, newest_revision, require_known_revision, revision_of
from fednode.store.opening import database_of
from fednode.store.schema import client, event, model, run
from fednode.store.sqlite import FILE_NAME, SqliteFile
from fednode.store.sweep import named_files


@dataclass(frozen=True, kw_only=True)
class Examined:
    """A store that is sound."""

    revision: str
    is_newest: bool             # else it is brought up to date at the next start
    num_runs: int
    num_clients: int
    num_models: int
    newest_event_s: float       # wall time; 0: none
    missing: tuple[str, ...]    # params files that rows name and that are not there


def examine_store(state_dir: Path, database: str = "") -> Examined:
    """`database`: the URL of rows that are elsewhere. Raises what `reading` does, StoreDamaged, VersionMismatch."""
    with reading(state_dir, database) as (connection, rows_in):
        _require_sound(connection, rows_in)
        return _examined(connection, rows_in, state_dir)


@contextmanager
def reading(state_dir: Path, database: str = "") -> Iterator[tuple[Connection, Database]]:
    """One consistent view of the store, which cannot write.

    Raises NotFound (no store there), BadConfig (its rows are elsewhere), StoreDamaged, and where a database elsewhere
    does not open StoreAway, NotAuthorised, UsageError.
    """
    rows_in = database_of(state_dir, database)
    require_belonging(state_dir, rows_in)
    engine = _reader(state_dir) if isinstance(rows_in, SqliteFile) else rows_in.open(is_writer=False)
    try:
        with engine.connect() as connection:
            if isinstance(rows_in, SqliteFile):
                connection.exec_driver_sql("BEGIN")     # its driver would begin at the first write, which never comes
            yield connection, rows_in
    except DatabaseError as error:
        raise _refusal(rows_in, error) from error
    finally:
        engine.dispose()


def _reader(state_dir: Path) -> Engine:
    path = state_dir / FILE_NAME
    if not path.is_file():
        raise NotFound(f"{state_dir} holds no store of a central node", fix="name its folder by --state-dir")
    return create_engine(f"sqlite:///file:{quote(str(path.absolute()))}?mode=ro&uri=true")


def _refusal(rows_in: Database, error: DatabaseError) -> FednodeError:
    if isinstance(rows_in, SqliteFile):
        return StoreDamaged(f"{rows_in.name} cannot be read: {error.orig}", fix="restore the state dir from a backup")
    return rows_in.refusal(error)


def _require_sound(connection: Connection, rows_in: Database) -> None:
    if not isinstance(rows_in, SqliteFile):
        return                              # PostgreSQL sees to its own pages
    said = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if said != "ok":
        raise StoreDamaged(f"{rows_in.name} is damaged: {said}", fix="restore the state dir from a backup")


def _examined(connection: Connection, rows_in: Database, state_dir: Path) -> Examined:
    revision = revision_of(connection, rows_in.name) or ""
    require_known_revision(revision, rows_in.name, way_back=rows_in.way_back)
    is_newest = revision == newest_revision()

    def count(table: Table) -> int:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())

    names = sorted(named_files(connection).paths) if is_newest else []
    return Examined(
        revision=revision, is_newest=is_newest, num_runs=count(run), num_clients=count(client), num_models=count(model),
        newest_event_s=connection.execute(select(func.max(event.c.wall_s))).scalar() or 0.0,
        missing=tuple(name for name in names if not (state_dir / "params" / name).is_file()),
    )
