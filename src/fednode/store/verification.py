"""Every byte of a store against what was written down about it: the database, the rows, each params file by its hash.

Read-only, and beside a central node that runs: the rows are those of one instant. A file that has gone since then may
have gone with its round, so what is wrong with a file counts only if the rows still name it a moment later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from sqlalchemy import Connection, func, select

from fednode.errors import BadParamsFile, FednodeError, StoreDamaged
from fednode.store import schema
from fednode.store.consistency import RESTORE, UNREADABLE, Fault, row_faults
from fednode.store.engine import Database, newest_revision, require_known_revision, revision_of
from fednode.store.examination import reading
from fednode.store.params_files import model_name
from fednode.store.sqlite import SqliteFile
from fednode.store.sweep import named_files
from fednode.wire.codec import digest_of_file, read_params, sha256_of_file

MAX_SAID = 20                   # of what the database says about itself
OF_AN_UPDATE = f"{RESTORE}, or cancel its run and start another from its last model"
Progress: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Named:
    """A params file that a row names, and what the row says of it."""

    name: str                   # below the params folder
    num_bytes: int | None = None
    sha256: str = ""
    digest: str = ""            # xxh3-128; neither hash: a strategy's memory, which must only be whole


@dataclass(kw_only=True)
class Verified:
    """What was looked at, and what is wrong with it."""

    revision: str = ""
    is_newest: bool = True      # else rows and files were not looked at
    is_whole: bool = False      # everything was looked at
    num_runs: int = 0
    num_decisions: int = 0
    files: tuple[Named, ...] = ()
    faults: list[Fault] = field(default_factory=list)

    @property
    def num_bytes(self) -> int:
        """Of the files whose rows say so."""
        return sum(file.num_bytes or 0 for file in self.files)


def verify_store(state_dir: Path, told: Progress, database: str = "") -> Verified:
    """`told(read, all)`: bytes of params files, as they are read. `database`: the URL of rows that are elsewhere.

    Raises NotFound (no store there), VersionMismatch, and what keeps a database elsewhere from being opened.
    """
    found = Verified()
    try:
        with reading(state_dir, database) as (connection, rows_in):
            _look_at_rows(connection, rows_in, found)
        wrong = _file_faults(state_dir / "params", found, told)
        still_named = _names(state_dir, database) if wrong else set[str]()
        found.faults += [fault for name, fault in wrong.items() if name in still_named]
    except StoreDamaged as error:
        found.faults.append(Fault(check="database", told=error.message))
        found.is_whole = False
    except UNREADABLE as error:
        found.faults.append(Fault(check="database", told=f"its rows cannot be read to their end: {error}"))
        found.is_whole = False
    return found


# --- the database -----------------------------------------------------------------------------------------


def _look_at_rows(c: Connection, rows_in: Database, found: Verified) -> None:
    if isinstance(rows_in, SqliteFile):     # PostgreSQL sees to its own pages and keys
        found.faults += _database_faults(c, rows_in.path)
    found.revision = revision_of(c, rows_in.name) or ""
    require_known_revision(found.revision, rows_in.name, way_back=rows_in.way_back)
    found.is_newest = found.revision == newest_revision()
    if found.is_newest:
        found.faults += row_faults(c)
        found.num_runs, found.num_decisions = (
            c.execute(select(func.count()).select_from(table)).scalar_one() for table in (schema.run, schema.journal)
        )
        found.files = _files(c)
        found.is_whole = True


def _database_faults(c: Connection, path: Path) -> Iterator[Fault]:
    """What the database finds of itself: its pages and indexes, and rows that name rows which are not there."""
    for said in c.exec_driver_sql(f"PRAGMA integrity_check({MAX_SAID})").scalars():
        if said != "ok":
            yield Fault(check="database", told=f"{path}: {said}")
    for table, rowid, parent, _ in c.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(MAX_SAID):
        yield Fault(check="database", told=f"{path}: row {rowid} of {table} names a {parent} that is not there")


# --- the files ----------------------------------------------------------------------------------------------


def _files(c: Connection) -> tuple[Named, ...]:
    """All that rows name, in the order of their names."""
    names = named_files(c).paths
    known: dict[str, Named] = {}
    for row in c.execute(select(schema.model.c.sha256, schema.model.c.num_bytes)):
        name = model_name(row.sha256)
        known[name] = Named(name=name, num_bytes=row.num_bytes, sha256=row.sha256)
    table = schema.update
    for brought in c.execute(select(table.c.path, table.c.num_bytes, table.c.digest)):
        if brought.path in names:
            known[brought.path] = Named(name=brought.path, num_bytes=brought.num_bytes, digest=brought.digest)
    return tuple(known.get(name, Named(name=name)) for name in sorted(names))


def _names(state_dir: Path, database: str) -> set[str]:
    """What the rows name now."""
    with reading(state_dir, database) as (connection, _):
        return set(named_files(connection).paths)


def _file_faults(root: Path, found: Verified, told: Progress) -> dict[str, Fault]:
    """By name of the file."""
    faults, num_read = {}, 0
    for file in found.files:
        if wrong := _wrong_with(root / file.name, file):
            fix = OF_AN_UPDATE if file.digest else RESTORE
            faults[file.name] = Fault(check="files", told=f"{root / file.name} {wrong}", fix=fix)
        num_read += file.num_bytes or 0
        told(num_read, found.num_bytes)
    return faults


def _wrong_with(path: Path, file: Named) -> str:
    try:
        num_bytes = path.stat().st_size
        if file.num_bytes is not None and num_bytes != file.num_bytes:
            return f"has {num_bytes} bytes, its row says {file.num_bytes}"
        if file.sha256 and (found := sha256_of_file(path)) != file.sha256:
            return f"has the sha256 {found}, its row and its name say another"
        if file.digest and (found := digest_of_file(path)) != file.digest:
            return f"has the xxh3-128 {found}, its row says {file.digest}"
        read_params(path)
    except FileNotFoundError:
        return "is gone, and a row names it"
    except (OSError, BadParamsFile) as error:
        return f"cannot be read: {error.message if isinstance(error, FednodeError) else error.strerror}"
    return ""
