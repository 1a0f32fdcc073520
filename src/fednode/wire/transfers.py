"""Bulk, apart from the network: what is sent, what comes, and how a download goes on after a cut.

A `Line` is one way of carrying HTTP; the two that there are, and the uploads, live in `wire/http.py`.
"""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar

from fednode.errors import BadParamsFile, CannotConnect
from fednode.failpoints import halves, in_halves, reach
from fednode.wire.answers import Reply, error_of, not_ours
from fednode.wire.codec import disk_errors, sha256_of_file

T = TypeVar("T")
_OK, _PARTIAL, _RANGE_NOT_SATISFIABLE = 200, 206, 416


# (method, path, bytes): called before a body leaves this machine, or the next piece of it, in whatever thread sends it.
Door: TypeAlias = Callable[[str, str, int], None]


def open_door(method: str, path: str, num_bytes: int) -> None:
    """Nobody counts what leaves."""


@dataclass(frozen=True, kw_only=True)
class Body:
    """The end of a file, from `offset` on, and who hears of each piece before it leaves."""

    source: Path
    offset: int
    num_bytes: int
    leaves: Callable[[int], None]

    def spans(self, size: int) -> Iterator[tuple[int, int]]:
        """It, as places in the file: where a piece starts and how long it is."""
        end = self.offset + self.num_bytes
        reach("update.sending")
        for start in range(self.offset, end, size):
            length = min(size, end - start)
            self.leaves(length)
            for part in halves(range(start, start + length), "update.half_sent"):
                yield part.start, len(part)
        reach("update.sent")

    def pieces(self, size: int) -> Iterator[memoryview]:
        """It, without a copy."""
        if not self.num_bytes:
            return
        with self.source.open("rb") as file:
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        for start, length in self.spans(size):
            yield mapped[start : start + length]


@dataclass(frozen=True)
class Exchange:
    """An answer whose body still comes."""

    url: str
    status: int
    headers: Mapping[str, str]      # names in lower case
    pieces: Iterator[bytes]

    def reply(self) -> Reply:
        """All of it, in memory: for answers that are small."""
        return Reply(url=self.url, status=self.status, headers=self.headers, content=b"".join(self.pieces))


class Line(Protocol):
    """One way of carrying HTTP, blocking. Failures of the network come as CannotConnect."""

    def open(
        self, method: str, path: str, headers: Mapping[str, str], body: Body | None = None
    ) -> AbstractContextManager[Exchange]: ...

    def hang_up(self) -> None:
        """From another thread: what is open ends, and nothing opens any more."""
        ...


async def carry(line: Line, transfer: Callable[[Line], T]) -> T:
    """Run `transfer` in a thread. Who is cancelled hangs up at once, and leaves no thread behind."""
    running = asyncio.ensure_future(asyncio.to_thread(transfer, line))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        line.hang_up()
        await asyncio.gather(running, return_exceptions=True)
        raise


@dataclass(frozen=True, kw_only=True)
class Download:
    """What to fetch, and the file in which it grows."""

    url: str                        # of the central node, for messages
    path: str
    headers: Mapping[str, str]
    file: Path
    sha256: str
    num_bytes: int | None           # where it is known

    def run(self, line: Line) -> None:
        """Leave the whole file, checked. A file begun earlier that turns out wrong is fetched anew, once."""
        was_begun = self._num_there() > 0
        self._fetch(line)
        found = sha256_of_file(self.file)
        if found == self.sha256:
            return
        self.file.unlink()
        if not was_begun:
            raise BadParamsFile(
                f"{self.url}{self.path} has the sha256 {found}, not {self.sha256}",
                fix="download it again; if that does not help, the central node's file or a proxy's copy is damaged",
            )
        self.run(line)

    def _fetch(self, line: Line) -> None:
        while True:
            num_before = self._num_there()
            try:
                return self._fetch_rest(line, num_before)
            except CannotConnect:
                if self._num_there() <= num_before:
                    raise

    def _fetch_rest(self, line: Line, offset: int) -> None:
        if offset and offset == self.num_bytes:
            return
        headers = {**self.headers, "Range": f"bytes={offset}-"} if offset else self.headers
        with line.open("GET", self.path, headers) as answer:
            if answer.status not in (_OK, _PARTIAL):
                self._refused(answer, offset)
                return
            start = offset if answer.status == _PARTIAL else 0
            if start and not answer.headers.get("content-range", "").startswith(f"bytes {start}-"):
                raise not_ours(answer.reply())
            self._save(answer, start)

    def _refused(self, answer: Exchange, offset: int) -> None:
        """Raise what the answer says, but for one: that nothing lies beyond `offset`. Then the hash decides."""
        if answer.status == _RANGE_NOT_SATISFIABLE and offset:
            return
        raise error_of(answer.reply()) if answer.status >= 300 else not_ours(answer.reply())

    def _save(self, answer: Exchange, start: int) -> None:
        length = answer.headers.get("content-length", "")
        end = start + int(length) if length.isdecimal() else self.num_bytes
        if self.num_bytes is not None and end != self.num_bytes:
            raise BadParamsFile(
                f"{self.url}{self.path} has {end:,} bytes, not {self.num_bytes:,}",
                fix="ask for it again; the central node's file or a proxy's copy is damaged",
            )
        with disk_errors(self.file):
            file = self.file.open("ab" if start else "wb")
        with file:
            for piece in in_halves(answer.pieces, "model.half_fetched"):
                with disk_errors(self.file):
                    file.write(piece)
                    file.flush()        # here, so that a full disk is told as one, and closing has nothing to do
                start += len(piece)
        if end is not None and start < end:
            raise CannotConnect(f"{self.url} hung up after {start:,} of {end:,} bytes", fix="try again")

    def _num_there(self) -> int:
        return self.file.stat().st_size if self.file.exists() else 0
