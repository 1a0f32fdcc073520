"""Which models keep their params: the first, the newest, the best and every k-th of a run, and what another run needs.

A model's row, metrics and card stay for ever; its file goes after the commit that says so, where no other row names
it. A run that started from a model has a row of its own for it, so what is referenced is never deleted.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, func, select, update

from fednode.core.best import best_measure, best_of, is_kept
from fednode.core.records import Best, Run
from fednode.core.status import is_final
from fednode.store import rows, rules
from fednode.store.params_files import model_name
from fednode.store.reports import POOLED
from fednode.store.schema import metric, model

BEST, NEWEST, FINAL = "best", "newest", "final"


@dataclass(frozen=True, kw_only=True)
class Marks:
    """The models of a run that stand out."""

    best: Best | None               # None: nothing was measured, or the task has no metric with a goal
    newest: int                     # its round; -1: there is none
    is_over: bool                   # so the newest one is the final one

    def of(self, number: int) -> tuple[str, ...]:
        """What model `number` is."""
        last = FINAL if self.is_over else NEWEST
        is_best = self.best is not None and self.best.round == number
        return (*([BEST] if is_best else []), *([last] if number == self.newest else []))


@dataclass(frozen=True, kw_only=True)
class DiskUse:
    """How many models there are, and what is left of them on the disk. A file that several share counts once."""

    num_models: int
    num_files: int
    num_bytes: int


def values_of(c: Connection, run: Run, *conditions: Any) -> dict[int, float]:
    """What the run's best metric is of each of its models, by round; of those that `conditions` narrow them to."""
    measure = best_measure(run.config, run.metrics)
    if measure is None:
        return {}
    pooled = and_(
        metric.c.run_id == model.c.run_id, metric.c.model_round == model.c.round, metric.c.client == POOLED,
        metric.c.phase == measure.split, metric.c.step == 0, metric.c.name == measure.name,
    )
    wanted = select(model.c.round, metric.c.value).join(metric, pooled)
    wanted = wanted.where(model.c.run_id == run.id, metric.c.value.is_not(None), *conditions)
    return {row.round: row.value for row in c.execute(wanted)}


def best_model(c: Connection, run: Run, *conditions: Any) -> Best | None:
    """Looked for among the models that have their params: the best one always has."""
    measure = best_measure(run.config, run.metrics)
    return None if measure is None else best_of(measure, values_of(c, run, model.c.freed_s.is_(None), *conditions))


def newest_round(c: Connection, run_id: str) -> int:
    found: int | None = c.execute(select(func.max(model.c.round)).where(model.c.run_id == run_id)).scalar()
    return -1 if found is None else found


def marks_of(c: Connection, run_id: str) -> Marks:
    run = rows.get_run(c, run_id)
    return Marks(best=best_model(c, run), newest=newest_round(c, run_id), is_over=is_final(run.status))


def free_models(c: Connection, run: Run, wall_s: float) -> list[str]:
    """Mark what the run does not keep any more. Returns the files that no row names now."""
    if run.config.keep_every == 1:
        return []
    kept = select(model.c.round, model.c.sha256).where(model.c.run_id == run.id, model.c.freed_s.is_(None))
    there = {row.round: row.sha256 for row in c.execute(kept)}
    best, newest = best_model(c, run), max(there)
    freed = [number for number in there if not is_kept(run.config, number, newest, best)]
    of_run = update(model).where(model.c.run_id == run.id, model.c.round.in_(freed))
    c.execute(of_run.values(freed_s=wall_s))
    return unnamed(c, {there[number] for number in freed})


def unnamed(c: Connection, sha256s: Collection[str]) -> list[str]:
    """The files of those models that no row names."""
    return [model_name(sha256) for sha256 in sorted(sha256s) if not is_there(c, sha256)]


def is_there(c: Connection, sha256: str) -> bool:
    """Whether a row says that the file is."""
    named = select(model.c.id).where(model.c.sha256 == sha256, model.c.freed_s.is_(None)).limit(1)
    return c.execute(named).first() is not None


def file_size(c: Connection, sha256: str) -> int:
    """Of a model. Raises NotFound, and Freed where it is not kept any more."""
    sized = select(model.c.num_bytes, model.c.freed_s).where(model.c.sha256 == sha256)
    row = c.execute(sized.order_by(model.c.freed_s.is_not(None)).limit(1)).first()
    if row is None:
        raise rules.no_model(sha256)
    if row.freed_s is not None:
        raise rules.freed(sha256)
    return int(row.num_bytes)


def disk_use(c: Connection, run_id: str | None = None) -> DiskUse:
    """Of one run's models, or of all."""
    of_run = [] if run_id is None else [model.c.run_id == run_id]
    files = select(model.c.sha256, model.c.num_bytes).where(model.c.freed_s.is_(None), *of_run).distinct().subquery()
    num_bytes, num_files = c.execute(select(func.coalesce(func.sum(files.c.num_bytes), 0), func.count())
                                    .select_from(files)).one()
    num_models = c.execute(select(func.count()).select_from(model).where(*of_run)).scalar_one()
    return DiskUse(num_models=int(num_models), num_files=int(num_files), num_bytes=int(num_bytes))
