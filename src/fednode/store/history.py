"""The rounds of a run, for people: what each attempt was, who took part, how long each step took, what failed.

A run may have ten thousand rounds of five hundred clients: every question here is about a page of them. Nothing here
writes. Other questions are in `queries.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, and_, func, select

from fednode.core.changes import standing_apart
from fednode.core.records import Change, Failure, Round
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
    change: Change | None = None            # None: its update is in no model, or in one of an older fednode


@dataclass(frozen=True, kw_only=True)
class RoundRow:
    """One attempt of a round, as lists show it."""

    round: Round
    budget_left_s: float
    opened_s: float
    ended_s: float | None
    num_clients: int
    num_updates: int
    metrics: Mapping[str, float]            # pooled, of the model that the round made; empty until it is measured
    model_sha256: str | None                # of the model that it made


@dataclass(frozen=True, kw_only=True)
class RoundView(RoundRow):
    """The same, with everybody who takes part."""

    clients: tuple[ClientInRound, ...]      # in name order

    @property
    def apart(self) -> dict[str, str]:
        """Who stands apart from the others, and how, by client."""
        return standing_apart({part.client: part.change for part in self.clients if part.change is not None})


@dataclass(frozen=True, kw_only=True)
class ChangesView:
    """How far, and which way, the updates led of which a round made its model."""

    number: int
    by_client: Mapping[str, Change]         # in name order

    @property
    def apart(self) -> dict[str, str]:
        """Who stands apart from the others, and how, by client."""
        return standing_apart(self.by_client)


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

    async def rows(self, run_id: str, *, before: int | None, limit: int) -> list[RoundRow]:
        """The same attempts, without who took part."""
        wanted = _newest_first(run_id)
        wanted = wanted if before is None else wanted.where(round_.c.number < before)
        return await self._store.read(lambda c: _round_rows(c, run_id, wanted.limit(limit)))

    async def round(self, run_id: str, number: int) -> RoundView | None:
        """The last attempt of a round; None where it has not begun."""
        wanted = _newest_first(run_id).where(round_.c.number == number).limit(1)
        found = await self._store.read(lambda c: _round_views(c, run_id, wanted))
        return found[0] if found else None

    async def newest(self, run_id: str) -> RoundView | None:
        """The attempt that is open, or was the last."""
        found = await self.rounds(run_id, limit=1)
        return found[0] if found else None

    async def changes(self, run_id: str, numbers: Collection[int]) -> ChangesView | None:
        """Of the newest of these rounds that has made a model; None: none has, or by an older fednode."""
        return await self._store.read(lambda c: _changes(c, run_id, numbers))

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


def _round_rows(c: Connection, run_id: str, wanted: Select[Any]) -> list[RoundRow]:
    found = c.execute(wanted).all()
    numbers = _numbers_of(c, run_id, found)
    counts = _counts(c, run_id, found)
    return [RoundRow(**numbers(row), **counts.get((row.number, row.attempt), _NOBODY)) for row in found]


def _round_views(c: Connection, run_id: str, wanted: Select[Any]) -> list[RoundView]:
    found = c.execute(wanted).all()
    numbers = _numbers_of(c, run_id, found)
    in_rounds = _clients_in_rounds(c, run_id, found)
    return [_round_view(numbers(row), in_rounds.get((row.number, row.attempt), [])) for row in found]


def _round_view(numbers: dict[str, Any], clients: list[ClientInRound]) -> RoundView:
    num_updates = sum(client.num_examples is not None for client in clients)
    return RoundView(
        **numbers, num_clients=len(clients), num_updates=num_updates,
        clients=tuple(sorted(clients, key=lambda client: client.client.encode())),
    )


def _numbers_of(c: Connection, run_id: str, found: Sequence[Any]) -> Callable[[Any], dict[str, Any]]:
    """What lists and views of these rows have in common, read once for all of them."""
    first, last = _span(found)
    metrics = _pooled_numbers(c, run_id, first, last)
    made = select(model).where(model.c.run_id == run_id, model.c.round.between(first, last))
    models = {row.round: row.sha256 for row in c.execute(made)}

    def numbers(row: Any) -> dict[str, Any]:
        is_committed = row.status == RoundStatus.COMMITTED.value
        return {
            "round": rows.round_from(row), "budget_left_s": row.budget_left_s, "opened_s": row.opened_s,
            "ended_s": row.ended_s, "metrics": metrics.get(row.number, {}) if is_committed else {},
            "model_sha256": models.get(row.number) if is_committed else None,
        }

    return numbers


def _span(found: Sequence[Any]) -> tuple[int, int]:
    """The lowest and the highest number of rows that come newest first."""
    return (found[-1].number, found[0].number) if found else (0, -1)


_NOBODY: dict[str, Any] = {"num_clients": 0, "num_updates": 0}
_SAME_CLIENT = and_(
    update.c.run_id == assignment.c.run_id, update.c.number == assignment.c.number,
    update.c.attempt == assignment.c.attempt, update.c.client == assignment.c.client,
)


def _counts(c: Connection, run_id: str, found: Sequence[Any]) -> dict[tuple[int, int], dict[str, Any]]:
    place = (assignment.c.number, assignment.c.attempt)
    counted = select(*place, func.count().label("num_clients"), func.count(update.c.client).label("num_updates"))
    of_page = and_(assignment.c.run_id == run_id, assignment.c.number.between(*_span(found)))
    grouped = counted.select_from(assignment.outerjoin(update, _SAME_CLIENT)).where(of_page).group_by(*place)
    return {
        (row.number, row.attempt): {"num_clients": row.num_clients, "num_updates": row.num_updates}
        for row in c.execute(grouped)
    }


def _clients_in_rounds(
    c: Connection, run_id: str, of: Sequence[Any]
) -> dict[tuple[int, int], list[ClientInRound]]:
    facts = ("num_examples", "num_bytes", "sent_s", "received_s", "norm", "cosine")
    brought = [update.c[name] for name in facts]
    wanted = select(assignment, *brought).select_from(assignment.outerjoin(update, _SAME_CLIENT))
    found: dict[tuple[int, int], list[ClientInRound]] = {}
    for row in c.execute(wanted.where(assignment.c.run_id == run_id, assignment.c.number.between(*_span(of)))):
        found.setdefault((row.number, row.attempt), []).append(_client_in_round(row))
    return found


def _client_in_round(row: Any) -> ClientInRound:
    return ClientInRound(
        client=row.client, status=AssignmentStatus(row.status), deliveries=row.deliveries, leased_s=row.leased_s,
        sent_s=row.sent_s, received_s=row.received_s,
        failure=rows.failure_from(row.client, row.failure) if row.failure else None,
        num_examples=row.num_examples, num_bytes=row.num_bytes,
        change=_change(row) if row.norm is not None else None,
    )


def _change(row: Any) -> Change:
    return Change(norm=row.norm, cosine=row.cosine)


def _changes(c: Connection, run_id: str, numbers: Collection[int]) -> ChangesView | None:
    known = select(update).where(update.c.run_id == run_id, update.c.number.in_(numbers), update.c.norm.is_not(None))
    found = sorted(c.execute(known), key=lambda row: row.client.encode())
    newest = max((row.number for row in found), default=None)
    if newest is None:
        return None
    by_client = {row.client: _change(row) for row in found if row.number == newest}
    return ChangesView(number=newest, by_client=by_client)


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
