"""`fednode doctor --store`: what is wrong with a store is found and named, whatever it is; a sound one is sound."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from federation_scene import Federation
from fednode.clock import HandClock
from fednode.core.records import State
from fednode.doctor.findings import Finding, Level, exit_code_of
from fednode.doctor.whole_store import whole_store
from fednode.errors import RoundClosed
from fednode.store.queries import Queries
from fednode.store.sql import SqlStore
from fednode.store.verification import verify_store
from postgres_scene import cluster

STORE = Path(__file__).parents[1] / "store"
sys.path.append(str(STORE))

from endless_run import next_round  # noqa: E402 - the scenes of the stores' tests
from store_scenes import AnyStore, a_round, brought, failed, gone, measured, params, running  # noqa: E402

from fednode.core.status import RoundKind, RunStatus  # noqa: E402


async def play_round(store: AnyStore, run_id: str, *, num_missing: int = 0) -> None:
    """One round with a memory; the last of its cohort may be gone."""
    run = await store.run(run_id)
    position = await store.position(run_id)
    opened = await store.open_round(next_round(run, position))
    present = opened.cohort[: len(opened.cohort) - num_missing]
    for client in present:
        evaluation = measured(1, 2, 0.5) if opened.number else None
        await store.report(opened, brought(client, float(opened.number), evaluation=evaluation))
    outcomes = await store.close_round(opened, [gone(client) for client in opened.cohort[len(present) :]])
    memory = {"velocity": params(float(opened.number), 2.0)}
    await store.commit_round(opened, outcomes, State(params=params(float(opened.number), 1.0), memory=memory))


async def make_store(state_dir: Path, database: str = "") -> None:
    """A completed run, one from its model that was cancelled in mid-round, one in mid-round, one waits."""
    store = await SqlStore.open(state_dir, HandClock(), database)
    first = await running(store, rounds=2)
    for num_missing in (0, 0, 1):
        await play_round(store, first.id, num_missing=num_missing)
    model = (await store.position(first.id)).checkpoint
    assert model is not None
    last = await store.open_round(a_round(first, 3, "a", base=model.model_sha256, kind=RoundKind.EVALUATE))
    await store.report_evaluation(last, "a", measured(2, 2, 0.1))
    await store.commit_round(last, await store.outcomes(last), None)
    await store.end_run(first.id, RunStatus.COMPLETED)

    second = await running(store, rounds=2, start_model=model.model_sha256)
    opened = await store.open_round(a_round(second, 1, "a", "b", base=model.model_sha256))
    await store.report(opened, brought("a", 1.0))
    await store.move_run(second.id, RunStatus.CANCELLED, withdraw=True)

    third = await running(store, rounds=2)
    await play_round(store, third.id)
    base = (await store.position(third.id)).checkpoint
    assert base is not None
    tried = await store.open_round(a_round(third, 1, "a", "b", base=base.model_sha256))
    await store.report(tried, brought("a", 5.0, 6.0))
    with pytest.raises(RoundClosed):
        await store.abandon_round(tried, (failed("b"),), "one is too few")
        await store.report(tried, brought("b", 1.0))
    opened = await store.open_round(a_round(third, 1, "a", "b", "c", attempt=2, base=base.model_sha256))
    await store.report(opened, brought("b", 7.0, 8.0))
    await store.create_run((await store.run(third.id)).config, ())
    await store.close()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    asyncio.run(make_store(folder))
    return folder


def look(state_dir: Path, database: str = "") -> list[Finding]:
    return whole_store(state_dir, lambda num_read, num_all: None, database)


def test_a_sound_store_is_sound_and_its_bytes_are_read(sound: Path) -> None:
    read: list[tuple[int, int]] = []
    found = whole_store(sound, lambda num_read, num_all: read.append((num_read, num_all)))
    assert [(finding.check, finding.level) for finding in found] == [
        ("database", Level.OK), ("rows", Level.OK), ("journal", Level.OK), ("files", Level.OK)
    ], found
    assert read[-1][0] == read[-1][1] == verify_store(sound, lambda *_: None).num_bytes > 0
    names = {path.relative_to(sound / "params").parts[0] for path in (sound / "params").rglob("*.safetensors")}
    assert names == {"models", "memory", "updates"}, "the scene has a file of every kind"


# --- the files ------------------------------------------------------------------------------------------------


def flip(path: Path, place: int = -1) -> None:
    """One bit of one byte."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("folder", ["models", "updates", "memory"])
@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink], ids=["flipped", "truncated", "deleted"])
def test_a_params_file_that_is_not_what_was_written_is_named(
    sound: Path, tmp_path: Path, folder: str, damage: Callable[[Path], None]
) -> None:
    copied = Path(shutil.copytree(sound, tmp_path / "state"))
    file = max((copied / "params" / folder).rglob("*.safetensors"))
    if folder == "memory" and damage is flip:
        flip(file, 20)              # of the header: a memory has no hash, it must be readable
    else:
        damage(file)
    (fault,) = [finding for finding in look(copied) if finding.level is Level.FAIL]
    assert str(file) in fault.told
    assert fault.check == "files"
    assert "backup" in fault.fix
    assert exit_code_of(look(copied)) == 6


# --- the database ---------------------------------------------------------------------------------------------


def pages_of(path: Path, table: str) -> list[int]:
    """Where the pages of a table begin."""
    with closing(sqlite3.connect(path)) as database:
        (root,) = database.execute("select rootpage from sqlite_master where name = ?", (table,)).fetchone()
        (size,) = database.execute("pragma page_size").fetchone()
    return [(root - 1) * size]


def test_a_database_page_that_is_damaged_is_found(sound: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(sound, tmp_path / "state"))
    (place,) = pages_of(copied / "store.sqlite", "event")
    flip(copied / "store.sqlite", place + 3)        # the number of cells on the page
    found = look(copied)
    assert exit_code_of(found) == 6
    assert any(str(copied / "store.sqlite") in finding.told for finding in found if finding.check == "database")


def test_one_bit_anywhere_in_the_database_breaks_no_check(sound: Path, tmp_path: Path) -> None:
    """Free space and texts that only people read have no hash; whatever is hit, there is an answer."""
    copied = Path(shutil.copytree(sound, tmp_path / "state"))
    path = copied / "store.sqlite"
    content, num_found = path.read_bytes(), 0
    for place in range(50, len(content), len(content) // 30):
        path.write_bytes(content)
        flip(path, place)
        num_found += exit_code_of(look(copied)) == 6
    assert num_found > 0


@pytest.mark.parametrize("num_bytes", [0, 1, 100, 5_000, 30_000])
def test_a_database_that_is_cut_off_is_found(sound: Path, tmp_path: Path, num_bytes: int) -> None:
    copied = Path(shutil.copytree(sound, tmp_path / "state"))
    path = copied / "store.sqlite"
    path.write_bytes(path.read_bytes()[:num_bytes])
    found = look(copied)
    assert exit_code_of(found) == 6, found
    assert str(path) in next(finding.told for finding in found if finding.level is Level.FAIL)


RUN_1, RUN_3 = "(select id from run where number = 1)", "(select id from run where number = 3)"
BY_HAND = [     # what somebody did, what is said of it
    (f"update journal set entry = replace(entry, '10', '11') where run_id = {RUN_1} and seq = 6", "run #1: row 6 of"),
    (f"update journal set hash = replace(hash, 'a', 'b') where run_id = {RUN_1} and seq = 2", "run #1: row 2 of"),
    (f"delete from journal where run_id = {RUN_1} and seq = 3", "run #1: row 4 of the journal is not what its hash"),
    (f"delete from journal where run_id = {RUN_1} and seq > 10", "run #1: its journal has no entry"),
    ("delete from journal", "run #1: its journal has no entry 'created'"),
    ("update run set config = replace(config, '\"rounds\":2', '\"rounds\":3')", "#1: its config says config_sha256"),
    ("update run set config = '{}' where number = 2", "run #2: its row cannot be read"),
    ("update run set seed = 8 where number = 3", "run #3: its config says seed 7, its row 8"),
    ("update run set status = 'runnin' where number = 3", "run #3: its row cannot be read: 'runnin'"),
    ("update run set status = 'completed' where number = 3", "run #3: it is completed, and round 1, attempt 2 is open"),
    ("update run set status = 'failed' where number = 1", "'ended': it says status completed, the rows say failed"),
    (f"update round set status = 'opened' where run_id = {RUN_1} and number = 1", "round 1: its row cannot be read"),
    (f"update round set status = 'abandoned' where run_id = {RUN_1} and number = 1", "committed rounds are [0, 2, 3]"),
    (f"update round set base_model = 'f00' where run_id = {RUN_1} and number = 2", "attempt 1 begins from f00"),
    (f"update round set cohort = '[\"a\"]' where run_id = {RUN_3} and attempt = 2", "says cohort ['a', 'b', 'c']"),
    (f"update assignment set status = 'reportd' where run_id = {RUN_3} and client = 'b'", "'b': its assignment can"),
    (f"update assignment set status = 'waiting' where run_id = {RUN_1} and client = 'b'", "and the round is committed"),
    (f"update assignment set failure = null where run_id = {RUN_1}", "'c': its assignment is failed, and has no"),
    (f"update assignment set failure = '{{' where run_id = {RUN_1} and client = 'c'", "'c': its assignment cannot"),
    (f'delete from "update" where run_id = {RUN_3} and client = \'b\'', "is reported, and there is no update"),
    (f'update "update" set num_examples = 11 where run_id = {RUN_1}', "'round closed': it says outcomes"),
    (f"delete from assignment where run_id = {RUN_3} and attempt = 2 and client = 'c'", "has 2 assignments"),
    (f"delete from model where run_id = {RUN_1} and round = 2", "run #1: round 2, attempt 1, train, has no model"),
    (f"update model set parent = 'f00' where run_id = {RUN_1} and round = 2", "the parent f00, and there is no such"),
    (f"update model set sha256 = 'f00' where run_id = {RUN_1} and round = 1", "models/f00.safetensors is gone"),
    ('update "update" set digest = replace(digest, substr(digest, 1, 1), \'x\')', "a.safetensors has the xxh3-128"),
    ("update model set num_bytes = 5", "bytes, its row says 5"),
    ("delete from round where attempt = 2", "names a round that is not there"),
]


@pytest.mark.parametrize(("by_hand", "said"), BY_HAND, ids=[said for _, said in BY_HAND])
def test_a_row_that_was_changed_by_hand_is_named(sound: Path, tmp_path: Path, by_hand: str, said: str) -> None:
    copied = Path(shutil.copytree(sound, tmp_path / "state"))
    with closing(sqlite3.connect(copied / "store.sqlite")) as database:
        database.execute(by_hand)
        database.commit()
        assert database.total_changes, "nothing was changed"
    found = look(copied)
    assert any(said in finding.told for finding in found if finding.level is Level.FAIL), found
    assert exit_code_of(found) == 6
    assert all(finding.fix for finding in found if finding.level is Level.FAIL)


def test_a_long_list_of_faults_is_cut(sound: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(sound, tmp_path / "state"))
    with closing(sqlite3.connect(copied / "store.sqlite")) as database:
        database.execute("delete from journal")
        database.commit()
    found = look(copied)
    assert found[-2].told.startswith("and ")
    assert len(found) < 30


def test_tables_of_an_older_and_of_a_newer_fednode(sound: Path, tmp_path: Path) -> None:
    for revision, levels, code in [
        ("0001", {"database": Level.OK, "tables": Level.WARN}, 0), ("9999", {"store": Level.FAIL}, 7)
    ]:
        copied = Path(shutil.copytree(sound, tmp_path / revision))
        with closing(sqlite3.connect(copied / "store.sqlite")) as database:
            database.execute("update alembic_version set version_num = ?", (revision,))
            database.commit()
        found = look(copied)
        assert ({finding.check: finding.level for finding in found}, exit_code_of(found)) == (levels, code)


# --- rows in PostgreSQL ----------------------------------------------------------------------------------------


def test_rows_in_another_database_are_compared_with_the_files_of_the_state_dir(tmp_path: Path) -> None:
    with cluster(is_durable=False) as postgres:
        url = postgres.new_database()
        asyncio.run(make_store(tmp_path, url))
        assert {finding.level for finding in look(tmp_path, url)} == {Level.OK}
        file = max((tmp_path / "params" / "models").iterdir())
        flip(file)
        with postgres.connect(url.rpartition("/")[2]) as database:
            database.execute("update assignment set status = 'waiting' where status = 'failed'")
        told = [finding.told for finding in look(tmp_path, url) if finding.level is Level.FAIL]
        assert any(str(file) in one for one in told), told
        assert any("run #1: round 2, attempt 1, client 'c'" in one for one in told), told
        (unnamed,) = look(tmp_path)
        assert (unnamed.level, unnamed.exit_code, "--database" in unnamed.fix) == (Level.FAIL, 2, True)
    (away,) = look(tmp_path, url)
    assert away.level is Level.FAIL
    assert away.exit_code != 6, "that nobody answers says nothing of the data"


# --- beside a central node that runs --------------------------------------------------------------------------


def test_what_a_round_tidies_away_meanwhile_is_no_fault(sound: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(sound, tmp_path / "state"))
    files = sorted((copied / "params" / "updates").rglob("*.safetensors"))

    def meanwhile(num_read: int, num_all: int) -> None:     # the rows were read, the files are being read
        for file in files:
            file.unlink(missing_ok=True)
        with closing(sqlite3.connect(copied / "store.sqlite")) as database:
            database.execute("update run set status = 'cancelled' where number = 3")
            database.commit()

    assert len(files) == 2
    assert whole_store(copied, meanwhile)[-1].level is Level.OK


def test_a_store_that_is_being_written_is_sound_at_every_look(tmp_path: Path) -> None:
    path = os.pathsep.join([str(STORE), os.environ.get("PYTHONPATH", "")])
    writing = subprocess.Popen(
        [sys.executable, str(STORE / "endless_run.py"), str(tmp_path)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert writing.stdout is not None
    try:
        assert writing.stdout.readline() == "ready\n"
        drain = subprocess.Popen(["cat"], stdin=writing.stdout, stdout=subprocess.DEVNULL)
        seen = []
        for _ in range(5):
            found = look(tmp_path)
            assert {finding.level for finding in found} == {Level.OK}, found
            seen.append(verify_store(tmp_path, lambda *_: None).num_decisions)
        assert seen[0] < seen[-1], "nothing was written meanwhile"
    finally:
        writing.kill()
        writing.wait()
        writing.stdout.close()
    drain.wait()


# --- the command ----------------------------------------------------------------------------------------------


def test_the_command_beside_a_central_node_and_without_one(federation: Federation) -> None:
    federation.start_central()
    state_dir = ("--state-dir", str(federation.folder / "central"))
    told = federation.json("doctor", "--store", *state_dir)
    assert told["ok"]
    assert [check["check"] for check in told["checks"]] == ["database", "rows", "journal", "files"]
    federation.stop("central")
    flip(federation.folder / "central" / "store.sqlite", 100)       # what kind of page the first one is
    damaged = federation.cli("doctor", "--store", *state_dir)
    assert (damaged.returncode, "Traceback" in damaged.stderr) == (6, False), damaged
    assert "FAIL  database" in damaged.stdout


def test_a_folder_without_a_store_is_no_damaged_one(tmp_path: Path) -> None:
    (nothing,) = look(tmp_path)
    assert (nothing.level, nothing.exit_code) == (Level.FAIL, 2)


async def test_what_the_scene_holds(sound: Path, tmp_path: Path) -> None:
    """So that a change of the scene cannot make these tests say nothing."""
    store = await SqlStore.open(Path(shutil.copytree(sound, tmp_path / "state")), HandClock())
    views = await Queries(store, HandClock()).run_summaries()
    assert [view.run.status for view in views] == ["queued", "running", "cancelled", "completed"]
    await store.close()
