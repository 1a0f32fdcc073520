"""Client nodes and a real central node, over HTTP on loopback, in one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from client_scenes import TASK, Node

from fednode.central.serve import CentralSettings, Serving, serve
from fednode.client.daemon import run_client
from fednode.client.talk import ClientSettings
from fednode.clock import SystemClock
from fednode.errors import NameTaken, NotAuthorised, UsageError
from fednode.settings import read_note
from fednode.wire.http import Http
from fednode.wire.messages import PauseRequest, RunRequest

GENEROUS_S = 60


@dataclass
class Federation:
    """A central node that can be stopped and started, and client nodes that find its token by its note."""

    folder: Path
    port: int = 0

    @asynccontextmanager
    async def central(self, state: str = "central") -> AsyncIterator[Serving]:
        ready: asyncio.Future[Serving] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        settings = CentralSettings(state_dir=self.folder / state, user_state_dir=self.folder, port=self.port)
        serving = asyncio.create_task(serve(settings, ready.set_result, stop=stop))
        try:
            await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
            assert ready.done(), serving.result()
            self.port = ready.result().port
            yield ready.result()
        finally:
            stop.set()
            await serving

    @asynccontextmanager
    async def client(self, name: str, state: str = "") -> AsyncIterator[Node]:
        data = self.folder / f"data-{name}"
        data.mkdir(exist_ok=True)
        (data / "examples").touch()
        node = Node(ClientSettings(
            central=f"http://127.0.0.1:{self.port}", name=name, data=data, tasks=(TASK,), partition=None,
            offline_sample=False, threads=1, state_dir=self.folder / (state or name), token="", ca=None,
        ))
        node.life = asyncio.create_task(run_client(node.settings, node.heard, SystemClock(), self.note))
        try:
            yield node
        finally:
            node.life.cancel()
            await asyncio.gather(node.life, return_exceptions=True)

    def note(self, url: str) -> str:
        return str(read_note(self.folder, url).get("join_token", ""))

    async def ask(self, method: str, path: str, **more: Any) -> Any:
        async with Http(f"http://127.0.0.1:{self.port}") as http:
            return await http.request(method, f"/api/v1/{path}", **more)

    async def start_run(self, behaviour: str = "") -> None:
        config = {"behaviour": behaviour, "epochs": 1}
        request = RunRequest(task="small", rounds=2, task_config=config, seed=7)
        await self.ask("POST", "runs", body=request)

    async def until(self, status: str) -> dict[str, Any]:
        """The first run, once it has this status."""
        after = 0
        async with asyncio.timeout(GENEROUS_S):
            while True:
                answer = await self.ask("GET", "runs/1/events", params={"after": str(after), "wait": "5"})
                run, after = answer["run"], answer["next"]
                if run["status"] == status:
                    return dict(run)


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path)


async def test_what_a_client_keeps_of_runs_that_have_ended_is_swept_when_the_next_one_trains(federation):
    async with federation.central(), federation.client("a") as a, federation.client("b") as b:
        await a.until("registered")
        await b.until("registered")
        kept = a.settings.state_dir / "state" / "run_0000000000000000000000000" / "3"
        kept.mkdir(parents=True)
        await federation.start_run()
        await federation.until("completed")
    assert not kept.parent.exists()


async def test_a_device_that_is_not_there_is_refused_before_the_central_node_hears_of_the_client(federation):
    async with federation.central(), federation.client("a") as a:
        settings = replace(a.settings, device="cuda:99", name="other", state_dir=federation.folder / "other")
        with pytest.raises(UsageError, match="the device 'cuda:99' is not there: this machine has"):
            await run_client(settings, a.heard, SystemClock(), federation.note)


async def test_two_client_nodes_play_a_run_to_its_end(federation):
    async with federation.central(), federation.client("a") as a, federation.client("b") as b:
        await a.until("registered")
        await b.until("registered")
        await federation.start_run()
        run = await federation.until("completed")
    # Each round adds 1 to the params, which the task measures as its accuracy: 0 + 1 + 1.
    assert run["metrics"] == {"accuracy": 2.0}
    assert run["rounds"] == 2
    for node in (a, b):
        assert node.visits == ["evaluate 1", "train 1", "evaluate 2", "train 2", "evaluate 3"]
        assert node.heard.count("started") == 2
        assert node.heard.count("failed") == node.heard.count("dropped") == 0
    assert a.heard.count("sent") + b.heard.count("sent") == 5        # two rounds, and the initial params by one


async def test_a_run_goes_on_where_its_central_node_is_stopped_and_started(federation):
    async with federation.central():
        pass                                # to learn its port
    async with federation.client("a") as a, federation.client("b") as b:
        async with federation.central():
            await a.until("registered")
            await b.until("registered")
            await federation.start_run("slow")
            await a.until("started")
        await a.until("waiting")
        async with federation.central():
            run = await federation.until("completed")
            assert a.heard.count("waiting") == a.heard.count("back") == 1
    assert run["metrics"] == {"accuracy": 2.0}
    assert a.visits == ["evaluate 1", "train 1", "evaluate 2", "train 2", "evaluate 3"]
    assert b.visits == a.visits
    assert a.heard.count("registered") == b.heard.count("registered") == 1


async def test_a_cancelled_run_stops_the_training_and_the_next_run_is_played(federation):
    async with federation.central(), federation.client("a") as a, federation.client("b") as b:
        await a.until("registered")
        await b.until("registered")
        await federation.start_run("hold")
        await a.until("epoch")
        await federation.ask("POST", "runs/1/cancel")
        await a.until("dropped")
        await federation.start_run()
        async with asyncio.timeout(GENEROUS_S):
            while (run := (await federation.ask("GET", "runs"))[0])["status"] != "completed":
                await a.until("sent")
    assert run["metrics"] == {"accuracy": 2.0}


async def test_what_a_pause_takes_back_is_trained_again_after_it(federation):
    async with federation.central(), federation.client("a") as a, federation.client("b") as b:
        await a.until("registered")
        await b.until("registered")
        await federation.start_run("hold once")
        await a.until("epoch")
        await b.until("epoch")
        await federation.ask("POST", "runs/1/pause", body=PauseRequest(now=True))
        await a.until("dropped")
        await b.until("dropped")
        await federation.ask("POST", "runs/1/resume")
        run = await federation.until("completed")
    assert run["metrics"] == {"accuracy": 2.0}
    assert a.visits[:4] == ["evaluate 1", "train 1"] * 2


async def test_a_central_node_that_lost_its_state_is_joined_again(federation):
    async with federation.central():
        pass
    async with federation.client("a") as a:
        async with federation.central():
            await a.until("registered")
        async with federation.central("another"):
            await a.until("registered", 2)
            (row,) = await federation.ask("GET", "clients")
    assert [offer["task"] for offer in row["offers"]] == ["small"]


async def test_a_revoked_client_node_ends(federation):
    async with federation.central(), federation.client("a") as a:
        await a.until("registered")
        await federation.ask("POST", "clients/a/revoke")
        with pytest.raises(NotAuthorised, match="revoked"):
            await a.until("never")


async def test_a_name_that_another_key_has_is_refused(federation):
    async with federation.central(), federation.client("a") as first:
        await first.until("registered")
        async with federation.client("a", state="elsewhere") as second:
            with pytest.raises(NameTaken, match="'a'"):
                await second.until("registered")


async def test_who_stops_is_gone_at_once_and_who_comes_back_keeps_its_place(federation):
    async with federation.central():
        async with federation.client("a") as a:
            await a.until("registered")
            (before,) = await federation.ask("GET", "clients")
        (after,) = await federation.ask("GET", "clients")
        async with federation.client("a") as a:
            await a.until("registered")
            (again,) = await federation.ask("GET", "clients")
    assert [row["status"] for row in (before, after, again)] == ["online", "gone", "online"]
    assert before["client_id"] == again["client_id"]
