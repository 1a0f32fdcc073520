"""`fednode bench restart`: how soon a run goes on after its central node was killed, and away for a while.

It is killed (`kill -9`) in the middle of a run, stays away, and is started again from what it has left. The run goes on
with the first update that comes in, or the first round that is committed, whichever the store says was first: so what
counts is the central node's start, and that its clients come back.
"""

from __future__ import annotations

import os
import statistics
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fednode.bench.federation import (
    Federation,
    Row,
    Tell,
    measured_federation,
    num_errors_in,
    num_params_of,
    spread,
)
from fednode.errors import CannotConnect, TimedOut
from fednode.ports import Clock

MANY_ROUNDS = 1_000_000         # more than will be played: the run is cancelled
ROUNDS_BETWEEN = 2
LOOK_S, GIVE_UP_S = 0.05, 300.0
NEWEST = 100                    # rounds that are looked at: more than there can be within a look or two


@dataclass(frozen=True, kw_only=True)
class RestartSettings:
    """Who is there, and how long nobody answers."""

    clients: int = 2
    mb: float = 0.1
    outage_s: float = 5.0
    repeats: int = 5


async def measure(settings: RestartSettings, tell: Tell, clock: Clock) -> dict[str, Any]:
    """Kill it again and again in the course of one run. Raises RunEnded, TaskFailed, TimedOut."""
    num_params = num_params_of(settings.mb)
    async with measured_federation(settings.clients, clock) as federation:
        tell(f"{settings.clients} clients have joined")
        run_id = await federation.begin(rounds=MANY_ROUNDS, num_params=num_params)
        seconds, answers_s = [], []
        for number in range(1, settings.repeats + 1):
            await _some_rounds(federation)
            await federation.central.kill()
            await clock.sleep(settings.outage_s)
            goes_on_s, answer_s = await _start_again(federation, run_id)
            seconds.append(goes_on_s)
            answers_s.append(answer_s)
            tell(f"{number} of {settings.repeats}: it answers after {answer_s:.2f} s, goes on after {goes_on_s:.2f} s")
        await _some_rounds(federation)
        run = dict(await federation.http.request("POST", f"/api/v1/runs/{run_id}/cancel"))
        return {
            "clients": settings.clients, "mb": settings.mb, "outage_s": settings.outage_s,
            "repeats": settings.repeats, **spread(seconds), "until_it_answers": round(statistics.median(answers_s), 3),
            "rounds": run["rounds"], "is_model_right": federation.is_right(run, num_params),
            "errors": num_errors_in(await federation.rounds(run_id)), "load_average": round(os.getloadavg()[0], 2),
        }


async def _some_rounds(federation: Federation) -> None:
    before = (await federation.run())["rounds"]
    while (await federation.run())["rounds"] < before + ROUNDS_BETWEEN:
        await federation.clock.sleep(LOOK_S)


async def _start_again(federation: Federation, run_id: str) -> tuple[float, float]:
    """Seconds from the start of the process until the run went on, and until the central node answered."""
    clock = federation.clock
    began_s = clock.wall_s()
    await federation.central.start_again()
    answered_s: float | None = None
    while clock.wall_s() - began_s < GIVE_UP_S:
        federation.require_running()
        with suppress(CannotConnect):
            rounds = await federation.rounds(run_id, NEWEST)
            answered_s = answered_s or clock.wall_s()
            if news := [at_s for at_s in _happened(rounds) if at_s > began_s]:
                return min(news) - began_s, answered_s - began_s
        await clock.sleep(LOOK_S)
    raise TimedOut(f"the run did not go on within {GIVE_UP_S:.0f} s", fix="look at what `fednode runs` says of a run")


def _happened(rounds: list[Row]) -> list[float]:
    """When updates came in, and when rounds were committed: wall seconds."""
    updates = [client["received_s"] for row in rounds for client in row["clients"] if client["received_s"] is not None]
    return updates + [row["ended_s"] for row in rounds if row["status"] == "committed"]
