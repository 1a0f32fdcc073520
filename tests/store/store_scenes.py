"""Small runs, rounds and outcomes for the tests of the stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fednode.core.metrics import Metric, Metrics, Sum
from fednode.core.params import Params
from fednode.core.records import Failure, Outcome, Round, Run, RunConfig, State, Update
from fednode.core.status import FailureCode, RoundKind, RunStatus
from fednode.store.memory import MemoryStore
from fednode.store.sql import SqlStore

AnyStore = MemoryStore | SqlStore
METRICS = (Metric(name="accuracy", combine="accuracy"), Metric(name="loss", goal="min"))


def params(*values: float) -> Params:
    return Params({"w": np.array(values, dtype=np.float32)})


def config(*, rounds: int = 2, start_model: str = "") -> RunConfig:
    return RunConfig(
        task="toy", fingerprint="toy@1", task_config={"epochs": 1}, strategy="fedavg", strategy_config={},
        rounds=rounds, min_updates=1, cohort_fraction=1.0, deadline_s=600.0, seed=7, start_model=start_model,
    )


async def running(store: AnyStore, *, rounds: int = 2, start_model: str = "", **changes: Any) -> Run:
    wanted = replace(config(rounds=rounds, start_model=start_model), **changes)
    run = await store.create_run(wanted, METRICS)
    return await store.move_run(run.id, RunStatus.RUNNING)


def a_round(
    run: Run, number: int, *cohort: str, attempt: int = 1, base: str = "", kind: RoundKind = RoundKind.TRAIN
) -> Round:
    return Round(
        run_id=run.id, number=number, attempt=attempt, kind=RoundKind.INIT if number == 0 else kind,
        cohort=cohort or ("a", "b"), config={"epochs": 1}, base_model=base, budget_s=600.0,
    )


def measured(correct: int, out_of: int, loss: float) -> Metrics:
    return Metrics(values={"accuracy": Sum([correct, out_of]), "loss": loss}, num_examples={"test": out_of})


def brought(client: str, *values: float, num_examples: int = 10, evaluation: Metrics | None = None) -> Outcome:
    update = Update(client=client, params=params(*values), num_examples=num_examples, environment={"threads": 1})
    return Outcome(client=client, update=update, evaluation=evaluation)


def failed(client: str, code: FailureCode = FailureCode.TASK_ERROR, reason: str = "no data") -> Outcome:
    return Outcome(client=client, failure=Failure(client=client, code=code, reason=reason))


def gone(client: str) -> Outcome:
    return failed(client, FailureCode.GONE, "unheard of for 60 s")


async def model_0(store: AnyStore, run: Run, *values: float) -> str:
    """Play round 0; the sha256 of its model."""
    opened = await store.open_round(a_round(run, 0, "a"))
    outcome = brought("a", *(values or (0.0, 0.0)), num_examples=0)
    await store.report(opened, outcome)
    await store.commit_round(opened, (outcome,), State(params=params(*(values or (0.0, 0.0)))))
    checkpoint = (await store.position(run.id)).checkpoint
    assert checkpoint is not None
    return checkpoint.model_sha256


async def play(
    store: AnyStore, run: Run, number: int, correct: Mapping[str, int], *, out_of: int = 10, pooled: bool = True
) -> None:
    """Round `number`: clients get so many right with model `number` - 1, at a loss of what they got wrong."""
    checkpoint = (await store.position(run.id)).checkpoint
    base = checkpoint.model_sha256 if checkpoint else await model_0(store, run)
    opened = await store.open_round(a_round(run, number, *correct, base=base))
    for client, hits in correct.items():
        evaluation = measured(hits, out_of, 1 - hits / out_of)
        await store.report(opened, brought(client, 1.0, num_examples=100 * number, evaluation=evaluation))
    if pooled:
        await store.commit_round(opened, await store.outcomes(opened), State(params=params(float(number))))
