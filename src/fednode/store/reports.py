"""What clients bring: outcomes, evaluations, progress. Each function runs inside one transaction of the writer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, and_, bindparam, func, insert, select, update

from fednode.core.metrics import Metric, Metrics, Pooled
from fednode.core.pooling import pool
from fednode.core.records import Assignment, Outcome, Round, Update, changes_of
from fednode.core.status import AssignmentStatus
from fednode.failpoints import reach
from fednode.store import events, rows, rules, schema
from fednode.store.rows import Standing

POOLED = ""                     # the client of a pooled metric
LOCAL = "local"                 # the phase of a client's own model while it trains


@dataclass(frozen=True, kw_only=True)
class Placed:
    """An update's file, durable in its place or about to be."""

    path: str                   # below the params folder
    digest: str
    num_bytes: int
    sent_s: float | None = None     # wall time: it was announced


def is_news(c: Connection, round_: Round, outcome: Outcome, digest: str) -> bool:
    """Whether the outcome should be taken (False: it was, before).

    Raises AlreadyReported, RoundClosed, Withdrawn, NotFound.
    """
    now = rows.standing(c, round_, outcome.client)
    return rules.require_news(now.round, now.assignment, is_same=_is_same(now, outcome, digest))


def save_report(c: Connection, round_: Round, outcome: Outcome, placed: Placed | None, wall_s: float) -> None:
    """Take an outcome whose file is in its place. Raises as `is_news` does."""
    if not is_news(c, round_, outcome, placed.digest if placed else ""):
        return
    if placed is not None and outcome.update is not None:
        c.execute(insert(schema.update).values(_update_values(round_, outcome.update, placed, wall_s)))
        reach("update.inserted", round_.number)
    if outcome.evaluation is not None:
        save_evaluation(c, round_, outcome.client, outcome.evaluation)
    rows.set_assignment(c, round_, outcome.client, rules.status_after(outcome), outcome.failure)
    num_bytes = placed.num_bytes if placed is not None else 0
    rows.write_event(c, events.outcome_received(round_, outcome, num_bytes), wall_s)


def report_evaluation(c: Connection, round_: Round, client: str, metrics: Metrics) -> None:
    """What a client measured before it trains. Raises RoundClosed, Withdrawn, NotFound."""
    now = rows.standing(c, round_, client)
    if rules.require_news(now.round, now.assignment, is_same=True):
        save_evaluation(c, round_, client, metrics)


def save_evaluation(c: Connection, round_: Round, client: str, metrics: Metrics) -> None:
    """The first one counts; its numbers are written out for people."""
    table = schema.evaluation
    key = {"run_id": round_.run_id, "model_round": round_.model_round, "client": client}
    is_known = c.execute(select(table.c.client).filter_by(**key)).first() is not None
    if is_known:
        return
    c.execute(insert(table).values(**key, metrics=rows.to_text(metrics.to_json())))
    specs = rows.get_run(c, round_.run_id).metrics
    _save_metrics(c, round_, client, specs, pool(specs, {client: metrics}))
    reach("evaluation.written", round_.number)


def save_pooled(c: Connection, round_: Round, specs: Sequence[Metric], pooled: Sequence[Pooled]) -> None:
    """The federation's numbers of the model that the round started from."""
    _save_metrics(c, round_, POOLED, specs, pooled)


def save_changes(c: Connection, round_: Round, outcomes: Sequence[Outcome]) -> None:
    """How far each update led, for people."""
    table = schema.update
    of_client = and_(rows.key_of(table, round_), table.c.client == bindparam("of"))
    values = [
        {"of": client, "norm": _number(change.norm), "cosine": change.cosine}
        for client, change in changes_of(outcomes).items()
    ]
    if values:
        c.execute(update(table).where(of_client), values)


def save_progress(c: Connection, round_: Round, client: str, epoch: int, values: Mapping[str, float]) -> None:
    """Scores of a client's own model after an epoch; the same again changes nothing."""
    table = schema.metric
    key = {"run_id": round_.run_id, "model_round": round_.number, "client": client, "phase": LOCAL, "step": epoch}
    known = set(c.execute(select(table.c.name).filter_by(**key)).scalars())
    new = {name: value for name, value in values.items() if name not in known}
    rows.insert_all(c, table, [
        {**key, "name": name, "value": _number(value), "curve": None, "num_clients": 1, "num_examples": 0}
        for name, value in new.items()
    ])


def mark_leased(c: Connection, assignment: Assignment, wall_s: float) -> None:
    """One more delivery. Where it was reported or taken back in the meantime, nothing."""
    table = schema.assignment
    key = {"run_id": assignment.run_id, "number": assignment.number, "attempt": assignment.attempt}
    may_lease = table.c.status.in_([AssignmentStatus.WAITING.value, AssignmentStatus.LEASED.value])
    leased = update(table).filter_by(**key, client=assignment.client).where(may_lease)
    first_s = func.coalesce(table.c.leased_s, wall_s)
    c.execute(leased.values(
        status=AssignmentStatus.LEASED.value, deliveries=table.c.deliveries + 1, leased_s=first_s
    ))


def _is_same(old: Standing, new: Outcome, digest: str) -> bool:
    """Whether a client that reported before brings the same again."""
    if old.assignment.status is AssignmentStatus.FAILED:
        return new.failure is not None
    if old.digest is None or new.update is None:
        return old.digest is None and new.update is None and new.failure is None
    return (old.digest, old.num_examples) == (digest, new.update.num_examples)


def _update_values(round_: Round, brought: Update, placed: Placed, wall_s: float) -> dict[str, object]:
    return {
        **rows.key_values(round_, brought.client), "part": "params", "path": placed.path, "digest": placed.digest,
        "num_bytes": placed.num_bytes, "num_examples": brought.num_examples, "encoding": "f32",
        "environment": rows.to_text(brought.environment), "received_s": wall_s, "sent_s": placed.sent_s,
    }


def _save_metrics(
    c: Connection, round_: Round, client: str, specs: Sequence[Metric], found: Sequence[Pooled]
) -> None:
    phases = {spec.name: spec.split for spec in specs}
    key = {"run_id": round_.run_id, "model_round": round_.model_round, "client": client, "step": 0}
    rows.insert_all(c, schema.metric, [
        {**key, "phase": phases[metric.name], "name": metric.name, **_value(metric),
         "num_clients": metric.num_clients, "num_examples": metric.num_examples}
        for metric in found
    ])


def _value(metric: Pooled) -> dict[str, float | str | None]:
    if isinstance(metric.value, list):
        return {"value": None, "curve": rows.to_text(metric.value)}
    return {"value": _number(metric.value), "curve": None}


def _number(value: float) -> float | None:
    """A database keeps infinities; what is not a number at all is no value."""
    return None if math.isnan(value) else float(value)
