"""All that the round loop asks of the world: a fleet of clients, a store, and (for those who wait) a clock.

Each port has two shipped implementations: `central.fleet.LeasedFleet` and `simulation.fleet.InProcessFleet`;
`store.sql.SqlStore` and `store.memory.MemoryStore`; `clock.SystemClock` and `clock.HandClock`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from fednode.core.records import Outcome, Position, Round, Run, State
from fednode.core.status import RunStatus


class Fleet(Protocol):
    """The clients of a run, as the loop sees them. It owns all waiting: deadlines, leases, who is gone."""

    async def gather(self, run: Run, num_needed: int, attempt: int) -> tuple[str, ...]:
        """Names of the roster that are there, in name order, once at least `num_needed` are.

        Waits without limit, and before attempt 2 and later also for the attempt's delay.
        """
        ...

    def dispatch(self, run: Run, round_: Round) -> AsyncIterator[Outcome]:
        """One outcome for each of the cohort: first what was reported before, then the rest as it comes.

        Whoever is silent for too long, or at the deadline, comes as a Failure (`gone`, `deadline`).
        Idempotent on (run, round, attempt, client): after a restart it is called again for the open round.
        """
        ...


class Store(Protocol):
    """What survives a restart, as the loop needs it. Every verb is one transaction and writes its journal entry.

    All of them raise RunHalted where the run is no longer `running`: so pause and cancel reach the loop.
    """

    async def position(self, run_id: str) -> Position:
        """Where the run stands. Not halted by a pause."""
        ...

    async def open_round(self, round_: Round) -> Round:
        """Write the round and an assignment for each of its cohort, before anything is leased."""
        ...

    async def outcomes(self, round_: Round) -> tuple[Outcome, ...]:
        """What was reported so far, in name order. Not halted by a pause."""
        ...

    async def close_round(self, round_: Round, outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
        """Freeze the outcomes: what was reported counts, for whoever did not the given failure stands.

        Returned in name order; a later report is RoundClosed. Idempotent.
        """
        ...

    async def commit_round(self, round_: Round, outcomes: Sequence[Outcome], state: State | None) -> None:
        """Close the round where it still is open, save `state` as its checkpoint (None: evaluate), pool the metrics."""
        ...

    async def abandon_round(self, round_: Round, outcomes: Sequence[Outcome], reason: str) -> None:
        """End this attempt without a model."""
        ...

    async def end_run(self, run_id: str, status: RunStatus, reason: str = "") -> None:
        """The run's last word, or its pause. Journalled where the status is final."""
        ...


class Clock(Protocol):
    """Time, as an argument: no other room may read or wait for it."""

    def now_s(self) -> float:
        """Seconds that only go forward (up-time), from an arbitrary start."""
        ...

    def wall_s(self) -> float:
        """Seconds since 1970, for people to read."""
        ...

    async def sleep(self, seconds: float) -> None: ...
