"""What clients bring: outcomes, evaluations, progress. Each function runs inside one transaction of the writer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from sqlalchemy import Connection, bindparam, func, insert, or_, select, update

from fednode.core.metrics import Metric, Metrics, Pooled
from fednode.core.pooling import pool
from fednode.core.records import Assignment, Outcome, Round, Update
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


def save_report(
    c: Connection, round_: Round, outcome: Outcome, placed: Placed | None, wall_s: float,
    put_in_place: Callable[[], None] = lambda: None,
) -> bool:
    """Take an outcome, its file first; False where that was done before. Raises as `is_news` does."""
    if not is_news(c, round_, outcome, placed.digest if placed else ""):
        return False
    if placed is not None and outcome.update is not None:
        put_in_place()
        c.execute(_INSERT_UPDATE, _update_values(round_, outcome.update, placed, wall_s))
        reach("update.inserted", round_.number)
    if outcome.evaluation is not None:
        save_evaluation(c, round_, outcome.client, outcome.evaluation)
    rows.set_assignment(c, round_, outcome.client, rules.status_after(outcome), outcome.failure)
    num_bytes = placed.num_bytes if placed is not None else 0
    rows.write_event(c, events.outcome_received(round_, outcome, num_bytes), wall_s)
    return True


_INSERT_UPDATE = insert(schema.update)


def report_evaluation(c: Connection, round_: Round, client: str, metrics: Metrics) -> None:
    """What a client measured before it trains. Raises RoundClosed, Withdrawn, NotFound."""
    now = rows.standing(c, round_, client)
    if rules.require_news(now.round, now.assignment, is_same=True):
        save_evaluation(c, round_, client, metrics)


def save_evaluation(c: Connection, round_: Round, client: str, metrics: Metrics) -> None:
    """The first one counts; its numbers are written out for people."""
    key = {"run_id": round_.run_id, "model_round": round_.model_round, "client": client}
    if c.execute(_IS_MEASURED, key).first() is not None:
        return
    c.execute(_INSERT_EVALUATION, {**key, "metrics": rows.to_text(metrics.to_json())})
    specs = rows.declared_metrics(c, round_.run_id)
    _save_metrics(c, round_, client, specs, pool(specs, {client: metrics}))
    reach("evaluation.written", round_.number)


_EVALUATION_KEY = ("run_id", "model_round", "client")
_IS_MEASURED = select(schema.evaluation.c.client).where(
    *(schema.evaluation.c[name] == bindparam(name) for name in _EVALUATION_KEY)
)
_INSERT_EVALUATION = insert(schema.evaluation)


def save_pooled(c: Connection, round_: Round, specs: Sequence[Metric], pooled: Sequence[Pooled]) -> None:
    """The federation's numbers of the model that the round started from."""
    _save_metrics(c, round_, POOLED, specs, pooled)


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


def mark_leased(c: Connection, waiting: SimpleQueue[tuple[Assignment, float]]) -> None:
    """All that wait by now: of each one more delivery, at that wall time; none of what is reported or taken back."""
    given = []
    with suppress(Empty):
        while True:
            assignment, wall_s = waiting.get_nowait()
            given.append({**rows.given_key(assignment, assignment.client), "at_s": wall_s})
    if given:
        c.execute(_MARK_LEASED, given)


_ASSIGNED = schema.assignment.c
_MARK_LEASED = update(schema.assignment).where(
    rows.of_client(schema.assignment),
    or_(_ASSIGNED.status == AssignmentStatus.WAITING.value, _ASSIGNED.status == AssignmentStatus.LEASED.value),
).values(
    status=AssignmentStatus.LEASED.value, deliveries=_ASSIGNED.deliveries + 1,
    leased_s=func.coalesce(_ASSIGNED.leased_s, bindparam("at_s")),
)


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
