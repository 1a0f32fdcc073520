"""Rows become records and back, inside one transaction. What may be decided is in `decisions.py`.

Every function takes the connection of its transaction first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias, cast

from sqlalchemy import Connection, Row, Select, Table, and_, bindparam, func, insert, select, update

from fednode.core.journal import JournalRow, next_row
from fednode.core.json import Json, JsonObject, canonical_json
from fednode.core.metrics import Metric, Metrics
from fednode.core.params import Params
from fednode.core.records import Assignment, Failure, Outcome, Round, Run, RunConfig, Update, by_client_name
from fednode.core.status import AssignmentStatus, FailureCode, RoundKind, RoundStatus, RunStatus, is_final
from fednode.store import rules, schema
from fednode.store.events import Story

Load: TypeAlias = Callable[[str, str], Params]      # (client, path below the params folder)
AnyRow: TypeAlias = Row[Any]

DONE = (AssignmentStatus.REPORTED, AssignmentStatus.FAILED)


def to_text(value: Json) -> str:
    """JSON for a text column. Unlike what is hashed it may hold infinities: a diverged loss is a fact too."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def insert_all(c: Connection, table: Table, rows: Iterable[Mapping[str, object]]) -> None:
    listed = [dict(row) for row in rows]
    if listed:
        c.execute(insert(table), listed)


# --- runs ---------------------------------------------------------------------------------------------


def run_values(run: Run) -> dict[str, object]:
    config = run.config
    return {
        "id": run.id, "number": run.number, "task": config.task, "fingerprint": config.fingerprint,
        "config": to_text(config.to_json()), "config_sha256": run.config_sha256, "seed": config.seed,
        "metrics": to_text([metric.to_json() for metric in run.metrics]), "start_model": config.start_model,
        "status": run.status.value, "reason": run.reason,
    }


def run_from(row: AnyRow) -> Run:
    return Run(
        id=row.id, number=row.number, config=RunConfig.from_json(json.loads(row.config)),
        metrics=_metrics_in(row.metrics), status=RunStatus(row.status), reason=row.reason,
    )


def get_run(c: Connection, run_id: str) -> Run:
    """Raises NotFound."""
    row = c.execute(select(schema.run).where(schema.run.c.id == run_id)).first()
    if row is None:
        raise rules.no_run(run_id)
    return run_from(row)


def all_runs(c: Connection) -> list[Run]:
    return [run_from(row) for row in c.execute(select(schema.run).order_by(schema.run.c.number))]


def unfinished_runs(c: Connection) -> list[str]:
    """Ids of the runs that have not ended."""
    open_ = [status.value for status in RunStatus if not is_final(status)]
    return list(c.execute(select(schema.run.c.id).where(schema.run.c.status.in_(open_))).scalars())


_DECLARED = select(schema.run.c.metrics).where(schema.run.c.id == bindparam("run_id"))


def declared_metrics(c: Connection, run_id: str) -> tuple[Metric, ...]:
    """What the run's task declares. Every evaluation asks."""
    return _metrics_in(c.execute(_DECLARED, {"run_id": run_id}).scalar_one())


@lru_cache(maxsize=64)
def _metrics_in(text: str) -> tuple[Metric, ...]:
    return tuple(Metric.from_json(metric) for metric in json.loads(text))


# --- rounds -------------------------------------------------------------------------------------------


def key_of(table: Table, round_: Round) -> Any:
    """The condition that a row is the round's."""
    return and_(
        table.c.run_id == round_.run_id, table.c.number == round_.number, table.c.attempt == round_.attempt
    )


def key_values(round_: Round | Assignment, client: str) -> dict[str, object]:
    return {"run_id": round_.run_id, "number": round_.number, "attempt": round_.attempt, "client": client}


def of_client(table: Table) -> Any:
    """The condition that a row is a client's part in a round, which comes with the statement: `given_key`."""
    return and_(*(table.c[name] == bindparam(f"of_{name}") for name in ("run_id", "number", "attempt", "client")))


def given_key(round_: Round | Assignment, client: str) -> dict[str, object]:
    """An update's own names mean the new values: these are others."""
    return {f"of_{name}": value for name, value in key_values(round_, client).items()}


def round_values(round_: Round, wall_s: float) -> dict[str, object]:
    return {
        "run_id": round_.run_id, "number": round_.number, "attempt": round_.attempt, "kind": round_.kind.value,
        "status": round_.status.value, "reason": round_.reason, "cohort": to_text(list(round_.cohort)),
        "config": to_text(round_.config), "base_model": round_.base_model, "budget_s": round_.budget_s,
        "budget_left_s": round_.budget_s, "opened_s": wall_s,
    }


def round_from(row: AnyRow) -> Round:
    return Round(
        run_id=row.run_id, number=row.number, attempt=row.attempt, kind=RoundKind(row.kind),
        cohort=tuple(json.loads(row.cohort)), config=json.loads(row.config), base_model=row.base_model,
        budget_s=row.budget_s, status=RoundStatus(row.status), reason=row.reason,
    )


def rounds_of(c: Connection, run_id: str, *conditions: Any) -> list[Round]:
    table = schema.round_
    found = select(table).where(table.c.run_id == run_id, *conditions).order_by(table.c.number, table.c.attempt)
    return [round_from(row) for row in c.execute(found)]


def get_round(c: Connection, run_id: str, number: int, attempt: int) -> Round:
    """Raises NotFound."""
    table = schema.round_
    found = rounds_of(c, run_id, table.c.number == number, table.c.attempt == attempt)
    if not found:
        raise rules.no_round(run_id, number, attempt)
    return found[0]


def refreshed(c: Connection, round_: Round) -> Round:
    """The round as the store knows it. Raises NotFound."""
    return get_round(c, round_.run_id, round_.number, round_.attempt)


def budget_left_s(c: Connection, round_: Round) -> float:
    """Raises NotFound."""
    found: float | None = c.execute(
        select(schema.round_.c.budget_left_s).where(key_of(schema.round_, round_))
    ).scalar()
    if found is None:
        raise rules.no_round(round_.run_id, round_.number, round_.attempt)
    return found


def save_budget(c: Connection, round_: Round, left_s: float) -> None:
    c.execute(update(schema.round_).where(key_of(schema.round_, round_)).values(budget_left_s=left_s))


def live_round(c: Connection, run_id: str) -> Round | None:
    """The round that is open or closed and not ended, if there is one."""
    found = rounds_of(c, run_id, schema.round_.c.status.in_([status.value for status in rules.LIVE_ROUND]))
    return found[0] if found else None


def last_committed(c: Connection, run_id: str) -> int:
    """The number of the last committed round, -1 before the first."""
    table = schema.round_
    committed = and_(table.c.run_id == run_id, table.c.status == RoundStatus.COMMITTED.value)
    number: int | None = c.execute(select(func.max(table.c.number)).where(committed)).scalar()
    return -1 if number is None else number


# --- assignments and what they brought ------------------------------------------------------------------


def assignment_from(row: AnyRow) -> Assignment:
    return Assignment(
        run_id=row.run_id, number=row.number, attempt=row.attempt, client=row.client,
        kind=RoundKind(row.kind), status=AssignmentStatus(row.status), deliveries=row.deliveries,
    )


def assignments_of(c: Connection, round_: Round) -> list[Assignment]:
    """In name order."""
    found = c.execute(select(schema.assignment).where(key_of(schema.assignment, round_)))
    return sorted((assignment_from(row) for row in found), key=by_client_name)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where one client stands in a round: all that decides whether it may report."""

    round: Round
    assignment: Assignment
    digest: str | None          # of the update that it brought; None: none yet
    num_examples: int | None


def standing(c: Connection, round_: Round, client: str) -> Standing:
    """Raises NotFound."""
    row = c.execute(_STANDING, given_key(round_, client)).first()
    if row is None:
        raise rules.no_assignment(refreshed(c, round_), client)
    assignment = Assignment(
        run_id=round_.run_id, number=round_.number, attempt=round_.attempt, client=client, kind=round_.kind,
        status=AssignmentStatus(row.assignment_status), deliveries=row.deliveries,
    )
    now = replace(round_, status=RoundStatus(row.status), reason=row.reason)
    return Standing(round=now, assignment=assignment, digest=row.digest, num_examples=row.num_examples)


def _standing() -> Select[Any]:
    """Without the cohort, which is as long as there are clients: whoever reports knows the rest of its round."""
    here, assigned, brought = schema.round_, schema.assignment, schema.update
    in_round = and_(*(assigned.c[name] == here.c[name] for name in ("run_id", "number", "attempt")))
    by_client = and_(*(brought.c[name] == assigned.c[name] for name in ("run_id", "number", "attempt", "client")))
    wanted = select(
        here.c.status, here.c.reason, assigned.c.status.label("assignment_status"), assigned.c.deliveries,
        brought.c.digest, brought.c.num_examples,
    )
    joined = wanted.select_from(here.join(assigned, in_round).outerjoin(brought, by_client))
    return joined.where(of_client(assigned))


_STANDING = _standing()         # built once, as whatever every report asks


def turn(c: Connection, round_: Round, old: Iterable[AssignmentStatus], new: AssignmentStatus) -> None:
    """Give every assignment of the round whose status is one of `old` the status `new`."""
    table = schema.assignment
    among = table.c.status.in_([status.value for status in old])
    c.execute(update(table).where(key_of(table, round_), among).values(status=new.value))


def set_assignment(
    c: Connection, round_: Round, client: str, status: AssignmentStatus, failure: Failure | None = None
) -> None:
    values = {"status": status.value, "failure": to_text(failure_json(failure)) if failure else None}
    c.execute(_SET_ASSIGNMENT, {**given_key(round_, client), **values})


_SET_ASSIGNMENT = update(schema.assignment).where(of_client(schema.assignment))


def failure_json(failure: Failure) -> JsonObject:
    return {"code": failure.code.value, "reason": failure.reason, "traceback": failure.traceback}


def failure_from(client: str, text: str) -> Failure:
    found = json.loads(text)
    code = FailureCode(found["code"])
    return Failure(client=client, code=code, reason=found["reason"], traceback=found["traceback"])


def evaluations(c: Connection, round_: Round) -> dict[str, Metrics]:
    """By client: what the round's cohort and earlier attempts measured of the model that the round starts from."""
    table = schema.evaluation
    of_model = and_(table.c.run_id == round_.run_id, table.c.model_round == round_.model_round)
    found = c.execute(select(table.c.client, table.c.metrics).where(of_model))
    return {row.client: Metrics.from_json(json.loads(row.metrics)) for row in found}


def reported(c: Connection, round_: Round, load: Load) -> dict[str, Outcome]:
    """By client, in name order: what was reported, or frozen as a failure."""
    assigned, brought = schema.assignment, schema.update
    on = and_(
        brought.c.run_id == assigned.c.run_id, brought.c.number == assigned.c.number,
        brought.c.attempt == assigned.c.attempt, brought.c.client == assigned.c.client,
    )
    wanted = select(
        assigned.c.client, assigned.c.failure, brought.c.path, brought.c.num_examples, brought.c.environment
    ).select_from(assigned.outerjoin(brought, on))
    done = assigned.c.status.in_([status.value for status in DONE])
    rows = c.execute(wanted.where(key_of(assigned, round_), done)).all()
    measured = evaluations(c, round_) if rows else {}
    return {row.client: _outcome(row, measured, load) for row in sorted(rows, key=lambda row: row.client.encode())}


def _outcome(row: Any, measured: Mapping[str, Metrics], load: Load) -> Outcome:
    evaluation = measured.get(row.client)
    if row.failure is not None:
        return Outcome(client=row.client, failure=failure_from(row.client, row.failure), evaluation=evaluation)
    if row.path is None:
        return Outcome(client=row.client, evaluation=evaluation)
    brought = Update(
        client=row.client, params=load(row.client, row.path), num_examples=row.num_examples,
        environment=json.loads(row.environment),
    )
    return Outcome(client=row.client, update=brought, evaluation=evaluation)


# --- journal and events -----------------------------------------------------------------------------------


def write_journal(c: Connection, run_id: str, entry: JsonObject) -> None:
    table = schema.journal
    newest = select(table).where(table.c.run_id == run_id).order_by(table.c.seq.desc()).limit(1)
    last = c.execute(newest).first()
    row = next_row(journal_from(last) if last is not None else None, entry)
    values = {"run_id": run_id, "seq": row.seq, "entry": canonical_json(entry), "hash": row.hash}
    c.execute(insert(table).values(values))


def journal_from(row: AnyRow) -> JournalRow:
    return JournalRow(seq=row.seq, entry=cast(JsonObject, json.loads(row.entry)), hash=row.hash)


def write_event(c: Connection, story: Story, wall_s: float) -> None:
    values = {"wall_s": wall_s, "run_id": story.run_id, "what": story.what, "fields": to_text(story.fields)}
    c.execute(_WRITE_EVENT, values)


_WRITE_EVENT = insert(schema.event)
_LAST_EVENT = select(func.max(schema.event.c.seq))      # made once: asked in every transaction


def last_event_seq(c: Connection) -> int:
    return c.execute(_LAST_EVENT).scalar() or 0
