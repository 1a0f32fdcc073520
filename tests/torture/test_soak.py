"""Many rounds with faults: the central node neither grows nor leaves anything behind."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from swarm_scene import FAULTS, FaultyClient

from fednode.bench.central import MeasuredCentral, measured_central
from fednode.bench.clients import TASK, Board, client_name, run_all
from fednode.clock import SystemClock
from fednode.wire.http import Http
from fednode.wire.messages import RunRequest
from torture_scale import pick

CLIENTS, SHARE, SEED = 6, 0.1, 7
ROUNDS, SAMPLE_EVERY = pick((150, 10), (2_000, 20))
WARM_UP = 0.4                           # of the rounds: caches fill, threads start
MOST_GROWTH_MB = pick(4.0, 2.5)         # after it: less than what one more thread kept, where each keeps its own
MOST_WAL_BYTES = 16 << 20               # SQLite begins anew at 4 MB, as soon as no reader is in its way
PATIENCE_S = pick(400.0, 7_200.0)


def sample(central: MeasuredCentral, number: int) -> dict[str, float]:
    folder = Path(f"/proc/{central.pid}")
    files = [path for path in (central.folder / "central").rglob("*") if path.is_file()]
    return {
        "round": number, "anon_mb": central.memory_mb()["anon"], "fds": len(list((folder / "fd").iterdir())),
        "threads": len(list((folder / "task").iterdir())),
        "wal": sum(path.stat().st_size for path in files if path.name.endswith("-wal")),
        "incoming": sum(path.parent.name == "incoming" for path in files),
    }


async def played(samples: list[dict[str, float]], struck: Counter[str]) -> tuple[dict[str, Any], Board, list[Path]]:
    """The run's last summary, what happened to its clients, and the files that are left of what came in."""
    clock = SystemClock()
    async with measured_central(clock) as central:
        board = Board(num_params=200, clock=clock)
        clients = [
            FaultyClient(
                client_name(number), central.url, central.join_token, board, share=SHARE, seed=SEED, struck=struck
            )
            for number in range(CLIENTS)
        ]

        def look(number: int) -> None:
            board.told_s.pop(number - 2, None)      # so that the test itself does not grow
            if number % SAMPLE_EVERY == 0:
                samples.append(sample(central, number))

        swarm = asyncio.ensure_future(run_all(clients))
        try:
            async with Http(central.url, token=central.operator_token) as http:
                board.on_round = look
                request = RunRequest(
                    task=TASK, rounds=ROUNDS, min_updates=2, clients=[client.name for client in clients]
                )
                await everybody_there(board)
                await http.request("POST", "/api/v1/runs", body=request)
                summary = await ended(http, swarm)
        finally:
            swarm.cancel()
            await asyncio.gather(swarm, return_exceptions=True)
        params = central.folder / "central" / "params"
        left = [path for name in ("incoming", "updates") for path in (params / name).rglob("*") if path.is_file()]
    return summary, board, left


async def everybody_there(board: Board) -> None:
    for _ in range(6_000):
        if board.num_there == CLIENTS:
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"only {board.num_there} clients came: {board.errors}")


async def ended(http: Http, swarm: asyncio.Future[None]) -> dict[str, Any]:
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        [run] = await http.request("GET", "/api/v1/runs")
        if run["status"] in ("completed", "failed", "cancelled", "paused"):
            return dict(run)
        assert not swarm.done(), swarm
        await asyncio.sleep(0.3)
    pytest.fail(f"waited {PATIENCE_S:.0f} s in vain for {ROUNDS} rounds")


@pytest.mark.timeout(PATIENCE_S + 60)
async def test_over_many_rounds_with_faults_the_central_node_does_not_grow(figures) -> None:
    samples, struck = list[dict[str, float]](), Counter[str]()
    began_s = time.monotonic()
    summary, board, left = await played(samples, struck)
    assert summary["status"] == "completed", summary["reason"]
    assert summary["rounds"] == ROUNDS
    assert board.errors == []
    assert set(struck) == set(FAULTS)       # each of them, or the test shows nothing

    warm = [row for row in samples if row["round"] >= WARM_UP * ROUNDS]
    slope_mb, start_mb = np.polyfit([row["round"] for row in warm], [row["anon_mb"] for row in warm], 1)
    growth_mb = max(row["anon_mb"] for row in warm) - warm[0]["anon_mb"]
    figures.note(
        seed=SEED, rounds=ROUNDS, clients=CLIENTS, faults=dict(struck), played_s=round(time.monotonic() - began_s, 1),
        anon_mb_per_1000_rounds=round(float(slope_mb) * 1_000, 3), anon_mb_at_start=round(float(start_mb), 1),
        growth_mb=round(growth_mb, 2), most_fds=max(row["fds"] for row in warm),
        most_threads=max(row["threads"] for row in warm), most_wal_bytes=max(row["wal"] for row in samples),
        most_incoming=max(row["incoming"] for row in samples),
    )
    assert growth_mb <= MOST_GROWTH_MB
    assert max(row["fds"] for row in warm) <= warm[0]["fds"] + 4 * CLIENTS
    assert max(row["threads"] for row in warm) <= warm[0]["threads"] + 4
    assert max(row["wal"] for row in samples) <= MOST_WAL_BYTES
    assert max(row["incoming"] for row in samples) <= 2 * CLIENTS       # a body and its note, of one round
    assert left == []
