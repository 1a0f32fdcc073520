"""A run is deleted: what goes with it, what stays, who forbids it, and what a crash on the way leaves behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select
from store_scenes import play, running
from test_retention import files_of, levels

from fednode.clock import HandClock
from fednode.core.records import Run
from fednode.core.status import RunStatus
from fednode.doctor.findings import Level
from fednode.errors import Conflict, IllegalMove, NotFound
from fednode.store.deletion import OF_A_RUN, plan_deletion
from fednode.store.queries import Queries
from fednode.store.sql import SqlStore

HERE = Path(__file__).parent
DELETE = "import asyncio, sys, pathlib, test_deletion as t; asyncio.run(t.delete_the_first(pathlib.Path(sys.argv[1])))"


async def ended(store: SqlStore, **changes: object) -> Run:
    """A run of two models with their updates, cancelled."""
    run = await running(store, **changes)
    await play(store, run, 1, {"a": 5, "b": 6})
    await play(store, run, 2, {"a": 7, "b": 8})
    return await store.move_run(run.id, RunStatus.CANCELLED)


async def num_rows(store: SqlStore, run: Run) -> int:
    def count(c: Connection) -> int:
        return sum(c.execute(select(func.count()).where(table.c.run_id == run.id)).scalar_one() for table in OF_A_RUN)

    return await store.read(count)


async def test_a_deleted_run_leaves_nothing_but_an_event_and_its_number(sql: SqlStore, tmp_path: Path) -> None:
    run, kept = await ended(sql), await ended(sql, seed=8)
    queries = Queries(sql, HandClock())
    before, rows_of_kept = await queries.newest_events(1), await num_rows(sql, kept)
    plan = await sql.read(lambda c: plan_deletion(c, run.id))
    assert (plan.num_models, plan.num_updates, plan.num_rows) == (3, 5, 1 + await num_rows(sql, run))
    assert plan.files == ()                             # the other run has the same bits, and needs them
    deleted = await sql.delete_run(run.id)
    assert deleted == plan
    assert (await num_rows(sql, run), await num_rows(sql, kept)) == (0, rows_of_kept)
    with pytest.raises(NotFound, match="run #1 was deleted"):
        await queries.resolve_run("#1")
    (told,) = await queries.newest_events(1)
    assert (told.what, told.fields["number"], told.run_id) == ("run deleted", 1, "")
    assert told.seq > before[0].seq                     # pages that follow the events do not miss it
    assert (await running(sql)).number == 3
    await sql.delete_run(kept.id)
    assert files_of(tmp_path) == set()


async def test_the_newest_run_s_number_is_not_given_again(sqlite: SqlStore, tmp_path: Path) -> None:
    run = await ended(sqlite)
    sizes = sum(path.stat().st_size for path in (tmp_path / "params" / "models").iterdir())
    plan = await sqlite.delete_run(run.id)
    assert (len(plan.files), plan.num_bytes) == (3, sizes)
    assert (await running(sqlite)).number == 2
    assert levels(tmp_path) == {Level.OK}


async def test_a_run_that_has_not_ended_and_one_that_another_started_from_stay(sqlite: SqlStore) -> None:
    going = await running(sqlite)
    with pytest.raises(IllegalMove, match="run #1 is running"):
        await sqlite.delete_run(going.id)
    maker = await ended(sqlite)
    checkpoint = (await sqlite.position(maker.id)).checkpoint
    assert checkpoint is not None
    heir = await running(sqlite, start_model=checkpoint.model_sha256)
    with pytest.raises(Conflict, match="#3 started from") as refused:
        await sqlite.delete_run(maker.id)
    assert "delete #3 first" in refused.value.fix
    await sqlite.move_run(heir.id, RunStatus.CANCELLED)
    await sqlite.delete_run(heir.id)
    await sqlite.delete_run(maker.id)
    assert [run.number for run in await sqlite.runs()] == [1]
    with pytest.raises(NotFound):
        await sqlite.delete_run(maker.id)


async def make_one(state_dir: Path) -> None:
    store = await SqlStore.open(state_dir, HandClock())
    await ended(store)
    await store.close()


async def num_runs(state_dir: Path) -> int:
    store = await SqlStore.open(state_dir, HandClock())
    runs = await store.runs()
    await store.close()
    return len(runs)


async def delete_the_first(state_dir: Path) -> None:
    store = await SqlStore.open(state_dir, HandClock())
    await store.delete_run((await store.runs())[0].id)


@pytest.mark.parametrize(("point", "left"), [("run.deleting@1", 1), ("run.deleted@1", 0), ("sweep.half_done@1", 0)])
def test_kill_9_deletes_a_run_whole_or_not_at_all(tmp_path: Path, point: str, left: int) -> None:
    asyncio.run(make_one(tmp_path))
    for armed in ("run.deleted@1", point) if "sweep" in point else (point,):
        killed = os.environ | {"FEDNODE_FAILPOINT": armed, "PYTHONPATH": str(HERE)}
        died = subprocess.run([sys.executable, "-c", DELETE, str(tmp_path)], env=killed)
        assert died.returncode == -signal.SIGKILL
        assert levels(tmp_path) == {Level.OK}
    assert asyncio.run(num_runs(tmp_path)) == left
    assert len(files_of(tmp_path)) == 3 * left
