"""What every decision tells people: a name and fields, made here once for every store.

A store writes these in the decision's own transaction. What later runs must repeat bit for bit is not here
but in `core.journal`. No clock and no rows: `Story` has neither time nor seq yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fednode.core.json import Json, JsonObject
from fednode.core.metrics import Pooled
from fednode.core.records import Failure, Outcome, Round, Run, failures_of, updates_of
from fednode.core.status import RunStatus, is_final


@dataclass(frozen=True, kw_only=True)
class Story:
    """An event that is not written yet."""

    what: str
    run_id: str
    fields: JsonObject


def run_created(run: Run) -> Story:
    config = run.config
    return _of_run(run, "run created", {"number": run.number, "task": config.task, "strategy": config.strategy})


def run_moved(run: Run, old: RunStatus) -> Story:
    """`run` as it is after the move."""
    if is_final(run.status):
        return _of_run(run, "run ended", {"status": run.status.value, "reason": run.reason})
    if run.status is RunStatus.QUEUED:
        return _of_run(run, "run resumed", {})
    what = "run paused" if run.status is RunStatus.PAUSED else "run started"
    return _of_run(run, what, {"from": old.value, "reason": run.reason})


def run_deleted(run: Run, num_models: int, num_rows: int) -> Story:
    """Not about a run: there is none any more."""
    fields: dict[str, Json] = {"number": run.number, "task": run.config.task, "num_models": num_models}
    return Story(what="run deleted", run_id="", fields={**fields, "num_rows": num_rows})


def round_opened(round_: Round) -> Story:
    return _of_round(round_, "round opened", {"kind": round_.kind.value, "cohort": list(round_.cohort)})


def round_closed(round_: Round, outcomes: Sequence[Outcome]) -> Story:
    return _of_round(round_, "round closed", {"kind": round_.kind.value, **_numbers(outcomes)})


def round_committed(round_: Round, outcomes: Sequence[Outcome], pooled: Sequence[Pooled], model_sha256: str) -> Story:
    metrics: dict[str, Json] = {metric.name: metric.value for metric in pooled}
    made: dict[str, Json] = {"kind": round_.kind.value, "metrics": metrics, "model_sha256": model_sha256}
    return _of_round(round_, "round committed", {**_numbers(outcomes), **made, "model_round": round_.model_round})


def round_abandoned(round_: Round, outcomes: Sequence[Outcome], reason: str) -> Story:
    return _of_round(round_, "round abandoned", {**_numbers(outcomes), "reason": reason})


def outcome_received(round_: Round, outcome: Outcome, num_bytes: int) -> Story:
    if outcome.failure is not None:
        return _of_round(round_, "failure received", _failure(outcome.failure))
    if outcome.update is None:
        return _of_round(round_, "evaluation received", {"client": outcome.client})
    examples = outcome.update.num_examples
    brought: dict[str, Json] = {"client": outcome.client, "num_bytes": num_bytes, "num_examples": examples}
    return _of_round(round_, "update received", brought)


def late(round_: Round, client: str) -> Story:
    """Somebody reported to a round whose outcomes are frozen."""
    return _of_round(round_, "late", {"client": client, "status": round_.status.value})


def _of_run(run: Run, what: str, fields: JsonObject) -> Story:
    return Story(what=what, run_id=run.id, fields=fields)


def _of_round(round_: Round, what: str, fields: JsonObject) -> Story:
    place: dict[str, Json] = {"round": round_.number, "attempt": round_.attempt}
    return Story(what=what, run_id=round_.run_id, fields={**place, **fields})


def _numbers(outcomes: Sequence[Outcome]) -> dict[str, Json]:
    failures = [_failure(failure) for failure in failures_of(outcomes)]
    return {"num_updates": len(updates_of(outcomes)), "num_clients": len(outcomes), "failures": failures}


def _failure(failure: Failure) -> JsonObject:
    return {
        "client": failure.client, "code": failure.code.value, "reason": failure.reason, "traceback": failure.traceback,
    }
