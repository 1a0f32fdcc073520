"""`fednode bench swarm`: one run, played by many clients at once against a central node of its own.

Everything goes over real sockets; only training is left out, so that what is timed is the central node: telling a
thousand clients, taking their updates, making the next model. `clients` is what they do, `central` whom they do it to.
"""

from __future__ import annotations

import itertools
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fednode.bench.central import MeasuredCentral
from fednode.bench.clients import TASK, Board, numbers_of
from fednode.bench.crowd import Crowd, gathered, make_room
from fednode.ports import Clock
from fednode.wire.messages import RunRequest


@dataclass(frozen=True, kw_only=True)
class SwarmSettings:
    """How much load, and for how long."""

    clients: int = 1_000
    rounds: int = 20
    params: int = 50_000            # numbers in the model, float32
    deadline_s: float = 600.0       # of a round


@dataclass(kw_only=True)
class Watch:
    """Looks at the central node's memory while the swarm plays."""

    central: MeasuredCentral
    peak_mb: dict[str, float] = field(default_factory=dict)

    def look(self) -> dict[str, float]:
        """What it takes now."""
        now = self.central.memory_mb()
        self.peak_mb = {name: max(now[name], self.peak_mb.get(name, 0.0)) for name in now}
        return now


Tell = Callable[[str], None]


async def play(settings: SwarmSettings, tell: Tell, clock: Clock) -> dict[str, Any]:
    """Start everything, play the run to its end, and stop everything. `tell` hears of each round.

    Raises UsageError where this process may not open as many connections, RunEnded where the run does not complete.
    """
    make_room(settings.clients)
    async with gathered(settings.params, clock) as crowd:
        return await _measure(settings, crowd, tell)


async def _measure(settings: SwarmSettings, crowd: Crowd, tell: Tell) -> dict[str, Any]:
    board, clock, watch = crowd.board, crowd.clock, Watch(central=crowd.central)
    began_s = clock.now_s()
    await crowd.join(settings.clients)
    joined_s = clock.now_s() - began_s
    tell(f"{settings.clients:,} clients have joined within {joined_s:.1f} s")
    board.on_round = lambda number: _tell_round(number, settings, board, watch, tell)
    cpu_s, began_s = crowd.central.cpu_s(), clock.now_s()
    run_id = await crowd.begin(RunRequest(
        task=TASK, rounds=settings.rounds, min_updates=settings.clients, deadline_s=settings.deadline_s
    ))
    summary = await crowd.end_of_run(watch.look)
    seconds, cpu_took_s = clock.now_s() - began_s, _since(crowd.central.cpu_s(), cpu_s)
    return {
        "clients": settings.clients, "rounds": settings.rounds, "params": settings.params,
        "seconds_per_round": _spread(_round_seconds(board, settings.rounds)),
        "last_told_s": _spread(_told_seconds(board, settings.rounds)), "joined_s": round(joined_s, 2),
        "seconds": round(seconds, 2), "updates": await _updates(run_id, crowd, settings.rounds),
        "is_model_right": is_right(await crowd.params_of(summary["model_sha256"]), settings.rounds),
        "errors": board.num_errors, "first_errors": board.errors, "tries_in_vain": board.num_waits,
        "asked_to_wait": board.num_asked_to_wait, "central_rss_mb": watch.peak_mb,
        "central_cpu_s": cpu_took_s, "load_average": round(os.getloadavg()[0], 2),
    }


async def _updates(run_id: str, crowd: Crowd, rounds: int) -> int:
    """How many updates the central node counted, over all rounds of training."""
    total = 0
    for number in range(1, rounds + 1):
        row = await crowd.round(run_id, number)
        total += sum(client["num_bytes"] is not None for client in row["clients"])
    return total


def is_right(params: bytes, rounds: int) -> bool:
    """Whether a last model is what all updates make: every number is the number of rounds."""
    return bool((numbers_of(params) == rounds).all())


def _tell_round(number: int, settings: SwarmSettings, board: Board, watch: Watch, tell: Tell) -> None:
    """A round's first client has been told: the one before it has ended."""
    memory = watch.look().get("rss")
    ended = number - 1
    if 1 <= ended <= settings.rounds:
        took_s = board.told_s[number][0] - board.told_s[ended][0]
        size = "" if memory is None else f", central node {memory:.0f} MB"
        tell(f"round {ended} of {settings.rounds}: {took_s:.2f} s{size}")


def _round_seconds(board: Board, rounds: int) -> list[float]:
    """Of each round of training: from the first client told of it to the first told of the next one."""
    firsts = [min(board.told_s[number]) for number in range(1, rounds + 2)]
    return [after - before for before, after in itertools.pairwise(firsts)]


def _told_seconds(board: Board, rounds: int) -> list[float]:
    """Of each round: from the first client told of it to the last one."""
    return [max(board.told_s[number]) - min(board.told_s[number]) for number in range(1, rounds + 1)]


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    found = {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}
    return {name: round(value, 3) for name, value in found.items()}


def _since(now_s: float | None, before_s: float | None) -> float | None:
    return None if now_s is None or before_s is None else round(now_s - before_s, 2)
