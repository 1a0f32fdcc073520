"""`fednode bench start`: from nothing to the end of a first round, of a central node and its clients, started at once.

The task needs no framework, so what is timed is fednode's own: processes, imports, a store made, clients admitted.
"""

from __future__ import annotations

import os
import socket
import statistics
from dataclasses import dataclass
from typing import Any

from fednode.bench.central import answering, members_in_a_folder, start_central
from fednode.bench.federation import (
    Federation,
    Tell,
    commits,
    num_errors_in,
    num_params_of,
    spread,
    start_clients,
)
from fednode.ports import Clock
from fednode.wire.http import Http


@dataclass(frozen=True, kw_only=True)
class StartSettings:
    """Who is started, and how often."""

    clients: int = 2
    mb: float = 0.1
    repeats: int = 3


async def measure(settings: StartSettings, tell: Tell, clock: Clock) -> dict[str, Any]:
    """Start all of them, each time in a new folder, and stop them after one round. Raises RunEnded, TaskFailed."""
    found = []
    for number in range(1, settings.repeats + 1):
        found.append(await _start(settings, clock))
        tell(f"{number} of {settings.repeats}: {found[-1]['seconds']:.2f} s")
    parts = {name: [one[name] for one in found] for name in found[0]}
    return {
        "clients": settings.clients, "mb": settings.mb, "repeats": settings.repeats, **spread(parts["seconds"]),
        "until": {name: round(statistics.median(parts[name]), 3) for name in ("central_answers", "clients_there")},
        "is_model_right": all(parts["is_model_right"]), "errors": sum(parts["errors"]),
        "load_average": round(os.getloadavg()[0], 2),
    }


async def _start(settings: StartSettings, clock: Clock) -> dict[str, Any]:
    async with members_in_a_folder() as (folder, members):
        port, num_params = _free_port(), num_params_of(settings.mb)
        began_s = clock.wall_s()
        members.append(await start_central(folder, port))
        await start_clients(settings.clients, f"http://127.0.0.1:{port}", folder, members)
        central = await answering(members, folder, clock)
        answers_s = clock.wall_s()
        async with Http(central.url, token=central.operator_token) as http:
            federation = Federation(central=central, http=http, clock=clock)
            await federation.until_all_are_there()
            there_s = clock.wall_s()
            run_id = await federation.begin(rounds=1, num_params=num_params)
            run = await federation.end_of_run()
            rounds = await federation.rounds(run_id)
            return {
                "seconds": commits(rounds)[1] - began_s, "central_answers": answers_s - began_s,
                "clients_there": there_s - began_s, "is_model_right": federation.is_right(run, num_params),
                "errors": num_errors_in(rounds),
            }


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as door:
        return int(door.getsockname()[1])
