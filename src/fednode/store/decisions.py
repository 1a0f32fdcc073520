"""What happens to a run and its rounds: each function is one decision, inside one transaction of the writer.

A decision changes rows, writes its journal entry and tells its event, together or not at all. Files are in
place before and go afterwards: functions that end something return the names of the files that nobody needs
any more. What clients report is in `reports.py`; `sql.py` is the store around both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, and_, func, insert, select, update

from fednode.core import journal
from fednode.core.metrics import Metric
from fednode.core.pooling import pool
from fednode.core.records import Outcome, Round, Run, RunConfig, evaluations_of
from fednode.core.status import AssignmentStatus, RoundStatus, RunStatus, is_final, move
from fednode.failpoints import reach
from fednode.store import events, reports, retention, rows, rules, schema
from fednode.store.rows import Load

NUMBERED = (schema.run, schema.deleted_run)     # a number is given once


@dataclass(frozen=True, kw_only=True)
class NewModel:
    """A model whose file is in its place already."""

    id: str
    sha256: str
    num_bytes: int
    num_params: int
    memory: str = ""            # the strategy memory's file


# --- runs -----------------------------------------------------------------------------------------------


def create_run(
    c: Connection, run_id: str, config: RunConfig, metrics: tuple[Metric, ...], model_id: str, wall_s: float
) -> Run:
    """A queued run; with a start model its round 0 is committed at once. Raises NotFound, Freed."""
    start = start_model(c, config.start_model, model_id) if config.start_model else None
    number = 1 + max(c.execute(select(func.max(table.c.number))).scalar() or 0 for table in NUMBERED)
    run = Run(id=run_id, number=number, config=config, metrics=metrics)
    c.execute(insert(schema.run).values(**rows.run_values(run), created_s=wall_s))
    rows.write_journal(c, run_id, journal.created(run))
    rows.write_event(c, events.run_created(run), wall_s)
    if start is not None:
        round_ = rules.start_round(run)
        c.execute(insert(schema.round_).values(**rows.round_values(round_, wall_s), ended_s=wall_s))
        _save_model(c, round_, start, parent=start.sha256, wall_s=wall_s)
    reach("run.written")
    return run


def start_model(c: Connection, sha256: str, model_id: str) -> NewModel:
    """A model that is there already, as the start of another run. Raises NotFound, Freed."""
    row = c.execute(select(schema.model).where(schema.model.c.sha256 == sha256)).first()
    if row is None:
        raise rules.no_model(sha256)
    if not retention.is_there(c, sha256):
        raise rules.freed(sha256)
    return NewModel(id=model_id, sha256=sha256, num_bytes=row.num_bytes, num_params=row.num_params)


def move_run(
    c: Connection, run_id: str, status: RunStatus, reason: str, *, withdraw: bool, wall_s: float
) -> tuple[Run, list[str]]:
    """Start, pause, resume, cancel or end a run. Raises IllegalMove."""
    old = rows.get_run(c, run_id)
    run = replace(old, status=move(f"run #{old.number}", old.status, status), reason=reason)
    _save_status(c, run, wall_s)
    live = rows.live_round(c, run_id)
    if live is not None and live.status is RoundStatus.OPEN:
        _turn_assignments(c, live, run, withdraw=withdraw)
    rows.write_event(c, events.run_moved(run, old.status), wall_s)
    if not is_final(status):
        return run, []
    if live is not None:
        _set_round(c, live, RoundStatus.ABANDONED, wall_s, reason)
    rows.write_journal(c, run_id, journal.run_ended(status.value))
    reach("run.ending")
    return run, _update_files(c, run_id)


def end_run(c: Connection, run_id: str, status: RunStatus, reason: str, wall_s: float) -> tuple[Run, list[str]]:
    """`move_run` for the loop, which a pause halts."""
    rules.require_running(rows.get_run(c, run_id))
    return move_run(c, run_id, status, reason, withdraw=False, wall_s=wall_s)


def set_reason(c: Connection, run_id: str, reason: str) -> None:
    """Why it waits. A run that was paused or has ended meanwhile keeps the reason of that."""
    if not rules.may_wait(rows.get_run(c, run_id)):
        return
    c.execute(update(schema.run).where(schema.run.c.id == run_id).values(reason=reason))


def _save_status(c: Connection, run: Run, wall_s: float) -> None:
    table = schema.run
    values: dict[str, object] = {"status": run.status.value, "reason": run.reason}
    if run.status is RunStatus.RUNNING:
        values["started_s"] = func.coalesce(table.c.started_s, wall_s)
    if is_final(run.status):
        values["ended_s"] = wall_s
    c.execute(update(table).where(table.c.id == run.id).values(values))


def _turn_assignments(c: Connection, round_: Round, run: Run, *, withdraw: bool) -> None:
    if withdraw or is_final(run.status):
        unreported = (AssignmentStatus.WAITING, AssignmentStatus.LEASED)
        rows.turn(c, round_, unreported, AssignmentStatus.WITHDRAWN)
    if run.status is RunStatus.RUNNING:
        rows.turn(c, round_, (AssignmentStatus.WITHDRAWN,), AssignmentStatus.WAITING)


# --- rounds ---------------------------------------------------------------------------------------------


def open_round(c: Connection, round_: Round, wall_s: float) -> Round:
    """The round and its assignments; one that is open already is returned as it is."""
    rules.require_running(rows.get_run(c, round_.run_id))
    if (live := rows.live_round(c, round_.run_id)) is not None:
        return live
    earlier = rows.rounds_of(c, round_.run_id, schema.round_.c.number == round_.number)
    rules.require_new_round(round_, next((old for old in earlier if old.attempt == round_.attempt), None))
    opened = replace(round_, status=RoundStatus.OPEN)
    c.execute(insert(schema.round_).values(**rows.round_values(opened, wall_s)))
    rows.insert_all(c, schema.assignment, [_assignment_values(opened, name) for name in opened.cohort])
    for old in earlier:
        if rules.is_repeat(old, opened):
            _take_over(c, old, opened)
    rows.write_journal(c, round_.run_id, journal.round_opened(opened))
    rows.write_event(c, events.round_opened(opened), wall_s)
    reach("cohort.written", round_.number)
    return opened


def close_round(
    c: Connection, round_: Round, given: Sequence[Outcome], load: Load, wall_s: float
) -> tuple[Outcome, ...]:
    """Freeze the outcomes. Idempotent."""
    rules.require_running(rows.get_run(c, round_.run_id))
    return _freeze(c, rows.refreshed(c, round_), given, load, wall_s)


def commit_round(
    c: Connection, round_: Round, given: Sequence[Outcome], made: NewModel | None, load: Load, wall_s: float
) -> list[str]:
    """Close the round where it is open, save its model, pool its metrics. Idempotent."""
    run = rows.get_run(c, round_.run_id)
    rules.require_running(run)
    now = rows.refreshed(c, round_)
    if now.status is RoundStatus.COMMITTED:
        return []
    final = _freeze(c, now, given, load, wall_s)
    reports.save_changes(c, round_, given)
    pooled = pool(run.metrics, evaluations_of(final))
    reports.save_pooled(c, round_, run.metrics, pooled)
    old_memory = [] if made is None else _save_model(c, round_, made, parent=round_.base_model, wall_s=wall_s)
    _set_round(c, now, RoundStatus.COMMITTED, wall_s)
    sha256 = made.sha256 if made is not None else round_.base_model
    rows.write_event(c, events.round_committed(round_, final, pooled, sha256), wall_s)
    freed = retention.free_models(c, run, wall_s)
    reach("round.written", round_.number)
    return [*old_memory, *freed, *_update_files(c, round_.run_id, round_.number)]


def abandon_round(
    c: Connection, round_: Round, given: Sequence[Outcome], reason: str, load: Load, wall_s: float
) -> None:
    """End this attempt. Its updates stay: the next attempt takes over those of its cohort. Idempotent."""
    rules.require_running(rows.get_run(c, round_.run_id))
    now = rows.refreshed(c, round_)
    if now.status is RoundStatus.ABANDONED:
        return
    final = _freeze(c, now, given, load, wall_s)
    _set_round(c, now, RoundStatus.ABANDONED, wall_s, reason)
    rows.write_event(c, events.round_abandoned(round_, final, reason), wall_s)


def _freeze(c: Connection, round_: Round, given: Sequence[Outcome], load: Load, wall_s: float) -> tuple[Outcome, ...]:
    reported = rows.reported(c, round_, load)
    if round_.status is not RoundStatus.OPEN:
        return tuple(reported.values())
    known = rows.evaluations(c, round_)
    final = rules.frozen(round_, reported, given, known)
    for outcome in final:
        if outcome.client not in reported:
            rows.set_assignment(c, round_, outcome.client, rules.status_after(outcome), outcome.failure)
        if outcome.evaluation is not None and outcome.client not in known:
            reports.save_evaluation(c, round_, outcome.client, outcome.evaluation)
    _set_round(c, round_, RoundStatus.CLOSED, None)
    rows.write_journal(c, round_.run_id, journal.round_closed(round_, final))
    rows.write_event(c, events.round_closed(round_, final), wall_s)
    reach("round.frozen", round_.number)
    return final


def _set_round(c: Connection, round_: Round, status: RoundStatus, ended_s: float | None, reason: str = "") -> None:
    new = move(rules.describe(round_), round_.status, status)
    values = {"status": new.value, "reason": reason, "ended_s": ended_s}
    c.execute(update(schema.round_).where(rows.key_of(schema.round_, round_)).values(values))


def _assignment_values(round_: Round, client: str) -> dict[str, object]:
    return {
        **rows.key_values(round_, client), "kind": round_.kind.value, "status": AssignmentStatus.WAITING.value,
        "deliveries": 0, "base_model": round_.base_model,
    }


def _take_over(c: Connection, old: Round, new: Round) -> None:
    """What clients of the new cohort sent for an earlier attempt counts for this one: the same file, named again."""
    table = schema.update
    found = c.execute(select(table).where(rows.key_of(table, old), table.c.client.in_(new.cohort))).mappings().all()
    for row in found:
        c.execute(table.delete().where(rows.key_of(table, new), table.c.client == row["client"]))
        c.execute(insert(table).values({**row, "attempt": new.attempt}))
        rows.set_assignment(c, new, row["client"], AssignmentStatus.REPORTED)


def _save_model(c: Connection, round_: Round, made: NewModel, *, parent: str, wall_s: float) -> list[str]:
    """The checkpoint of a round. Returns the files of the memory that it supersedes."""
    table = schema.model
    earlier = and_(table.c.run_id == round_.run_id, table.c.memory != "")
    superseded = list(c.execute(select(table.c.memory).where(earlier)).scalars())
    c.execute(update(table).where(earlier).values(memory=""))
    c.execute(insert(table).values(
        id=made.id, run_id=round_.run_id, round=round_.number, sha256=made.sha256, num_bytes=made.num_bytes,
        num_params=made.num_params, parent=parent, memory=made.memory, committed_s=wall_s,
    ))
    rows.write_journal(c, round_.run_id, journal.model_committed(round_, made.sha256))
    reach("checkpoint.inserted", round_.number)
    return superseded


def _update_files(c: Connection, run_id: str, number: int | None = None) -> list[str]:
    """The files of a run's updates, or of one of its rounds' in all attempts."""
    table = schema.update
    wanted = select(table.c.path).distinct().where(table.c.run_id == run_id)
    return list(c.execute(wanted if number is None else wanted.where(table.c.number == number)).scalars())


