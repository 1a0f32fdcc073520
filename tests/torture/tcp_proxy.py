"""What may lie on the way: a TCP proxy that delays, resets in mid-body, or falls silent without a word."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any

PIECE_BYTES = 64 << 10
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)           # SO_LINGER of 0 s


class TcpProxy:
    """Its knobs may be turned at any time; they hold for all connections."""

    def __init__(self, port: int) -> None:
        self.delay_s = 0.0              # of each piece, in each direction
        self.reset_after = list[int]()  # upward bytes of a connection after which it is reset; each strikes once
        self.num_resets = 0
        self._target = port
        self._speaks = asyncio.Event()
        self._speaks.set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> TcpProxy:
        self._thread.start()
        self._listener = self._do(asyncio.start_server(self._pass, "127.0.0.1", 0))
        self.port = int(self._listener.sockets[0].getsockname()[1])
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def fall_silent(self) -> None:
        """From here on nothing passes, and nothing is closed."""
        self._loop.call_soon_threadsafe(self._speaks.clear)

    def speak(self) -> None:
        self._loop.call_soon_threadsafe(self._speaks.set)

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _end(self) -> None:
        self._listener.close()          # or somebody comes in while the others are shown out
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _pass(self, near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        far, to_far = await asyncio.open_connection("127.0.0.1", self._target)
        ways = {asyncio.create_task(self._up(near, to_far, to_near)), asyncio.create_task(self._down(far, to_near))}
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            to_near.close()
            to_far.close()

    async def _up(
        self, near: asyncio.StreamReader, to_far: asyncio.StreamWriter, to_near: asyncio.StreamWriter
    ) -> None:
        num_bytes = 0
        while piece := await near.read(PIECE_BYTES):
            await self._hold_up()
            to_far.write(piece)
            await to_far.drain()
            num_bytes += len(piece)
            if self.reset_after and num_bytes > self.reset_after[0]:
                self.reset_after.pop(0)
                self.num_resets += 1
                for end in (to_near, to_far):
                    end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                return

    async def _down(self, far: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        while piece := await far.read(PIECE_BYTES):
            await self._hold_up()
            to_near.write(piece)
            await to_near.drain()

    async def _hold_up(self) -> None:
        await asyncio.sleep(self.delay_s)
        await self._speaks.wait()
