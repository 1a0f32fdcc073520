"""What a look at a central node's store tells, without a write and beside a central node that runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Table, create_engine, func, select
from sqlalchemy.exc import DatabaseError

from fednode.errors import NotFound, StoreDamaged
from fednode.store.engine import newest_revision, require_known_revision, revision_of
from fednode.store.opening import FILE_NAME
from fednode.store.schema import client, event, model, run
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


def examine_store(state_dir: Path) -> Examined:
    """Raises NotFound (no store there), StoreDamaged, VersionMismatch."""
    path = state_dir / FILE_NAME
    if not path.is_file():
        raise NotFound(f"{state_dir} holds no store of a central node", fix="name its folder by --state-dir")
    engine = create_engine(f"sqlite:///file:{quote(str(path.absolute()))}?mode=ro&uri=true")
    try:
        with engine.connect() as connection:
            _require_sound(connection, path)
            return _examined(connection, path)
    except DatabaseError as error:
        raise StoreDamaged(f"{path} cannot be read: {error.orig}", fix="restore the state dir from a backup") from error
    finally:
        engine.dispose()


def _require_sound(connection: Connection, path: Path) -> None:
    said = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if said != "ok":
        raise StoreDamaged(f"{path} is damaged: {said}", fix="restore the state dir from a backup")


def _examined(connection: Connection, path: Path) -> Examined:
    revision = revision_of(connection, path) or ""
    require_known_revision(revision, path)
    is_newest = revision == newest_revision()

    def count(table: Table) -> int:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())

    names = sorted(named_files(connection).paths) if is_newest else []
    return Examined(
        revision=revision, is_newest=is_newest, num_runs=count(run), num_clients=count(client), num_models=count(model),
        newest_event_s=connection.execute(select(func.max(event.c.wall_s))).scalar() or 0.0,
        missing=tuple(name for name in names if not (path.parent / "params" / name).is_file()),
    )
