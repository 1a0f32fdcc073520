"""A fleet that plays a script: clients of one number each, who train by adding it, fail or fall silent as told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from fednode.clock import HandClock
from fednode.core.metrics import Metric, Metrics
from fednode.core.params import Params
from fednode.core.records import Failure, Outcome, Round, Run, RunConfig, State, Update
from fednode.core.status import FailureCode, RoundKind, RunStatus
from fednode.rounds import run_rounds
from fednode.store.memory import MemoryStore
from fednode.strategies.base import Strategy
from fednode.strategies.fedavg import FedAvg

NUMBERS = {"a": 1.0, "b": 2.0, "c": 6.0}           # what each client adds to w: the mean of all is 3; others add 1


class Killed(BaseException):
    """The central node ends here, as by `kill -9`: nothing after it runs."""


Script = Mapping[tuple[int, int, str], FailureCode]     # (round, attempt, client): what goes wrong


@dataclass(kw_only=True)
class ScriptedFleet:
    """`ports.Fleet` without time: everybody in `present` answers at once, in `arrival` order."""

    store: MemoryStore
    script: Script = field(default_factory=dict)
    present: tuple[str, ...] = ("a", "b", "c")
    reverse_arrival: bool = False
    killed_before: tuple[int, str] = (-1, "")           # (round, client): dies when it is this client's turn
    gathered: list[tuple[int, int]] = field(default_factory=list)       # (num_needed, attempt) of every gather
    worked: list[tuple[int, int, str]] = field(default_factory=list)    # (round, attempt, client) that really did

    async def gather(self, run: Run, num_needed: int, attempt: int) -> tuple[str, ...]:
        self.gathered.append((num_needed, attempt))
        assert len(self.present) >= num_needed, "a real fleet would wait here for ever"
        return self.present

    async def dispatch(self, run: Run, round_: Round) -> AsyncIterator[Outcome]:
        reported = {outcome.client: outcome for outcome in await self.store.outcomes(round_)}
        for outcome in reported.values():
            yield outcome
        for client in sorted(set(round_.cohort) - set(reported), reverse=self.reverse_arrival):
            if self.killed_before == (round_.number, client):
                raise Killed
            outcome = await self._answer(run, round_, client)
            if not outcome.is_missing:
                await self.store.report(round_, outcome)
            yield outcome

    async def _answer(self, run: Run, round_: Round, client: str) -> Outcome:
        code = self.script.get((round_.number, round_.attempt, client))
        if code is not None:
            return Outcome(client=client, failure=Failure(client=client, code=code, reason=f"{code} as told"))
        self.worked.append((round_.number, round_.attempt, client))
        checkpoint = (await self.store.position(run.id)).checkpoint
        return visit(round_, client, checkpoint.state.params if checkpoint else None)


def visit(round_: Round, client: str, base: Params | None) -> Outcome:
    """The initial params are 0. A client trains by adding its number, and measures how far w is from its own."""
    if base is None:
        return Outcome(client=client, update=brought(client, model(0.0), num_examples=0))
    number = NUMBERS.get(client, 1.0)
    loss = abs(float(base["w"][0]) - number)
    measured = Metrics(values={"loss": loss}, num_examples={"test": 1})
    if round_.kind is RoundKind.EVALUATE:
        return Outcome(client=client, evaluation=measured)
    return Outcome(client=client, update=brought(client, base + number), evaluation=measured)


def model(value: float) -> Params:
    return Params({"w": np.array([value], "float32")})


def brought(client: str, params: Params, num_examples: int = 1) -> Update:
    return Update(client=client, params=params, num_examples=num_examples)


@dataclass(kw_only=True)
class Scene:
    """One run in a store of its own."""

    store: MemoryStore
    run: Run
    strategy: Strategy = field(default_factory=FedAvg)

    async def play(self, **fleet: object) -> ScriptedFleet:
        """The loop, from wherever the run stands, with a fleet that has just been made: as after a restart."""
        made = ScriptedFleet(store=self.store, **fleet)  # type: ignore[arg-type]
        await run_rounds(await self.store.run(self.run.id), self.strategy, made, self.store)
        return made

    async def status(self) -> tuple[RunStatus, str]:
        run = await self.store.run(self.run.id)
        return run.status, run.reason

    async def w(self) -> float:
        return float((await self.state()).params["w"][0])

    async def state(self) -> State:
        checkpoint = (await self.store.position(self.run.id)).checkpoint
        assert checkpoint is not None
        return checkpoint.state

    async def decisions(self, what: str) -> list[dict[str, object]]:
        """The journal's entries of one kind, without the kind."""
        entries = [dict(row.entry) for row in await self.store.journal(self.run.id)]
        return [{k: v for k, v in entry.items() if k != "what"} for entry in entries if entry["what"] == what]

    async def resume(self) -> None:
        await self.store.move_run(self.run.id, RunStatus.QUEUED)
        await self.store.move_run(self.run.id, RunStatus.RUNNING)


async def scene(strategy: Strategy | None = None, **changes: object) -> Scene:
    """A running run of two rounds in which two updates make a model."""
    fields: dict[str, object] = {
        "task": "toy", "fingerprint": "toy@1", "task_config": {"epochs": 1}, "strategy": "fedavg",
        "strategy_config": {}, "rounds": 2, "min_updates": 2, "cohort_fraction": 1.0, "deadline_s": 600.0, "seed": 7,
    }
    store = MemoryStore(HandClock())
    config = RunConfig(**(fields | changes))  # type: ignore[arg-type]
    run = await store.create_run(config, (Metric(name="loss", goal="min"),))
    await store.move_run(run.id, RunStatus.RUNNING)
    return Scene(store=store, run=run, strategy=strategy or FedAvg())
