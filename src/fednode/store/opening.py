"""The start of a store whose folder is locked: tables, files, left-overs, leadership. Blocking; once a process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from fednode.store import rows
from fednode.store.engine import migrate, open_engine
from fednode.store.leadership import lead
from fednode.store.params_files import ParamsFiles
from fednode.store.sweep import named_files
from fednode.store.writer import as_store_error

FILE_NAME = "store.sqlite"


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

    engines: Engines
    files: ParamsFiles
    epoch: int
    last_event_seq: int


def prepare(state_dir: Path, wall_s: float) -> Opened:
    """Raises VersionMismatch, StoreDamaged, StoreFull, StoreError."""
    path = state_dir / FILE_NAME
    engines = Engines(writing=open_engine(path, is_writer=True), reading=open_engine(path, is_writer=False))
    try:
        migrate(engines.writing, path)
        return _take(engines, ParamsFiles(state_dir), wall_s)
    except DBAPIError as error:
        engines.dispose()
        raise as_store_error(error) from error
    except BaseException:
        engines.dispose()
        raise


def _take(engines: Engines, files: ParamsFiles, wall_s: float) -> Opened:
    epoch = lead(engines.writing, f"process {os.getpid()}", wall_s)
    with engines.reading.begin() as connection:
        files.sweep(named_files(connection))
        seq = rows.last_event_seq(connection)
    return Opened(engines=engines, files=files, epoch=epoch, last_event_seq=seq)
