"""Which params belong to which rows. A database elsewhere and a state dir can be named wrongly, one without the other.

That must not cost a model: a start deletes what no row names. So a state dir whose rows are elsewhere says where, and
by which first leader that database is known: it comes along with a dump, and no other store has the same.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import Connection, select

from fednode.errors import BadConfig, StoreDamaged
from fednode.store.engine import Database
from fednode.store.params_files import ParamsFiles
from fednode.store.schema import leadership
from fednode.store.sqlite import FILE_NAME, SqliteFile
from fednode.store.sweep import named_files
from fednode.wire.codec import disk_errors, replacing

NOTE_NAME = "database.json"


@dataclass(frozen=True, kw_only=True)
class _Note:
    """What lies in the state dir of a store whose rows are elsewhere."""

    database: str           # where, for people
    first_leader: str       # who began its first epoch, and when


def require_rows_here(state_dir: Path) -> None:
    """Raises BadConfig where the rows of this state dir are in another database."""
    if (note := _read(state_dir)) is not None:
        raise BadConfig(
            f"the rows of {state_dir} are in {note.database}",
            fix="see docs/how-to/postgresql.md: pg_dump copies and checks them; keep a copy of the state dir beside it",
        )


def require_belonging(state_dir: Path, database: Database) -> None:
    """Before a database is opened. Raises BadConfig where the state dir has its rows in the other kind of one."""
    note, is_file = _read(state_dir), isinstance(database, SqliteFile)
    if is_file and note is not None:
        raise BadConfig(
            f"the rows of the state dir {state_dir} are in {note.database}",
            fix="name it: --database or FEDNODE_DATABASE; or choose another folder with --state-dir",
        )
    if not is_file and (state_dir / FILE_NAME).exists():
        raise BadConfig(
            f"the state dir {state_dir} has its rows in {FILE_NAME}, not in {database.name}",
            fix="choose another folder with --state-dir, or leave --database out",
        )


def bind(c: Connection, state_dir: Path, files: ParamsFiles, database: Database) -> None:
    """Say in the state dir whose it is, where its rows are elsewhere; before anything is swept.

    Raises BadConfig where it is another database's, StoreDamaged where files that the rows name are not here.
    """
    if isinstance(database, SqliteFile):
        return
    note = _Note(database=database.name, first_leader=_first_leader(c))
    before = _read(state_dir)
    if before is not None and before.first_leader != note.first_leader:
        raise BadConfig(
            f"the state dir {state_dir} belongs to the rows in {before.database}, not to those in {database.name}",
            fix="correct --database or --state-dir; no file was deleted",
        )
    if before is None:
        _require_files(c, state_dir, files, database)
    if before != note:
        _write(state_dir, note)


def require_no_orphans(state_dir: Path, database: Database) -> None:
    """Of a database that has no tables yet. Raises StoreDamaged where models lie here that it would know nothing of."""
    models = state_dir / "params" / "models"
    if models.is_dir() and any(models.iterdir()):
        raise StoreDamaged(
            f"the state dir {state_dir} holds models, and {database.name} has no rows yet",
            fix="restore the rows from a backup, or choose another folder with --state-dir; nothing was deleted",
        )


def _require_files(c: Connection, state_dir: Path, files: ParamsFiles, database: Database) -> None:
    missing = sorted(name for name in named_files(c).paths if not (files.root / name).is_file())
    if missing:
        raise StoreDamaged(
            f"{database.name} names {len(missing)} params files that are not in {state_dir}, the first is {missing[0]}",
            fix="name the state dir that belongs to it, or copy its folder params to here",
        )


def _first_leader(c: Connection) -> str:
    row = c.execute(select(leadership).order_by(leadership.c.epoch).limit(1)).one()
    return f"{row.holder} at {row.wall_s!r}"


def _read(state_dir: Path) -> _Note | None:
    path = state_dir / NOTE_NAME
    if not path.exists():
        return None
    try:
        return _Note(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise StoreDamaged(f"{path} cannot be read: {error}", fix="restore it from a backup") from error


def _write(state_dir: Path, note: _Note) -> None:
    path = state_dir / NOTE_NAME
    with disk_errors(path), replacing(path, is_durable=True) as file:
        file.write(json.dumps(asdict(note), indent=2).encode())
