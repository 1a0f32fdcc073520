"""`fednode bench idle`: how soon all of many waiting clients know that a round has begun, and what each of them costs.

Their polls hang at the central node until the store has opened a round; from that moment on their answers are timed.
Nobody begins to work before everybody knows, so that nothing but the telling is measured.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from fednode.bench.clients import TASK, Board, SwarmClient
from fednode.bench.crowd import Crowd, gathered, make_room
from fednode.bench.federation import Tell
from fednode.bench.swarm import is_right
from fednode.core.status import RoundKind
from fednode.ports import Clock
from fednode.wire.messages import AssignmentBody, RunRequest

FIRST_SHARE = 0.1               # of the clients: what the central node loads when it has some is counted for nobody
CALM_S = 1.0
KILOBYTES_PER_MB = 1_000


@dataclass(frozen=True, kw_only=True)
class IdleSettings:
    """Who waits, and how often they are told."""

    clients: int = 1_000
    rounds: int = 5


@dataclass(kw_only=True)
class Gate:
    """Opens for a round when everybody has been told of it."""

    board: Board
    num_clients: int
    opened: dict[int, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))

    async def passed(self, number: int) -> None:
        if len(self.board.told_s[number]) >= self.num_clients:
            self.opened[number].set()
        await self.opened[number].wait()


class IdleClient(SwarmClient):
    """Waits for all others before it does what it was told."""

    def __init__(self, name: str, url: str, join_token: str, board: Board, *, gate: Gate) -> None:
        super().__init__(name, url, join_token, board)
        self._gate = gate

    async def do(self, work: AssignmentBody) -> None:
        if work.kind is not RoundKind.INIT:         # which one client does for all
            await self._gate.passed(work.number)
        await super().do(work)


async def measure(settings: IdleSettings, tell: Tell, clock: Clock) -> dict[str, Any]:
    """Play a run of one number a model. Raises UsageError, RunEnded as `swarm.play` does."""
    make_room(settings.clients)
    async with gathered(1, clock) as crowd:
        kb_a_client = await _join(settings.clients, crowd)
        tell(f"{settings.clients:,} clients wait")
        crowd.board.on_round = lambda number: tell(f"round {number} has begun")
        run_id = await crowd.begin(RunRequest(task=TASK, rounds=settings.rounds, min_updates=settings.clients))
        summary = await crowd.end_of_run(lambda: None)
        told_ms = [ms for number in range(1, settings.rounds + 1) for ms in await _told_ms(crowd, run_id, number)]
        p50, p99 = np.percentile(told_ms, (50, 99))
        return {
            "clients": settings.clients, "rounds": settings.rounds, "p50_ms": round(float(p50), 1),
            "p99_ms": round(float(p99), 1), "max_ms": round(max(told_ms), 1), "kb_a_client": kb_a_client,
            "is_model_right": is_right(await crowd.params_of(summary["model_sha256"]), settings.rounds),
            "errors": crowd.board.num_errors, "first_errors": crowd.board.errors,
            "load_average": round(os.getloadavg()[0], 2),
        }


async def _join(num_clients: int, crowd: Crowd) -> float | None:
    """All of them; kilobytes of the central node's memory that each of those took who came after the first few."""
    kind = partial(IdleClient, gate=Gate(board=crowd.board, num_clients=num_clients))
    num_first = max(1, round(FIRST_SHARE * num_clients))
    await crowd.join(num_first, kind)
    await crowd.clock.sleep(CALM_S)
    before = crowd.central.memory_mb()
    await crowd.join(num_clients - num_first, kind)
    await crowd.clock.sleep(CALM_S)
    after = crowd.central.memory_mb()
    if "anon" not in before or num_clients == num_first:
        return None
    return round((after["anon"] - before["anon"]) * KILOBYTES_PER_MB / (num_clients - num_first), 1)


async def _told_ms(crowd: Crowd, run_id: str, number: int) -> list[float]:
    """Of each client: from the moment at which the store opened the round until it was told."""
    opened_s = (await crowd.round(run_id, number))["opened_s"]
    since_s = crowd.clock.wall_s() - crowd.clock.now_s()       # the board's times only go forward
    return [1_000 * (told_s + since_s - opened_s) for told_s in crowd.board.told_s[number]]
