"""`fednode bench round`: how long a round takes, of real client nodes that send back what they got, and a little more.

A round lasts from one commit to the next, as the central node's store has written them down: so nothing that is
measured knows that it is, and no time between two rounds is left out.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from dataclasses import dataclass
from typing import Any

from fednode.bench.federation import (
    Federation,
    Tell,
    commits,
    measured_federation,
    num_errors_in,
    num_params_of,
    spread,
)
from fednode.bench.limit import Limit
from fednode.bench.processes import MEGABYTE, Recorder
from fednode.ports import Clock

WARM_UP_ROUNDS = 2              # files, buffers and children are there then
TRIES_OF_LIMIT = 2              # before the run, and as many after it
CALM_S = 1.0                    # until what a start brings with it is over


@dataclass(frozen=True, kw_only=True)
class RoundSettings:
    """How much there is to carry, and how often."""

    clients: int = 2
    mb: float = 10.0            # of a model, and of an update
    rounds: int = 10            # that count

    @property
    def num_params(self) -> int:
        return num_params_of(self.mb)


async def measure(settings: RoundSettings, tell: Tell, clock: Clock) -> dict[str, Any]:
    """Play the run, and look before and after it at what this machine could do. Raises RunEnded, TaskFailed."""
    limit = Limit(num_clients=settings.clients, num_bytes=4 * settings.num_params, clock=clock)
    await asyncio.to_thread(limit.measure, TRIES_OF_LIMIT)
    async with measured_federation(settings.clients, clock) as federation:
        tell(f"{settings.clients} clients have joined")
        played = await _play(settings, federation, tell)
    await asyncio.to_thread(limit.measure, TRIES_OF_LIMIT)
    return {
        "clients": settings.clients, "mb": settings.mb, "rounds": settings.rounds, **played,
        "limit_seconds": round(limit.seconds, 4),
        "limit_parts": {name: round(value, 4) for name, value in limit.parts.items()},
        "ratio_to_limit": round(played["seconds_per_round"] / limit.seconds, 2),
        "load_average": round(os.getloadavg()[0], 2),
    }


async def _play(settings: RoundSettings, federation: Federation, tell: Tell) -> dict[str, Any]:
    await federation.clock.sleep(CALM_S)
    central, base_mb = federation.central, federation.central.memory_mb().get("anon")
    clients = [client.process.pid for client in federation.clients]
    with Recorder(central.pid, clients, federation.clock) as recorder:
        run_id = await federation.begin(rounds=WARM_UP_ROUNDS + settings.rounds, num_params=settings.num_params)
        run = await federation.end_of_run(tell)
    rounds = await federation.rounds(run_id)
    ended_s = commits(rounds)[WARM_UP_ROUNDS:]
    seconds = [after - before for before, after in itertools.pairwise(ended_s)]
    counted = ended_s[0], ended_s[-1]
    return {
        **spread(seconds, "seconds_per_round"), "central_anon_mb": recorder.peak_anon_mb(*counted), "base_mb": base_mb,
        "model_mb": 4 * settings.num_params / MEGABYTE, "central_cpu_s": recorder.cpu_s("central", *counted),
        "clients_cpu_s": recorder.cpu_s("clients", *counted),
        "is_model_right": await asyncio.to_thread(federation.is_right, run, settings.num_params),
        "errors": num_errors_in(rounds),
    }
