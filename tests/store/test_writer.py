"""The writer: one commit for many, each closure for itself, and a thread that nothing kills."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, event, func, insert, select

from fednode.errors import StoreError, StoreFull, UsageError
from fednode.store.sqlite import open_engine
from fednode.store.writer import Writer

THINGS = Table("thing", MetaData(), Column("number", Integer, primary_key=True))


def add(number: int) -> Callable[[Connection], int]:
    def work(c: Connection) -> int:
        c.execute(insert(THINGS).values(number=number))
        return number

    return work


def count(c: Connection) -> int:
    return c.execute(select(func.count()).select_from(THINGS)).scalar() or 0


def refuse(c: Connection) -> int:
    c.execute(insert(THINGS).values(number=99))
    raise UsageError("no", fix="ask differently")


class Scene:
    """A writer on a table of numbers; it can be held until a group has gathered."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.marks, self.commits = engine, list[int](), 0
        event.listen(engine, "commit", self._count)
        self.writer = Writer(engine, guard=lambda c: None, mark=count, after_commit=self.marks.append)
        self._gate = threading.Event()

    def _count(self, connection: Connection) -> None:
        self.commits += 1

    def hold(self) -> None:
        self.writer.queue(lambda c: self._gate.wait(10))

    def let_go(self) -> None:
        self._gate.set()

    def numbers(self) -> list[int]:
        with self.engine.begin() as c:
            return list(c.execute(select(THINGS.c.number).order_by(THINGS.c.number)).scalars())


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    made = open_engine(tmp_path / "things.sqlite", is_writer=True)
    with made.begin() as c:
        THINGS.metadata.create_all(c)
    return made


async def group(scene: Scene, *works: Callable[[Connection], int]) -> list[int | BaseException]:
    """Have `works` gather behind a held transaction, so that they become one group."""
    scene.hold()
    waiting = asyncio.gather(*(scene.writer.write(work) for work in works), return_exceptions=True)
    await asyncio.sleep(0)
    scene.let_go()
    return await waiting


async def test_a_write_returns_what_its_closure_returns(engine: Engine) -> None:
    scene = Scene(engine)
    assert await scene.writer.write(add(5)) == 5
    assert scene.numbers() == [5]
    await scene.writer.close()


async def test_what_gathers_meanwhile_is_one_commit(engine: Engine) -> None:
    scene = Scene(engine)
    assert await group(scene, *(add(number) for number in range(20))) == list(range(20))
    await scene.writer.close()
    assert scene.commits <= 3       # the held one (which may have taken the first along), and the group
    assert scene.numbers() == list(range(20))


async def test_a_failing_closure_takes_back_only_itself(engine: Engine) -> None:
    scene = Scene(engine)
    first, refused, last = await group(scene, add(1), refuse, add(2))
    await scene.writer.close()
    assert (first, last) == (1, 2)
    assert isinstance(refused, UsageError)
    assert scene.numbers() == [1, 2]


async def test_a_row_that_is_there_already_hurts_only_who_wrote_it_again(engine: Engine) -> None:
    scene = Scene(engine)
    found = await group(scene, add(1), add(1), add(2))
    await scene.writer.close()
    assert (found[0], found[2]) == (1, 2)
    assert isinstance(found[1], StoreError)
    assert scene.numbers() == [1, 2]


async def test_a_full_disk_fails_the_whole_group_and_the_thread_lives_on(engine: Engine) -> None:
    scene = Scene(engine)

    def fill(c: Connection) -> int:
        pages = c.exec_driver_sql("PRAGMA page_count").scalar_one()
        c.exec_driver_sql(f"PRAGMA max_page_count={pages}")     # SQLite says the same as with a full disk
        for number in range(1000, 100_000):
            c.execute(insert(THINGS).values(number=number))
        return 0

    found = await group(scene, add(1), fill, add(2))
    assert [type(each) for each in found] == [StoreFull] * 3
    assert scene.numbers() == []
    await scene.writer.write(lambda c: c.exec_driver_sql("PRAGMA max_page_count=1000000").scalar_one())
    assert await scene.writer.write(add(3)) == 3
    await scene.writer.close()
    assert scene.numbers() == [3]


async def test_a_guard_that_refuses_lets_nothing_through(engine: Engine) -> None:
    def guard(c: Connection) -> None:
        raise StoreError("not ours", fix="go")

    writer = Writer(engine, guard=guard, mark=count, after_commit=lambda mark: None)
    with pytest.raises(StoreError):
        await writer.write(add(1))
    await writer.close()
    with engine.begin() as c:
        assert count(c) == 0


async def test_who_watches_is_told_the_mark_of_each_commit(engine: Engine) -> None:
    scene = Scene(engine)
    await scene.writer.write(add(1))
    await scene.writer.write(add(2))
    await scene.writer.close()
    assert scene.marks == [1, 2]


async def test_closing_writes_what_is_queued_and_refuses_what_comes_after(engine: Engine) -> None:
    scene = Scene(engine)
    for number in range(10):
        scene.writer.queue(add(number))
    await scene.writer.close()
    assert scene.numbers() == list(range(10))
    with pytest.raises(StoreError, match="closed"):
        scene.writer.queue(add(11))


async def test_one_who_no_longer_waits_stops_nobody(engine: Engine) -> None:
    scene = Scene(engine)
    scene.hold()
    left = asyncio.ensure_future(scene.writer.write(add(1)))
    stayed = asyncio.ensure_future(scene.writer.write(add(2)))
    await asyncio.sleep(0)
    left.cancel()
    scene.let_go()
    assert await stayed == 2
    await scene.writer.close()
    assert scene.numbers() == [1, 2]
