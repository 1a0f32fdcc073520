"""A disk that is really full: a small file system of its own, filled by the run itself, then given room again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from federation_scene import Federation, wait_until


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_holds_the_run_says_so_and_room_lets_it_go_on(federation: Federation, small_disk: Path) -> None:
    federation.start_central("--state-dir", str(small_disk / "central"))
    federation.start_client("hospital-a", "--task", "mnist_3v7", "--offline-sample")
    federation.wait_for_clients("hospital-a")
    run_id = federation.run_in_background("mnist_3v7", "--rounds", "5000", "--set", "task.epochs=1")
    wait_until(lambda: "full" in federation.log("central"), "the disk to be full")
    held = federation.get(f"runs/{run_id}")
    assert held["status"] == "running"

    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    went_on = wait_until(lambda: federation.get(f"runs/{run_id}")["rounds"] > held["rounds"] + 2, "the run to go on")
    assert went_on
    assert "Traceback" not in federation.log("central")
    assert federation.json("cancel", run_id)["status"] == "cancelled"
