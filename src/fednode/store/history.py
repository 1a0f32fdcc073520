"""The rounds of a run, for people: what each attempt was, who took part, how long each step took, what failed.

A run may have ten thousand rounds of five hundred clients: every question here is about a page of them. Nothing here
writes. Other questions are in `queries.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, and_, select

from fednode.core.records import Failure, Round
from fednode.core.status import AssignmentStatus, RoundKind, RoundStatus
from fednode.store import rows
from fednode.store.reports import POOLED
from fednode.store.schema import assignment, metric, model, round_, update
from fednode.store.sql import SqlStore

MAX_FAILURES = 50


@dataclass(frozen=True, kw_only=True)
class ClientInRound:
    """One client's part in one attempt of a round. Times are wall seconds; None: not, or not yet."""

    client: str
    status: AssignmentStatus
    deliveries: int
    leased_s: float | None = None           # it got the work
    sent_s: float | None = None             # its training was done: it announced the update
    received_s: float | None = None         # the update was here, whole
    failure: Failure | None = None
    num_examples: int | None = None         # None: no update
    num_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class RoundView:
    """One attempt of a round."""

    round: Round
    budget_left_s: float
    opened_s: float
    ended_s: float | None
    clients: tuple[ClientInRound, ...]      # in name order
    metrics: Mapping[str, float]            # pooled, of the model that the round made; empty until it is measured
    model_sha256: str | None                # of the model that it made


@dataclass(frozen=True, kw_only=True)
class FailureView:
    """A failure and where it happened."""

    number: int
    attempt: int
    failure: Failure


class History:
    """The reading side of a run's rounds."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def rounds(self, run_id: str, *, before: int | None = None, limit: int | None = None) -> list[RoundView]:
        """The newest attempts of rounds below number `before`, newest first, with everybody who took part."""
        wanted = _newest_first(run_id)
        wanted = wanted if before is None else wanted.where(round_.c.number < before)
        return await self._store.read(lambda c: _round_views(c, run_id, wanted.limit(limit)))

    async def round(self, run_id: str, number: int) -> RoundView | None:
        """The last attempt of a round; None where it has not begun."""
        wanted = _newest_first(run_id).where(round_.c.number == number).limit(1)
        found = await self._store.read(lambda c: _round_views(c, run_id, wanted))
        return found[0] if found else None

    async def newest(self, run_id: str) -> RoundView | None:
        """The attempt that is open, or was the last."""
        found = await self.rounds(run_id, limit=1)
        return found[0] if found else None

    async def failures(self, run_id: str, limit: int = MAX_FAILURES) -> list[FailureView]:
        """The newest failures, newest first, in name order within an attempt."""
        return await self._store.read(lambda c: _failures(c, run_id, limit))

    async def train_seconds(self, run_id: str, last: int = 10) -> list[float]:
        """How long the last committed train rounds took, newest first."""
        took = select((round_.c.ended_s - round_.c.opened_s).label("took_s")).where(
            round_.c.run_id == run_id, round_.c.status == RoundStatus.COMMITTED.value,
            round_.c.kind == RoundKind.TRAIN.value,
        )
        return await self._store.read(
            lambda c: list(c.execute(took.order_by(round_.c.number.desc()).limit(last)).scalars())
        )


def _newest_first(run_id: str) -> Select[Any]:
    of_run = select(round_).where(round_.c.run_id == run_id)
    return of_run.order_by(round_.c.number.desc(), round_.c.attempt.desc())


def _round_views(c: Connection, run_id: str, wanted: Select[Any]) -> list[RoundView]:
    found = c.execute(wanted).all()
    if not found:
        return []
    first, last = found[-1].number, found[0].number
    in_rounds, metrics = _clients_in_rounds(c, run_id, first, last), _pooled_numbers(c, run_id, first, last)
    made = select(model).where(model.c.run_id == run_id, model.c.round.between(first, last))
    models = {row.round: row.sha256 for row in c.execute(made)}
    return [
        _round_view(row, in_rounds.get((row.number, row.attempt), []), metrics.get(row.number, {}), models)
        for row in found
    ]


def _round_view(
    row: Any, in_round: list[ClientInRound], metrics: Mapping[str, float], made: Mapping[int, str]
) -> RoundView:
    is_committed = row.status == RoundStatus.COMMITTED.value
    return RoundView(
        round=rows.round_from(row), budget_left_s=row.budget_left_s, opened_s=row.opened_s, ended_s=row.ended_s,
        clients=tuple(sorted(in_round, key=lambda found: found.client.encode())),
        metrics=metrics if is_committed else {}, model_sha256=made.get(row.number) if is_committed else None,
    )


def _clients_in_rounds(
    c: Connection, run_id: str, first: int, last: int
) -> dict[tuple[int, int], list[ClientInRound]]:
    on = and_(
        update.c.run_id == assignment.c.run_id, update.c.number == assignment.c.number,
        update.c.attempt == assignment.c.attempt, update.c.client == assignment.c.client,
    )
    brought = (update.c.num_examples, update.c.num_bytes, update.c.sent_s, update.c.received_s)
    wanted = select(assignment, *brought).select_from(assignment.outerjoin(update, on))
    found: dict[tuple[int, int], list[ClientInRound]] = {}
    for row in c.execute(wanted.where(assignment.c.run_id == run_id, assignment.c.number.between(first, last))):
        found.setdefault((row.number, row.attempt), []).append(_client_in_round(row))
    return found


def _client_in_round(row: Any) -> ClientInRound:
    return ClientInRound(
        client=row.client, status=AssignmentStatus(row.status), deliveries=row.deliveries, leased_s=row.leased_s,
        sent_s=row.sent_s, received_s=row.received_s,
        failure=rows.failure_from(row.client, row.failure) if row.failure else None,
        num_examples=row.num_examples, num_bytes=row.num_bytes,
    )


def _pooled_numbers(c: Connection, run_id: str, first: int, last: int) -> dict[int, dict[str, float]]:
    of_run = and_(metric.c.run_id == run_id, metric.c.client == POOLED, metric.c.value.is_not(None))
    found: dict[int, dict[str, float]] = {}
    for row in c.execute(select(metric).where(of_run, metric.c.model_round.between(first, last))):
        found.setdefault(row.model_round, {})[row.name] = row.value
    return found


def _failures(c: Connection, run_id: str, limit: int) -> list[FailureView]:
    failed = select(assignment).where(assignment.c.run_id == run_id, assignment.c.failure.is_not(None))
    order = (assignment.c.number.desc(), assignment.c.attempt.desc(), assignment.c.client)
    return [
        FailureView(number=row.number, attempt=row.attempt, failure=rows.failure_from(row.client, row.failure))
        for row in c.execute(failed.order_by(*order).limit(limit))
    ]
