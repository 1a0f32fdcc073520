"""Who waits for the next event hears it ring. In one event loop; waits through a clock."""

from __future__ import annotations

import asyncio

from fednode.ports import Clock


class Bell:
    """Rung with the seq of the newest event, after the commit that wrote it."""

    def __init__(self, seq: int) -> None:
        self._seq = seq
        self._rung = asyncio.Event()

    def ring(self, seq: int) -> None:
        if seq > self._seq:
            self._seq = seq
            self._rung.set()
            self._rung = asyncio.Event()

    async def wait(self, after_seq: int, timeout_s: float, clock: Clock) -> int:
        """The newest seq, as soon as it is greater than `after_seq`, at the latest after `timeout_s`."""
        heard = asyncio.ensure_future(self._heard(after_seq))
        late = asyncio.ensure_future(clock.sleep(timeout_s))
        try:
            await asyncio.wait({heard, late}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            heard.cancel()
            late.cancel()
        return self._seq

    async def _heard(self, after_seq: int) -> None:
        while self._seq <= after_seq:
            await self._rung.wait()
