"""Room for updates that arrive: so many bodies at the same time, whoever comes more stands in line.

Who announces a body has its place from then on, so that only those come that find one: a body in line would wait in
our memory. One that does not come loses its place again. Who is let in at all: `gate`.
"""

from __future__ import annotations

import asyncio

from fednode.central.answers import Refusal

MAX_UPDATES = 64                # at the same time
MAX_IN_LINE_S = 10.0            # then asked to come again
KEPT_S = 2.0                    # from the answer to an announcement to the first of its body: round trips


class Room:
    """The places, and for whom one is kept."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(MAX_UPDATES)
        self._kept: dict[str, asyncio.TimerHandle] = {}

    async def enter(self, who: str) -> None:
        """Take the place that is kept, or the next one that is free. Raises Refusal where that takes too long."""
        if (kept := self._kept.pop(who, None)) is not None:
            kept.cancel()
            return
        try:
            async with asyncio.timeout(MAX_IN_LINE_S):
                await self._free.acquire()
        except TimeoutError:
            raise busy(f"{MAX_UPDATES} updates arrive at the same time, and others wait") from None

    def leave(self) -> None:
        self._free.release()

    def keep(self, who: str) -> None:
        """Leave, and be back in a moment."""
        if who in self._kept:           # it announced twice at once, and has two places
            self.leave()
        else:
            self._kept[who] = asyncio.get_running_loop().call_later(KEPT_S, self._give_up, who)

    def _give_up(self, who: str) -> None:
        del self._kept[who]
        self.leave()


def busy(why: str) -> Refusal:
    return Refusal(503, "busy", why, "try again in a second", {"Retry-After": "1"})
