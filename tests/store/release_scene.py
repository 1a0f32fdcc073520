"""A run that is half played, as each release leaves it behind (`releases/`), and how it is played to its end.

Runs on the code of every release since the first: it uses the round loop, the two stores and one strategy, nothing
else. Never changed: the bits of its end lie beside each store, in `release.json`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fednode.clock import HandClock
from fednode.core.metrics import Metric, Metrics, Sum
from fednode.core.params import Params
from fednode.core.records import Failure, Offer, Outcome, Round, Run, RunConfig, Update
from fednode.core.status import FailureCode, RoundKind, RunStatus
from fednode.rounds import run_rounds
from fednode.store.memory import MemoryStore
from fednode.store.records import ClientRecord
from fednode.store.sql import SqlStore
from fednode.strategies.fedavgm import FedAvgM

NUMBERS = {"a": 1.0, "b": 2.0, "c": 6.0}
ROUNDS = 4
KILLED_BEFORE = (3, "c")        # in mid-round: two updates are there, the third is not
SCRIPT = {                      # (round, attempt, client): what goes wrong, in every release alike
    (1, 1, "b"): FailureCode.GONE, (1, 1, "c"): FailureCode.TASK_ERROR, (2, 1, "c"): FailureCode.DEADLINE,
}
METRICS = (Metric(name="accuracy", combine="accuracy"), Metric(name="loss", goal="min"))
CONFIG = RunConfig(
    task="numbers", fingerprint="numbers@1", task_config={"epochs": 1}, strategy="fedavgm", strategy_config={},
    rounds=ROUNDS, min_updates=2, cohort_fraction=1.0, deadline_s=600.0, seed=7,
)
OFFER = Offer(task="numbers", fingerprint="numbers@1", schema={"type": "object"}, metrics=METRICS)
WALL_S = 1_700_000_000.0


@dataclass(kw_only=True)
class NumberFleet:
    """Everybody is there and answers at once, as the script says."""

    store: SqlStore | MemoryStore
    is_killed: bool = False     # at KILLED_BEFORE

    async def gather(self, run: Run, num_needed: int, attempt: int) -> tuple[str, ...]:
        return tuple(NUMBERS)

    async def dispatch(self, run: Run, round_: Round) -> AsyncIterator[Outcome]:
        reported = {outcome.client: outcome for outcome in await self.store.outcomes(round_)}
        for outcome in reported.values():
            yield outcome
        for client in round_.cohort:
            if self.is_killed and (round_.number, client) == KILLED_BEFORE:
                os._exit(9)     # nothing is closed, nothing is flushed: as by `kill -9`
            if client not in reported:
                outcome = await self._answer(run, round_, client)
                if not outcome.is_missing:
                    await self.store.report(round_, outcome)
                yield outcome

    async def _answer(self, run: Run, round_: Round, client: str) -> Outcome:
        code = SCRIPT.get((round_.number, round_.attempt, client))
        if code is not None:
            return Outcome(client=client, failure=Failure(client=client, code=code, reason=f"{code.value} as told"))
        checkpoint = (await self.store.position(run.id)).checkpoint
        if checkpoint is None:
            return Outcome(client=client, update=Update(client=client, params=first_params(), num_examples=0))
        return visit(round_, client, checkpoint.state.params)


def first_params() -> Params:
    return Params({"w": np.linspace(-1, 1, 7, dtype=np.float32), "b": np.zeros(1, np.float32)})


def visit(round_: Round, client: str, base: Params) -> Outcome:
    """A client draws every param a third of the way to its number."""
    number = np.float32(NUMBERS[client])
    loss = float(np.abs(base["w"].astype(np.float64) - float(number)).sum())
    evaluation = Metrics(values={"accuracy": Sum([round_.number, 10]), "loss": loss}, num_examples={"test": 10})
    if round_.kind is RoundKind.EVALUATE:
        return Outcome(client=client, evaluation=evaluation)
    drawn = Params({name: array + (number - array) / np.float32(3) for name, array in base.items()})
    update = Update(client=client, params=drawn, num_examples=int(10 * number), environment={"threads": 1})
    return Outcome(client=client, update=update, evaluation=evaluation)


async def play_half(state_dir: Path) -> None:
    """In a new store, up to the middle of round 3. Ends the process."""
    clock = HandClock(wall_s=WALL_S)
    store = await SqlStore.open(state_dir, clock)
    for client in NUMBERS:
        await store.add_client(ClientRecord(
            id=f"cli_{client}", name=client, public_key="00" * 32, secret_sha256=client * 64, offers=(OFFER,),
        ))
    run = await store.create_run(CONFIG, METRICS)
    await store.move_run(run.id, RunStatus.RUNNING)
    await run_rounds(await store.run(run.id), FedAvgM(), NumberFleet(store=store, is_killed=True), store)


async def play_on(store: SqlStore | MemoryStore, run_id: str) -> dict[str, object]:
    """To its end, from wherever it stands; the bits of that end."""
    await run_rounds(await store.run(run_id), FedAvgM(), NumberFleet(store=store), store)
    checkpoint = (await store.position(run_id)).checkpoint
    assert checkpoint is not None
    return {"status": (await store.run(run_id)).status.value, "model_sha256": checkpoint.model_sha256}


async def play_calm() -> dict[str, object]:
    """The same run without a pause, and the last hash of its journal."""
    store = MemoryStore(HandClock(wall_s=WALL_S))
    run = await store.create_run(CONFIG, METRICS)
    await store.move_run(run.id, RunStatus.RUNNING)
    end = await play_on(store, run.id)
    return {**end, "journal": (await store.journal(run.id))[-1].hash}
