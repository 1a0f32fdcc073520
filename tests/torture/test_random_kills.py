"""`kill -9` at random instants, of the central node and of clients, each started again at once: the same bits.

The instants are drawn, not named, so they fall where no failpoint lies; some fall into the start after the kill before.
One run of 20 rounds follows another until all kills are spent. How long it takes until a run goes on is written down.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
import statistics
import time
from collections.abc import Iterator

import pytest
from kill_scene import CLIENTS, KillableFederation, assert_calm

from federation_scene import wait_until
from torture_scale import IS_FULL, pick

SEED = 7
NUM_KILLS = pick(8, 200)
WORK = {"rounds": pick(6, 20), "task_config": {"epochs": pick(40, 100), "images_per_client": 0}}
CENTRAL_SHARE = 0.7             # of the kills; the others are of clients
HASTE = 0.25                    # of the kills: the next one does not wait until the run goes on


@pytest.fixture
def fed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KillableFederation]:
    federation = KillableFederation(tmp_path_factory.mktemp("random"), is_forked=not IS_FULL)
    federation.start_all()
    yield federation
    federation.stop_all()


def test_a_federation_killed_at_random_ends_as_if_nothing_had_happened(fed: KillableFederation, figures) -> None:
    chance = random.Random(SEED)
    victims: list[str] = []
    recovered_s: list[float] = []
    num_runs = num_between = 0
    while len(victims) < NUM_KILLS:
        seed = fed.begin(**WORK)
        num_runs += 1
        while len(victims) < NUM_KILLS and is_running(fed, seed):
            time.sleep(chance.uniform(0.0, 0.6))
            if not is_running(fed, seed):
                break
            victims.append("central" if chance.random() < CENTRAL_SHARE else chance.choice(CLIENTS))
            fed.kill(victims[-1])
            before, was_running = signs(fed, seed), is_running(fed, seed)
            began_s = time.monotonic()
            fed.start(victims[-1])
            if not was_running:
                break
            if chance.random() < HASTE:
                num_between += 1
                continue
            wait_until(lambda: signs(fed, seed) != before, "a sign that the run goes on")   # noqa: B023
            if victims[-1] == "central":
                recovered_s.append(time.monotonic() - began_s)
        fed.wait_for_central()
        assert_calm(fed, seed)
    figures.note(
        kills=len(victims), seed=SEED, of_the_central_node=victims.count("central"), runs=num_runs,
        rounds_a_run=WORK["rounds"], in_a_row=num_between, recovery_p50_s=round(statistics.median(recovered_s), 2),
        recovery_p95_s=round(sorted(recovered_s)[int(0.95 * len(recovered_s))], 2),
    )
    assert 0 < victims.count("central") < NUM_KILLS, "both kinds were to be killed"


def is_running(fed: KillableFederation, seed: int) -> bool:
    return ask(fed, "SELECT status FROM run WHERE seed = ?", seed) in (("queued",), ("running",))


def signs(fed: KillableFederation, seed: int) -> tuple[object, ...]:
    """What grows as a run goes on: leases given, evaluations and updates taken, decisions made, its status."""
    return ask(
        fed, """
        SELECT (SELECT sum(deliveries) FROM assignment WHERE run_id = run.id),
        (SELECT count(*) FROM evaluation WHERE run_id = run.id), (SELECT count(*) FROM [update] WHERE run_id = run.id),
        (SELECT count(*) FROM journal WHERE run_id = run.id), status FROM run WHERE seed = ?
        """, seed,
    )


def ask(fed: KillableFederation, question: str, seed: int) -> tuple[object, ...]:
    """One row of the store, whether or not its central node runs."""
    with contextlib.closing(sqlite3.connect(fed.folder / "central" / "store.sqlite", timeout=30)) as store:
        return tuple(store.execute(question, (seed,)).fetchone() or ())
