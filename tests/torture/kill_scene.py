"""A federation whose members are told where to die: started with a failpoint, waited for, started again without it.

One federation lives through many kills: each has a fresh run, of which the calm twin is simulated once. What a run must
leave behind, whatever happened to it, is in `assert_nothing_is_left`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import sqlite3
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Collection
from itertools import count
from pathlib import Path
from typing import Any

import fednode
from federation_scene import Federation, wait_until

CLIENTS = ("a-clinic", "b-hospital", "c-practice")
ROUNDS = 3                              # 0 makes the params, 1 to 3 train, 4 measures
TASK = {"epochs": 2, "images_per_client": 64}
REQUEST = {"task": "mnist_3v7", "rounds": ROUNDS, "task_config": TASK, "strategy": "fedavgm"}
_seeds = count(11)


def calm(asked: dict[str, Any]) -> fednode.Simulation:
    """What a run that was asked for so must end with."""
    return fednode.simulate(**asked, clients=CLIENTS, offline_sample=True, split="dirichlet:0.5", partition_seed=3)


class KillableFederation(Federation):
    """Members that die by themselves, at the points of `fednode.failpoints`."""

    def __init__(self, folder: Path, *, is_forked: bool = True) -> None:
        super().__init__(folder, is_forked=is_forked)
        self.asked: dict[int, dict[str, Any]] = {}          # by seed: the runs
        self.num_asked: Counter[int] = Counter()            # by seed

    def start_armed(self, name: str, points: str, **more: str) -> None:
        """Start a member, as it was, to die at one of these points. `more`: of its environment."""
        calm_env, self.env = self.env, {**self.env, "FEDNODE_FAILPOINT": points, **more}
        try:
            self.start(name)
        finally:
            self.env = calm_env

    def restart_armed(self, name: str, points: str, **more: str) -> None:
        self.kill(name)
        self.start_armed(name, points, **more)
        if name == "central":
            self.wait_for_central()

    def wait_for_death(self, name: str, patience_s: float = 60.0) -> None:
        """The failpoint struck: the member was killed, and by itself. Fails the test otherwise."""
        wait_until(lambda: self.members[name].poll() is not None, f"the death of {name}: {self.log(name)}", patience_s)
        assert self.members[name].returncode == -signal.SIGKILL, self.log(name)

    def ending(self, seed: int) -> tuple[str, dict[str, Any], str]:
        """What a run must end with again, if it is the same: model, metrics, journal."""
        run_id = self.run_of(seed)
        ended = self.end_of(run_id, 200)
        assert ended["status"] == "completed", (ended, self.log("central"))
        return ended["model_sha256"], ended["metrics"], self.get(f"runs/{run_id}/journal")[-1]["hash"]

    def dead_of(self, names: Collection[str]) -> set[str]:
        return {name for name in names if self.members[name].poll() is not None}

    def central_args(self) -> list[str]:
        return ["central", "--port", str(self.port), "--state-dir", str(self.folder / "central")]

    def client_args(self, name: str, number: int = 1) -> list[str]:
        """Of a client that has the part `number` of the data."""
        return [
            "client", "--name", name, "--state-dir", str(self.folder / "clients" / name), "--task", "mnist_3v7",
            "--offline-sample", "--partition", f"{number}/{len(CLIENTS)}", "--split", "dirichlet:0.5",
            "--partition-seed", "3",
        ]

    def start_all(self) -> None:
        self.start_central()
        for number, name in enumerate(CLIENTS, 1):
            self.start(name, *self.client_args(name, number))
        self.wait_for_clients(*CLIENTS)

    def everybody_is_there(self) -> bool:
        with contextlib.suppress(OSError):
            there = {row["name"] for row in self.get("clients") if row["status"] in ("online", "busy")}
            return there >= set(CLIENTS)
        return False

    def begin(self, **changes: Any) -> int:
        """Ask for a run, of a seed that no other has; the seed. The answer may be lost with the central node."""
        asked = REQUEST | {"seed": next(_seeds)} | changes
        seed = int(asked["seed"])
        self.asked[seed] = asked
        self.num_asked[seed] += 1
        self._ask(asked)
        return seed

    def _ask(self, asked: dict[str, Any]) -> None:
        body = json.dumps(asked).encode()
        request = urllib.request.Request(f"{self.url}/api/v1/runs", body, {"Content-Type": "application/json"})
        try:
            urllib.request.urlopen(request, timeout=10).close()
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error
        except (OSError, http.client.HTTPException):
            assert self.members["central"].wait(30) == -signal.SIGKILL, self.log("central")

    def run_of(self, seed: int) -> str:
        """The id of the last run of this seed; asked for again where the central node died before it wrote it."""
        found = [run["run_id"] for run in self.get("runs") if run["config"]["seed"] == seed]
        if len(found) < self.num_asked[seed]:
            self._ask(self.asked[seed])
            return self.run_of(seed)
        assert len(found) == self.num_asked[seed], "one run for each that was asked for"
        return str(found[0])


def assert_calm(fed: KillableFederation, seed: int) -> None:
    """The run ended as if nothing had happened, and left nothing behind."""
    twin = calm(fed.asked[seed])
    assert fed.ending(seed) == (twin.model_sha256, twin.metrics, twin.journal[-1].hash)
    assert_nothing_is_left(fed)


def assert_nothing_is_left(fed: KillableFederation) -> None:
    """On the disk lies what rows name, and nothing else; no row is of nothing. All runs have ended."""
    wait_until(lambda: not left_over(fed), f"the end of left-overs: {left_over(fed)}", 10)
    with contextlib.closing(sqlite3.connect(fed.folder / "central" / "store.sqlite")) as store:
        assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert store.execute("PRAGMA foreign_key_check").fetchall() == []
        for question in NOTHING:
            assert store.execute(question).fetchall() == [], question


NOTHING = (
    "SELECT * FROM assignment WHERE status IN ('waiting', 'leased')",
    "SELECT * FROM round WHERE status IN ('open', 'closed')",
    "SELECT * FROM run WHERE status IN ('running', 'queued') OR reason != ''",
    "SELECT * FROM [update] u WHERE NOT EXISTS (SELECT * FROM assignment a WHERE (a.run_id, a.number, a.attempt, "
    "a.client) = (u.run_id, u.number, u.attempt, u.client) AND a.status = 'reported')",
    "SELECT run_id, number FROM round WHERE status = 'committed' GROUP BY 1, 2 HAVING count(*) > 1",
    "SELECT * FROM round r WHERE status = 'committed' AND kind != 'evaluate' AND NOT EXISTS "
    "(SELECT * FROM model m WHERE m.run_id = r.run_id AND m.round = r.number)",
    "SELECT name FROM client GROUP BY name HAVING count(*) > 1",
)


def left_over(fed: KillableFederation) -> list[str]:
    """What lies in the folders and is nobody's, and what is missing there."""
    central = fed.folder / "central"
    with contextlib.closing(sqlite3.connect(central / "store.sqlite")) as store:
        named = {f"models/{sha256}.safetensors" for (sha256,) in store.execute("SELECT sha256 FROM model")}
        named |= {memory for (memory,) in store.execute("SELECT memory FROM model WHERE memory != ''")}
    params = central / "params"
    found = {path.relative_to(params).as_posix() for path in params.rglob("*") if path.is_file()}
    half_written = [str(path) for path in fed.folder.rglob("*") if path.suffix in (".tmp", ".part")]
    unsent = [str(path) for path in (fed.folder / "clients").glob("*/outbox/*")]
    return sorted(found ^ named) + half_written + unsent
