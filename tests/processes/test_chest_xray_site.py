"""A site with a folder of X-rays, as its people meet it: the doctor's report, the client's log, simulation, demo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from xray_scene import fill, messy

FEDNODE = [sys.executable, "-m", "fednode"]
SKIPPED = {"chest_xray/train/NORMAL/broken.jpeg", "chest_xray/train/NORMAL/pipe.png"}
SPLITS = {"train": {"NORMAL": 6, "PNEUMONIA": 6}, "test": {"NORMAL": 6, "PNEUMONIA": 7}}


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return os.environ | {"FEDNODE_STATE_DIR": str(tmp_path / "state"), "XDG_CACHE_HOME": str(tmp_path / "cache")}


def fednode(env: dict[str, str], *args: object, timeout_s: float = 250) -> subprocess.CompletedProcess[str]:
    line = [*FEDNODE, *map(str, args)]
    return subprocess.run(line, capture_output=True, text=True, env=env, timeout=timeout_s)


def test_the_doctor_prints_the_report_as_one_object(env, tmp_path: Path) -> None:
    done = fednode(env, "doctor", "--task", "chest_xray", "--data", messy(tmp_path / "data"), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report.keys() == {"ok", "splits", "skipped", "problems", "checks"}
    assert (report["ok"], report["splits"]) == (True, SPLITS)
    assert {file["path"] for file in report["skipped"]} == SKIPPED
    assert all(file.keys() == {"path", "reason"} and file["reason"] for file in report["skipped"])
    (problem,) = report["problems"]
    assert problem.keys() == {"code", "message", "fix"}
    assert problem["code"] == "leak"


def test_a_client_says_before_it_trains_what_it_skips_and_what_is_odd(env, tmp_path: Path) -> None:
    data = messy(tmp_path / "data")
    done = fednode(env, "client", "--name", "a", "--task", "chest_xray", "--data", data, "--dry-run")
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "chest_xray.skipped " in line]
    assert len(told) == len(SKIPPED)
    assert all(any(path in line for line in told) for path in SKIPPED)
    assert "chest_xray.leak" in done.stderr
    assert "skipped_files: 2" in done.stdout


def test_a_folder_without_x_rays_costs_one_line(env, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    offline = env | {"FEDNODE_MNIST_MIRRORS": ""}
    done = fednode(offline, "client", "--name", "a", "--dry-run", "--data", tmp_path / "data")
    told = [line for line in (done.stdout + done.stderr).splitlines() if "X-rays" in line]
    assert done.returncode == 6
    assert len(told) == 1, told


def test_a_small_folder_is_simulated_by_three_hospitals_and_tells_the_metrics_of_the_task(env, tmp_path: Path) -> None:
    done = fednode(
        env, "simulate", "chest_xray", "--data", messy(tmp_path / "data"), "--clients", "3", "--rounds", "1",
        "--seed", "1", "--set", "task.image_size=16", "--workers", "1", "--json",
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    metrics = json.loads(line)["metrics"]
    assert {"auc", "balanced_accuracy", "sensitivity", "specificity", "accuracy", "threshold"} <= metrics.keys()
    assert "broken.jpeg" in done.stderr


def test_the_demo_on_pictures_that_are_called_synthetic_everywhere(env, tmp_path: Path) -> None:
    done = fednode(env, "demo", "--task", "chest_xray", "--clients", "2", "--rounds", "1", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["task"], result["status"], result["rounds"]) == ("chest_xray", "completed", 1)
    assert result["alone"]["name"] == "auc"
    assert "synthetic" in result["data"]
    assert done.stderr.count("synthetic pictures, drawn by fednode: not") == 2      # the data, and the scores
    assert "Not a medical device" in done.stderr
    log = (tmp_path / "state" / "demo" / "logs" / "hospital-1.log").read_text()
    assert "source: synthetic pictures, drawn by fednode: not X-rays" in log


@pytest.mark.parametrize(("args", "code", "words"), [
    (("demo", "--task", "mnits"), 2, "mnist, chest_xray"),
    (("demo", "--task", "chest_xray", "--data", "{folder}"), 6, "looked for"),
    (("simulate", "chest_xray", "--data", "{folder}/nowhere"), 6, "is not there"),
    (("bench", "images"), 2, "--data"),
])
def test_what_is_wrong_with_the_folder_is_said_at_once(args, code, words, env, tmp_path: Path) -> None:
    done = fednode(env, *(arg.format(folder=tmp_path) for arg in args))
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_images_are_timed_beside_pillow_and_training(env, tmp_path: Path) -> None:
    fill(tmp_path / "data", each=4)
    done = fednode(env, "bench", "images", "--data", tmp_path / "data", "--size", "16", "--repeats", "1", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["images"] == 16
    assert {"pillow_one_thread", "pillow_all_threads", "cold", "warm", "training"} <= result["images_per_s"].keys()
    assert all(ratio > 0 for ratio in result["ratios"].values())
