"""The two clocks: the system's, and one that a test moves by hand. The only module that reads the time."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time


class SystemClock:
    """Monotonic for durations, wall time for people."""

    def now_s(self) -> float:
        return time.monotonic()

    def wall_s(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class HandClock:
    """Time stands still until `advance` moves it; sleepers wake in the order of their time."""

    def __init__(self, wall_s: float = 1_767_225_600.0) -> None:
        self._now_s = 0.0
        self._wall_start_s = wall_s
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._ticket = itertools.count()

    def now_s(self) -> float:
        return self._now_s

    def wall_s(self) -> float:
        return self._wall_start_s + self._now_s

    async def sleep(self, seconds: float) -> None:
        waker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now_s + seconds, next(self._ticket), waker))
        await waker

    async def advance(self, seconds: float) -> None:
        """Move time on, waking everyone whose time has come, each before the next is looked at."""
        end_s = self._now_s + seconds
        while self._sleepers and self._sleepers[0][0] <= end_s:
            self._now_s, _, waker = heapq.heappop(self._sleepers)
            if not waker.done():
                waker.set_result(None)
            await self.settle()
        self._now_s = end_s
        await self.settle()

    async def settle(self) -> None:
        """Let everything that can run do so, without time passing."""
        for _ in range(50):
            await asyncio.sleep(0)
