"""The end of a run's rows: what deleting it frees, and who forbids it. Files go after the commit, as everywhere.

A run that another one started from stays, so that no model loses where it comes from. What is left of a deleted run is
its number, which is never given again, and an event.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select

from fednode.core.records import Run
from fednode.core.status import is_final
from fednode.errors import Conflict, IllegalMove
from fednode.failpoints import reach
from fednode.store import events, rows, schema
from fednode.store.params_files import model_name

OF_A_RUN = (                    # in this order: what names a row goes before it
    schema.assignment, schema.update, schema.evaluation, schema.metric, schema.model, schema.event, schema.journal,
    schema.round_,
)


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """What goes with a run."""

    run: Run
    num_models: int
    num_updates: int            # what clients sent, of which only the numbers are left
    num_rows: int
    files: tuple[str, ...]      # params that nobody else needs
    num_bytes: int              # of those that are models
    needed_by: tuple[int, ...]  # numbers of the runs that started from one of its models: they forbid it


def plan_deletion(c: Connection, run_id: str) -> Deletion:
    """What `delete_run` would do. Raises NotFound."""
    run, files = rows.get_run(c, run_id), _files(c, run_id)
    counts = {
        table: c.execute(select(func.count()).where(table.c.run_id == run_id)).scalar_one() for table in OF_A_RUN
    }
    return Deletion(
        run=run, num_models=counts[schema.model], num_updates=counts[schema.update],
        num_rows=1 + sum(counts.values()), files=(*_memory(c, run_id), *map(model_name, files)),
        num_bytes=sum(files.values()), needed_by=_needed_by(c, run_id),
    )


def delete_run(c: Connection, run_id: str, wall_s: float) -> Deletion:
    """Raises NotFound, IllegalMove where it has not ended, Conflict where another run started from its models."""
    plan = plan_deletion(c, run_id)
    require_deletable(plan)
    run = plan.run
    rows.write_event(c, events.run_deleted(run, plan.num_models, plan.num_rows), wall_s)   # a newer seq than its own
    for table in OF_A_RUN:
        c.execute(delete(table).where(table.c.run_id == run_id))
    c.execute(delete(schema.run).where(schema.run.c.id == run_id))
    gone = {"number": run.number, "id": run.id, "task": run.config.task, "deleted_s": wall_s}
    c.execute(insert(schema.deleted_run).values(gone))
    reach("run.deleting")
    return plan


def require_deletable(plan: Deletion) -> None:
    """Raises IllegalMove, Conflict."""
    run = plan.run
    if not is_final(run.status):
        raise IllegalMove(f"run #{run.number} is {run.status}", fix=f"end it first: fednode cancel {run.number}")
    if plan.needed_by:
        others = ", ".join(f"#{number}" for number in plan.needed_by)
        raise Conflict(
            f"run #{run.number} made the model that run {others} started from", fix=f"keep it, or delete {others} first"
        )


def _files(c: Connection, run_id: str) -> dict[str, int]:
    """The models that only its own rows name: their size by their sha256."""
    model = schema.model
    kept = select(model.c.sha256, model.c.num_bytes).where(model.c.freed_s.is_(None))
    others = set(c.execute(kept.where(model.c.run_id != run_id)).scalars())
    own = c.execute(kept.where(model.c.run_id == run_id).order_by(model.c.sha256))
    return {row.sha256: row.num_bytes for row in own if row.sha256 not in others}


def _memory(c: Connection, run_id: str) -> tuple[str, ...]:
    model = schema.model
    return tuple(c.execute(select(model.c.memory).where(model.c.run_id == run_id, model.c.memory != "")).scalars())


def _needed_by(c: Connection, run_id: str) -> tuple[int, ...]:
    run, model = schema.run, schema.model
    made = select(model.c.sha256).where(model.c.run_id == run_id)
    starting = select(run.c.number).where(run.c.id != run_id, run.c.start_model.in_(made)).order_by(run.c.number)
    return tuple(c.execute(starting).scalars())
