"""The two promises: simulated equals served, and killed and resumed equals never killed. Bit for bit.

Real processes, real HTTP, `kill -9`. Both a task in plain numpy and one in PyTorch. What is compared is the
sha256 of the final model, the metrics, and the journal of decisions.
"""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest

import fednode
from federation_scene import Federation, wait_until

CLIENTS = ("a-clinic", "b-hospital", "c-practice")
PARTITION_SEED = 3
TASKS = {
    "mnist_3v7": {"epochs": 3, "images_per_client": 0},
    "mnist": {"model": "linear", "epochs": 1, "batch_size": 64},
}


def simulated(task: str, rounds: int, **more: Any) -> fednode.Simulation:
    return fednode.simulate(
        task, clients=CLIENTS, rounds=rounds, task_config=TASKS[task], offline_sample=True, split="dirichlet:0.5",
        partition_seed=PARTITION_SEED, seed=11, **more,
    )


def start_clients(federation: Federation, task: str) -> None:
    for number, name in enumerate(CLIENTS, 1):
        federation.start_client(
            name, "--task", task, "--offline-sample", "--partition", f"{number}/{len(CLIENTS)}",
            "--split", "dirichlet:0.5", "--partition-seed", str(PARTITION_SEED),
        )
    federation.wait_for_clients(*CLIENTS)


def run_args(task: str, rounds: int) -> list[str]:
    sets = [f"--set=task.{name}={value}" for name, value in TASKS[task].items()]
    return [task, "--rounds", str(rounds), "--seed", "11", *sets]


def journal_hash(federation: Federation, run_id: str) -> str:
    return federation.get(f"runs/{run_id}/journal")[-1]["hash"]


def assert_same(federation: Federation, summary: dict[str, Any], calm: fednode.Simulation) -> None:
    assert summary["status"] == "completed", summary
    assert summary["model_sha256"] == calm.model_sha256
    assert summary["metrics"] == calm.metrics
    assert journal_hash(federation, summary["run_id"]) == calm.journal[-1].hash


@pytest.mark.parametrize("task", TASKS)
def test_a_served_run_ends_with_the_bits_of_a_simulated_one(federation: Federation, task: str) -> None:
    federation.start_central()
    start_clients(federation, task)
    done = federation.cli("run", *run_args(task, rounds=3), "--follow", "--json")
    assert done.returncode == 0, done.stderr
    assert_same(federation, json.loads(done.stdout.splitlines()[-1]), simulated(task, rounds=3))


@pytest.mark.parametrize("task", TASKS)
def test_a_run_whose_central_node_is_killed_twenty_times_ends_as_if_nothing_had_happened(federation, task: str) -> None:
    num_kills, rounds, chance = 20, 60, random.Random(5)
    federation.start_central()
    start_clients(federation, task)
    run_id = federation.run_in_background(*run_args(task, rounds))
    kills_at: list[int] = []
    while len(kills_at) < num_kills:
        if len(kills_at) % 4:           # three of four kills come after progress, the others as soon as it answers
            wait_until(lambda: rounds_of(federation, run_id) > kills_at[-1], "a round between two kills")
        time.sleep(chance.uniform(0.0, 0.3))
        kills_at.append(rounds_of(federation, run_id))
        federation.kill("central")
        federation.restart_central()
    assert_same(federation, federation.end_of(run_id), simulated(task, rounds))
    assert len(set(kills_at)) > num_kills / 2, "the kills were to be spread over the rounds"


def rounds_of(federation: Federation, run_id: str) -> int:
    """Committed rounds of a run that must still be running: else the test would kill nothing."""
    summary = federation.get(f"runs/{run_id}")
    assert summary["status"] == "running", "the run ended before the last kill: give it more work"
    return int(summary["rounds"])


@pytest.mark.parametrize("task", TASKS)
def test_a_run_whose_clients_are_killed_ends_as_if_nothing_had_happened(federation: Federation, task: str) -> None:
    rounds, chance = 12, random.Random(6)
    federation.start_central()
    start_clients(federation, task)
    run_id = federation.run_in_background(*run_args(task, rounds))
    for number in range(6):
        name = CLIENTS[number % len(CLIENTS)]
        time.sleep(chance.uniform(0.0, 0.5))
        rounds_of(federation, run_id)
        federation.kill(name)
        federation.start(name)
    assert_same(federation, federation.end_of(run_id), simulated(task, rounds))


def test_as_bf16_too_it_ends_with_the_bits_of_a_simulated_run_whoever_is_killed(federation: Federation) -> None:
    task, rounds = "mnist_3v7", 12
    federation.start_central()
    start_clients(federation, task)
    run_id = federation.run_in_background(*run_args(task, rounds), "--encoding", "bf16")
    for name in ("central", CLIENTS[1], "central"):
        before = rounds_of(federation, run_id)
        wait_until(lambda before=before: rounds_of(federation, run_id) > before, "a round between two kills")
        federation.kill(name)
        federation.restart_central() if name == "central" else federation.start(name)
    calm = simulated(task, rounds, encoding="bf16")
    assert_same(federation, federation.end_of(run_id), calm)
    assert calm.model_sha256 != simulated(task, rounds).model_sha256
