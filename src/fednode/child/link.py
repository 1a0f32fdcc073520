"""The process of a child, as its parent holds it: environment, pipes, end. What is said is in `messages`."""

from __future__ import annotations

import asyncio
import codecs
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from fednode.child import messages
from fednode.child.messages import LENGTH, Message
from fednode.errors import TaskFailed
from fednode.ports import Clock

CHILD_MODULE = "fednode.child.main"
LAST_WORDS_LINES = 50           # of the child's stderr, kept to explain its death
LAST_WORDS_CHARS = 20_000       # what a failure's traceback may hold
READ_BYTES = 1 << 16
FAREWELL_S = 1.0                # what a dead child's pipes may take to close
THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
)


class ChildDied(TaskFailed):
    """The process ended while something was asked of it. `is_wanted`: its parent ended it."""

    code = "child_died"

    def __init__(self, message: str, *, fix: str, last_words: str = "", is_wanted: bool = False) -> None:
        super().__init__(message, fix=fix)
        self.last_words = last_words
        self.is_wanted = is_wanted


class Link:
    """One running child process."""

    def __init__(self, process: Process, clock: Clock) -> None:
        assert process.stdin and process.stdout and process.stderr
        self._process = process
        self._clock = clock
        self._to_child, self._from_child, self._stderr = process.stdin, process.stdout, process.stderr
        self._last_words = ""
        self._is_killed = False
        self._listening = asyncio.create_task(self._listen())

    @staticmethod
    async def open(threads: int, clock: Clock) -> Link:
        """Start a process whose numeric libraries use `threads` threads (0: all cores). Raises TaskFailed."""
        # A session of its own: Ctrl-C is for the parent to answer, and what a task starts can be ended with it.
        # The kernel ends the child with the *thread* that starts it, so that must be the event loop's.
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", CHILD_MODULE, str(os.getpid()),
                stdin=PIPE, stdout=PIPE, stderr=PIPE, env=_environment(threads), start_new_session=True,
            )
        except OSError as error:
            raise TaskFailed(
                f"no process for tasks can be started from {sys.executable!r}: {error}",
                fix="check that this Python can be executed, and that memory and process limits are not used up",
            ) from error
        return Link(process, clock)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.returncode is not None or self._is_killed

    def send(self, message: Message) -> None:
        """Put one frame on its way. A child that is dead is noticed when its answer is awaited."""
        with suppress(OSError, RuntimeError):
            self._to_child.write(messages.pack(message))

    async def receive(self) -> Message:
        """The child's next frame. Raises ChildDied, with what the process said last."""
        try:
            length = LENGTH.unpack(await self._from_child.readexactly(LENGTH.size))[0]
            return messages.unpack(await self._from_child.readexactly(length))
        except (asyncio.IncompleteReadError, OSError):
            was_killed = self._is_killed
            if not was_killed:      # it is about to end by itself, or it closed its pipes
                await self._within(FAREWELL_S, self._process.wait())
            returncode = self._process.returncode
            await self.kill()
            raise self._death(returncode, was_killed) from None

    def hang_up(self) -> None:
        """End a wait for a frame that will not come."""
        self._from_child.feed_eof()

    async def kill(self) -> None:
        """End the process and everything that its task has started, and wait until it is gone."""
        self._is_killed = True
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._to_child.close()
        await self._within(FAREWELL_S, self._process.wait())
        await self._within(FAREWELL_S, _finished(self._listening))

    def _death(self, returncode: int | None, is_wanted: bool) -> ChildDied:
        died = f"the task's process died: {cause(returncode)}"
        return ChildDied(
            "the task's process was stopped" if is_wanted else died,
            fix="see its last output; the next visit starts a new process",
            last_words="\n".join(self._last_words.splitlines()[-LAST_WORDS_LINES:]),
            is_wanted=is_wanted,
        )

    async def _listen(self) -> None:
        """Pass the child's stderr on, keeping its end: that is all that a dead process leaves."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while data := await self._stderr.read(READ_BYTES):
            text = decoder.decode(data)
            self._last_words = (self._last_words + text)[-LAST_WORDS_CHARS:]
            with suppress(OSError, ValueError, AttributeError):      # our own stderr may be closed, or None
                sys.stderr.write(text)
                sys.stderr.flush()

    async def _within(self, seconds: float, wait: Coroutine[Any, Any, object]) -> None:
        """Wait, but not for ever: a process that a task has detached may keep the pipes open."""
        tasks = {asyncio.ensure_future(wait), asyncio.ensure_future(self._clock.sleep(seconds))}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()


async def _finished(task: asyncio.Task[None]) -> None:
    await asyncio.wait({task})


def is_child() -> bool:
    """Whether this process is such a child."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec is not None and spec.name == CHILD_MODULE


def cause(returncode: int | None) -> str:
    """Why a process ended, in words."""
    if returncode is None:
        return "it closed its pipes"
    if returncode == -signal.SIGKILL:
        return "killed by signal 9 (out of memory?)"
    if returncode < 0:
        return f"killed by signal {-returncode} ({signal.strsignal(-returncode) or 'unknown'})"
    return f"it ended itself with exit code {returncode}"


def _environment(threads: int) -> dict[str, str]:
    """The child imports from where its parent does; thread pools are sized before anything can make them."""
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)     # '' is the folder we are in
    limits = dict.fromkeys(THREAD_VARIABLES, str(threads)) if threads else {}
    return {**os.environ, "PYTHONPATH": paths, **limits}
