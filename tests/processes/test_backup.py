"""A backup of a central node that trains, and what it is worth. Real processes, `kill -9`."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import fednode
from federation_scene import Federation, wait_until

CLIENTS = ("hospital-a", "hospital-b")
ROUNDS, SEED, EPOCHS = 40, 11, 2


def start(federation: Federation) -> str:
    """A central node, two clients and a run of many short rounds; its id."""
    federation.start_central()
    for number, name in enumerate(CLIENTS, 1):
        federation.start_client(name, "--task", "mnist_3v7", "--offline-sample", "--partition", f"{number}/2")
    federation.wait_for_clients(*CLIENTS)
    asked = ("--rounds", str(ROUNDS), "--seed", str(SEED), "--set", f"task.epochs={EPOCHS}", "--strategy", "fedavgm")
    return federation.run_in_background("mnist_3v7", *asked)


def backup(federation: Federation, file: Path) -> dict[str, Any]:
    return federation.json("central", "--state-dir", str(federation.folder / "central"), "backup", str(file))


def rounds_of(federation: Federation, run_id: str) -> int:
    return int(federation.get(f"runs/{run_id}")["rounds"])


def test_a_run_goes_on_from_a_backup_taken_while_it_trained_and_ends_with_the_same_bits(federation: Federation) -> None:
    run_id = start(federation)
    wait_until(lambda: rounds_of(federation, run_id) >= 5, "some rounds before the backup")
    file = federation.folder / "noon.fednode"
    told = backup(federation, file)
    assert (told["num_runs"], told["file"], told["num_bytes"]) == (1, str(file), file.stat().st_size)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    wait_until(lambda: rounds_of(federation, run_id) > told["num_models"], "rounds that the backup does not know")
    federation.kill("central")

    restored = federation.folder / "restored"
    back = federation.json("central", "restore", str(file), "--state-dir", str(restored))
    assert (back["revision"], back["num_models"]) == (told["revision"], told["num_models"])
    assert not (restored / "restoring").exists()
    federation.start("central", "central", "--port", str(federation.port), "--state-dir", str(restored))
    federation.wait_for_central()
    summary = federation.end_of(run_id)
    calm = fednode.simulate(
        "mnist_3v7", clients=CLIENTS, rounds=ROUNDS, seed=SEED, task_config={"epochs": EPOCHS}, strategy="fedavgm",
        offline_sample=True,
    )
    assert (summary["status"], summary["model_sha256"]) == ("completed", calm.model_sha256), summary


def test_a_restore_is_refused_where_a_central_node_runs_and_from_a_file_that_is_none(federation: Federation) -> None:
    federation.start_central()
    good, bad = federation.folder / "good.fednode", federation.folder / "bad.fednode"
    backup(federation, good)
    running = federation.cli("central", "restore", str(good), "--state-dir", str(federation.folder / "central"))
    assert running.returncode == 2
    assert f"in use by process {federation.members['central'].pid}" in running.stderr
    bad.write_bytes(good.read_bytes()[:2000])
    damaged = federation.cli("central", "restore", str(bad), "--state-dir", str(federation.folder / "new"))
    assert (damaged.returncode, "Traceback" in damaged.stderr) == (6, False)
    assert str(bad) in damaged.stderr
