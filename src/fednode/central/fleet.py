"""The clients of a served run, as the round loop sees them: `ports.Fleet` over leases and long-polls.

All waiting of a run is here: for clients to be there, between attempts, for reports, until the deadline. A deadline is
a budget of up-time that the store keeps: neither a restart nor a pause spends it. Its twin without a network is
`simulation/fleet.py`; who posts and who takes is in `leases`, who is there in `presence`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

from fednode.central.leases import Leases
from fednode.central.presence import Presence, clock_time
from fednode.central.waiting import TICK_S, first_of
from fednode.core.records import MAX_ATTEMPTS, Failure, Outcome, Round, Run
from fednode.core.status import FailureCode
from fednode.failpoints import reach
from fednode.ports import Clock

SAVE_BUDGET_EVERY_S = 5.0
ATTEMPT_DELAYS_S = (0.0, 60.0, 300.0, 1500.0)       # before the first attempt of a group, the second, ...


class FleetStore(Protocol):
    """What a fleet asks of the store."""

    async def outcomes(self, round_: Round) -> tuple[Outcome, ...]: ...

    async def budget_left_s(self, round_: Round) -> float: ...

    async def save_budget(self, round_: Round, left_s: float) -> None: ...

    async def set_reason(self, run_id: str, reason: str) -> None: ...


async def _go_on() -> None: ...


class LeasedFleet:
    """The fleet of one run. `before_round` is asked before each round and may raise RunHalted: no round opens then."""

    def __init__(
        self, store: FleetStore, presence: Presence, leases: Leases, clock: Clock,
        before_round: Callable[[], Awaitable[None]] = _go_on,
    ) -> None:
        self._store = store
        self._before_round = before_round
        self._presence = presence
        self._leases = leases
        self._clock = clock
        self._told: str | None = None       # the reason that the run shows because of us; None: not known

    async def gather(self, run: Run, num_needed: int, attempt: int) -> tuple[str, ...]:
        """Names of the roster that are there, once at least `num_needed` are and nobody may still be on the way."""
        await self._before_round()
        await self._delay(run, attempt)
        while (waits_for := self._waits_for(run, num_needed)) != "":
            await self._tell(run, waits_for)
            await self._clock.sleep(TICK_S)
        await self._tell(run, "")
        return tuple(name for name in self._presence.roster(run.config) if self._presence.is_there(name))

    async def dispatch(self, run: Run, round_: Round) -> AsyncIterator[Outcome]:
        """One outcome for each of the cohort: first what the store has, then the rest once the round is over."""
        reported = await self._store.outcomes(round_)
        for outcome in reported:
            yield outcome
        known = {outcome.client for outcome in reported}
        silent = {failure.client: failure for failure in await self._silent(run, round_, known)}
        for outcome in await self._store.outcomes(round_):
            silent.pop(outcome.client, None)
            if outcome.client not in known:
                yield outcome
        for client, failure in silent.items():
            yield Outcome(client=client, failure=failure)

    async def _silent(self, run: Run, round_: Round, known: set[str]) -> list[Failure]:
        """Wait until everybody is settled or gone, or the budget is spent; a Failure for each who is not settled."""
        budget = _Budget(self._presence, await self._store.budget_left_s(round_))
        self._leases.post(run, round_, known)
        try:
            while self._is_open(round_) and budget.left_s > 0:
                settled = self._leases.round_bell(round_).listen()
                await first_of(settled.wait(), self._clock.sleep(min(TICK_S, budget.left_s)))
                if len(round_.cohort) - len(self._leases.unsettled(round_)) >= run.config.min_updates:
                    reach("quorum.reached", round_.number)
                if budget.is_to_be_saved():
                    await self._store.save_budget(round_, budget.left_s)
            return [self._failure(round_, client) for client in self._leases.unsettled(round_)]
        except asyncio.CancelledError:
            await self._store.save_budget(round_, budget.left_s)
            raise
        finally:
            self._leases.take_back(round_)

    def _is_open(self, round_: Round) -> bool:
        """Whether anybody who is not gone still owes an outcome. Who was gone and came back counts again."""
        return not all(self._presence.is_gone(client) for client in self._leases.unsettled(round_))

    def _failure(self, round_: Round, client: str) -> Failure:
        if self._presence.is_gone(client):
            return Failure(client=client, code=FailureCode.GONE, reason=self._presence.why_gone(client))
        reason = f"not done within the round's {round_.budget_s:g} s"
        return Failure(client=client, code=FailureCode.DEADLINE, reason=reason)

    async def _delay(self, run: Run, attempt: int) -> None:
        """What stands between the attempts of a round; a resumed run begins a new group of attempts at once."""
        place = (attempt - 1) % MAX_ATTEMPTS
        if place == 0:
            return
        until_s = self._presence.uptime.now_s() + ATTEMPT_DELAYS_S[place]
        when = clock_time(self._clock.wall_s() + ATTEMPT_DELAYS_S[place])
        await self._tell(run, f"attempt {place + 1} of {MAX_ATTEMPTS} begins at {when}")
        while (left_s := until_s - self._presence.uptime.now_s()) > 0:
            await self._clock.sleep(min(TICK_S, left_s))

    def _waits_for(self, run: Run, num_needed: int) -> str:
        """Why the run cannot go on yet, as a sentence; "" where it can."""
        roster = self._presence.roster(run.config)
        num_there = sum(self._presence.is_there(name) for name in roster)
        absent = [name for name in roster if not self._presence.is_there(name)]
        if num_there < num_needed:
            # Who is named but does not offer the task (any more) belongs to the picture, too.
            absent = [*absent, *self._presence.missing(run.config)]
            return f"waiting for {num_needed} of {len(roster)} clients: {self._listed(absent)}"
        awaited = [name for name in absent if self._presence.is_awaited(name)]
        if awaited:
            return f"waiting up to {self._presence.gone_after_s:g} s for {', '.join(awaited)} after a restart"
        return ""

    def _listed(self, absent: Sequence[str]) -> str:
        return ", ".join(self._presence.gone_since(name) for name in absent) or "no others are enrolled for its task"

    async def _tell(self, run: Run, reason: str) -> None:
        if reason != (run.reason if self._told is None else self._told):
            await self._store.set_reason(run.id, reason)
        self._told = reason


class _Budget:
    """The seconds of up-time that a round has left."""

    def __init__(self, presence: Presence, left_s: float) -> None:
        self._uptime = presence.uptime
        self._end_s = self._uptime.now_s() + left_s
        self._saved_s = left_s

    @property
    def left_s(self) -> float:
        return max(0.0, self._end_s - self._uptime.now_s())

    def is_to_be_saved(self) -> bool:
        """Whether SAVE_BUDGET_EVERY_S have been spent since this last said so."""
        is_due = self._saved_s - self.left_s >= SAVE_BUDGET_EVERY_S
        if is_due:
            self._saved_s = self.left_s
        return is_due
