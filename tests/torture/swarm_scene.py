"""A swarm with faults: clients that die in the middle of a body, are cut, damage it, come late, fail, or hang up."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from fednode.bench.clients import Board, Model, SwarmClient
from fednode.core.status import FailureCode
from fednode.errors import CannotConnect, Conflict, FednodeError
from fednode.wire.messages import Announcement, AssignmentBody, FailureBody, UploadTicket

LATE_S = 0.05
FAULTS = ("dies in mid-upload", "line cut", "body damaged", "late", "fails", "poll abandoned")


class FaultyClient(SwarmClient):
    """Meets one of `FAULTS` in `share` of its rounds, drawn from its own seed, and counts what struck."""

    def __init__(
        self, name: str, url: str, join_token: str, board: Board, *, share: float, seed: int, struck: Counter[str]
    ) -> None:
        super().__init__(name, url, join_token, board)
        self._share, self._chance, self._struck = share, random.Random(f"{seed}/{name}"), struck

    async def train(self, work: AssignmentBody, model: Model) -> None:
        if self._chance.random() >= self._share:
            await self.bring(work, model)
            return
        fault = self._chance.choice(FAULTS)
        self._struck[fault] += 1
        await {
            "dies in mid-upload": self._dies, "line cut": self._is_cut, "body damaged": self._damages,
            "late": self._is_late, "fails": self._fails, "poll abandoned": self._abandons_a_poll,
        }[fault](work, model)

    def refused(self, work: AssignmentBody, error: FednodeError) -> None:
        """Of a round that ended without it: what a client that was late may hear."""
        if not isinstance(error, Conflict):
            super().refused(work, error)

    async def _dies(self, work: AssignmentBody, model: Model) -> None:
        """And begins anew, knowing nothing of what it did: its next poll gets the assignment again."""
        await self._half(work, model)

    async def _is_cut(self, work: AssignmentBody, model: Model) -> None:
        await self._half(work, model)
        await self.bring(work, model)

    async def _damages(self, work: AssignmentBody, model: Model) -> None:
        ticket = await self._announce(work, model)
        damaged = model.update[:-1] + bytes([model.update[-1] ^ 1])
        try:
            await self.line.put(f"{ticket.url}?offset={ticket.offset}", damaged[ticket.offset :])
        except FednodeError:
            return await self.bring(work, model)
        raise AssertionError("a damaged body was taken")

    async def _is_late(self, work: AssignmentBody, model: Model) -> None:
        await asyncio.sleep(LATE_S)
        await self.bring(work, model)

    async def _fails(self, work: AssignmentBody, model: Model) -> None:
        body = FailureBody(code=FailureCode.TASK_ERROR, reason="a fault that a test wants")
        await self.patiently(lambda: self.line.json("POST", f"/api/v1/assignments/{work.id}/failure", body))

    async def _abandons_a_poll(self, work: AssignmentBody, model: Model) -> None:
        await self.bring(work, model)
        try:
            async with asyncio.timeout(LATE_S):
                await self._poll()
        except (TimeoutError, CannotConnect):
            pass

    async def _half(self, work: AssignmentBody, model: Model) -> None:
        """Half a body, and then no line any more."""
        ticket = await self._announce(work, model)
        head = self.line.head("PUT", f"{ticket.url}?offset={ticket.offset}", len(model.update) - ticket.offset, {})
        _, writer = await self.line.streams()
        writer.write(head + model.update[ticket.offset : len(model.update) // 2])
        await writer.drain()
        self.line.close()

    async def _announce(self, work: AssignmentBody, model: Model) -> UploadTicket:
        body = Announcement(num_bytes=len(model.update), digest=model.digest, num_examples=100)
        path = f"/api/v1/assignments/{work.id}/update"
        return UploadTicket.model_validate(await self.patiently(lambda: self.line.json("POST", path, body)))
