"""Pictures that were decoded once: squares of grey bytes in a memory-mapped file, known by their content and size.

Two files a size: `<size>.pixels` holds one square after the other, `<size>.index` a record for each file that was
seen. A file that has not changed since is not even read again; a copy of it elsewhere is read and not decoded. All
client nodes of a user share the cache, so one at a time adds to it. What a crash or a loss of power leaves there is
found by its checksum, and decoded anew.
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
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray
from platformdirs import user_cache_path

from fednode.errors import DataError
from fednode.tasks.base import Bytes
from fednode.tasks.pictures import NotAPicture, decode, read_file

RECORD = np.dtype([("stamp", "V16"), ("digest", "V16"), ("row", "<i8"), ("check", "<u8")])
CHUNK = 256                     # files that are decoded before any is written: bounds memory, and what a crash costs


@dataclass(frozen=True, kw_only=True)
class Found:
    """A picture that can be used."""

    path: Path
    digest: bytes               # 16 bytes: of the file's content
    row: int                    # its square in the cache


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A file that cannot be used, and why."""

    path: Path
    reason: str


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


def cache_dir() -> Path:
    """Where this user's decoded pictures are kept; what lies there may be deleted at any time."""
    return user_cache_path("fednode") / "pictures"


class PictureCache:
    """The squares of one size. Raises DataError where its folder cannot be used."""

    def __init__(self, size: int, folder: Path | None = None) -> None:
        self.size = size
        self._folder = folder or cache_dir()
        self._pixels, self._index = self._folder / f"{size}.pixels", self._folder / f"{size}.index"

    def find(self, paths: Sequence[Path]) -> list[Found | Skipped]:
        """Each file's square, decoded where its content is new; in the order of `paths`."""
        with self._alone():
            records = self._sound_records()
            by_stamp = {bytes(record["stamp"]): record for record in records}
            rows = {bytes(record["digest"]): int(record["row"]) for record in records}
            found: dict[Path, Found | Skipped] = {}
            new: list[Path] = []
            for path in dict.fromkeys(paths):
                if (known := _known(path, by_stamp)) is None:
                    new.append(path)
                else:
                    found[path] = known
            for start in range(0, len(new), CHUNK):
                found |= {one.path: one for one in self._add(new[start : start + CHUNK], rows)}
            return [found[path] for path in paths]

    def squares(self) -> Bytes:
        """All of them, (squares, size, size), read-only: a memory map, of which only what is used is ever read."""
        if not self._num_squares():
            return np.zeros((0, self.size, self.size), np.uint8)
        return np.memmap(self._pixels, np.uint8, "r", shape=(self._num_squares(), self.size, self.size))

    def _add(self, paths: Sequence[Path], rows: dict[bytes, int]) -> list[Found | Skipped]:
        """Look at files that are new, decode them side by side, and remember what they show."""
        with ThreadPoolExecutor(os.cpu_count() or 1) as threads:       # decoders let go of the interpreter
            looks = list(threads.map(partial(self._look, known=frozenset(rows)), paths))
        num_squares = self._num_squares()
        squares: list[Bytes] = []
        records: list[tuple[bytes, bytes, int]] = []
        for look in looks:
            if isinstance(look, _Look):
                if look.digest not in rows and look.square is not None:
                    rows[look.digest] = num_squares + len(squares)
                    squares.append(look.square)
                records.append((look.stamp, look.digest, rows[look.digest]))
        self._append(squares, records)
        return [
            Found(path=look.path, digest=look.digest, row=rows[look.digest]) if isinstance(look, _Look) else look
            for look in looks
        ]

    def _look(self, path: Path, known: frozenset[bytes]) -> _Look | Skipped:
        try:
            content = read_file(path)
            digest = xxhash.xxh3_128_digest(content)
            square = None if digest in known else decode(content, self.size)
            return _Look(path=path, stamp=_stamp(path), digest=digest, square=square)
        except (NotAPicture, OSError) as error:
            return Skipped(path=path, reason=str(error))

    # --- the two files ----------------------------------------------------------------------------------

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process adds to the cache meanwhile."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / f"{self.size}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise DataError(
                f"decoded pictures cannot be kept in {self._folder}: {error.strerror or error}",
                fix="make room there, or name another folder by XDG_CACHE_HOME",
            ) from error

    def _num_squares(self) -> int:
        return self._pixels.stat().st_size // self.size**2 if self._pixels.exists() else 0

    def _sound_records(self) -> list[np.void]:
        """The records whose square is there and is what was written; half a square at the end is cut off."""
        if not (self._index.exists() and self._pixels.exists()):
            self._index.write_bytes(b"")
            self._pixels.touch()
            return []
        content = self._index.read_bytes()
        records = np.frombuffer(content[: len(content) // RECORD.itemsize * RECORD.itemsize], RECORD)
        os.truncate(self._index, records.nbytes)
        os.truncate(self._pixels, self._num_squares() * self.size**2)
        squares = self.squares()
        sound = {row: _check(squares[row]) for row in set(records["row"].tolist()) if 0 <= row < len(squares)}
        return [record for record in records if sound.get(int(record["row"])) == int(record["check"])]

    def _append(self, squares: Sequence[Bytes], records: Sequence[tuple[bytes, bytes, int]]) -> None:
        """First what the records speak of, then the records."""
        with self._pixels.open("ab") as pixels:
            pixels.writelines(square.data for square in squares)
        written = self.squares()
        rows = [(stamp, digest, row, _check(written[row])) for stamp, digest, row in records]
        with self._index.open("ab") as index:
            index.write(np.array(rows, RECORD).tobytes())


def _known(path: Path, by_stamp: dict[bytes, np.void]) -> Found | None:
    try:
        record = by_stamp.get(_stamp(path))
    except OSError:
        return None             # to be looked at, for a reason in words
    return None if record is None else Found(path=path, digest=bytes(record["digest"]), row=int(record["row"]))


def _stamp(path: Path) -> bytes:
    """16 bytes that change when a file does. Raises OSError."""
    status = path.stat()
    said = f"{path.absolute()}\0{status.st_ino}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}"
    return xxhash.xxh3_128_digest(said.encode(errors="surrogateescape"))


def _check(square: Bytes) -> int:
    return xxhash.xxh3_64_intdigest(square.tobytes())
