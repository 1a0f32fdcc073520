"""The stream of an open page, as a browser reads it: what changed, since when, and that we are there."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from central_scene import TIMEOUT_S, Central, at_work, central
from structlog.testing import capture_logs

from fednode.central.pages.live import MAX_REPLAYED
from fednode.clock import SystemClock
from fednode.store.sql import SqlStore


@dataclass(frozen=True)
class Message:
    id: str
    name: str
    data: str


@asynccontextmanager
async def listening(fed: Central, path: str, **headers: str) -> AsyncIterator[AsyncIterator[Message]]:
    async with asyncio.timeout(TIMEOUT_S), fed.people.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield _messages(answer)


async def _messages(answer: Any) -> AsyncIterator[Message]:
    found: dict[str, list[str]] = {}
    async for line in answer.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            found.setdefault(name, []).append(value)
            continue
        told = {name: "\n".join(values) for name, values in found.items()}
        yield Message(id=told.get("id", ""), name=told.get("event", ""), data=told.get("data", ""))
        found = {}


async def _until(messages: AsyncIterator[Message], words: str) -> AsyncIterator[Message]:
    async for message in messages:
        yield message
        if words in message.data:
            return


async def first(messages: AsyncIterator[Message], *words: str) -> Message:
    """The first message whose data holds all of these."""
    async for message in messages:
        if all(word in message.data for word in words):
            return message
    raise AssertionError(f"the stream ended without {words}")


async def test_a_page_hears_at_once_that_the_central_node_is_there_and_what_time_it_is(tmp_path: Path) -> None:
    async with central(tmp_path) as fed, listening(fed, "/live") as messages:
        tick = await anext(messages)
        assert tick.name == "tick"
        assert abs(json.loads(tick.data)["now_s"] - SystemClock().wall_s()) < 60
        assert (await anext(messages)).name == "tick"       # and again, though nothing happens


async def test_a_run_changes_the_rows_of_the_page_that_shows_it(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a, b = await fed.client("a"), await fed.client("b")
        run = await fed.start_run(rounds=1)
        async with listening(fed, f"/live/runs/{run['number']}") as messages, at_work(a, b):
            told = [message async for message in _until(messages, 'data-status="completed">completed</span></h1>')]
        (row,) = [message for message in told if 'id="round-1-1"' in message.data and "2 of 2" in message.data][-1:]
        assert 'hx-target="#rounds:not(:has(#round-1-1))" hx-swap="afterbegin"' in row.data
        ids = [int(message.id) for message in told if message.id]
        assert ids == sorted(ids)


async def test_a_clients_step_reaches_the_page_without_an_event(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        run = await fed.start_run(rounds=1, min_updates=1)
        await a.do(await a.work())                          # round 0
        async with listening(fed, f"/live/runs/{run['number']}?after=100") as messages:
            assignment = await a.work()
            await first(messages, "evaluating")
            await a.measure(assignment)
            await first(messages, "training")
            await a.tell(assignment, "metrics", {"local": [{"epoch": 1, "values": {"accuracy": 0.25}}]})
            await first(messages, "epoch 1", "accuracy 0.2500")


async def test_who_comes_back_hears_what_it_missed_and_nothing_twice(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        run = await fed.start_run(rounds=1, min_updates=1)
        async with at_work(a):
            await fed.until(run["number"], "completed")
        last = (await fed.people.get("/api/v1/events")).json()["next"]
        path = f"/live/runs/{run['number']}"
        async with listening(fed, path, **{"Last-Event-ID": "2"}) as messages:
            missed = await first(messages, 'id="round-0-1"', 'id="round-1-1"')
            assert int(missed.id) == last
        async with listening(fed, path, **{"Last-Event-ID": str(last)}) as messages:
            assert [(await anext(messages)).name for _ in range(2)] == ["tick", "tick"]


async def test_who_missed_too_much_loads_the_page_anew(tmp_path: Path) -> None:
    store = await SqlStore.open(tmp_path / "central", SystemClock())
    for number in range(MAX_REPLAYED):
        await store.record_event("late", {"client": "a", "round": number}, "")
    await store.close()
    async with central(tmp_path) as fed, listening(fed, "/live/overview") as messages:
        assert [message.name async for message in messages] == ["tick", "reload"]


def write_event(state_dir: Path, fields: str) -> None:
    """By hand, as no decision would: a page cannot be made of it."""
    with closing(sqlite3.connect(state_dir / "central" / "store.sqlite")) as rows, rows:
        rows.execute("delete from event where what = 'odd'")
        rows.execute("insert into event (seq, wall_s, run_id, what, fields) values (900, 0, '', 'odd', ?)", (fields,))


async def test_a_page_that_cannot_tell_its_news_says_so_in_the_log_and_tells_them_later(tmp_path: Path) -> None:
    async with central(tmp_path) as fed, listening(fed, "/live/overview?after=800") as messages:
        assert (await anext(messages)).name == "tick"
        with capture_logs() as logs:
            write_event(tmp_path, "{")
            while not logs:
                assert (await anext(messages)).name == "tick", "the page still hears that we are there"
        assert logs[0]["event"] == "page.broken"
        assert "JSONDecodeError" in logs[0]["traceback"]
        write_event(tmp_path, "{}")
        assert (await first(messages, "overview-facts")).id == "900"
