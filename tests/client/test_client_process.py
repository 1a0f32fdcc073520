"""A client node as a process of its own: signals, and `kill -9` with an update on its way."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from client_scenes import TASK
from scripted_central import error

GENEROUS_S = 20          # of the 5 s that an end may take
HERE = Path(__file__).parent
Process = asyncio.subprocess.Process


@pytest.fixture
def process(settings) -> Callable[[], AbstractAsyncContextManager[Process]]:
    """`async with process() as client:` runs a client node in its own process, which is gone afterwards."""

    @asynccontextmanager
    async def start() -> AsyncIterator[Process]:
        client = await asyncio.create_subprocess_exec(
            sys.executable, str(HERE / "client_process.py"), settings.central, str(settings.state_dir),
            str(settings.data), TASK, stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield client
        finally:
            if client.returncode is None:
                client.kill()
            await client.wait()

    return start


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def gone(pid: int) -> None:
    """Until that process has ended. Raises TimeoutError."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    has_ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(handle, has_ended.set)
    try:
        async with asyncio.timeout(GENEROUS_S):
            await has_ended.wait()
    finally:
        asyncio.get_running_loop().remove_reader(handle)
        os.close(handle)


async def ended(client: Process) -> int:
    async with asyncio.timeout(GENEROUS_S):
        return await client.wait()


@pytest.mark.parametrize("behaviour", ["", "hold"])
async def test_sigterm_ends_it_with_a_goodbye_and_leaves_no_child(central, process, order, behaviour):
    order(config={"behaviour": behaviour})
    async with process() as client:
        await central.until("POST /metrics", 2 if behaviour else 1)
        (child,) = children_of(client.pid)
        client.send_signal(signal.SIGTERM)
        assert await ended(client) == 0
        assert (await client.stderr.read()) == b""
    assert len(central.calls("POST /me/leave")) == 1
    await gone(child)


async def test_ctrl_c_ends_it_with_a_goodbye(central, process):
    async with process() as client:
        await central.until("GET /me/work")
        client.send_signal(signal.SIGINT)
        assert await ended(client) == -signal.SIGINT     # what the CLI turns into 130
    assert len(central.calls("POST /me/leave")) == 1


async def test_it_ends_while_the_central_node_is_away(central, process):
    async with process() as client:
        await central.until("GET /me/work")
        await central.stop()
        client.send_signal(signal.SIGTERM)
        assert await ended(client) == 0


async def test_it_ends_while_the_central_node_hangs(central, process):
    async with process() as client:
        await central.until("GET /me/work")
        central.hangs = True
        client.send_signal(signal.SIGTERM)
        assert await ended(client) == 0


async def test_a_finished_update_survives_kill_9_and_is_not_trained_again(central, process, order, settings):
    assignment = order()
    central.answers["POST /update"] = error(503, "cannot_connect")
    async with process() as client:
        await central.until("POST /update")
        (child,) = children_of(client.pid)
        os.kill(client.pid, signal.SIGKILL)
        await ended(client)
        await gone(child)
    central.answers.clear()
    async with process():
        await central.until("PUT " + assignment)
    assert (settings.data / "visits.log").read_text().splitlines() == ["evaluate 1", "train 1"]


async def test_training_that_kill_9_broke_off_is_done_again(central, process, order, settings):
    assignment = order(config={"behaviour": "hold"})
    async with process() as client:
        await central.until("POST /metrics", 2)
        os.kill(client.pid, signal.SIGKILL)
        await ended(client)
    central.work[0]["config"]["behaviour"] = ""
    async with process():
        await central.until("PUT " + assignment)
    assert (settings.data / "visits.log").read_text().splitlines() == ["evaluate 1", "train 1"] * 2
