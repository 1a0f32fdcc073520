"""Answers that are asked for again and again: kept until something may have changed them. In one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recall(Generic[T]):
    """What a query found, by its key; the last `size` of them. What it did not find is asked for anew.

    Who asks while another does waits for the same answer.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._known: dict[str, T] = {}
        self._asking: dict[str, asyncio.Future[T | None]] = {}
        self._num_forgotten = 0

    async def of(self, key: str, ask: Callable[[], Awaitable[T | None]]) -> T | None:
        """As known, else as `ask` finds it."""
        if (known := self._known.get(key)) is not None:
            return known
        if (asking := self._asking.get(key)) is None:
            asking = self._asking[key] = asyncio.ensure_future(self._ask(key, ask))
            asking.add_done_callback(lambda done: done.cancelled() or done.exception())     # heard, if nobody waits
        return await asyncio.shield(asking)

    async def _ask(self, key: str, ask: Callable[[], Awaitable[T | None]]) -> T | None:
        asked = self._num_forgotten
        try:
            found = await ask()
        finally:
            is_fresh = asked == self._num_forgotten                 # else it may be older than the change
            if is_fresh:
                del self._asking[key]
        if found is not None and is_fresh:
            while len(self._known) >= self._size:
                del self._known[next(iter(self._known))]
            self._known[key] = found
        return found

    def forget(self) -> None:
        """Something has changed: nothing that is known, or on its way, holds any more."""
        self._num_forgotten += 1
        self._known.clear()
        self._asking.clear()
