"""What one client did: its last assignments, newest first, and what it measured. For its page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, select

from fednode.core.records import Failure
from fednode.core.status import AssignmentStatus, RoundKind
from fednode.store import rows
from fednode.store.schema import assignment, metric, round_, run, update
from fednode.store.sql import SqlStore

NUM_SHOWN = 50
LOCAL = "local"             # the phase of a client's own model while it trains


@dataclass(frozen=True, kw_only=True)
class Work:
    """One assignment of the client. Times are wall seconds; None: not, or not yet."""

    run_id: str
    run_number: int
    task: str
    number: int                             # the round
    attempt: int
    kind: RoundKind
    status: AssignmentStatus
    leased_s: float | None
    ended_s: float | None                   # its update was here, or the round had ended
    num_examples: int | None                # None: no update
    num_bytes: int | None
    failure: Failure | None

    @property
    def took_s(self) -> float | None:
        """From the work's delivery to its end; None where either is not known."""
        return None if self.leased_s is None or self.ended_s is None else max(0.0, self.ended_s - self.leased_s)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the client measured of one model of a run."""

    run_number: int
    model_round: int
    values: dict[str, float]


class ClientHistory:
    """The reading side of a client's work."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def works(self, name: str, limit: int = NUM_SHOWN) -> list[Work]:
        """Its last assignments, newest first."""
        return await self._store.read(lambda c: _works(c, name, limit))

    async def measured(self, name: str, run_id: str, limit: int = NUM_SHOWN) -> list[Measured]:
        """What it measured of the newest models of a run, newest first."""
        return await self._store.read(lambda c: _measured(c, name, run_id, limit))


def _works(c: Connection, name: str, limit: int) -> list[Work]:
    key = ("run_id", "number", "attempt")
    brought = and_(*(update.c[part] == assignment.c[part] for part in (*key, "client")))
    in_round = and_(*(round_.c[part] == assignment.c[part] for part in key))
    joined = assignment.join(run, run.c.id == assignment.c.run_id).join(round_, in_round).outerjoin(update, brought)
    wanted = select(
        assignment, run.c.number.label("run_number"), run.c.task, round_.c.ended_s,
        update.c.received_s, update.c.num_examples, update.c.num_bytes,
    ).select_from(joined).where(assignment.c.client == name)
    order = (assignment.c.run_id.desc(), assignment.c.number.desc(), assignment.c.attempt.desc())
    return [_work(row) for row in c.execute(wanted.order_by(*order).limit(limit))]


def _work(row: Any) -> Work:
    return Work(
        run_id=row.run_id, run_number=row.run_number, task=row.task, number=row.number, attempt=row.attempt,
        kind=RoundKind(row.kind), status=AssignmentStatus(row.status), leased_s=row.leased_s,
        ended_s=row.received_s if row.received_s is not None else row.ended_s,
        num_examples=row.num_examples, num_bytes=row.num_bytes,
        failure=rows.failure_from(row.client, row.failure) if row.failure else None,
    )


def _measured(c: Connection, name: str, run_id: str, limit: int) -> list[Measured]:
    of_client = and_(
        metric.c.run_id == run_id, metric.c.client == name, metric.c.phase != LOCAL, metric.c.value.is_not(None)
    )
    rounds = select(metric.c.model_round).where(of_client).distinct().order_by(metric.c.model_round.desc()).limit(limit)
    number = c.execute(select(run.c.number).where(run.c.id == run_id)).scalar_one()
    found: dict[int, dict[str, float]] = {model_round: {} for model_round in c.execute(rounds).scalars()}
    if found:
        since = metric.c.model_round >= min(found)
        for row in c.execute(select(metric).where(of_client, since).order_by(metric.c.phase.desc(), metric.c.name)):
            found[row.model_round][row.name] = row.value
    return [
        Measured(run_number=number, model_round=model_round, values=values) for model_round, values in found.items()
    ]
