"""A store of every earlier release, killed in mid-round, opens with the code of today; its run ends with its bits."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from release_scene import NUMBERS, OFFER, play_calm, play_on

from fednode.clock import HandClock
from fednode.doctor.findings import Level
from fednode.doctor.whole_store import whole_store
from fednode.store.engine import newest_revision
from fednode.store.history import History
from fednode.store.queries import Queries
from fednode.store.sql import SqlStore

RELEASES = sorted((Path(__file__).parent / "releases").glob("*.tar.gz"))
OLDEST = RELEASES[0]
OPEN = "import asyncio, sys, pathlib; from fednode.clock import SystemClock; from fednode.store.sql import SqlStore; " \
       "asyncio.run(SqlStore.open(pathlib.Path(sys.argv[1]), SystemClock()))"


def unpacked(release: Path, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The state dir that the release left behind, and the bits with which it would have ended the run."""
    with tarfile.open(release, "r:gz") as tar:
        tar.extractall(folder, filter="data")
    state_dir = folder / "state"
    return state_dir, json.loads((state_dir / "release.json").read_text())


def revision_in(path: Path) -> str:
    with closing(sqlite3.connect(path)) as database:
        (found,) = database.execute("select version_num from alembic_version").fetchone()
        return str(found)


def levels(state_dir: Path) -> set[Level]:
    return {finding.level for finding in whole_store(state_dir, lambda num_read, num_all: None)}


async def finish(state_dir: Path) -> dict[str, Any]:
    store = await SqlStore.open(state_dir, HandClock())
    (run,) = await store.runs()
    end = await play_on(store, run.id)
    journal = (await Queries(store, HandClock()).journal(run.id))[-1].hash
    clients = await store.clients()
    await store.close()
    assert [(client.name, client.offers) for client in clients] == [(name, (OFFER,)) for name in NUMBERS]
    return {**end, "journal": journal}


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name.partition(".")[0])
async def test_a_run_that_an_earlier_release_began_ends_with_its_bits(release: Path, tmp_path: Path) -> None:
    state_dir, bits = unpacked(release, tmp_path)
    revision = revision_in(state_dir / "store.sqlite")
    end = await finish(state_dir)
    assert end == {name: bits[name] for name in end} == await play_calm()
    assert levels(state_dir) == {Level.OK}
    kept = [path.name for path in state_dir.glob("store-before-*")]
    assert kept == ([] if revision == newest_revision() else [f"store-before-{newest_revision()}.sqlite"])
    for name in kept:
        assert revision_in(state_dir / name) == revision


def test_there_is_a_store_of_the_tables_of_today() -> None:
    """Made once, by `python scripts/make_release_store.py`, whenever a step was added to the migrations."""
    assert newest_revision() in {path.name.partition(".")[0] for path in RELEASES}


@pytest.mark.parametrize(
    ("point", "leaves"), [("tables.migrating@1", "0001"), ("tables.migrated@1", newest_revision())]
)
def test_kill_9_in_the_middle_of_a_migration_leaves_the_old_store_or_the_new_one(
    tmp_path: Path, point: str, leaves: str
) -> None:
    state_dir, bits = unpacked(OLDEST, tmp_path)
    for _ in range(2):                                  # the second time there is a copy already
        armed = os.environ | {"FEDNODE_FAILPOINT": point}
        died = subprocess.run([sys.executable, "-c", OPEN, str(state_dir)], env=armed)
        assert died.returncode == -signal.SIGKILL
        assert revision_in(state_dir / "store.sqlite") == leaves
    assert Level.FAIL not in levels(state_dir)
    (copied,) = state_dir.glob("store-before-*.sqlite")
    assert revision_in(copied) == "0001"
    copied.write_bytes(copied.read_bytes()[:5000])      # a copy that a loss of power cut off is made again
    end = asyncio.run(finish(state_dir))
    assert end["model_sha256"] == bits["model_sha256"]
    if leaves == "0001":
        assert revision_in(copied) == "0001"


async def test_of_updates_that_an_earlier_release_took_no_change_is_known(tmp_path: Path) -> None:
    state_dir, _ = unpacked(OLDEST, tmp_path)
    await finish(state_dir)
    store = await SqlStore.open(state_dir, HandClock())
    rounds = await History(store).rounds((await store.runs())[0].id)
    await store.close()
    known = {view.round.number: any(part.change for part in view.clients) for view in rounds}
    assert known == {0: False, 1: False, 2: False, 3: True, 4: True, 5: False}      # killed in round 3; 5 measures
