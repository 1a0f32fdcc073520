"""The two promises for a task that keeps something at its clients: BatchNorm that is averaged with nobody's.

Simulated, served, and killed in the middle of a visit and just after an update arrived, when what its visit left is
not yet what counts. As `test_crown.py`, bit for bit; and what stays has not left.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import fednode
from federation_scene import Federation, wait_until
from fednode.wire.codec import read_header

TASK = f"{Path(__file__).with_name('keeping_task.py')}:Keeping"
CLIENTS = ("a", "b")
ROUNDS = 4


def start_armed(federation: Federation, name: str, points: str) -> None:
    calm_env, federation.env = federation.env, {**federation.env, "FEDNODE_FAILPOINT": points}
    try:
        number = CLIENTS.index(name) + 1
        federation.start_client(name, "--task", TASK, "--partition", f"{number}/{len(CLIENTS)}")
    finally:
        federation.env = calm_env


def start_again_when_dead(federation: Federation, name: str) -> None:
    member = federation.members[name]
    wait_until(lambda: member.poll() is not None, f"the death of {name}: {federation.log(name)}")
    assert member.returncode == -signal.SIGKILL, federation.log(name)
    federation.start(name)


def names_of(path: Path) -> set[str]:
    return {tensor.name for tensor in read_header(path).manifest.tensors}


def test_what_stays_at_clients_is_the_same_simulated_served_and_killed(federation: Federation) -> None:
    federation.start_central()
    start_armed(federation, "a", "epoch.told@2")            # in the middle of its training
    start_armed(federation, "b", "update.arrived@3")        # the central node has it, the client has kept nothing yet
    federation.wait_for_clients(*CLIENTS)
    run_id = federation.run_in_background(TASK.rsplit(":", 1)[1].lower(), "--rounds", str(ROUNDS), "--seed", "11")
    for name in CLIENTS:
        start_again_when_dead(federation, name)
    summary: dict[str, Any] = federation.end_of(run_id)
    assert summary["status"] == "completed", summary

    calm = fednode.simulate(TASK, clients=CLIENTS, rounds=ROUNDS, seed=11)
    assert (summary["model_sha256"], summary["metrics"]) == (calm.model_sha256, calm.metrics)
    assert federation.get(f"runs/{run_id}/journal")[-1]["hash"] == calm.journal[-1].hash

    kept = federation.folder / "clients" / "a" / "state" / run_id
    assert sorted(path.name for path in kept.iterdir()) == [str(ROUNDS - 1), str(ROUNDS)]
    assert "norm.running_mean" in names_of(kept / str(ROUNDS) / "local_params.safetensors")
    travelled = list((federation.folder / "central" / "params").rglob("*.safetensors"))
    assert travelled and all(names_of(path) == {"head.weight", "head.bias"} for path in travelled)
