"""The one thread that writes: closures in, futures out, many of them in one commit.

Each closure runs in its own savepoint, so one that fails takes only itself back. The group commits once (one
fsync), and only then does any of its futures resolve: what was acknowledged is on disk. A full disk or a
broken file fails the whole group and nothing else: the thread lives on. Of SQL only savepoints live here.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError, ProgrammingError

from fednode.errors import StoreAway, StoreError, StoreFull, StoreLocked

T = TypeVar("T")
Work = Callable[[Connection], T]

MAX_GROUP = 256                 # closures in one transaction: bounds how long the first one waits for its commit
# One name for all, so that a database that keeps what it has parsed knows these: SQLAlchemy gives each a new one.
SAVE, RELEASE, TAKE_BACK = "SAVEPOINT work", "RELEASE SAVEPOINT work", "ROLLBACK TO SAVEPOINT work"


@dataclass(kw_only=True)
class _Entry:
    """A closure on its way to the disk, and what came of it."""

    work: Work[Any]
    future: asyncio.Future[Any] | None          # None: nobody waits
    result: Any = None
    error: Exception | None = None


class Writer:
    """Group commit. `guard` runs first in every transaction and stops it by raising.

    `mark` runs last in it; what it finds is told to `after_commit`, in the event loop, before the futures resolve.
    What must be on the disk before the rows are, `before_commit` sees to, once for all of the group.
    """

    def __init__(
        self, engine: Engine, *, guard: Work[None], mark: Work[int], after_commit: Callable[[int], None],
        before_commit: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine, self._guard, self._mark, self._after_commit = engine, guard, mark, after_commit
        self._before_commit = before_commit
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self.taken: asyncio.Future[StoreLocked] = self._loop.create_future()    # done once another process leads
        self._is_closed = False
        self._thread = threading.Thread(target=self._write_until_closed, name="store-writer", daemon=True)
        self._thread.start()

    async def write(self, work: Work[T]) -> T:
        """Run `work` in the writer's next transaction; returns when it is durable. Raises what `work` raises."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._put(_Entry(work=work, future=future))
        return cast(T, await future)

    def queue(self, work: Work[Any]) -> None:
        """Run `work` some time soon. Nobody is told whether it came through: for what may be lost."""
        self._put(_Entry(work=work, future=None))

    def num_waiting(self) -> int:
        return self._queue.qsize()

    async def close(self) -> None:
        """Write what is queued, then end the thread."""
        if not self._is_closed:
            self._is_closed = True
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)

    def _put(self, entry: _Entry) -> None:
        if self._is_closed:
            raise closed()
        self._queue.put(entry)

    # --- in the thread -----------------------------------------------------------------------------

    def _write_until_closed(self) -> None:
        is_open = True
        while is_open:
            group, is_open = self._next_group()
            if group:
                self._tell(self._commit(group), group)

    def _next_group(self) -> tuple[list[_Entry], bool]:
        """Whatever is queued by now, at least one; and whether the writer goes on after it."""
        group: list[_Entry] = []
        entry = self._queue.get()
        while entry is not None:
            group.append(entry)
            if len(group) == MAX_GROUP:
                return group, True
            try:
                entry = self._queue.get_nowait()
            except queue.Empty:
                return group, True
        return group, False

    def _commit(self, group: list[_Entry]) -> int:
        """Returns the mark, 0 where the group is lost."""
        try:
            with self._engine.begin() as connection:
                self._guard(connection)
                for entry in group:
                    _run_alone(connection, entry)
                mark = self._mark(connection)
                self._before_commit()
        except Exception as error:      # whatever befell this group, the next one must still be written
            failure = error if isinstance(error, StoreError) else as_store_error(error)
            for entry in group:
                entry.error = failure
            return 0
        return mark

    def _tell(self, mark: int, group: list[_Entry]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._resolve, mark, group)
        except RuntimeError:
            return      # the event loop is closed: nobody waits any more

    def _resolve(self, mark: int, group: list[_Entry]) -> None:
        self._after_commit(mark)
        if isinstance(group[0].error, StoreLocked) and not self.taken.done():
            self.taken.set_result(group[0].error)
        for entry in group:
            if entry.future is None or entry.future.done():
                continue
            if entry.error is not None:
                entry.future.set_exception(entry.error)
            else:
                entry.future.set_result(entry.result)


def _run_alone(connection: Connection, entry: _Entry) -> None:
    """Run one closure in a savepoint. Raises only where the whole transaction is lost."""
    connection.exec_driver_sql(SAVE)
    try:
        entry.result = entry.work(connection)
    except (IntegrityError, DataError, ProgrammingError, InterfaceError) as error:     # this statement's own fault
        if is_away(error):
            raise
        entry.error = as_store_error(error)
    except DBAPIError:
        raise                           # disk full, a broken file: SQLite may have rolled everything back
    except Exception as error:          # the closure's own refusal
        entry.error = error
    if entry.error is not None:
        connection.exec_driver_sql(TAKE_BACK)
    connection.exec_driver_sql(RELEASE)


def closed() -> StoreError:
    return StoreError("the store is closed", fix="start the central node again")


def as_store_error(error: BaseException) -> StoreError:
    """What the database said, as one of ours."""
    # A full disk makes SQLite roll back all by itself; undoing the savepoint then fails too, and hides why.
    chain = [error]
    while (before := chain[-1].__context__) is not None:
        chain.append(before)
    said = str(chain[-1]).strip() or type(chain[-1]).__name__
    if "disk is full" in said or "No space left" in said:
        return StoreFull(f"the store cannot be written: {said}", fix="free space on the disk of the state dir")
    if any(map(is_away, chain)):
        return StoreAway(
            f"the database does not answer: {said}",
            fix="look after PostgreSQL; nothing was acknowledged, and what waits goes on by itself",
        )
    return StoreError(
        f"the store cannot be written: {said}", fix="look after the disk of the state dir; nothing was acknowledged"
    )


def is_away(error: BaseException) -> bool:
    """Whether the connection to a database elsewhere broke, or that had no time for us: nobody's fault here.

    Its answers have an SQLSTATE: connection lost, no resources, told to end, rolled back for another, locked.
    """
    if not isinstance(error, DBAPIError) or not hasattr(error.orig, "sqlstate"):
        return False
    if error.connection_invalidated:
        return True
    sqlstate = getattr(error.orig, "sqlstate", None) or ""
    is_cut = not sqlstate and isinstance(error, OperationalError | InterfaceError)
    return is_cut or sqlstate[:2] in ("08", "40", "53", "55", "57")
