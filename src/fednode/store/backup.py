"""A central node's state dir as one file: its rows, the params that they name, its tokens. Written while it trains.

The file is a plain tar: `about.json` first, `sha256.json` (of all the others) last, so that what was cut off is seen.
Rows and files are of one instant: writers are held off while the files that the rows name get a second name.
`restore.py` is the way back.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import DBAPIError

from fednode.errors import BadConfig, NotFound, StoreDamaged
from fednode.store.belonging import require_rows_here
from fednode.store.engine import newest_revision, require_known_revision, revision_of
from fednode.store.lock import StateLock
from fednode.store.schema import model, run
from fednode.store.sqlite import FILE_NAME, copy_database, open_engine
from fednode.store.sweep import named_files
from fednode.store.writer import as_store_error
from fednode.wire.codec import disk_errors, replacing, sha256_of_file

FORMAT = 1
ABOUT, SUMS = "about.json", "sha256.json"
PARAMS = "params"
OWNER_ONLY = 0o600


@dataclass(frozen=True, kw_only=True)
class About:
    """What a backup says of itself."""

    format: int
    fednode: str                # the version that wrote it
    revision: str               # of the tables
    made_s: float               # wall time
    num_runs: int
    num_models: int


def write_backup(state_dir: Path, target: Path, beside: Sequence[str], wall_s: float) -> About:
    """Put the state dir into `target`, whole or not at all. `beside`: files that lie next to the store.

    Raises NotFound (no store there), BadConfig (`target` is some other file, or the rows are elsewhere), StoreLocked
    (another backup is being made), StoreDamaged, VersionMismatch, StoreFull, StoreError.
    """
    require_rows_here(state_dir)
    if not (state_dir / FILE_NAME).is_file():
        raise NotFound(f"{state_dir} holds no store of a central node", fix="name its folder by --state-dir")
    _require_replaceable(target)
    with _workplace(state_dir) as folder:
        about = _take_snapshot(state_dir, folder, wall_s)
        for name in filter(lambda name: (state_dir / name).exists(), beside):
            _keep(state_dir / name, folder / name)
        with replacing(target, is_durable=True) as file:
            _pack(folder, about, file)
    return about


def read_about(source: Path) -> About:
    """What this backup says of itself. Raises what opening it raises, ValueError where it is none."""
    with tarfile.open(source, "r:") as tar:
        first = tar.next()
        content = None if first is None or first.name != ABOUT else tar.extractfile(first)
        if content is None:
            raise ValueError(f"it does not begin with {ABOUT}")
        row = json.load(content)
        return About(**{name: row[name] for name in About.__dataclass_fields__})


def _require_replaceable(target: Path) -> None:
    """A backup may take an older one's place, and nothing else's."""
    if not target.exists():
        return
    try:
        read_about(target)
    except (OSError, ValueError, KeyError, TypeError, tarfile.TarError):
        raise BadConfig(f"{target} is there and is no backup of fednode's", fix="choose another name") from None


@contextmanager
def _workplace(state_dir: Path) -> Iterator[Path]:
    """An empty folder on the disk of the state dir, for one backup at a time; left-overs of a killed one go."""
    home = state_dir / "backup"
    lock = StateLock.take(home)
    folder = home / "files"
    try:
        with disk_errors(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _take_snapshot(state_dir: Path, folder: Path, wall_s: float) -> About:
    """Rows and params files of one instant, in `folder`."""
    path = state_dir / FILE_NAME
    writing, reading = open_engine(path, is_writer=True), open_engine(path, is_writer=False)
    try:
        with reading.begin() as view:
            with writing.begin():           # held off: what nobody can commit, nobody deletes a file for
                about = _about(view, path, wall_s)
                for name in _names(view, state_dir / PARAMS, about.revision):
                    _keep(state_dir / PARAMS / name, folder / PARAMS / name)
            copy_database(view, folder / FILE_NAME)
        return about
    except DBAPIError as error:
        raise as_store_error(error) from error
    finally:
        reading.dispose()
        writing.dispose()


def _about(view: Connection, path: Path, wall_s: float) -> About:
    revision = revision_of(view, path) or ""
    require_known_revision(revision, path)
    return About(
        format=FORMAT, fednode=metadata.version("fednode"), revision=revision, made_s=wall_s,
        num_runs=view.execute(select(func.count()).select_from(run)).scalar_one(),
        num_models=view.execute(select(func.count()).select_from(model)).scalar_one(),
    )


def _names(view: Connection, root: Path, revision: str) -> Collection[str]:
    """Files that the rows name. Of an older fednode's rows we do not know the columns: then all that lie there."""
    if revision == newest_revision():
        return named_files(view).paths
    folders = (root / "models", root / "memory", root / "updates")
    return [path.relative_to(root).as_posix() for folder in folders for path in folder.rglob("*") if path.is_file()]


def _keep(source: Path, kept: Path) -> None:
    """A second name for the file, which outlives the first; a copy where the disk knows no second names."""
    if not source.is_file():
        raise StoreDamaged(f"the store needs {source}, which is gone", fix="restore the state dir from an older backup")
    kept.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, kept)
    except OSError:
        shutil.copyfile(source, kept)


# --- the file -----------------------------------------------------------------------------------------


def _pack(folder: Path, about: About, file: BinaryIO) -> None:
    sums: dict[str, str] = {}
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        _add_json(tar, ABOUT, asdict(about), about.made_s)
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = path.relative_to(folder).as_posix()
            sums[name] = _add_file(tar, name, path, about.made_s)
        _add_json(tar, SUMS, sums, about.made_s)


def _add_json(tar: tarfile.TarFile, name: str, content: object, made_s: float) -> None:
    text = json.dumps(content, indent=2).encode()
    tar.addfile(_member(name, len(text), made_s), io.BytesIO(text))


def _add_file(tar: tarfile.TarFile, name: str, path: Path, made_s: float) -> str:
    """Its sha256."""
    with path.open("rb") as file:
        tar.addfile(_member(name, path.stat().st_size, made_s), file)
    return sha256_of_file(path)


def _member(name: str, num_bytes: int, made_s: float) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = num_bytes, OWNER_ONLY, int(made_s)
    return member
