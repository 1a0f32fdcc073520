"""What only a database elsewhere can do: refuse us, vanish in mid-commit, be the wrong one, be somebody else's."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from pathlib import Path

import pytest
from store_scenes import a_round, brought, model_0, params, play, running

from cutting_wire import Moment, cutting_wire
from federation_scene import free_port
from fednode.clock import HandClock
from fednode.core.records import State
from fednode.core.status import RunStatus
from fednode.errors import (
    BadConfig,
    FednodeError,
    NotAuthorised,
    StoreAway,
    StoreDamaged,
    StoreLocked,
    UsageError,
    VersionMismatch,
)
from fednode.store.backup import write_backup
from fednode.store.examination import examine_store
from fednode.store.memory import MemoryStore
from fednode.store.queries import Queries
from fednode.store.sql import SqlStore
from fednode.store.usage import usage_of
from postgres_scene import Cluster

SECRET = "Hidden-4711"


async def refusal(state_dir: Path, url: str) -> FednodeError:
    """Why a store there does not open."""
    with pytest.raises(FednodeError) as caught:
        await SqlStore.open(state_dir, HandClock(), url)
    error = caught.value
    assert SECRET not in f"{error} {error.fix} {error.__cause__}"
    return error


def models_in(state_dir: Path) -> set[str]:
    return {path.name for path in (state_dir / "params" / "models").iterdir()}


async def with_a_model(state_dir: Path, url: str = "", wall_s: float = 1.0) -> set[str]:
    """A store with one run and one model, closed again; its files."""
    store = await SqlStore.open(state_dir, HandClock(wall_s), url)
    await model_0(store, await running(store))
    await store.close()
    return models_in(state_dir)


# --- opening --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [
    f"postgresql://me:{SECRET}@host", f"mysql://me:{SECRET}@host/name", SECRET, f"postgresql://me:{SECRET}@more@host/name",
    f"postgresql://me:{SECRET}@host:port/name",
])
async def test_what_is_no_address_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    error = await refusal(tmp_path, text)
    assert isinstance(error, BadConfig)
    assert "postgresql://USER@HOST/NAME" in error.fix


async def test_without_the_driver_its_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    error = await refusal(tmp_path, "postgresql://me@host/name")
    assert (type(error), error.fix) == (UsageError, "pip install 'fednode[postgres]'")


async def test_nobody_who_answers(tmp_path: Path) -> None:
    port = free_port()
    error = await refusal(tmp_path, f"postgresql://me:{SECRET}@127.0.0.1:{port}/name")
    assert (type(error), error.exit_code) == (StoreAway, 3)
    assert f"postgresql://127.0.0.1:{port}/name" in error.message


async def test_a_database_that_is_not_there(tmp_path: Path, postgres: Cluster) -> None:
    error = await refusal(tmp_path, postgres.url("nothing"))
    assert (type(error), error.exit_code) == (UsageError, 2)
    assert 'database "nothing" does not exist' in error.message


async def test_a_wrong_password(tmp_path: Path, postgres: Cluster, database: str) -> None:
    error = await refusal(tmp_path, database.replace("fednode@", f"guarded:{SECRET}@"))
    assert (type(error), error.exit_code) == (NotAuthorised, 4)


async def test_a_database_of_somebody_else(tmp_path: Path, postgres: Cluster) -> None:
    url = postgres.new_database()
    with postgres.connect(url.rpartition("/")[2]) as connection:
        connection.execute("CREATE TABLE invoices (id int)")
    error = await refusal(tmp_path, url)
    assert (type(error), "not one of fednode's" in error.message) == (StoreDamaged, True)


async def test_the_tables_of_a_newer_fednode(tmp_path: Path, postgres: Cluster) -> None:
    url = postgres.new_database()
    await with_a_model(tmp_path, url)
    with postgres.connect(url.rpartition("/")[2]) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    error = await refusal(tmp_path, url)
    assert (type(error), error.exit_code) == (VersionMismatch, 7)
    assert "dump" in error.fix


async def test_a_second_central_node_is_told_who_has_it(tmp_path: Path, database: str) -> None:
    first = await SqlStore.open(tmp_path / "first", HandClock(), database)
    process = "import asyncio, sys, pathlib; from fednode.clock import SystemClock; " \
        "from fednode.store.sql import SqlStore; " \
        "asyncio.run(SqlStore.open(pathlib.Path(sys.argv[1]), SystemClock(), sys.argv[2]))"
    second = await asyncio.create_subprocess_exec(
        sys.executable, "-c", process, str(tmp_path / "second"), database, stderr=asyncio.subprocess.PIPE
    )
    _, said = await second.communicate()
    await first.close()
    assert re.search(r"StoreLocked: .* is in use by fednode process \d+ on ", said.decode())
    await (await SqlStore.open(tmp_path / "first", HandClock(), database)).close()


# --- which params belong to which rows ---------------------------------------------------------------------------


async def test_rows_and_params_survive_a_restart(tmp_path: Path, database: str) -> None:
    kept = await with_a_model(tmp_path, database)
    store = await SqlStore.open(tmp_path, HandClock(), database)
    usage = await usage_of(store, tmp_path)
    await store.close()
    assert models_in(tmp_path) == kept
    assert (usage.database, usage.rows["models"]) == (database.replace("fednode@", ""), 1)
    assert usage.database_bytes > 0


async def test_who_forgets_the_database_loses_nothing(tmp_path: Path, database: str) -> None:
    kept = await with_a_model(tmp_path, database)
    error = await refusal(tmp_path, "")
    assert (type(error), models_in(tmp_path)) == (BadConfig, kept)
    assert database.replace("fednode@", "") in error.message


async def test_who_names_another_database_loses_nothing(tmp_path: Path, database: str, postgres: Cluster) -> None:
    kept = await with_a_model(tmp_path / "one", database)
    other = postgres.new_database()
    assert isinstance(await refusal(tmp_path / "one", other), StoreDamaged)         # it has no rows at all
    await with_a_model(tmp_path / "two", other, wall_s=2.0)
    assert isinstance(await refusal(tmp_path / "one", other), BadConfig)            # it has others
    assert isinstance(await refusal(tmp_path / "three", other), StoreDamaged)       # and their params are elsewhere
    assert models_in(tmp_path / "one") == kept


async def test_a_state_dir_of_sqlite_is_no_other_databases(tmp_path: Path, database: str) -> None:
    kept = await with_a_model(tmp_path)
    assert isinstance(await refusal(tmp_path, database), BadConfig)
    assert models_in(tmp_path) == kept


async def test_a_copy_of_rows_and_state_dir_goes_on_elsewhere(tmp_path: Path, database: str, postgres: Cluster) -> None:
    kept = await with_a_model(tmp_path / "one", database)
    copied = postgres.copy_of(database)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    await (await SqlStore.open(tmp_path / "two", HandClock(), copied)).close()
    assert models_in(tmp_path / "two") == kept


async def test_a_backup_is_for_pg_dump_and_a_look_needs_the_address(tmp_path: Path, database: str) -> None:
    await with_a_model(tmp_path, database)
    with pytest.raises(BadConfig, match="are in postgresql://") as caught:
        write_backup(tmp_path, tmp_path / "backup", (), 0.0)
    assert "pg_dump" in caught.value.fix
    with pytest.raises(BadConfig, match="are in postgresql://"):
        examine_store(tmp_path)
    assert examine_store(tmp_path, database).num_models == 1


# --- connections that break ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_commit_that_nobody_answered_is_not_acknowledged_and_asking_again_settles_it(
    tmp_path: Path, database: str, postgres: Cluster, moment: Moment
) -> None:
    with cutting_wire(postgres.port) as wire:
        store = await SqlStore.open(tmp_path, HandClock(), database.replace(f":{postgres.port}/", f":{wire.port}/"))
        run = await running(store)
        opened = await store.open_round(a_round(run, 1, base=await model_0(store, run)))
        for outcome in (brought("a", 1.0), brought("b", 3.0)):
            wire.cut_next_commit(moment)
            with pytest.raises(StoreAway):
                await store.report(opened, outcome)
            await store.report(opened, outcome)         # the client's retry: its first one may be there, or not
        found = {outcome.client: outcome.update for outcome in await store.outcomes(opened)}
        assert [float(found[name].params["w"][0]) for name in ("a", "b")] == [1.0, 3.0]

        wire.cut_next_commit(moment)
        with pytest.raises(StoreAway):
            await store.end_run(run.id, RunStatus.FAILED, "enough")
        await store.set_reason((await running(store)).id, "a write settles the one before")
        assert (await store.run(run.id)).status is (RunStatus.RUNNING if moment == "before" else RunStatus.FAILED)
        await store.close()
    assert wire.num_cuts == 3
    assert postgres.ask(database, "SELECT count(*) FROM update WHERE number = 1") == [(2,)]


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_round_committed_over_a_broken_wire_is_committed_once(
    tmp_path: Path, database: str, postgres: Cluster, moment: Moment
) -> None:
    memory = MemoryStore(HandClock())
    calm = await running(memory)
    await play(memory, calm, 1, {"a": 5})
    with cutting_wire(postgres.port) as wire:
        store = await SqlStore.open(tmp_path, HandClock(), database.replace(f":{postgres.port}/", f":{wire.port}/"))
        run = await running(store)
        await play(store, run, 1, {"a": 5}, pooled=False)
        opened = (await store.position(run.id)).open_round
        assert opened is not None
        outcomes = await store.outcomes(opened)
        wire.cut_next_commit(moment)
        with pytest.raises(StoreAway):
            await store.commit_round(opened, outcomes, State(params=params(1.0)))
        await store.set_reason(run.id, "")
        if (await store.position(run.id)).open_round is not None:
            assert moment == "before"
            await store.commit_round(opened, outcomes, State(params=params(1.0)))
        journal = await Queries(store, HandClock()).journal(run.id)
        await store.close()
    assert [row.hash for row in journal] == [row.hash for row in await memory.journal(calm.id)]


async def test_nothing_of_a_cut_group_is_acknowledged(tmp_path: Path, database: str, postgres: Cluster) -> None:
    with cutting_wire(postgres.port) as wire:
        store = await SqlStore.open(tmp_path, HandClock(), database.replace(f":{postgres.port}/", f":{wire.port}/"))
        wire.cut_next_commit("before")
        found = await asyncio.gather(
            *(store.record_event("hello", {"number": number}) for number in range(50)), return_exceptions=True
        )
        acknowledged = [number for number, answer in enumerate(found) if answer is None]
        await store.close()
    assert any(isinstance(answer, StoreAway) for answer in found)
    there = postgres.ask(database, "SELECT fields FROM event WHERE what = 'hello' ORDER BY seq")
    assert [text for (text,) in there] == [f'{{"number":{number}}}' for number in acknowledged]


async def test_sessions_that_were_ended_while_nobody_wrote_are_not_noticed(
    tmp_path: Path, database: str, postgres: Cluster
) -> None:
    store = await SqlStore.open(tmp_path, HandClock(), database)
    run = await running(store)
    assert postgres.cut(database) >= 2          # the one that writes, and one that reads
    await store.set_reason(run.id, "still here")
    assert (await store.run(run.id)).reason == "still here"
    await store.close()


async def test_who_lost_its_lock_to_another_writes_nothing_and_knows(
    tmp_path: Path, database: str, postgres: Cluster
) -> None:
    old = await SqlStore.open(tmp_path / "old", HandClock(), database)
    run = await running(old)
    postgres.cut(database)
    new = await SqlStore.open(tmp_path / "new", HandClock(), database)
    await new.close()
    with pytest.raises(StoreLocked, match="belongs to process"):
        await old.set_reason(run.id, "I was first")
    assert isinstance(await asyncio.wait_for(old.wait_until_taken(), 30), StoreLocked)
    await old.close()
    assert postgres.ask(database, "SELECT reason FROM run") == [("",)]
