"""The owner's switch: whether this client node shares in any training. In `sharing.json`: it outlives a restart.

Who turns it: `page`. Who obeys it: `daemon`. A paused client takes no new work, and the central node is told why.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

from fednode.client.identity import write_private
from fednode.ports import Clock

PAUSED_BY_OWNER = "sharing paused by its owner"


@dataclass(frozen=True, kw_only=True)
class Switch:
    """How it stands."""

    is_paused: bool
    since_s: float = 0.0            # wall time of the last turn; 0: never turned, or not known


class Sharing:
    """The switch of one client node. Its waits are for one event loop; turning it is durable when the call returns."""

    def __init__(self, state_dir: Path, clock: Clock) -> None:
        self._path = state_dir / "sharing.json"
        self._clock = clock
        self._paused, self._resumed, self._stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._show(_read(self._path))

    @property
    def switch(self) -> Switch:
        return self._switch

    @property
    def is_paused(self) -> bool:
        return self._switch.is_paused

    def pause(self, *, is_now: bool) -> None:
        """No new work from here on; `is_now`: and an end to what is in work. Raises StoreFull, StoreError."""
        if not self.is_paused:
            self._turn(is_paused=True)
        if is_now:
            self._stopped.set()

    def resume(self) -> None:
        """Raises StoreFull, StoreError."""
        if self.is_paused:
            self._turn(is_paused=False)

    async def until_paused(self) -> None:
        await self._paused.wait()

    async def until_resumed(self) -> None:
        await self._resumed.wait()

    async def until_stopped(self) -> None:
        """Until what is in work is to end at once."""
        await self._stopped.wait()

    def _turn(self, *, is_paused: bool) -> None:
        switch = Switch(is_paused=is_paused, since_s=self._clock.wall_s())
        body = {"is_paused": switch.is_paused, "since_s": switch.since_s}
        write_private(self._path, json.dumps(body).encode())
        self._show(switch)

    def _show(self, switch: Switch) -> None:
        self._switch = switch
        on, off = (self._paused, self._resumed) if switch.is_paused else (self._resumed, self._paused)
        on.set()
        off.clear()
        if not switch.is_paused:
            self._stopped.clear()


def _read(path: Path) -> Switch:
    """A file that cannot be read counts as paused: nothing leaves by mistake, and the page shows the button."""
    if not path.exists():
        return Switch(is_paused=False)
    try:
        row = json.loads(path.read_bytes())
        return Switch(is_paused=bool(row["is_paused"]), since_s=float(row["since_s"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Switch(is_paused=True)
