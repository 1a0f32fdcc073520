"""Many clients at once, as `fednode bench swarm` plays them: no error, and every update of every client counts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

from federation_scene import FEDNODE, wait_until
from torture_scale import pick

CLIENTS, ROUNDS, PARAMS = pick((40, 3, 1_000), (1_000, 20, 50_000))


def _load(clients: int, rounds: int, params: int) -> list[str]:
    return ["--clients", str(clients), "--rounds", str(rounds), "--params", str(params)]


def test_of_many_clients_at_once_nobody_meets_an_error_and_every_update_counts(tmp_path: Path, figures) -> None:
    done = subprocess.run(
        [*FEDNODE, "bench", "swarm", "--json", *_load(CLIENTS, ROUNDS, PARAMS)],
        capture_output=True, text=True, timeout=3_600, env=os.environ | {"TMPDIR": str(tmp_path)}, check=False,
    )
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    result = json.loads(line)
    figures.note(**result)
    assert (result["errors"], result["first_errors"]) == (0, [])
    assert result["updates"] == CLIENTS * ROUNDS
    assert result["is_model_right"]         # each update adds 1.0, so the last model is the number of rounds
    assert set(result["seconds_per_round"]) == {"median", "min", "max"}
    assert f"round {ROUNDS} of {ROUNDS}" in done.stderr
    assert not list(tmp_path.iterdir())     # the central node's folder is gone


def test_ctrl_c_ends_a_swarm_and_leaves_nothing_behind(tmp_path: Path) -> None:
    swarm = subprocess.Popen(
        [*FEDNODE, "bench", "swarm", *_load(3, 100_000, 10)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    try:
        assert swarm.stdout is not None
        assert any("round 1 of" in line for line in iter(swarm.stdout.readline, ""))
        [folder] = tmp_path.iterdir()
        [note] = (folder / "state" / "centrals").glob("*.json")
        central = json.loads(note.read_text())["pid"]
        swarm.send_signal(signal.SIGINT)
        swarm.communicate(timeout=60)
        assert swarm.returncode == 130
        wait_until(lambda: not Path(f"/proc/{central}").exists(), "the end of the central node")
        assert not list(tmp_path.iterdir())
    finally:
        swarm.kill()
        swarm.wait()
