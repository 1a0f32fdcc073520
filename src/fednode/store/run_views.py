"""A run at a glance, for lists and heads of pages: its own file, because each part must be found by an index.

A store may hold thousands of runs, and one of them ten thousand rounds of five hundred clients: nothing here reads more
of a run than its newest rounds. Whole histories are in `history.py`, scores over the rounds in `curves.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, and_, func, select

from fednode.core.records import Run
from fednode.core.status import RoundKind, RoundStatus
from fednode.store import rows
from fednode.store.reports import POOLED
from fednode.store.schema import assignment, metric, model, round_, run

NUM_ASKED_ROUNDS = 2        # whose cohorts tell who takes part: the last one of a run is its whole roster


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A run at a glance."""

    run: Run
    rounds: int                             # committed train rounds
    metrics: Mapping[str, float]            # pooled, of the newest model that was measured
    metrics_round: int | None               # which one that is
    model_sha256: str | None                # of the newest model; None before model 0
    clients: tuple[str, ...]                # who was asked in the newest rounds, or is named by the run, in name order
    created_s: float                        # wall seconds
    started_s: float | None
    ended_s: float | None
    seconds: float                          # since it was started, until it ended


def run_views(c: Connection, wanted: Select[Any], wall_s: float) -> list[RunView]:
    """The runs of `wanted`, newest first."""
    return [_view(c, row, wall_s) for row in c.execute(wanted.order_by(run.c.number.desc())).all()]


def _view(c: Connection, row: Any, wall_s: float) -> RunView:
    found = rows.run_from(row)
    metrics_round, metrics = _newest_metrics(c, row.id)
    ended_s = row.ended_s if row.ended_s is not None else wall_s
    return RunView(
        run=found, rounds=_num_trained(c, row.id), metrics=metrics, metrics_round=metrics_round,
        model_sha256=_newest_model(c, row.id),
        clients=tuple(sorted({*_asked(c, row.id), *found.config.clients}, key=str.encode)),
        created_s=row.created_s, started_s=row.started_s, ended_s=row.ended_s,
        seconds=0.0 if row.started_s is None else ended_s - row.started_s,
    )


def _num_trained(c: Connection, run_id: str) -> int:
    is_trained = and_(round_.c.status == RoundStatus.COMMITTED.value, round_.c.kind == RoundKind.TRAIN.value)
    return int(c.execute(select(func.count()).where(round_.c.run_id == run_id, is_trained)).scalar_one())


def _newest_model(c: Connection, run_id: str) -> str | None:
    newest = select(model.c.sha256).where(model.c.run_id == run_id).order_by(model.c.round.desc()).limit(1)
    found: str | None = c.execute(newest).scalar()
    return found


def _newest_metrics(c: Connection, run_id: str) -> tuple[int | None, dict[str, float]]:
    """The pooled numbers of the newest model that has some, and its round."""
    pooled = and_(metric.c.run_id == run_id, metric.c.client == POOLED, metric.c.value.is_not(None))
    newest = select(metric.c.model_round).where(pooled).order_by(metric.c.model_round.desc()).limit(1)
    number: int | None = c.execute(newest).scalar()
    if number is None:
        return None, {}
    found = c.execute(select(metric.c.name, metric.c.value).where(pooled, metric.c.model_round == number))
    return number, {row.name: row.value for row in found}


def _asked(c: Connection, run_id: str) -> list[str]:
    newest = select(func.max(round_.c.number)).where(round_.c.run_id == run_id)
    number: int | None = c.execute(newest).scalar()
    if number is None:
        return []
    late = assignment.c.number > number - NUM_ASKED_ROUNDS
    return list(c.execute(select(assignment.c.client).where(assignment.c.run_id == run_id, late).distinct()).scalars())
