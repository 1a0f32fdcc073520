"""`fednode bench swarm`: one run, played by many clients at once against a central node of its own.

Everything goes over real sockets; only training is left out, so that what is timed is the central node: telling a
thousand clients, taking their updates, making the next model. `clients` is what they do, `central` whom they do it to.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fednode.bench.central import MeasuredCentral, measured_central
from fednode.bench.clients import TASK, Board, SwarmClient, client_name, numbers_of, run_all
from fednode.bench.line import Line
from fednode.errors import RunEnded, UsageError
from fednode.ports import Clock
from fednode.wire.http import Http
from fednode.wire.messages import RunRequest

FINAL = ("completed", "failed", "cancelled", "paused")
LOOK_S = 1.0
FILES_BESIDE = 100              # open files that are no client's connection


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
    _make_room(settings.clients)
    async with measured_central(clock) as central:
        board = Board(num_params=settings.params, clock=clock)
        names = [client_name(number) for number in range(1, settings.clients + 1)]
        clients = [SwarmClient(name, central.url, central.join_token, board) for name in names]
        swarm = asyncio.ensure_future(run_all(clients))
        try:
            async with Http(central.url, token=central.operator_token) as http:
                return await _measure(settings, _Scene(central, board, http, swarm, clock), tell)
        finally:
            swarm.cancel()
            await asyncio.gather(swarm, return_exceptions=True)


@dataclass(frozen=True)
class _Scene:
    central: MeasuredCentral
    board: Board
    http: Http
    swarm: asyncio.Future[None]
    clock: Clock


async def _measure(settings: SwarmSettings, scene: _Scene, tell: Tell) -> dict[str, Any]:
    board, clock, watch = scene.board, scene.clock, Watch(central=scene.central)
    began_s = clock.now_s()
    await _until(scene, lambda: board.num_there == settings.clients)
    joined_s = clock.now_s() - began_s
    tell(f"{settings.clients:,} clients have joined within {joined_s:.1f} s")
    board.on_round = lambda number: _tell_round(number, settings, board, watch, tell)
    cpu_s, began_s = scene.central.cpu_s(), clock.now_s()
    request = RunRequest(
        task=TASK, rounds=settings.rounds, min_updates=settings.clients, deadline_s=settings.deadline_s
    )
    run = await scene.http.request("POST", "/api/v1/runs", body=request)
    summary = await _end_of(scene, watch)
    seconds, cpu_took_s = clock.now_s() - began_s, _since(scene.central.cpu_s(), cpu_s)
    return {
        "clients": settings.clients, "rounds": settings.rounds, "params": settings.params,
        "seconds_per_round": _spread(_round_seconds(board, settings.rounds)),
        "last_told_s": _spread(_told_seconds(board, settings.rounds)), "joined_s": round(joined_s, 2),
        "seconds": round(seconds, 2), "updates": await _updates(run["run_id"], scene, settings.rounds),
        "is_model_right": await _is_right(summary["model_sha256"], scene, settings.rounds),
        "errors": board.num_errors, "first_errors": board.errors, "tries_in_vain": board.num_waits,
        "asked_to_wait": board.num_asked_to_wait, "central_rss_mb": watch.peak_mb,
        "central_cpu_s": cpu_took_s, "load_average": round(os.getloadavg()[0], 2),
    }


async def _until(scene: _Scene, is_so: Callable[[], bool]) -> None:
    while not is_so():
        _require_alive(scene)
        await scene.clock.sleep(LOOK_S / 10)


async def _end_of(scene: _Scene, watch: Watch) -> dict[str, Any]:
    """The run's last summary. Raises RunEnded where it did not complete."""
    while True:
        _require_alive(scene)
        watch.look()
        [run] = await scene.http.request("GET", "/api/v1/runs")     # ours alone, and not a thousand clients' part in it
        if run["status"] == "completed":
            return dict(run)
        if run["status"] in FINAL:
            first = "; ".join(scene.board.errors[:3])
            raise RunEnded(f"the run {run['status']}: {run['reason']} {first}".strip(), fix="try fewer clients")
        await scene.clock.sleep(LOOK_S)


async def _updates(run_id: str, scene: _Scene, rounds: int) -> int:
    """How many updates the central node counted, over all rounds of training. A page a round: each names everybody."""
    total = 0
    for number in range(1, rounds + 1):
        page = {"limit": "1", "before": str(number + 1)}
        [row] = (await scene.http.request("GET", f"/api/v1/runs/{run_id}", params=page))["history"]
        total += sum(client["num_bytes"] is not None for client in row["clients"])
    return total


async def _is_right(model_sha256: str, scene: _Scene, rounds: int) -> bool:
    """Whether the last model is what all of these updates make: every number is the number of rounds."""
    line = Line(scene.central.url, scene.board.token)
    try:
        content = await line.fetch(f"/api/v1/models/{model_sha256}/params")
    finally:
        line.close()
    return bool((numbers_of(content) == rounds).all())


def _require_alive(scene: _Scene) -> None:
    scene.central.member.require_running()
    if scene.swarm.done():
        scene.swarm.result()            # raises what ended it


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


def _make_room(num_clients: int) -> None:
    """As many open files as there are connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = num_clients + FILES_BESIDE
    if soft >= wanted:
        return
    if hard < wanted:
        raise UsageError(
            f"{num_clients:,} clients need {wanted:,} open files, this process may have {hard:,}",
            fix="raise the limit (`ulimit -n`), or ask for fewer --clients",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
