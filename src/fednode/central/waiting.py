"""How the central node waits: for a bell, for a while, for a client that hangs up; never by looking again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from starlette.requests import Request

from fednode.ports import Clock

MAX_STEP_S = 5.0        # between two looks at the clock; more means that this process was stopped
TICK_S = 1.0            # who waits for something that no bell announces looks this often


class Bell:
    """Wakes everybody who listens. Listen first, look second, wait third: then no ring is missed."""

    def __init__(self) -> None:
        self._next = asyncio.Event()
        self._on_the_line: set[asyncio.Timeout] = set()

    def ring(self) -> None:
        self._next.set()
        self._next = asyncio.Event()
        for wait in self._on_the_line:
            if not wait.expired():          # it is on its way out already
                wait.reschedule(0)

    def listen(self) -> asyncio.Event:
        """Set at the next ring."""
        return self._next

    async def hold_the_line(self, request: Request, rung: asyncio.Event, wait_s: float) -> bool:
        """Until it rings, or for `wait_s`; False as soon as the caller has hung up. For requests without a body.

        In the request's own task: thousands wait so, and a task for each reason to stop would cost more than the wait.
        """
        if rung.is_set():
            return True
        try:
            async with asyncio.timeout(wait_s) as wait:
                self._on_the_line.add(wait)
                try:
                    await hung_up(request)
                finally:
                    self._on_the_line.discard(wait)
        except TimeoutError:
            return not await request.is_disconnected()
        return False


class UpTime:
    """The seconds for which this process has run: those of a stopped process or a sleeping machine do not count.

    Somebody must ask at least every MAX_STEP_S; whatever waits here does, every TICK_S.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_s = clock.now_s()
        self._counted_s = 0.0

    def now_s(self) -> float:
        step_s = self._clock.now_s() - self._last_s
        self._last_s += step_s
        self._counted_s += step_s if step_s <= MAX_STEP_S else TICK_S
        return self._counted_s


async def first_of(*waits: Awaitable[object]) -> None:
    """Until one of `waits` is done; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def hung_up(request: Request) -> None:
    """Until the caller's connection ends. For requests whose body nobody reads."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
