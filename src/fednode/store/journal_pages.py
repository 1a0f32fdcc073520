"""A run's journal a page at a time, and whether its chain of hashes holds: the rule itself is in `core/journal.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from fednode.core.journal import JournalRow, check_chain
from fednode.errors import StoreDamaged
from fednode.store import rows
from fednode.store.schema import journal
from fednode.store.sql import SqlStore

CHUNK_ROWS = 1_000


@dataclass(frozen=True, kw_only=True)
class JournalPage:
    """Some rows of the chain, in order."""

    rows: tuple[JournalRow, ...]
    num_rows: int               # of the whole journal
    head: str                   # the newest row's hash; "": no row yet


class JournalPages:
    """The reading side of journals, for people."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def page(self, run_id: str, *, first: int, limit: int) -> JournalPage:
        """From row `first` (from 1) on."""
        return await self._store.read(lambda c: _page(c, run_id, first, limit))

    async def damage(self, run_id: str) -> str:
        """Read the whole chain: what does not fit, "" where all does."""
        return await self._store.read(lambda c: _damage(c, run_id))


def _page(c: Connection, run_id: str, first: int, limit: int) -> JournalPage:
    counted = select(func.count(), func.max(journal.c.seq)).where(journal.c.run_id == run_id)
    num_rows, last = c.execute(counted).one()
    head = select(journal.c.hash).where(journal.c.run_id == run_id, journal.c.seq == last)
    return JournalPage(
        rows=tuple(_rows(c, run_id, first, limit)), num_rows=num_rows, head=c.execute(head).scalar() or ""
    )


def _rows(c: Connection, run_id: str, first: int, limit: int) -> list[JournalRow]:
    wanted = select(journal).where(journal.c.run_id == run_id, journal.c.seq >= first).order_by(journal.c.seq)
    return [rows.journal_from(row) for row in c.execute(wanted.limit(limit))]


def _damage(c: Connection, run_id: str) -> str:
    """In chunks, each tied to the row before it: a long journal does not lie in memory."""
    try:
        previous: JournalRow | None = None
        for chunk in _chunks(c, run_id):
            check_chain(chunk, previous)
            previous = chunk[-1]
    except StoreDamaged as error:
        return error.message
    return ""


def _chunks(c: Connection, run_id: str) -> Iterator[list[JournalRow]]:
    first = 1
    while chunk := _rows(c, run_id, first, CHUNK_ROWS):
        yield chunk
        first = chunk[-1].seq + 1
