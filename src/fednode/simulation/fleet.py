"""The fleet of a simulation: everybody is always there, and visits are executed as workers are free.

Its deployed twin is `central/fleet.py`; both serve `rounds.py`. Where visits are executed is `workplaces.py`.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from fednode.core.metrics import Metrics
from fednode.core.narrowed import encoded
from fednode.core.params import Params
from fednode.core.records import Failure, Outcome, Round, Run
from fednode.core.status import FailureCode
from fednode.ports import Clock
from fednode.simulation.workplaces import Workplace
from fednode.store.memory import MemoryStore
from fednode.tasks.base import Site
from fednode.tasks.state_dirs import StateDir, StateDirs
from fednode.visit import order_of


class InProcessFleet:
    """Simulated clients: a site each, no network, no waiting."""

    def __init__(
        self, sites: Mapping[str, Site], workplace: Workplace, store: MemoryStore, clock: Clock, state_dir: Path
    ) -> None:
        """`sites` by client name; they are the roster. Below `state_dir` each has a folder for what it keeps."""
        self._sites = sites
        self._workplace = workplace
        self._store = store
        self._clock = clock
        self._state_dir = state_dir
        self._free = asyncio.Semaphore(workplace.size)

    async def gather(self, run: Run, num_needed: int, attempt: int) -> tuple[str, ...]:
        """Everybody, at once: another attempt is not made better by waiting."""
        return tuple(sorted(self._sites, key=str.encode))

    async def dispatch(self, run: Run, round_: Round) -> AsyncIterator[Outcome]:
        """What the store has already, then each visit as it ends. A visit may take the whole budget of the round."""
        reported = {outcome.client: outcome for outcome in await self._store.outcomes(round_)}
        for outcome in reported.values():
            yield outcome
        params = await self._base_params(run)
        waiting = [name for name in round_.cohort if name not in reported]
        visits = [asyncio.create_task(self._visit(run, round_, name, params)) for name in waiting]
        try:
            for visit in asyncio.as_completed(visits):
                outcome = await visit
                if not outcome.is_missing:
                    await self._store.report(round_, outcome)
                    self._keep_state(round_, outcome)
                yield outcome
        finally:
            await _end(visits)

    async def _base_params(self, run: Run) -> Params | None:
        """As a client node receives them."""
        checkpoint = (await self._store.position(run.id)).checkpoint
        return None if checkpoint is None else encoded(checkpoint.state.params, run.config.encoding)

    async def _visit(self, run: Run, round_: Round, client: str, params: Params | None) -> Outcome:
        order = order_of(run, round_, client)
        async with self._free:
            onlooker = _Onlooker(self._store, self._clock, round_, client, self._clock.now_s() + round_.budget_s)
            try:
                state = self._fresh_state(client, round_)
                outcome = await self._workplace.visit(order, self._sites[client], params, onlooker, state)
            finally:
                onlooker.is_stopped = True
        return _too_late(outcome, round_) if onlooker.is_late else outcome

    def _fresh_state(self, client: str, round_: Round) -> StateDir:
        """Of a visit that begins; what one before it left in vain is gone."""
        state = StateDir(folder=self._left(client), before=self._kept(client).before(round_.run_id, round_.number))
        shutil.rmtree(state.folder, ignore_errors=True)
        return state

    def _keep_state(self, round_: Round, outcome: Outcome) -> None:
        """What a visit left counts with its update, and else never: as at a client node."""
        if outcome.update is not None:
            self._kept(outcome.client).keep(round_.run_id, round_.number, self._left(outcome.client))

    def _left(self, client: str) -> Path:
        return self._state_dir / client / "left"

    def _kept(self, client: str) -> StateDirs:
        return StateDirs(self._state_dir / client / "state", is_durable=False)


@dataclass
class _Onlooker:
    """The observer of one visit. It is asked from other threads whether the visit is still wanted."""

    store: MemoryStore
    clock: Clock
    round_: Round
    client: str
    deadline_s: float
    is_stopped: bool = False
    is_late: bool = False

    def evaluated(self, metrics: Metrics) -> None:
        """Nothing to do: the outcome carries it."""

    def progressed(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self.store.report_progress(self.round_, self.client, epoch, metrics)

    def is_cancelled(self) -> bool:
        self.is_late = self.is_late or self.clock.now_s() >= self.deadline_s
        return self.is_stopped or self.is_late


def _too_late(outcome: Outcome, round_: Round) -> Outcome:
    """A visit that was cancelled at the deadline. One that made it all the same counts."""
    if outcome.failure is None or outcome.failure.code is not FailureCode.WITHDRAWN:
        return outcome
    reason = f"not done within the {round_.budget_s:g} s of the round"
    return replace(outcome, failure=Failure(client=outcome.client, code=FailureCode.DEADLINE, reason=reason))


async def _end(visits: list[asyncio.Task[Outcome]]) -> None:
    for visit in visits:
        visit.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*visits, return_exceptions=True)
