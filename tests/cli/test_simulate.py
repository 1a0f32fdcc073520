"""`fednode simulate` as a person runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

ARGS = ("mnist_3v7", "--clients", "2", "--rounds", "2", "--offline-sample", "--seed", "7", "--set", "task.epochs=2")


def simulate(*args: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fednode", "simulate", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120)


def test_people_read_a_line_a_round_and_the_result(tmp_path: Path) -> None:
    done = simulate(*ARGS, "-o", str(tmp_path / "model.safetensors"))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("before training accuracy 0.5")
    assert [line.split()[1] for line in lines if line.startswith("round ")] == ["1", "2"]
    assert any(line.startswith("completed after 2 rounds") and line.endswith("seed 7") for line in lines)
    assert load_file(tmp_path / "model.safetensors")["weight"].shape == (784,)


def test_with_json_stdout_is_one_object_and_any_number_of_workers_gives_the_same_model() -> None:
    results = []
    for workers in ("1", "2"):
        done = simulate(*ARGS, "--json", "--workers", workers)
        assert done.returncode == 0, done.stderr
        (line,) = done.stdout.splitlines()
        results.append(json.loads(line))
    assert results[0].keys() >= {"run_id", "status", "rounds", "metrics", "model_sha256", "seconds"}
    assert results[0]["model_sha256"] == results[1]["model_sha256"]
    assert results[0]["metrics"] == results[1]["metrics"]


@pytest.mark.parametrize(("args", "code", "told"), [
    (("mnits",), 2, "mnist"),
    (("mnist_3v7", "--data", "/nowhere"), 6, "/nowhere"),
    (("mnist_3v7", "--offline-sample", "--split", "dirichlet:0"), 2, "dirichlet"),
    (("nowhere.py:Task",), 2, "nowhere.py"),
    (("mnist_3v7", "--strategy", "nowhere.py:Mine"), 2, "nowhere.py"),
    (("mnist_3v7", "--offline-sample", "--strategy", "fedavgg"), 2, "did you mean 'fedavg'?"),
])
def test_what_cannot_be_is_refused(args: tuple[str, ...], code: int, told: str) -> None:
    done = simulate(*args)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert told in done.stderr
