"""Which models keep their params: the first, the newest, the best, every k-th, and whatever another run needs."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from release_scene import CONFIG, METRICS, NumberFleet
from store_scenes import play, running

from fednode.clock import HandClock
from fednode.core.records import Checkpoint, Run
from fednode.core.status import RunStatus
from fednode.doctor.findings import Level
from fednode.doctor.whole_store import whole_store
from fednode.errors import Freed
from fednode.rounds import run_rounds
from fednode.store.backup import write_backup
from fednode.store.model_cards import ModelCards
from fednode.store.queries import ModelView, Queries
from fednode.store.restore import restore_backup
from fednode.store.retention import disk_use
from fednode.store.sql import SqlStore
from fednode.strategies.fedavgm import FedAvgM

HERE = Path(__file__).parent
HITS = (5, 3, 8, 1, 7, 2)       # of 10 that models 0 to 5 get right: model 2 is the best


async def played(store: SqlStore, **changes: object) -> tuple[str, list[ModelView]]:
    """A run of six rounds and its models, oldest first. Model 6 is not measured yet."""
    run = await running(store, rounds=6, **changes)
    for number, hits in enumerate(HITS, start=1):
        await play(store, run, number, {"a": hits, "b": hits})
    return run.id, (await Queries(store, HandClock()).models(run.id))[::-1]


def there(models: list[ModelView]) -> list[int]:
    return [model.round for model in models if model.freed_s is None]


def files_of(state_dir: Path) -> set[str]:
    return {path.stem for path in (state_dir / "params" / "models").iterdir()}


def levels(state_dir: Path) -> set[Level]:
    return {finding.level for finding in whole_store(state_dir, lambda num_read, num_all: None)}


@pytest.mark.parametrize(("keep_every", "kept"), [
    (1, [0, 1, 2, 3, 4, 5, 6]), (3, [0, 2, 3, 6]), (0, [0, 2, 6]),
])
async def test_a_run_keeps_the_first_the_best_the_newest_and_every_kth_model(
    sql: SqlStore, tmp_path: Path, keep_every: int, kept: list[int]
) -> None:
    _, models = await played(sql, keep_every=keep_every)
    assert there(models) == kept
    assert [(model.round, model.marks) for model in models if model.marks] == [(2, ("best",)), (6, ("newest",))]
    assert files_of(tmp_path) == {models[number].sha256 for number in kept}
    assert [model.metrics.get("accuracy") for model in models] == [hits / 10 for hits in HITS] + [None]


async def test_a_model_that_is_not_kept_keeps_its_card_and_says_where_its_params_are(sqlite: SqlStore) -> None:
    run_id, models = await played(sqlite, keep_every=0)
    cards = ModelCards(sqlite, Queries(sqlite, HandClock()))
    card = await cards.card(models[4].id)
    assert card.model.metrics["accuracy"] == pytest.approx(0.7)
    assert [parent.round for parent in card.lineage] == [3, 2, 1, 0]
    assert [one.client for one in card.contributions] == ["a", "b"]
    with pytest.raises(Freed, match="not kept any more"):
        await sqlite.model_bytes(models[4].sha256)
    use = await sqlite.read(lambda c: disk_use(c, run_id))
    assert (use.num_models, use.num_files) == (7, 3)
    assert use.num_bytes == sum(models[number].num_bytes for number in (0, 2, 6))


async def newest(store: SqlStore, run: Run) -> Checkpoint:
    checkpoint = (await store.position(run.id)).checkpoint
    assert checkpoint is not None
    return checkpoint


async def test_a_model_that_another_run_started_from_stays_and_a_freed_one_starts_none(
    sqlite: SqlStore, tmp_path: Path
) -> None:
    run = await running(sqlite, rounds=6, keep_every=0)
    await play(sqlite, run, 1, {"a": 9})
    freed = await newest(sqlite, run)
    await play(sqlite, run, 2, {"a": 1})
    other = await running(sqlite, rounds=1, start_model=(await newest(sqlite, run)).model_sha256)
    await play(sqlite, run, 3, {"a": 1})
    await play(sqlite, run, 4, {"a": 1})
    models = (await Queries(sqlite, HandClock()).models(run.id))[::-1]
    assert there(models) == [0, 2, 4]               # 2 is worse than 0: it stays because the other run began with it
    assert (await newest(sqlite, other)).state.params["w"].tolist() == [2.0]
    with pytest.raises(Freed):
        await running(sqlite, start_model=freed.model_sha256)
    assert levels(tmp_path) == {Level.OK}


async def test_two_runs_of_the_same_bits_share_a_file_while_one_keeps_it(sqlite: SqlStore, tmp_path: Path) -> None:
    first, second = [await running(sqlite, rounds=3, keep_every=0) for _ in "12"]
    for number in (1, 2):
        await play(sqlite, first, number, {"a": 10 - number})
    await play(sqlite, second, 1, {"a": 9})
    await play(sqlite, first, 3, {"a": 1})              # frees its model 1, which is the second run's newest
    checkpoint = await newest(sqlite, second)
    assert checkpoint.state.params["w"].tolist() == [1.0]
    await play(sqlite, second, 2, {"a": 8})
    await play(sqlite, second, 3, {"a": 1})             # now nobody does
    assert checkpoint.model_sha256 not in files_of(tmp_path)
    assert levels(tmp_path) == {Level.OK}


async def test_a_download_in_progress_is_not_cut_off(sqlite: SqlStore) -> None:
    run = await running(sqlite, rounds=6, keep_every=0)
    await play(sqlite, run, 1, {"a": 9})
    sha256 = (await newest(sqlite, run)).model_sha256
    with sqlite.model_path(sha256).open("rb") as file:
        half = file.read(10)
        await play(sqlite, run, 2, {"a": 1})
        await play(sqlite, run, 3, {"a": 1})
        assert not sqlite.model_path(sha256).exists()
        assert len(half + file.read()) == file.tell() > 10


# --- killed on the way -----------------------------------------------------------------------------------------

PLAY = "import asyncio, sys, pathlib, test_retention as t; asyncio.run(t.play_scripted(pathlib.Path(sys.argv[1])))"
KEPT = replace(CONFIG, rounds=6, keep_every=0, best_metric="loss", patience=2)


async def play_scripted(state_dir: Path) -> tuple[str, set[str]]:
    """A run of a strategy with a memory, from wherever it stands to its end: its last model, its models' files."""
    store = await SqlStore.open(state_dir, HandClock())
    run = next(iter(await store.runs()), None)
    if run is None:
        run = await store.create_run(KEPT, METRICS)
        await store.move_run(run.id, RunStatus.RUNNING)
    if run.status is not RunStatus.COMPLETED:
        await run_rounds(await store.run(run.id), FedAvgM(), NumberFleet(store=store), store)
    last = await newest(store, run)
    await store.close()
    return last.model_sha256, files_of(state_dir)


@pytest.mark.parametrize("point", ["round.written@3", "round.committed@3", "round.committed@4,sweep.half_done@1"])
def test_kill_9_between_the_commit_and_the_deletion_leaves_a_store_that_is_right(tmp_path: Path, point: str) -> None:
    calm = asyncio.run(play_scripted(tmp_path / "calm"))
    state_dir = tmp_path / "killed"
    armed = os.environ | {"FEDNODE_FAILPOINT": point, "PYTHONPATH": str(HERE)}
    for _ in point.split(","):
        died = subprocess.run([sys.executable, "-c", PLAY, str(state_dir)], env=armed)
        assert died.returncode == -signal.SIGKILL
    assert levels(state_dir) == {Level.OK}
    assert asyncio.run(play_scripted(state_dir)) == calm
    assert levels(state_dir) == {Level.OK}


async def test_a_backup_holds_what_is_kept_and_nothing_is_missed_after_a_restore(tmp_path: Path) -> None:
    await play_scripted(tmp_path / "state")
    write_backup(tmp_path / "state", tmp_path / "backup.tar", (), 0.0)
    restore_backup(tmp_path / "backup.tar", tmp_path / "again", ())
    assert files_of(tmp_path / "again") == files_of(tmp_path / "state")
    assert levels(tmp_path / "again") == {Level.OK}
