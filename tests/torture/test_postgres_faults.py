"""A central node whose rows are in PostgreSQL: killed itself, cut off in mid-commit, and PostgreSQL killed under it.

One federation of real processes lives through all of it; each fault has a fresh run, which must end with the bits of
its calm twin. The rows are reached over a wire that can be cut at a COMMIT.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kill_scene import CLIENTS, ROUNDS, KillableFederation, calm

from cutting_wire import CuttingWire, cutting_wire
from federation_scene import wait_until
from postgres_scene import Cluster, cluster
from torture_scale import pick, sample

# The instants at which it matters what a transaction is: in the midst of each kind of it, and right after its end.
CASES = (
    "update.inserted@2", "round.tidied@2", "round.committed@1", "cohort.written@2", "evaluation.written@3",
    "checkpoint.inserted@3", "round.frozen@2", "update.committed@1", "assignment.leased@2", "checkpoint.renamed@3",
    "memory.renamed@2", "update.renamed@3", "run.started@1", "run.ending@1", "run.ended@1", "outcomes.collected@2",
    "update.inserted@0", "round.written@0", "round.written@4", "round.written@2",
)
AT_START = ("leader.written@1", "store.opened@1", "tables.migrated@1")


class Scene:
    """The federation, its PostgreSQL, and the wire between."""

    def __init__(self, fed: KillableFederation, postgres: Cluster, wire: CuttingWire, url: str) -> None:
        self.fed, self.postgres, self.wire, self.url = fed, postgres, wire, url

    def wait_for_round(self, seed: int, number: int) -> str:
        """The id of that run, once so many of its rounds are committed."""
        run_id = self.fed.run_of(seed)
        wait_until(lambda: self.num_committed(run_id) >= number, f"round {number}: {self.fed.log('central')}")
        return run_id

    def num_committed(self, run_id: str) -> int:
        asked = f"SELECT count(*) FROM round WHERE run_id = '{run_id}' AND status = 'committed'"
        return int(self.postgres.ask(self.url, asked)[0][0])

    def assert_calm(self, seed: int) -> dict[str, Any]:
        """The run ended as if nothing had happened, and every decision of it is there once."""
        run_id, twin = self.fed.run_of(seed), calm(self.fed.asked[seed])
        ended = self.fed.end_of(run_id, 150)
        assert ended["status"] == "completed", (ended, self.fed.log("central"))
        assert (ended["model_sha256"], ended["metrics"]) == (twin.model_sha256, twin.metrics)
        assert self.fed.get(f"runs/{run_id}/journal")[-1]["hash"] == twin.journal[-1].hash
        assert self.num_committed(run_id) == ROUNDS + 2
        return ended


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with cluster() as postgres, cutting_wire(postgres.port) as wire:
        url = postgres.new_database()
        fed = KillableFederation(tmp_path_factory.mktemp("postgres"))
        try:
            fed.start_central("--database", url.replace(f":{postgres.port}/", f":{wire.port}/"))
            for number, name in enumerate(CLIENTS, 1):
                fed.start(name, *fed.client_args(name, number))
            fed.wait_for_clients(*CLIENTS)
            yield Scene(fed, postgres, wire, url)
        finally:
            fed.stop_all()


def test_the_central_node_killed_at_a_failpoint(scene: Scene, figures: Any) -> None:
    cases = sample(CASES, 2)
    for point in cases:
        scene.fed.restart_armed("central", point)
        scene.fed.wait_for_clients(*CLIENTS)
        seed = scene.fed.begin()
        scene.fed.wait_for_death("central")
        scene.fed.restart_central()
        scene.assert_calm(seed)
    for point in AT_START[: pick(1, len(AT_START))]:
        scene.fed.kill("central")
        scene.fed.start_armed("central", point)
        scene.fed.wait_for_death("central")
        scene.fed.restart_central()
    figures.note(kills=len(cases) + pick(1, len(AT_START)), ended_calm=len(cases))


def test_postgresql_killed_in_mid_run(scene: Scene, figures: Any) -> None:
    chance, process = random.Random(5), scene.fed.members["central"]
    recovery_s = []
    for _ in range(pick(1, 15)):
        scene.fed.wait_for_clients(*CLIENTS)
        seed = scene.fed.begin(rounds=ROUNDS)
        scene.wait_for_round(seed, chance.randint(1, 2))
        time.sleep(chance.uniform(0, 0.1))
        scene.postgres.kill()
        time.sleep(chance.uniform(0.5, 2))          # it finds out, and nothing is acknowledged meanwhile
        assert scene.fed.is_up()
        scene.postgres.start()
        again_s = time.monotonic()
        scene.assert_calm(seed)
        recovery_s.append(round(time.monotonic() - again_s, 1))
    assert scene.fed.members["central"] is process and process.poll() is None, "it went on by itself"
    figures.note(kills=len(recovery_s), most_s_to_the_end=max(recovery_s))


def test_a_commit_cut_off_before_and_after_it_happened(scene: Scene, figures: Any) -> None:
    chance, before = random.Random(7), scene.wire.num_cuts
    for _ in range(pick(1, 10)):
        scene.fed.wait_for_clients(*CLIENTS)
        seed, num_cuts = scene.fed.begin(), scene.wire.num_cuts
        for moment in ("before", "after", "after"):
            time.sleep(chance.uniform(0, 0.4))
            scene.wire.cut_next_commit(moment)
            wait_until(lambda: not scene.wire.is_armed, "a commit")
        assert scene.wire.num_cuts == num_cuts + 3
        scene.assert_calm(seed)
    figures.note(cuts=scene.wire.num_cuts - before)


def test_after_all_that_a_start_leaves_exactly_what_the_rows_name(scene: Scene) -> None:
    scene.fed.kill("central")
    scene.fed.restart_central()
    asked = "SELECT 'models/' || sha256 || '.safetensors' FROM model UNION SELECT memory FROM model WHERE memory != ''"
    named = {name for (name,) in scene.postgres.ask(scene.url, asked)}
    params = Path(scene.fed.folder / "central" / "params")
    assert {path.relative_to(params).as_posix() for path in params.rglob("*") if path.is_file()} == named
    doubled = "SELECT run_id, number FROM round WHERE status = 'committed' GROUP BY 1, 2 HAVING count(*) > 1"
    assert scene.postgres.ask(scene.url, doubled) == []
    assert scene.postgres.ask(scene.url, "SELECT * FROM round WHERE status IN ('open', 'closed')") == []
