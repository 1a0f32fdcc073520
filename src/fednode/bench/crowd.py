"""A central node, and a crowd of clients that live in this process: they join, and a run is played to its end.

What is measured of it is in the file of each measurement; what a client of a crowd does, in `clients`.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fednode.bench.central import MeasuredCentral, measured_central
from fednode.bench.clients import Board, SwarmClient, client_name, run_all
from fednode.bench.line import Line
from fednode.errors import RunEnded, UsageError
from fednode.ports import Clock
from fednode.wire.http import Http
from fednode.wire.messages import RunRequest

FINAL = ("completed", "failed", "cancelled", "paused")
LOOK_S = 1.0
FILES_BESIDE = 100              # open files that are no client's connection


@dataclass(kw_only=True)
class Crowd:
    """Whoever has joined so far."""

    central: MeasuredCentral
    board: Board
    http: Http
    clock: Clock
    names: list[str] = field(default_factory=list)
    lives: list[asyncio.Future[None]] = field(default_factory=list)

    async def join(self, num_more: int, kind: Callable[[str, str, str, Board], SwarmClient] = SwarmClient) -> None:
        """So many more; returns when all of them are there."""
        make_room(len(self.names) + num_more)
        names = [client_name(len(self.names) + number) for number in range(1, num_more + 1)]
        self.names += names
        clients = [kind(name, self.central.url, self.central.join_token, self.board) for name in names]
        self.lives.append(asyncio.ensure_future(run_all(clients)))
        while self.board.num_there < len(self.names):
            self.require_alive()
            await self.clock.sleep(LOOK_S / 10)

    async def begin(self, request: RunRequest) -> str:
        """Ask for a run; its id."""
        return str((await self.http.request("POST", "/api/v1/runs", body=request))["run_id"])

    async def end_of_run(self, look: Callable[[], object]) -> dict[str, Any]:
        """The summary of the one run; `look` is called now and again. Raises RunEnded where it does not complete."""
        while True:
            self.require_alive()
            look()
            [run] = await self.http.request("GET", "/api/v1/runs")  # ours alone, and not a thousand clients' part in it
            if run["status"] == "completed":
                return dict(run)
            if run["status"] in FINAL:
                first = "; ".join(self.board.errors[:3])
                raise RunEnded(f"the run {run['status']}: {run['reason']} {first}".strip(), fix="try fewer clients")
            await self.clock.sleep(LOOK_S)

    async def round(self, run_id: str, number: int) -> dict[str, Any]:
        """What became of a round. A page of its own: it names everybody."""
        page = {"limit": "1", "before": str(number + 1)}
        [row] = (await self.http.request("GET", f"/api/v1/runs/{run_id}", params=page))["history"]
        return dict(row)

    async def params_of(self, model_sha256: str) -> bytes:
        """A model, as its clients get it."""
        line = Line(self.central.url, self.board.token)
        try:
            return await line.fetch(f"/api/v1/models/{model_sha256}/params")
        finally:
            line.close()

    def require_alive(self) -> None:
        """Raise where the central node has ended, or what ended the clients."""
        self.central.member.require_running()
        for life in self.lives:
            if life.done():
                life.result()


@asynccontextmanager
async def gathered(num_params: int, clock: Clock) -> AsyncIterator[Crowd]:
    """A central node that nobody has joined; stop it and whoever has joined at the end, and leave nothing behind."""
    async with measured_central(clock) as central, Http(central.url, token=central.operator_token) as http:
        crowd = Crowd(central=central, board=Board(num_params=num_params, clock=clock), http=http, clock=clock)
        try:
            yield crowd
        finally:
            await _ended(crowd.lives)


async def _ended(lives: Sequence[asyncio.Future[None]]) -> None:
    for life in lives:
        life.cancel()
    await asyncio.gather(*lives, return_exceptions=True)


def make_room(num_clients: int) -> None:
    """As many open files as there are connections. Raises UsageError where this process may not have them."""
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
