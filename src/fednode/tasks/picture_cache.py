"""Pictures that were decoded once: squares of grey bytes in a memory-mapped file, known by their content and size.

Two files a size: `<size>.pixels` holds one square after the other, `<size>.index` a record for each file that was
seen. A file that has not changed since is not even read again; a copy of it elsewhere is read and not decoded. All
client nodes of a user share the cache, so one at a time adds to it. What a crash or a loss of power leaves there is
found by its checksum, and decoded anew. Where nothing can be kept, squares are held in memory, and that is said.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import structlog
import xxhash
from numpy.typing import NDArray
from platformdirs import user_cache_path

from fednode.tasks.base import Bytes
from fednode.tasks.pictures import NotAPicture, decode, read_file

RECORD = np.dtype([("stamp", "V16"), ("digest", "V16"), ("row", "<i8"), ("check", "<u8")])
CHUNK = 256                     # files that are decoded before any is written: bounds memory, and what a crash costs
MANY = 500                      # new files whose decoding takes long enough to be told of

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Found:
    """A picture that can be used."""

    path: Path
    digest: bytes               # 16 bytes: of the file's content
    row: int                    # its square among all of them


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A file that cannot be used, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What was found of some files, and the squares that its rows count: whoever holds them needs the cache no more."""

    files: tuple[Found | Skipped, ...]      # in the order that was asked for
    squares: Bytes                          # (all that the cache has, size, size), read-only


@dataclass(frozen=True, kw_only=True)
class LabelledSquares(Sequence[tuple[Bytes, int]]):
    """Some of many squares, with their labels and groups: a dataset whose pixels stay where they are."""

    squares: Bytes                  # (all of them, size, size)
    rows: Sequence[int]             # those of this dataset
    targets: NDArray[np.int64]      # (rows,): the label of each
    groups: Sequence[str]           # (rows,): whose each is

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: Any) -> Any:
        return np.array(self.squares[self.rows[place]]), int(self.targets[place])


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What was seen of a file that the cache did not know."""

    path: Path
    stamp: bytes
    digest: bytes
    square: Bytes | None        # None: the cache has one of this content


class _Record(NamedTuple):
    """A file that was seen, and where its square lies."""

    stamp: bytes
    digest: bytes
    row: int


def cache_dir() -> Path:
    """Where this user's decoded pictures are kept; what lies there may be deleted at any time."""
    return user_cache_path("fednode") / "pictures"


class PictureCache:
    """The squares of one size."""

    def __init__(self, size: int, folder: Path | None = None) -> None:
        self.size = size
        self._folder = folder or cache_dir()
        self._pixels, self._index = self._folder / f"{size}.pixels", self._folder / f"{size}.index"

    def find(self, paths: Sequence[Path]) -> Decoded:
        """Each file's square, decoded where its content is new."""
        try:
            with self._alone():
                return self._kept(paths)
        except OSError as error:
            log.warning(
                "pictures.not_kept", folder=str(self._folder), reason=error.strerror or str(error),
                fix="make room there, or name another folder by XDG_CACHE_HOME: else every start decodes them again",
            )
            return self._held(paths)

    def _kept(self, paths: Sequence[Path]) -> Decoded:
        """By the two files, to which what is new is added."""
        records = self._sound_records()
        by_stamp = {record.stamp: record for record in records}
        rows = {record.digest: record.row for record in records}
        known = {path: _known(path, by_stamp) for path in paths}
        files: dict[Path, Found | Skipped] = {path: one for path, one in known.items() if one is not None}
        new = [path for path, one in known.items() if one is None]
        for looks, squares in self._decoded(new, rows, self._num_squares()):
            self._append(squares, [(look.stamp, look.digest, rows[look.digest]) for look in _good(looks)])
            files |= {look.path: _file(look, rows) for look in looks}
        return Decoded(files=tuple(files[path] for path in paths), squares=self._mapped())

    def _held(self, paths: Sequence[Path]) -> Decoded:
        """In memory alone."""
        rows: dict[bytes, int] = {}
        files: dict[Path, Found | Skipped] = {}
        held: list[Bytes] = []
        for looks, squares in self._decoded(list(dict.fromkeys(paths)), rows, 0):
            held += squares
            files |= {look.path: _file(look, rows) for look in looks}
        together = np.stack(held) if held else np.zeros((0, self.size, self.size), np.uint8)
        return Decoded(files=tuple(files[path] for path in paths), squares=together)

    def _decoded(
        self, paths: Sequence[Path], rows: dict[bytes, int], num_squares: int
    ) -> Iterator[tuple[list[_Look | Skipped], list[Bytes]]]:
        """A chunk at a time: what each file is, and the squares that are new; their rows are added to `rows`."""
        if len(paths) > MANY:
            log.info("pictures.decoding", num_files=len(paths), size=self.size)
        with ThreadPoolExecutor(num_cores()) as threads:       # decoders let go of the interpreter
            for start in range(0, len(paths), CHUNK):
                look = partial(self._look, known=frozenset(rows))
                looks = list(threads.map(look, paths[start : start + CHUNK]))
                new = {one.digest: one.square for one in _good(looks) if one.square is not None}
                rows |= {digest: num_squares + place for place, digest in enumerate(new)}
                num_squares += len(new)
                yield looks, list(new.values())

    def _look(self, path: Path, known: frozenset[bytes]) -> _Look | Skipped:
        try:
            read = read_file(path)
            digest = xxhash.xxh3_128_digest(read.content)
            square = None if digest in known else decode(read.content, self.size)
            return _Look(path=path, stamp=_stamp(path, read.status), digest=digest, square=square)
        except NotAPicture as error:
            return Skipped(path=path, reason=str(error))

    # --- the two files ----------------------------------------------------------------------------------

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process adds to the cache meanwhile. Raises OSError where this one cannot."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f"{self.size}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _num_squares(self) -> int:
        return self._pixels.stat().st_size // self.size**2 if self._pixels.exists() else 0

    def _mapped(self) -> Bytes:
        """All squares, read-only: a memory map, of which only what is used is ever read."""
        if not self._num_squares():
            return np.zeros((0, self.size, self.size), np.uint8)
        return np.memmap(self._pixels, np.uint8, "r", shape=(self._num_squares(), self.size, self.size))

    def _sound_records(self) -> list[_Record]:
        """The records whose square is there and is what was written; half a square at the end is cut off."""
        if not (self._index.exists() and self._pixels.exists()):
            self._index.write_bytes(b"")
            self._pixels.touch()
            return []
        content = self._index.read_bytes()
        records = np.frombuffer(content[: len(content) // RECORD.itemsize * RECORD.itemsize], RECORD)
        os.truncate(self._index, records.nbytes)
        os.truncate(self._pixels, self._num_squares() * self.size**2)
        squares = self._mapped()
        sound = {row: _check(squares[row]) for row in set(records["row"].tolist()) if 0 <= row < len(squares)}
        return [
            _Record(stamp, digest, row) for stamp, digest, row, check in records.tolist() if sound.get(row) == check
        ]

    def _append(self, squares: Sequence[Bytes], records: Sequence[tuple[bytes, bytes, int]]) -> None:
        """First what the records speak of, then the records."""
        with self._pixels.open("ab") as pixels:
            pixels.writelines(square.data for square in squares)
        written = self._mapped()
        rows = [(stamp, digest, row, _check(written[row])) for stamp, digest, row in records]
        with self._index.open("ab") as index:
            index.write(np.array(rows, RECORD).tobytes())


def _good(looks: Sequence[_Look | Skipped]) -> list[_Look]:
    return [look for look in looks if isinstance(look, _Look)]


def _file(look: _Look | Skipped, rows: dict[bytes, int]) -> Found | Skipped:
    if isinstance(look, Skipped):
        return look
    return Found(path=look.path, digest=look.digest, row=rows[look.digest])


def _known(path: Path, by_stamp: dict[bytes, _Record]) -> Found | None:
    try:
        record = by_stamp.get(_stamp(path, path.stat()))
    except OSError:
        return None             # to be looked at, for a reason in words
    return None if record is None else Found(path=path, digest=record.digest, row=record.row)


def _stamp(path: Path, status: os.stat_result) -> bytes:
    """16 bytes that change when a file does.

    `status` is from before the file was read: what was written into it meanwhile is found by the next look.
    """
    said = f"{path.absolute()}\0{status.st_ino}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}"
    return xxhash.xxh3_128_digest(said.encode(errors="surrogateescape"))


def _check(square: Bytes) -> int:
    return xxhash.xxh3_64_intdigest(square.tobytes())


def num_cores() -> int:
    """That this process may use: so many files are decoded side by side."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
