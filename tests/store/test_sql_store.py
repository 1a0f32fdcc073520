"""The store of a central node: killed, reopened, locked out, migrated, swept; nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from endless_run import next_round, play_round
from sqlalchemy import Connection, event, inspect
from store_scenes import a_round, brought, config, gone, measured, model_0, params, running

from fednode.clock import HandClock
from fednode.core.records import Outcome, Position, Round, State
from fednode.core.status import AssignmentStatus, RunStatus
from fednode.errors import (
    AlreadyReported,
    NotFound,
    RunHalted,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreLocked,
    VersionMismatch,
)
from fednode.store.engine import MIGRATIONS, migrate
from fednode.store.leadership import lead
from fednode.store.memory import MemoryStore
from fednode.store.queries import Queries
from fednode.store.records import Blob
from fednode.store.schema import metadata
from fednode.store.sql import SqlStore
from fednode.store.sqlite import SqliteFile, open_engine
from fednode.wire.codec import digest_of_file, read_params, sha256_of_file, write_params

HERE = Path(__file__).parent


def files_in(state_dir: Path) -> set[str]:
    """Paths below the params folder."""
    root = state_dir / "params"
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


# --- closed and opened again ------------------------------------------------------------------------------------


def facts(position: Position, outcomes: tuple[Outcome, ...]) -> tuple[object, ...]:
    checkpoint = position.checkpoint
    brought_ = [(o.client, o.update.params["w"].tobytes() if o.update else o.failure) for o in outcomes]
    state = checkpoint and (checkpoint.round, checkpoint.model_sha256, checkpoint.state.params["w"].tobytes())
    memory = checkpoint and {name: kept["w"].tobytes() for name, kept in checkpoint.state.memory.items()}
    return (state, memory, position.open_round, position.next_round, position.next_attempt, brought_)


async def where(store: SqlStore, run_id: str) -> tuple[object, ...]:
    position = await store.position(run_id)
    outcomes = await store.outcomes(position.open_round) if position.open_round else ()
    return facts(position, outcomes)


Step = Callable[[SqlStore, Round], Awaitable[object]]
STEPS: tuple[Step, ...] = (
    lambda store, round_: store.report_evaluation(round_, "a", measured(1, 2, 0.5)),
    lambda store, round_: store.report(round_, brought("b", 2.0)),
    lambda store, round_: store.move_run(round_.run_id, RunStatus.PAUSED, withdraw=True),
    lambda store, round_: store.move_run(round_.run_id, RunStatus.QUEUED),
    lambda store, round_: store.move_run(round_.run_id, RunStatus.RUNNING),
    lambda store, round_: store.close_round(round_, (gone("a"), gone("b"))),
    lambda store, round_: store.abandon_round(round_, (), "one is too few"),
)


async def test_a_store_that_is_opened_again_stands_where_it_stood_after_every_step(tmp_path: Path) -> None:
    store = await SqlStore.open(tmp_path, HandClock())
    run = await running(store)
    base = await model_0(store, run)
    round_ = await store.open_round(a_round(run, 1, base=base))
    for step in STEPS:
        await step(store, round_)
        before = await where(store, run.id)
        await store.close()
        store = await SqlStore.open(tmp_path, HandClock())
        assert await where(store, run.id) == before
    again = await store.open_round(a_round(run, 1, attempt=2, base=base))
    await store.close()
    store = await SqlStore.open(tmp_path, HandClock())
    (taken_over,) = await store.outcomes(again)
    assert taken_over.update is not None
    assert taken_over.update.params["w"].tolist() == [2.0]
    await store.close()


def start_playing(state_dir: Path) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, str(HERE / "endless_run.py"), str(state_dir)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path},
    )


def kill_after(process: subprocess.Popen[str], num_lines: int) -> list[list[str]]:
    """The acknowledgements of a process that is killed in the middle of its next writes."""
    assert process.stdout is not None
    lines = [process.stdout.readline().split() for _ in range(num_lines)]
    process.send_signal(signal.SIGKILL)
    lines += [line.split() for line in process.stdout if line.endswith("\n")]
    process.wait()
    process.stdout.close()
    return lines


async def require_acknowledged(store: SqlStore, run_id: str, lines: list[list[str]]) -> None:
    position = await store.position(run_id)
    open_round = position.open_round
    reported = {o.client for o in await store.outcomes(open_round)} if open_round else set[str]()
    for line in lines:
        if line[0] == "committed":
            assert position.next_round > int(line[1])
        if line[0] == "reported":
            is_committed = position.next_round > int(line[1])
            assert is_committed or line[2] in reported


async def test_kill_9_in_the_middle_of_writes_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    for num_lines in (2, 9, 16, 27):
        lines = await asyncio.to_thread(kill_after, start_playing(tmp_path), num_lines)
        store = await SqlStore.open(tmp_path, HandClock())
        (run,) = await store.runs()
        await require_acknowledged(store, run.id, lines)
        num_committed = (await store.position(run.id)).next_round
        for model in await Queries(store, HandClock()).models():
            assert sha256_of_file(store.model_path(model.sha256)) == model.sha256
        killed = await Queries(store, HandClock()).journal(run.id)
        await store.close()

    calm = MemoryStore(HandClock())
    calm_run = await running(calm, rounds=1_000_000)
    for _ in range(num_committed):
        await play_round(calm, calm_run, await calm.position(calm_run.id))
    unbroken = await calm.journal(calm_run.id)
    assert num_committed > 5
    assert [row.hash for row in killed[: len(unbroken)]] == [row.hash for row in unbroken]


# --- one process at a time ------------------------------------------------------------------------------------


async def test_a_second_process_is_told_who_holds_the_folder(sql: SqlStore, tmp_path: Path) -> None:
    with pytest.raises(StoreLocked) as caught:
        await SqlStore.open(tmp_path, HandClock())
    assert str(os.getpid()) in caught.value.message
    assert str(tmp_path) in caught.value.message


def child_with_our_files() -> subprocess.Popen[bytes]:
    """A process that waits for a line, and closes nothing of ours by itself."""
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)


async def test_no_child_inherits_the_lock(tmp_path: Path) -> None:
    store = await SqlStore.open(tmp_path, HandClock())
    child = child_with_our_files()
    await store.close()
    again = await SqlStore.open(tmp_path, HandClock())
    await again.close()
    child.communicate(b"\n")


async def test_a_writer_of_an_earlier_epoch_is_refused(sqlite: SqlStore, tmp_path: Path) -> None:
    run = await running(sqlite)
    engine = open_engine(tmp_path / "store.sqlite", is_writer=True)
    lead(engine, "process 4242", 0.0)
    engine.dispose()
    with pytest.raises(StoreLocked, match="process 4242"):
        await sqlite.move_run(run.id, RunStatus.PAUSED)
    assert (await sqlite.run(run.id)).status is RunStatus.RUNNING


async def test_a_folder_that_cannot_be_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=str(tmp_path / "file")):
        await SqlStore.open(tmp_path / "file", HandClock())


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = await SqlStore.open(tmp_path, HandClock())
    await store.close()
    for call in (store.runs(), store.create_run(config(), ())):
        with pytest.raises(StoreError, match="closed"):
            await call


# --- versions -----------------------------------------------------------------------------------------------------

NEWER = '''"""A later step."""
import sqlalchemy as sa
from alembic import op
revision = "9999"
down_revision = "0005"
def upgrade():
    op.add_column("run", sa.Column("note", sa.Text(), nullable=True))
'''


def later_migrations(folder: Path, step: str = NEWER) -> Path:
    copied = Path(shutil.copytree(MIGRATIONS, folder / "migrations"))
    (copied / "versions" / "v9999_later.py").write_text(step)
    return copied


def backups_in(state_dir: Path) -> list[Path]:
    return list(state_dir.glob("store-before-*"))


async def old_store(state_dir: Path) -> str:
    """A store with one run; its id."""
    store = await SqlStore.open(state_dir, HandClock())
    run = await store.create_run(config(), ())
    await store.close()
    return run.id


def migrate_to(path: Path, migrations: Path) -> None:
    engine = open_engine(path, is_writer=True)
    try:
        migrate(engine, SqliteFile(path), migrations)
    finally:
        engine.dispose()


def columns(path: Path) -> set[str]:
    engine = open_engine(path, is_writer=False)
    with engine.begin() as connection:
        found = {column["name"] for column in inspect(connection).get_columns("run")}
    engine.dispose()
    return found


async def test_a_store_is_copied_before_it_is_migrated(tmp_path: Path) -> None:
    run_id = await old_store(tmp_path / "state")
    path = tmp_path / "state" / "store.sqlite"
    migrate_to(path, later_migrations(tmp_path))
    backup = tmp_path / "state" / "store-before-9999.sqlite"
    assert "note" in columns(path)
    assert "note" not in columns(backup)
    backup.replace(path)
    store = await SqlStore.open(tmp_path / "state", HandClock())
    assert (await store.run(run_id)).id == run_id
    await store.close()


async def test_a_store_that_is_up_to_date_is_not_copied(tmp_path: Path) -> None:
    await old_store(tmp_path)
    await old_store(tmp_path)
    assert backups_in(tmp_path) == []


async def test_a_store_of_a_newer_fednode_is_refused_and_left_alone(tmp_path: Path) -> None:
    await old_store(tmp_path / "state")
    path = tmp_path / "state" / "store.sqlite"
    migrate_to(path, later_migrations(tmp_path))
    with pytest.raises(VersionMismatch, match="9999"):
        await SqlStore.open(tmp_path / "state", HandClock())
    assert "note" in columns(path)


async def test_a_migration_that_breaks_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    run_id = await old_store(tmp_path / "state")
    path = tmp_path / "state" / "store.sqlite"
    broken = later_migrations(tmp_path, NEWER + '    raise RuntimeError("power cut")\n')
    with pytest.raises(RuntimeError):
        migrate_to(path, broken)
    assert "note" not in columns(path)
    store = await SqlStore.open(tmp_path / "state", HandClock())
    assert (await store.run(run_id)).id == run_id
    await store.close()


async def test_the_migrations_build_the_tables_that_are_declared(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    migrate_to(path, MIGRATIONS)
    engine = open_engine(path, is_writer=False)
    with engine.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


async def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").write_bytes(b"this is not a database, but it is long enough" * 100)
    with pytest.raises(StoreDamaged, match="not a database"):
        await SqlStore.open(tmp_path, HandClock())
    (tmp_path / "store.sqlite").unlink()
    store = await SqlStore.open(tmp_path, HandClock())      # the refused one holds no lock
    await store.close()


async def test_commits_wait_for_the_disk_and_rows_must_have_parents(sql: SqlStore, tmp_path: Path) -> None:
    engine = open_engine(tmp_path / "store.sqlite", is_writer=True)
    with engine.begin() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    engine.dispose()
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}       # 2: FULL


@pytest.mark.parametrize("is_writer", [True, False])
async def test_what_a_connection_keeps_of_a_big_store_is_bounded(
    sql: SqlStore, tmp_path: Path, is_writer: bool
) -> None:
    """SQLite's own bound is 2 MB, of each connection: over many rounds that looks like a leak."""
    engine = open_engine(tmp_path / "store.sqlite", is_writer=is_writer)
    with engine.begin() as connection:
        kept_kib = -connection.exec_driver_sql("PRAGMA cache_size").scalar_one()
    engine.dispose()
    assert kept_kib == 256


# --- files -----------------------------------------------------------------------------------------------------


async def test_files_of_updates_go_with_their_round_and_models_stay(sql: SqlStore, tmp_path: Path) -> None:
    run = await running(sql)
    first = await model_0(sql, run)
    opened = await sql.open_round(a_round(run, 1, base=first))
    outcomes = (brought("a", 1.0), brought("b", 2.0))
    for outcome in outcomes:
        await sql.report(opened, outcome)
    assert {name for name in files_in(tmp_path) if name.startswith("updates/")} == {
        f"updates/{run.id}/1-1/a.safetensors", f"updates/{run.id}/1-1/b.safetensors",
    }
    await sql.commit_round(opened, outcomes, State(params=params(1.5)))
    checkpoint = (await sql.position(run.id)).checkpoint
    assert checkpoint is not None
    assert files_in(tmp_path) == {f"models/{sha256}.safetensors" for sha256 in (first, checkpoint.model_sha256)}


async def test_only_the_last_memory_of_a_run_is_kept(sql: SqlStore, tmp_path: Path) -> None:
    run = await running(sql, rounds=9)
    for _ in range(3):
        position = await sql.position(run.id)
        opened = await sql.open_round(next_round(run, position))
        outcomes = tuple(brought(name, 1.0) for name in opened.cohort)
        for outcome in outcomes:
            await sql.report(opened, outcome)
        memory = {"velocity": params(float(opened.number))}
        await sql.commit_round(opened, outcomes, State(params=params(1.0), memory=memory))
    assert {name for name in files_in(tmp_path) if name.startswith("memory/")} == {f"memory/{run.id}/2.safetensors"}


async def test_a_received_file_is_moved_to_its_place_with_its_bytes(sql: SqlStore, tmp_path: Path) -> None:
    run = await running(sql)
    opened = await sql.open_round(a_round(run, 1, base=await model_0(sql, run)))
    outcome = brought("a", 1.0, 2.0)
    assert outcome.update is not None
    for _ in range(2):      # the second time is a client that never heard the answer
        incoming = sql.incoming_dir / "body"
        written = write_params(outcome.update.params, incoming, is_durable=True)
        await sql.report(opened, outcome, Blob(path=incoming, digest=written.digest, num_bytes=written.num_bytes))
        assert not incoming.exists()
    placed = tmp_path / "params" / "updates" / run.id / "1-1" / "a.safetensors"
    assert digest_of_file(placed) == written.digest


async def test_two_bodies_for_one_assignment_never_mix(sql: SqlStore, tmp_path: Path) -> None:
    run = await running(sql)
    opened = await sql.open_round(a_round(run, 1, base=await model_0(sql, run)))
    reports = [sql.report(opened, brought("a", float(value))) for value in range(8)]
    results = await asyncio.gather(*reports, return_exceptions=True)
    assert sum(result is None for result in results) == 1
    assert all(isinstance(result, AlreadyReported) for result in results if result is not None)
    (kept,) = await sql.outcomes(opened)
    assert kept.update is not None
    assert kept.update.params["w"].tolist() == [float(results.index(None))]
    assert len([name for name in files_in(tmp_path) if name.startswith(("updates/", "incoming/"))]) == 1


@contextmanager
def writer_held(store: SqlStore) -> Iterator[None]:
    """The writer is at work, as with a slow disk: what is written meanwhile stands in line."""
    goes_on = threading.Event()
    store._writer.queue(lambda c: goes_on.wait(30))
    try:
        yield
    finally:
        goes_on.set()


async def until(is_so: Callable[[], bool]) -> None:
    for _ in range(3_000):
        if is_so():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to that")


async def test_an_update_is_in_its_place_before_a_row_names_it(sqlite: SqlStore, tmp_path: Path) -> None:
    run = await running(sqlite)
    opened = await sqlite.open_round(a_round(run, 1, base=await model_0(sqlite, run)))
    name = f"updates/{run.id}/1-1/a.safetensors"
    at_commit: list[bool] = []
    event.listen(sqlite._engines.writing, "commit", lambda c: at_commit.append(name in files_in(tmp_path)))
    await sqlite.report(opened, brought("a", 1.0))
    assert at_commit == [True]
    assert len(await sqlite.outcomes(opened)) == 1


async def test_an_update_whose_folder_cannot_be_made_to_last_is_not_acknowledged_and_may_come_again(
    sqlite: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await running(sqlite)
    opened = await sqlite.open_round(a_round(run, 1, base=await model_0(sqlite, run)))
    really = os.fsync

    def refused(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        really(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refused)
        with pytest.raises(StoreError, match=r"updates.*Input/output error"):
            await sqlite.report(opened, brought("a", 1.0))
    assert await sqlite.outcomes(opened) == ()
    await sqlite.report(opened, brought("a", 2.0))
    (kept,) = await sqlite.outcomes(opened)
    assert kept.update is not None
    assert kept.update.params["w"].tolist() == [2.0]


async def test_a_report_whose_sender_is_gone_is_still_whole(sql: SqlStore) -> None:
    run = await running(sql)
    opened = await sql.open_round(a_round(run, 1, base=await model_0(sql, run)))
    with writer_held(sql):
        await until(lambda: sql.num_unwritten() == 0)
        sent = asyncio.ensure_future(sql.report(opened, brought("a", 1.0)))
        await until(lambda: sql.num_unwritten() == 1)
        sent.cancel()
        other = asyncio.ensure_future(sql.report(opened, brought("a", 2.0)))
        await until(lambda: sql.num_unwritten() == 2)       # both are in line, and neither has moved its file
    with pytest.raises(AlreadyReported):
        await other
    (kept,) = await sql.outcomes(opened)
    assert kept.update is not None
    assert kept.update.params["w"].tolist() == [1.0]


async def test_a_lease_is_noted_after_one_that_could_not_be(sql: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await running(sql)
    opened = await sql.open_round(a_round(run, 1, base=await model_0(sql, run)))

    def refused(connection: Connection) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    first, second, *_ = await sql.assignments(opened)
    with monkeypatch.context() as patch:
        patch.setattr(sql._writer, "_guard", refused)
        await sql.mark_leased(first)
        with pytest.raises(StoreFull):
            await sql.save_budget(opened, 1.0)
    await sql.mark_leased(second)
    await sql.save_budget(opened, 1.0)              # behind the lease in the same line
    found = {one.client: one.status for one in await sql.assignments(opened)}
    assert found[second.client] is AssignmentStatus.LEASED


async def test_the_sweep_deletes_what_no_row_names_and_nothing_else(tmp_path: Path) -> None:
    store = await SqlStore.open(tmp_path, HandClock())
    run = await running(store, rounds=5)
    position = await store.position(run.id)
    opened = await store.open_round(next_round(run, position))
    await store.report(opened, brought("a", 1.0))
    memory = {"velocity": params(1.0)}
    await store.commit_round(opened, (brought("a", 1.0),), State(params=params(1.0), memory=memory))
    opened = await store.open_round(next_round(run, await store.position(run.id)))
    await store.report(opened, brought("a", 1.0))
    store.incoming_path(opened, "b.x", "d" * 32).write_bytes(b"half a body")
    wanted = files_in(tmp_path)
    await store.close()

    left_over = [
        "incoming/new.1234", f"incoming/{run.id}.0.1.a.{'d' * 32}", "models/" + "f" * 64 + ".safetensors",
        f"memory/{run.id}/7.safetensors", f"updates/{run.id}/0-1/a.safetensors",
        f"updates/{run.id}/1-1/b.safetensors", "updates/run_nobody/1-1/a.safetensors",
    ]
    for name in left_over:
        path = tmp_path / "params" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"left over")
    store = await SqlStore.open(tmp_path, HandClock())
    assert files_in(tmp_path) == wanted
    assert len(wanted) == 4         # a model, its memory, one update, half a body
    assert not (tmp_path / "params" / "updates" / "run_nobody").exists()
    await store.close()


async def test_a_model_file_that_is_gone_is_named(sql: SqlStore) -> None:
    run = await running(sql)
    sha256 = await model_0(sql, run)
    assert await sql.model_bytes(sha256) == sql.model_path(sha256).stat().st_size
    assert read_params(sql.model_path(sha256))["w"].tolist() == [0.0, 0.0]
    sql.model_path(sha256).unlink()
    with pytest.raises(StoreDamaged, match=sha256):
        await sql.position(run.id)
    with pytest.raises(NotFound):
        await sql.model_bytes("f" * 64)


async def test_a_commit_that_is_halted_leaves_no_row(sql: SqlStore) -> None:
    run = await running(sql)
    opened = await sql.open_round(a_round(run, 0, "a"))
    await sql.report(opened, brought("a", 1.0))
    await sql.move_run(run.id, RunStatus.PAUSED)
    with pytest.raises(RunHalted):
        await sql.commit_round(opened, await sql.outcomes(opened), State(params=params(1.0)))
    assert (await sql.position(run.id)).checkpoint is None
    assert await Queries(sql, HandClock()).models() == []


# --- events ----------------------------------------------------------------------------------------------------


async def test_who_waits_for_an_event_hears_of_it_once_it_is_written(sql: SqlStore, clock: HandClock) -> None:
    seq = await sql.wait_for_event(-1, 10.0)
    waiting = asyncio.ensure_future(sql.wait_for_event(seq, 10.0))
    await clock.settle()
    assert not waiting.done()
    await sql.record_event("client gone", {"client": "a"})
    assert await waiting == seq + 1
    (event,) = await Queries(sql, clock).events(after=seq)
    assert (event.seq, event.what, event.fields) == (seq + 1, "client gone", {"client": "a"})


async def test_waiting_for_an_event_ends_with_its_time(sql: SqlStore, clock: HandClock) -> None:
    waiting = asyncio.ensure_future(sql.wait_for_event(5, 10.0))
    await clock.settle()
    await clock.advance(9.0)
    assert not waiting.done()
    await clock.advance(1.0)
    assert await waiting == 0


async def test_a_decision_that_fails_tells_no_event(sql: SqlStore, clock: HandClock) -> None:
    run = await sql.create_run(config(), ())
    before = await Queries(sql, clock).events()
    with pytest.raises(RunHalted):
        await sql.open_round(a_round(run, 0, "a"))
    assert await Queries(sql, clock).events() == before
