"""A central node of one's own, as a real process in a temporary folder. What it takes: `processes`."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fednode.bench.processes import cpu_s, memory_mb
from fednode.demo.process import Member, stop_all
from fednode.errors import TimedOut
from fednode.ports import Clock

START_S, LOOK_S = 60.0, 0.05
# Whatever is set on this machine: a measurement writes into nobody's database, and is seen by nobody else.
APART = {"FEDNODE_DATABASE": "", "FEDNODE_HOST": "127.0.0.1", "FEDNODE_PUBLIC_URL": "", "FEDNODE_TOKEN": ""}


@dataclass(kw_only=True)
class MeasuredCentral:
    """A central node that answers, and the processes that are stopped with it: it is the first of them."""

    url: str
    join_token: str
    operator_token: str
    members: list[Member]
    folder: Path

    @property
    def member(self) -> Member:
        return self.members[0]

    @property
    def pid(self) -> int:
        return self.member.process.pid

    def memory_mb(self) -> dict[str, float]:
        """What it has now, and had at most: see `processes.memory_mb`."""
        return memory_mb(self.pid)

    def cpu_s(self) -> float | None:
        """Seconds of CPU time since its start, of all its threads."""
        return cpu_s([self.pid])

    async def kill(self) -> None:
        """`kill -9`."""
        self.member.process.kill()
        await self.member.process.wait()

    async def start_again(self) -> None:
        """At the same port, from what it has left."""
        self.members[0] = await start_central(self.folder, urlsplit(self.url).port or 0)


@asynccontextmanager
async def measured_central(clock: Clock) -> AsyncIterator[MeasuredCentral]:
    """Start it at a free port; stop it at the end, and leave nothing behind. Raises TaskFailed, TimedOut."""
    async with members_in_a_folder() as (folder, members):
        members.append(await start_central(folder, port=0))
        yield await answering(members, folder, clock)


@asynccontextmanager
async def members_in_a_folder() -> AsyncIterator[tuple[Path, list[Member]]]:
    """An empty folder, and a list of whoever is to be stopped before it goes: the first one last."""
    with tempfile.TemporaryDirectory(prefix="fednode-bench-") as name:
        members: list[Member] = []
        try:
            yield Path(name), members
        finally:
            stopping = asyncio.ensure_future(stop_all(members))      # to its end, also where Ctrl-C comes twice
            await asyncio.shield(stopping)


def environment(folder: Path) -> dict[str, str]:
    return APART | {"FEDNODE_STATE_DIR": str(folder / "state")}


async def start_central(folder: Path, port: int) -> Member:
    args = ["central", "--port", str(port), "--state-dir", str(folder / "central")]
    return await Member.start("the central node", args, folder / "central.log", environment(folder))


async def answering(members: list[Member], folder: Path, clock: Clock) -> MeasuredCentral:
    """As soon as it has left its note, which it does when it answers. Raises TaskFailed, TimedOut."""
    started_s = clock.now_s()
    while clock.now_s() - started_s < START_S:
        members[0].require_running()
        for path in (folder / "state" / "centrals").glob("*.json"):
            with suppress(OSError, ValueError):
                note = json.loads(path.read_text())
                return MeasuredCentral(
                    url=note["url"], join_token=note["join_token"], operator_token=note["operator_token"],
                    members=members, folder=folder,
                )
        await clock.sleep(LOOK_S)
    said = members[0].last_words()
    raise TimedOut(f"the central node did not answer within {START_S:.0f} s", fix=f"it said: {said}")
