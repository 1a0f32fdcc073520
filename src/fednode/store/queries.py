"""What the API, the CLI and the pages ask of the store: frozen views over the same tables, newest first.

Nothing here writes, and nothing that the round loop needs is here. `Queries(store)` reads through the store's
threads; what it answers is one consistent view a call.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Column, Connection, Select, and_, func, select

from fednode.core.journal import JournalRow
from fednode.core.json import Json
from fednode.core.records import Run
from fednode.errors import NotFound
from fednode.ports import Clock
from fednode.store import rows, rules
from fednode.store.alone import AloneTable, alone_of
from fednode.store.confusions import ConfusionView, confusion_of
from fednode.store.curves import CurvesView, PooledCurves, curves_of, pooled_curves_of
from fednode.store.records import Event
from fednode.store.reports import POOLED
from fednode.store.retention import BEST, FINAL, is_there, marks_of
from fednode.store.run_views import RunView, run_views
from fednode.store.schema import deleted_run, event, journal, metric, model, run
from fednode.store.sql import SqlStore

MAX_EVENTS = 1_000              # in one answer


@dataclass(frozen=True, kw_only=True)
class MetricPoint:
    """One number, or one curve, of a model: pooled (`client` is "") or one client's."""

    model_round: int                        # phase local: the round in which the client trains
    client: str
    phase: str                              # test | val | local
    step: int                               # phase local: the epoch
    name: str
    value: float | None                     # None: a curve, or not a number
    curve: Json
    num_clients: int
    num_examples: int


@dataclass(frozen=True, kw_only=True)
class ModelView:
    """A committed model."""

    id: str
    sha256: str
    run_id: str
    run_number: int
    task: str
    fingerprint: str
    round: int
    num_bytes: int
    num_params: int
    parent: str                             # sha256 of the model that it was made from; "": none
    committed_s: float
    metrics: Mapping[str, float]
    freed_s: float | None = None            # its params are not kept since then; None: they are here
    marks: tuple[str, ...] = ()             # best, newest, final


class Queries:
    """The reading side of a `SqlStore`."""

    def __init__(self, store: SqlStore, clock: Clock) -> None:
        self._store, self._clock = store, clock

    async def run_summaries(self, *, status: str = "", limit: int | None = None, offset: int = 0) -> list[RunView]:
        """Runs, newest first; of one status where it is given."""
        wall_s = self._clock.wall_s()
        wanted = _runs(select(run), status).limit(limit).offset(offset)
        return await self._store.read(lambda c: run_views(c, wanted, wall_s))

    async def num_runs(self, status: str = "") -> int:
        """How many there are."""
        counted = _runs(select(func.count()).select_from(run), status)
        return await self._store.read(lambda c: int(c.execute(counted).scalar_one()))

    async def run_summary(self, ref: str) -> RunView:
        """One run by number, id or prefix. Raises NotFound."""
        wall_s = self._clock.wall_s()
        return await self._store.read(
            lambda c: run_views(c, select(run).where(run.c.id == _resolve_run(c, ref).id), wall_s)[0]
        )

    async def resolve_run(self, ref: str) -> Run:
        """`12`, `#12`, an id or a unique prefix of one. Raises NotFound."""
        return await self._store.read(lambda c: _resolve_run(c, ref))

    async def metric_points(
        self, run_id: str, *, name: str | None = None, client: str | None = None, phase: str | None = None,
        from_round: int = 0,
    ) -> list[MetricPoint]:
        """By model_round, client, phase, step, name. `client=""`: pooled only; None: all of them."""
        points = select(metric).where(metric.c.run_id == run_id, metric.c.model_round >= from_round)
        for column, wanted in ((metric.c.name, name), (metric.c.client, client), (metric.c.phase, phase)):
            points = points if wanted is None else points.where(column == wanted)
        return await self._store.read(lambda c: _points(c, points))

    async def curves(self, ref: str, name: str | None, max_points: int, from_round: int) -> CurvesView:
        """One metric over the rounds, as `curves_of` says. Raises NotFound."""
        return await self._store.read(lambda c: curves_of(c, _resolve_run(c, ref), name, max_points, from_round))

    async def confusion(self, ref: str, of: str | None, model_round: int | None, client: str) -> ConfusionView:
        """What a model of the run takes for what, as `confusion_of` says. Raises NotFound."""
        return await self._store.read(lambda c: confusion_of(c, _resolve_run(c, ref), of, model_round, client))

    async def pooled_curves(self, runs: Sequence[Run], name: str | None, max_points: int) -> PooledCurves:
        """The same metric of several runs, as `pooled_curves_of` says. Raises NotFound."""
        return await self._store.read(lambda c: pooled_curves_of(c, runs, name, max_points))

    async def alone(self, run: Run, preferred: Collection[str] = ()) -> AloneTable | None:
        """A federated run against its clients' local-only runs, as `alone_of` says."""
        return await self._store.read(lambda c: alone_of(c, run, preferred))

    async def models(self, run_id: str | None = None) -> list[ModelView]:
        """Newest first."""
        wanted = _models() if run_id is None else _models().where(model.c.run_id == run_id)
        return await self._store.read(lambda c: _model_views(c, wanted))

    async def last_models(self, task: str) -> list[ModelView]:
        """Of each run of the task that trained, the newest model; newest first, without its metrics."""
        return await self._store.read(lambda c: _last_models(c, task))

    async def model(self, ref: str) -> ModelView:
        """By id, sha256, or a unique prefix of either; or `12:best`, `12:final`, `12:7` of a run. Raises NotFound."""
        return await self._store.read(lambda c: _resolve_model(c, ref))

    async def events(self, after: int = 0, limit: int = 200, run_id: str = "") -> list[Event]:
        """The oldest `limit` events after seq `after`, in order; of one run where `run_id` is given."""
        wanted = select(event).where(event.c.seq > after).order_by(event.c.seq).limit(min(limit, MAX_EVENTS))
        narrowed = wanted.where(event.c.run_id == run_id) if run_id else wanted
        return await self._store.read(lambda c: [_event_from(row) for row in c.execute(narrowed)])

    async def newest_events(self, limit: int = 200, run_id: str = "") -> list[Event]:
        """The newest `limit` events, newest first."""
        wanted = select(event).order_by(event.c.seq.desc()).limit(min(limit, MAX_EVENTS))
        narrowed = wanted.where(event.c.run_id == run_id) if run_id else wanted
        return await self._store.read(lambda c: [_event_from(row) for row in c.execute(narrowed)])

    async def journal(self, run_id: str) -> list[JournalRow]:
        """In order."""
        wanted = select(journal).where(journal.c.run_id == run_id).order_by(journal.c.seq)
        return await self._store.read(lambda c: [rows.journal_from(row) for row in c.execute(wanted)])


# --- runs -------------------------------------------------------------------------------------------------


def _runs(wanted: Select[Any], status: str) -> Select[Any]:
    return wanted.where(run.c.status == status) if status else wanted


def _resolve_run(c: Connection, ref: str) -> Run:
    number = ref.removeprefix("#")
    if number.isascii() and number.isdigit():
        found = list(c.execute(select(run).where(run.c.number == int(number[:9]))))
        if not found and _is_deleted(c, int(number[:9])):
            raise NotFound(f"run #{number} was deleted", fix="`fednode runs` lists those that are there")
    else:
        found = _by_prefix(c, select(run), run.c.id, ref)
    if not found:
        raise rules.no_run(ref)
    return rows.run_from(_only(found, "run", ref))


def _is_deleted(c: Connection, number: int) -> bool:
    return c.execute(select(deleted_run.c.id).where(deleted_run.c.number == number)).first() is not None


# --- metrics -----------------------------------------------------------------------------------------------


def _pooled_numbers(c: Connection, run_id: str) -> dict[int, dict[str, float]]:
    of_run = and_(metric.c.run_id == run_id, metric.c.client == POOLED, metric.c.value.is_not(None))
    found: dict[int, dict[str, float]] = {}
    for row in c.execute(select(metric).where(of_run)):
        found.setdefault(row.model_round, {})[row.name] = row.value
    return found


def _points(c: Connection, wanted: Select[Any]) -> list[MetricPoint]:
    key = (metric.c.model_round, metric.c.client, metric.c.phase, metric.c.step, metric.c.name)
    return [
        MetricPoint(
            model_round=row.model_round, client=row.client, phase=row.phase, step=row.step, name=row.name,
            value=row.value, curve=json.loads(row.curve) if row.curve else None,
            num_clients=row.num_clients, num_examples=row.num_examples,
        )
        for row in c.execute(wanted.order_by(*key))
    ]


# --- models, events ----------------------------------------------------------------------------------


def _models() -> Select[Any]:
    of_run = select(model, run.c.number.label("run_number"), run.c.task, run.c.fingerprint)
    return of_run.join(run, run.c.id == model.c.run_id)


def _model_views(c: Connection, wanted: Select[Any]) -> list[ModelView]:
    found = c.execute(wanted.order_by(model.c.committed_s.desc(), run.c.number.desc(), model.c.round.desc())).all()
    metrics = {run_id: _pooled_numbers(c, run_id) for run_id in {row.run_id for row in found}}
    return marked(c, [replace(_model_from(row), metrics=metrics[row.run_id].get(row.round, {})) for row in found])


def _last_models(c: Connection, task: str) -> list[ModelView]:
    last = select(model.c.run_id, func.max(model.c.round).label("round")).where(model.c.round > 0)
    newest = last.group_by(model.c.run_id).subquery()
    wanted = _models().join(newest, and_(newest.c.run_id == model.c.run_id, newest.c.round == model.c.round))
    found = c.execute(wanted.where(run.c.task == task).order_by(model.c.committed_s.desc(), run.c.number.desc()))
    return [_model_from(row) for row in found]


def _model_from(row: Any) -> ModelView:
    return ModelView(
        id=row.id, sha256=row.sha256, run_id=row.run_id, run_number=row.run_number, task=row.task,
        fingerprint=row.fingerprint, round=row.round, num_bytes=row.num_bytes, num_params=row.num_params,
        parent=row.parent, committed_s=row.committed_s, metrics={}, freed_s=row.freed_s,
    )


def marked(c: Connection, views: Sequence[ModelView]) -> list[ModelView]:
    """The views with what stands out among them. Params that another row still names are here."""
    marks = {run_id: marks_of(c, run_id) for run_id in {view.run_id for view in views}}
    freed = {view.sha256 for view in views if view.freed_s is not None and not is_there(c, view.sha256)}
    return [
        replace(view, marks=marks[view.run_id].of(view.round), freed_s=view.freed_s if view.sha256 in freed else None)
        for view in views
    ]


def _resolve_model(c: Connection, ref: str) -> ModelView:
    if ":" in ref:
        return _model_of_run(c, *ref.rsplit(":", 1))
    found = _by_prefix(c, _models(), model.c.id, ref) or _by_prefix(c, _models(), model.c.sha256, ref)
    if not found:
        raise rules.no_model(ref)
    by_sha256 = {row.sha256: row for row in found}      # one model may have several rows: where it was made, started
    row = _only(list(by_sha256.values()), "model", ref)
    return _model_views(c, _models().where(model.c.id == row.id))[0]


def _model_of_run(c: Connection, ref: str, which: str) -> ModelView:
    """`12:best`, `12:final` (the newest as long as it trains), `12:7`. Raises NotFound."""
    of_run = _resolve_run(c, ref)
    marks = marks_of(c, of_run.id)
    rounds = {BEST: marks.best.round if marks.best else -1, FINAL: marks.newest}
    number = int(which[:9]) if which.isascii() and which.isdigit() else rounds.get(which, -1)
    found = _model_views(c, _models().where(model.c.run_id == of_run.id, model.c.round == number))
    if not found:
        what = f"{which} model" if which in rounds else f"model {which!r}"
        raise NotFound(
            f"run #{of_run.number} has no {what}", fix=f"take {of_run.number}:best, :final or a round: "
            f"`fednode models --run {of_run.number}` lists them",
        )
    return found[0]


def _event_from(row: Any) -> Event:
    return Event(seq=row.seq, wall_s=row.wall_s, what=row.what, run_id=row.run_id, fields=json.loads(row.fields))


def _by_prefix(c: Connection, wanted: Select[Any], column: Column[str], ref: str) -> list[Any]:
    """The rows whose `column` is `ref`, or else those where it begins so."""
    exact = list(c.execute(wanted.where(column == ref)))
    if exact or not ref:
        return exact
    return list(c.execute(wanted.where(column.startswith(ref, autoescape=True))))


def _only(found: list[Any], what: str, ref: str) -> Any:
    if len(found) > 1:
        first = ", ".join(sorted(row.id for row in found)[:3])
        raise NotFound(f"{ref!r} begins {len(found)} {what}s: {first}", fix="type more of the id")
    return found[0]
