"""Where a run stands: what the loop goes on from, read in one view of the store."""

from __future__ import annotations

from sqlalchemy import Connection, select

from fednode.core.records import Best, Checkpoint, Position, Run
from fednode.core.status import RoundKind
from fednode.store import retention, rows, schema
from fednode.store.params_files import ParamsFiles


def position_of(c: Connection, files: ParamsFiles, run_id: str) -> Position:
    """Raises NotFound."""
    run, last = rows.get_run(c, run_id), rows.last_committed(c, run_id)
    checkpoint = _checkpoint(c, files, run_id)
    attempts = rows.rounds_of(c, run_id, schema.round_.c.number == last + 1)
    return Position(
        checkpoint=checkpoint, open_round=rows.live_round(c, run_id), next_round=last + 1,
        next_attempt=1 + max((round_.attempt for round_ in attempts), default=0),
        last_kind=_kind(c, run_id, last), best=_best(c, run, checkpoint),
    )


def _best(c: Connection, run: Run, newest: Checkpoint | None) -> Best | None:
    """Of the models before the newest; nobody asks where the run has no patience."""
    if newest is None or run.config.patience is None:
        return None
    return retention.best_model(c, run, schema.model.c.round < newest.round)


def _kind(c: Connection, run_id: str, number: int) -> RoundKind | None:
    table = schema.round_
    found = c.execute(select(table.c.kind).where(table.c.run_id == run_id, table.c.number == number).limit(1)).scalar()
    return None if found is None else RoundKind(found)


def _checkpoint(c: Connection, files: ParamsFiles, run_id: str) -> Checkpoint | None:
    table = schema.model
    newest = select(table).where(table.c.run_id == run_id).order_by(table.c.round.desc()).limit(1)
    row = c.execute(newest).first()
    if row is None:
        return None
    state = files.read_state(row.sha256, row.memory)
    return Checkpoint(run_id=run_id, round=row.round, state=state, model_sha256=row.sha256)
