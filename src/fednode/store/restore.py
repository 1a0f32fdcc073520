"""From a backup to a state dir that a central node can start with. `backup.py` says what the file looks like.

Nothing in the file is believed: names are those that a backup has, and every file must be what its sha256 says. The
store comes to its place last, so that what was unpacked by half never starts.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tarfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from fednode.errors import BadConfig, DataError, NotFound, VersionMismatch
from fednode.store.backup import ABOUT, FORMAT, OWNER_ONLY, PARAMS, SUMS, About, read_about
from fednode.store.engine import require_known_revision
from fednode.store.lock import FILE_NAME as LOCK_NAME
from fednode.store.lock import StateLock
from fednode.store.sqlite import FILE_NAME
from fednode.wire.codec import PIECE_BYTES, disk_errors
from fednode.wire.durable import fsync

_PARAMS_NAME = re.compile(rf"{PARAMS}(/[A-Za-z0-9_-][A-Za-z0-9._-]*){{2,4}}")      # no part begins with a dot
MAX_SUMS_BYTES = 256 << 20


def restore_backup(source: Path, state_dir: Path, beside: Collection[str]) -> About:
    """Unpack `source` into the empty or new folder `state_dir`, all of it or nothing.

    Raises NotFound, DataError (no backup, or a damaged one), VersionMismatch (a newer fednode's), BadConfig (the
    folder holds something), StoreLocked (a central node runs there), StoreFull, StoreError.
    """
    about = _checked(source)
    with _empty_folder(state_dir) as folder:
        with _reading(source), tarfile.open(source, "r:") as tar:
            _unpack(tar, folder, beside)
        _move_in(folder, state_dir, beside)
    return about


def _checked(source: Path) -> About:
    with _reading(source):
        about = read_about(source)
    if about.format > FORMAT:
        raise VersionMismatch(f"{source} was written by a newer fednode ({about.fednode})", fix="upgrade fednode")
    require_known_revision(about.revision, source)
    return about


@contextmanager
def _reading(source: Path) -> Iterator[None]:
    """Say DataError where the file is not what a backup looks like."""
    try:
        yield
    except FileNotFoundError:
        raise NotFound(f"there is no file {source}", fix="name a file that `fednode central backup` wrote") from None
    except (tarfile.TarError, OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise DataError(
            f"{source} is no whole backup of fednode's: {error}", fix="take another backup; nothing was restored"
        ) from error


@contextmanager
def _empty_folder(state_dir: Path) -> Iterator[Path]:
    """A place to unpack in the locked state dir; gone at the end, however that comes."""
    if not (state_dir / LOCK_NAME).exists():
        _require_empty(state_dir)
    lock = StateLock.take(state_dir)
    folder = state_dir / "restoring"
    try:
        _require_empty(state_dir)
        with disk_errors(folder):
            folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _require_empty(state_dir: Path) -> None:
    if state_dir.is_dir() and any(path.name != LOCK_NAME for path in state_dir.iterdir()):
        raise BadConfig(
            f"{state_dir} is not empty, and a restore overwrites nothing",
            fix="name an empty or new folder by --state-dir, or move what is there away",
        )


def _unpack(tar: tarfile.TarFile, folder: Path, beside: Collection[str]) -> None:
    """Every member, checked. Raises ValueError where one is not what it should be."""
    found: dict[str, str] = {}
    sums: dict[str, str] | None = None
    for member in tar:
        if not member.isreg() or sums is not None:
            raise ValueError(f"{member.name!r} is no file of a backup")
        if member.name == SUMS:
            sums = dict(json.loads(_content(tar, member)))
        elif member.name != ABOUT:
            found[member.name] = _unpack_one(tar, member, folder, beside)
    if sums is None or FILE_NAME not in found:
        raise ValueError("its end is missing")
    for name in sorted(sums.keys() | found.keys()):
        if sums.get(name) != found.get(name):
            raise ValueError(f"{name!r} is damaged or missing")


def _unpack_one(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, beside: Collection[str]) -> str:
    """The sha256 of what came."""
    if member.name != FILE_NAME and member.name not in beside and not _PARAMS_NAME.fullmatch(member.name):
        raise ValueError(f"{member.name!r} is no file of a backup")
    content = tar.extractfile(member)
    assert content is not None, "a regular file has content"
    sha256, target = hashlib.sha256(), folder / member.name
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch(mode=OWNER_ONLY)
        with target.open("wb") as file:
            while piece := content.read(PIECE_BYTES):
                file.write(piece)
                sha256.update(piece)
        fsync(target)
    return sha256.hexdigest()


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > MAX_SUMS_BYTES:
        raise ValueError(f"{member.name!r} is too large")
    content = tar.extractfile(member)
    return b"" if content is None else content.read()


def _move_in(folder: Path, state_dir: Path, beside: Collection[str]) -> None:
    with disk_errors(state_dir):
        for below in sorted(folder.rglob("*"), reverse=True):
            if below.is_dir():
                fsync(below)
        for name in (PARAMS, *beside, FILE_NAME):       # the store last: with it there is a state dir
            if (folder / name).exists():
                (folder / name).replace(state_dir / name)
        fsync(state_dir)
