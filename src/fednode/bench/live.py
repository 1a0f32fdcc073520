"""`fednode bench live`: how soon a score that a client reports is on an open page of the dashboard.

A client trains, and reports an epoch now and again; a reader has the run's page open. From the moment at which the
report is sent until the page's stream has brought the row that shows it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fednode.bench.clients import TASK, Board, Model, SwarmClient
from fednode.bench.crowd import Crowd, gathered, make_room
from fednode.bench.federation import Tell
from fednode.bench.line import Line
from fednode.bench.swarm import is_right
from fednode.core.seeds import numpy_rng
from fednode.errors import TimedOut
from fednode.ports import Clock
from fednode.wire.messages import AssignmentBody, EpochBody, Progress, RunRequest

FIRST_EPOCH = 100_001           # a number that nothing else on the page has
GAP_S = (0.05, 0.8)             # between a report that was shown and the next one: at no beat of the page's own
SHOWN_WITHIN_S = 30.0


@dataclass(frozen=True, kw_only=True)
class LiveSettings:
    """Who trains, and how often one of them has something to tell."""

    clients: int = 10
    reports: int = 50


class LiveClient(SwarmClient):
    """Trains until it is told that enough was reported."""

    def __init__(self, name: str, url: str, join_token: str, board: Board, *, all_of_them: list[LiveClient]) -> None:
        super().__init__(name, url, join_token, board)
        self.enough = asyncio.Event()
        self._training: asyncio.Future[AssignmentBody] = asyncio.get_running_loop().create_future()
        all_of_them.append(self)

    async def train(self, work: AssignmentBody, model: Model) -> None:
        self._training.set_result(work)
        await self.enough.wait()
        await self.bring(work, model)

    async def report(self, epoch: int) -> None:
        """An epoch has ended."""
        work = await self._training
        body = Progress(local=[EpochBody(epoch=epoch, values={"loss": 1.0})])
        await self.line.json("POST", f"/api/v1/assignments/{work.id}/metrics", body)


class Reader:
    """Somebody who has a run's page open."""

    def __init__(self, lines: asyncio.StreamReader) -> None:
        self._lines = lines

    async def until_shown(self, text: str) -> None:
        """Raises EOFError where the page's stream ends."""
        async with asyncio.timeout(SHOWN_WITHIN_S):
            while text.encode() not in (line := await self._lines.readline()):
                if not line:
                    raise EOFError("the page's stream has ended")


async def measure(settings: LiveSettings, tell: Tell, clock: Clock) -> dict[str, Any]:
    """Play one round, in which all that counts happens. Raises RunEnded; TimedOut where a report is never shown."""
    make_room(settings.clients)
    async with gathered(1, clock) as crowd:
        clients: list[LiveClient] = []
        await crowd.join(settings.clients, partial(LiveClient, all_of_them=clients))
        await crowd.begin(RunRequest(task=TASK, rounds=1, min_updates=settings.clients))
        async with _page_of_run(crowd) as reader:
            shown_ms = await _shown_ms(settings, clients, reader, tell, clock)
        for client in clients:
            client.enough.set()
        summary = await crowd.end_of_run(lambda: None)
        p50, p95 = np.percentile(shown_ms, (50, 95))
        return {
            "clients": settings.clients, "reports": settings.reports, "p50_ms": round(float(p50), 1),
            "p95_ms": round(float(p95), 1), "max_ms": round(max(shown_ms), 1),
            "is_model_right": is_right(await crowd.params_of(summary["model_sha256"]), 1),
            "errors": crowd.board.num_errors, "first_errors": crowd.board.errors,
            "load_average": round(os.getloadavg()[0], 2),
        }


async def _shown_ms(
    settings: LiveSettings, clients: Sequence[LiveClient], reader: Reader, tell: Tell, clock: Clock
) -> list[float]:
    rng, found = numpy_rng(settings.reports), []
    for number in range(settings.reports):
        await clock.sleep(float(rng.uniform(*GAP_S)))
        epoch, began_s = FIRST_EPOCH + number, clock.now_s()
        try:
            await asyncio.gather(clients[number % len(clients)].report(epoch), reader.until_shown(f"epoch {epoch}"))
        except (EOFError, TimeoutError) as error:
            told = f"a report was not on the page within {SHOWN_WITHIN_S:.0f} s"
            raise TimedOut(told, fix="try fewer --clients") from error
        found.append(1_000 * (clock.now_s() - began_s))
    tell(f"{settings.reports} reports were shown")
    return found


@asynccontextmanager
async def _page_of_run(crowd: Crowd) -> AsyncIterator[Reader]:
    """The stream of its first run's page, from the first run's first event on, as a browser opens it."""
    line = Line(crowd.central.url, crowd.central.operator_token)
    try:
        lines, writer = await line.streams()
        writer.write(line.head("GET", "/live/runs/1", 0, {"Accept": "text/event-stream"}))
        yield Reader(lines)
    finally:
        line.close()
