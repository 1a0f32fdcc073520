"""Which params files the rows name: all others are left-overs of a crash, and go at the start."""

from __future__ import annotations

from sqlalchemy import Connection, select

from fednode.core.records import Run
from fednode.core.status import RoundStatus, is_final
from fednode.store import rows
from fednode.store.params_files import Named, model_name, round_key
from fednode.store.schema import model, round_, update


def named_files(c: Connection) -> Named:
    """Every model that is kept, each run's last memory, the updates of rounds that may still be committed."""
    kept = select(model.c.sha256).where(model.c.freed_s.is_(None))
    paths = {model_name(sha256) for sha256 in c.execute(kept).scalars()}
    paths.update(c.execute(select(model.c.memory).where(model.c.memory != "")).scalars())
    open_rounds: set[str] = set()
    for run in rows.all_runs(c):
        if not is_final(run.status):
            paths.update(_updates(c, run))
            is_open = round_.c.status == RoundStatus.OPEN.value
            open_rounds.update(round_key(found) for found in rows.rounds_of(c, run.id, is_open))
    return Named(paths=paths, open_rounds=open_rounds)


def _updates(c: Connection, run: Run) -> list[str]:
    committed = rows.last_committed(c, run.id)
    wanted = select(update.c.path).where(update.c.run_id == run.id, update.c.number > committed)
    return list(c.execute(wanted).scalars())
