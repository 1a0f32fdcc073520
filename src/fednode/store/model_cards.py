"""Models for people: a page of the list, and all that is known of how one came about."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Select, and_, func, or_, select

from fednode.core.json import JsonObject
from fednode.core.records import Run
from fednode.core.status import RoundStatus
from fednode.store import rows
from fednode.store.queries import ModelView, Queries, marked
from fednode.store.reports import POOLED
from fednode.store.retention import DiskUse, disk_use
from fednode.store.schema import metric, model, round_, run, update
from fednode.store.sql import SqlStore

MAX_LINEAGE = 20


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """What one client brought to a model."""

    client: str
    num_examples: int
    num_bytes: int
    environment: JsonObject         # versions, device, threads


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """One model and where it comes from."""

    model: ModelView
    run: Run
    lineage: tuple[ModelView, ...]              # its parent first, then that one's, back to the start
    is_whole: bool                              # else the lineage goes on beyond what is here
    contributions: tuple[Contribution, ...]     # in name order


class ModelCards:
    """The reading side of models, for the pages."""

    def __init__(self, store: SqlStore, queries: Queries) -> None:
        self._store, self._queries = store, queries

    async def page(self, run_id: str | None, *, limit: int, offset: int = 0) -> list[ModelView]:
        """Newest first: of one run, or of all."""
        return await self._store.read(lambda c: _page(c, run_id, limit, offset))

    async def count(self, run_id: str | None) -> int:
        counted = _of_run(select(func.count()).select_from(model), run_id)
        return await self._store.read(lambda c: int(c.execute(counted).scalar_one()))

    async def disk_use(self, run_id: str | None) -> DiskUse:
        """Of the models of one run, or of all."""
        return await self._store.read(lambda c: disk_use(c, run_id))

    async def card(self, ref: str) -> ModelCard:
        """Raises NotFound."""
        found = await self._queries.model(ref)
        return await self._store.read(lambda c: _card(c, found))


def _models() -> Select[Any]:
    named = select(model, run.c.number.label("run_number"), run.c.task, run.c.fingerprint)
    return named.join(run, run.c.id == model.c.run_id)


def _of_run(wanted: Select[Any], run_id: str | None) -> Select[Any]:
    return wanted if run_id is None else wanted.where(model.c.run_id == run_id)


def _page(c: Connection, run_id: str | None, limit: int, offset: int) -> list[ModelView]:
    """Ids grow with time, so the key itself has the order: no page costs more than its rows."""
    newest_first = model.c.id.desc() if run_id is None else model.c.round.desc()
    found = c.execute(_of_run(_models(), run_id).order_by(newest_first).limit(limit).offset(offset)).all()
    return marked(c, _with_metrics(c, [_view(row) for row in found]))


def _view(row: Any) -> ModelView:
    return ModelView(
        id=row.id, sha256=row.sha256, run_id=row.run_id, run_number=row.run_number, task=row.task,
        fingerprint=row.fingerprint, round=row.round, num_bytes=row.num_bytes, num_params=row.num_params,
        parent=row.parent, committed_s=row.committed_s, metrics={}, freed_s=row.freed_s,
    )


def _with_metrics(c: Connection, views: Sequence[ModelView]) -> list[ModelView]:
    """The views with their pooled numbers."""
    if not views:
        return []
    rounds: dict[str, list[int]] = {}
    for view in views:
        rounds.setdefault(view.run_id, []).append(view.round)
    shown = or_(*(and_(metric.c.run_id == run_id, metric.c.model_round.in_(of)) for run_id, of in rounds.items()))
    found: dict[tuple[str, int], dict[str, float]] = {}
    for row in c.execute(select(metric).where(shown, metric.c.client == POOLED, metric.c.value.is_not(None))):
        found.setdefault((row.run_id, row.model_round), {})[row.name] = row.value
    return [replace(view, metrics=found.get((view.run_id, view.round), {})) for view in views]


def _card(c: Connection, found: ModelView) -> ModelCard:
    lineage = _lineage(c, found)
    oldest = lineage[-1] if lineage else found
    return ModelCard(
        model=found, run=rows.get_run(c, found.run_id), lineage=tuple(marked(c, _with_metrics(c, lineage))),
        is_whole=_parent(c, oldest) is None, contributions=tuple(_contributions(c, found)),
    )


def _lineage(c: Connection, of: ModelView) -> list[ModelView]:
    found: list[ModelView] = []
    while len(found) < MAX_LINEAGE and (parent := _parent(c, found[-1] if found else of)) is not None:
        found.append(parent)
    return found


def _parent(c: Connection, of: ModelView) -> ModelView | None:
    """The model that it was made from: of the same run, or, for the start of a run, where that model was made."""
    if not of.parent:
        return None
    same = _models().where(model.c.sha256 == of.parent)
    if of.round == 0:                       # a run that began with a model: whoever has it longest made it
        wanted = same.where(model.c.id < of.id).order_by(model.c.id)
    else:
        wanted = same.where(model.c.run_id == of.run_id, model.c.round < of.round).order_by(model.c.round.desc())
    row = c.execute(wanted.limit(1)).first()
    return None if row is None else _view(row)


def _contributions(c: Connection, of: ModelView) -> list[Contribution]:
    """Of the attempt that was committed."""
    committed = select(round_.c.attempt).where(
        round_.c.run_id == of.run_id, round_.c.number == of.round, round_.c.status == RoundStatus.COMMITTED.value
    ).scalar_subquery()
    brought = select(update).where(
        update.c.run_id == of.run_id, update.c.number == of.round, update.c.attempt == committed
    )
    return sorted((_contribution(row) for row in c.execute(brought)), key=lambda one: one.client.encode())


def _contribution(row: Any) -> Contribution:
    return Contribution(
        client=row.client, num_examples=row.num_examples, num_bytes=row.num_bytes,
        environment=json.loads(row.environment),
    )
