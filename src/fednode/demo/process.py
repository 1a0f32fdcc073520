"""One member of the demo as a real process: `fednode ARGS`, its output in a log file, gone when the demo is gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from fednode.errors import TaskFailed

STOP_S = 12.0               # a central node drains in at most 10


@dataclass
class Member:
    """A started process, and where it writes what it says."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    @staticmethod
    async def start(name: str, args: list[str], log: Path, env: dict[str, str]) -> Member:
        """`python -m fednode ARGS` in a session of its own, so that a Ctrl-C reaches the demo alone."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "fednode.demo.member", str(os.getpid()), *args,
                stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, env=os.environ | env,
            )
        return Member(name, process, log)

    @property
    def is_running(self) -> bool:
        return self.process.returncode is None

    def last_words(self, num_lines: int = 5) -> str:
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-num_lines:])
        return ""

    def require_running(self) -> None:
        """Raise TaskFailed with what the process said last, where it has ended."""
        if not self.is_running:
            raise TaskFailed(
                f"{self.name} ended with code {self.process.returncode}: {self.last_words() or 'it said nothing'}",
                fix=f"its whole log is {self.log}",
            )

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL for whoever does not listen."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), STOP_S)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


async def stop_all(members: list[Member]) -> None:
    """The first one is the central node: it listens until its clients have said good-bye."""
    await asyncio.gather(*(member.stop() for member in members[1:]))
    await asyncio.gather(*(member.stop() for member in members[:1]))
