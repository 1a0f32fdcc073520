"""All numbers of a run, a page at a time: ten thousand rounds of five hundred clients lie in no memory at once.

Curves have no row here: `Queries.metric_points` has them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import Connection, Select, and_, select, tuple_

from fednode.core.status import RoundStatus
from fednode.store.schema import metric, round_
from fednode.store.sql import SqlStore

PAGE_ROWS = 1_000

Key: TypeAlias = tuple[int, str, str, int, str]
_KEY = (metric.c.model_round, metric.c.client, metric.c.phase, metric.c.step, metric.c.name)


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """One number that was measured, pooled (`client` is "") or by one client."""

    model_round: int                # phase local: the round in which the client trains
    client: str
    phase: str                      # test | val | local
    step: int                       # phase local: the epoch
    name: str
    value: float | None             # may be infinite; None: not a number
    num_clients: int
    num_examples: int
    committed_s: float | None       # wall time at which that round's model was committed; None: it is not

    @property
    def key(self) -> Key:
        return self.model_round, self.client, self.phase, self.step, self.name


class MetricRows:
    """The reading side of a run's numbers, for whoever takes all of them."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def pages(
        self, run_id: str, from_round: int = 0, page_rows: int = PAGE_ROWS
    ) -> AsyncIterator[list[MetricRow]]:
        """In the order of their keys, from the models of `from_round` on.

        Each page is one consistent view and begins after the last row of the page before it, so that a run may grow
        meanwhile: no row comes twice.
        """
        wanted = _rows(run_id, from_round).limit(page_rows)
        page = await self._page(wanted)
        while page:
            yield page
            page = await self._page(wanted.where(tuple_(*_KEY) > page[-1].key)) if len(page) == page_rows else []

    async def _page(self, wanted: Select[Any]) -> list[MetricRow]:
        return await self._store.read(lambda c: _page(c, wanted))


def _rows(run_id: str, from_round: int) -> Select[Any]:
    of_its_round = and_(
        round_.c.run_id == metric.c.run_id, round_.c.number == metric.c.model_round,
        round_.c.status == RoundStatus.COMMITTED.value,
    )
    found = select(metric, round_.c.ended_s.label("committed_s")).join(round_, of_its_round, isouter=True)
    numbers = and_(metric.c.run_id == run_id, metric.c.model_round >= from_round, metric.c.curve.is_(None))
    return found.where(numbers).order_by(*_KEY)


def _page(c: Connection, wanted: Select[Any]) -> list[MetricRow]:
    return [
        MetricRow(
            model_round=row.model_round, client=row.client, phase=row.phase, step=row.step, name=row.name,
            value=row.value, num_clients=row.num_clients, num_examples=row.num_examples, committed_s=row.committed_s,
        )
        for row in c.execute(wanted)
    ]
