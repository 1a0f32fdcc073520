"""A central node of one's own, as a real process in a temporary folder, and what it takes of this machine.

Figures come from /proc, where there is one: elsewhere they are unknown.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fednode.demo.process import Member
from fednode.errors import TimedOut
from fednode.ports import Clock

START_S, LOOK_S = 60.0, 0.05
KIB_PER_MIB = 1024


@dataclass(frozen=True)
class MeasuredCentral:
    """A central node that answers, and the process behind it."""

    url: str
    join_token: str
    operator_token: str
    member: Member
    folder: Path

    @property
    def pid(self) -> int:
        return self.member.process.pid

    def memory_mb(self) -> dict[str, float]:
        """`anon` (its own), `rss` (with files that it has mapped) and `peak` (the most that `rss` ever was)."""
        found = {}
        with suppress(OSError):
            rows = dict(line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines())
            for name, row in (("anon", "RssAnon"), ("rss", "VmRSS"), ("peak", "VmHWM")):
                if row in rows:
                    found[name] = round(int(rows[row].split()[0]) / KIB_PER_MIB, 1)
        return found

    def cpu_s(self) -> float | None:
        """Seconds of CPU time since its start, of all its threads."""
        with suppress(OSError):
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return None


@asynccontextmanager
async def measured_central(clock: Clock) -> AsyncIterator[MeasuredCentral]:
    """Start it at a free port; stop it at the end, and leave nothing behind. Raises TaskFailed, TimedOut."""
    with tempfile.TemporaryDirectory(prefix="fednode-bench-") as name:
        folder = Path(name)
        member = await Member.start(
            "the central node", ["central", "--port", "0", "--state-dir", str(folder / "central")],
            folder / "central.log", {"FEDNODE_STATE_DIR": str(folder / "state")},
        )
        try:
            yield await _answering(member, folder, clock)
        finally:
            stopping = asyncio.ensure_future(member.stop())     # to its end, also where Ctrl-C comes twice
            await asyncio.shield(stopping)


async def _answering(member: Member, folder: Path, clock: Clock) -> MeasuredCentral:
    """As soon as it has left its note, which it does when it answers."""
    started_s = clock.now_s()
    while clock.now_s() - started_s < START_S:
        member.require_running()
        for path in (folder / "state" / "centrals").glob("*.json"):
            with suppress(OSError, ValueError):
                note = json.loads(path.read_text())
                return MeasuredCentral(note["url"], note["join_token"], note["operator_token"], member, folder)
        await clock.sleep(LOOK_S)
    raise TimedOut(f"the central node did not answer within {START_S:.0f} s", fix=f"it said: {member.last_words()}")
