"""`fednode bench`: each measurement in its smallest form gives one line of figures, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from federation_scene import FEDNODE, wait_until
from fednode.bench.central import MeasuredCentral
from fednode.bench.echo import params_after
from fednode.bench.federation import Federation
from fednode.bench.limit import Limit
from fednode.cli.app import app
from fednode.clock import SystemClock
from fednode.wire.codec import write_params
from fednode.wire.http import Http

EVERY = {"bench", "is_model_right", "load_average", "machine", "fednode"}
SMALLEST = {
    "round": (
        ("--clients", "1", "--mb", "0.001", "--rounds", "2"),
        {"clients", "mb", "rounds", "seconds_per_round", "min", "max", "limit_seconds", "limit_parts", "ratio_to_limit",
         "central_anon_mb", "base_mb", "model_mb", "central_cpu_s", "clients_cpu_s", "errors"},
    ),
    "aggregate": (
        ("--updates", "2", "--mb", "0.1", "--repeats", "1"),
        {"updates", "mb", "strategy", "repeats", "seconds", "min", "max", "gb_s", "validation_gb_s", "memcpy_gb_s",
         "ratio_to_memcpy", "anon_mb", "base_mb", "model_mb"},
    ),
    "start": (
        ("--clients", "1", "--mb", "0.001", "--repeats", "1"),
        {"clients", "mb", "repeats", "seconds", "min", "max", "until", "help_cpu_s", "errors"},
    ),
    "restart": (
        ("--clients", "1", "--mb", "0.001", "--repeats", "1", "--outage", "0.1"),
        {"clients", "mb", "outage_s", "repeats", "seconds", "min", "max", "until_it_answers", "rounds", "errors"},
    ),
    "idle": (
        ("--clients", "2", "--rounds", "1"),
        {"clients", "rounds", "p50_ms", "p99_ms", "max_ms", "kb_a_client", "errors", "first_errors"},
    ),
    "live": (
        ("--clients", "2", "--reports", "2"),
        {"clients", "reports", "p50_ms", "p95_ms", "max_ms", "errors", "first_errors"},
    ),
}


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a measurement makes its folders; and whoever runs this has a database, of which it must not know."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("FEDNODE_DATABASE", "postgresql://nobody@127.0.0.1:1/nothing")
    return tmp_path


def bench(*args: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["bench", *args, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    [line] = done.stdout.splitlines()
    return json.loads(line)


@pytest.mark.parametrize("name", SMALLEST)
def test_a_measurement_is_one_line_of_figures_and_leaves_nothing_behind(name: str, temporary: Path) -> None:
    args, keys = SMALLEST[name]
    result = bench(name, *args)
    assert result.keys() == EVERY | keys
    assert result["bench"] == name
    assert result["is_model_right"] is True
    assert result.get("errors", 0) == 0
    assert all(value > 0 for value in result.values() if type(value) in (int, float) and value != result.get("errors"))
    assert not list(temporary.iterdir())


def test_the_limit_of_a_round_is_the_time_of_its_bytes_in_each_part() -> None:
    limit = Limit(num_clients=2, num_bytes=10**9, clock=SystemClock())
    limit.loopback_gb_s, limit.disk_gb_s, limit.memcpy_gb_s = [9.0, 1.0, 0.1], [0.5], [2.0]
    assert limit.parts["loopback_s"] == 4.0     # 2 models down and 2 updates up, at the median of 1 GB/s
    assert limit.parts["disk_s"] == 6.0         # 2 updates and 1 model, at 0.5 GB/s
    assert limit.parts["memory_s"] == 1.0       # 2 updates, at 2 GB/s
    assert limit.seconds == 11.0


def test_a_model_is_right_only_if_it_is_what_its_rounds_make_of_the_first_one(tmp_path: Path) -> None:
    models = tmp_path / "central" / "params" / "models"
    models.mkdir(parents=True)
    written = write_params(params_after(3, 20), models / "new", is_durable=False, is_named=True)
    (models / "new").rename(models / f"{written.sha256}.safetensors")
    central = MeasuredCentral(url="", join_token="", operator_token="", members=[], folder=tmp_path)
    federation = Federation(central=central, http=Http("http://127.0.0.1:1"), clock=SystemClock())
    run = {"model_sha256": written.sha256, "rounds": 3}
    assert federation.is_right(run, 20)
    assert not federation.is_right(run | {"rounds": 2}, 20)
    assert not federation.is_right(run, 21)


@pytest.mark.parametrize("args", [
    ("round", "--clients", "0"), ("round", "--mb", "0"), ("round", "--rounds", "0"), ("aggregate", "--updates", "0"),
    ("aggregate", "--repeats", "0"), ("start", "--clients", "101"), ("restart", "--outage", "soon"),
    ("idle", "--clients", "10001"), ("live", "--reports", "0"),
])
def test_a_number_that_cannot_be_is_refused_before_anything_starts(args: tuple[str, ...], temporary: Path) -> None:
    assert CliRunner().invoke(app, ["bench", *args]).exit_code == 2
    assert not list(temporary.iterdir())


def test_ctrl_c_ends_a_measurement_with_all_its_processes(temporary: Path) -> None:
    args = ["bench", "round", "--clients", "1", "--mb", "0.001", "--rounds", "800"]
    running = subprocess.Popen(
        [*FEDNODE, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ.copy()
    )
    try:
        assert running.stdout is not None
        assert any("1 client has joined" in line for line in iter(running.stdout.readline, ""))
        started = descendants(running.pid)
        assert len(started) >= 2                # a central node and a client, whatever else they have started
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
        assert running.returncode == 130
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), "the end of all processes")
        assert not list(temporary.iterdir())
    finally:
        running.kill()
        running.wait()


def descendants(pid: int) -> list[int]:
    parents = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with_parent = re.match(r"(\d+) \(.*\) \S (\d+)", _text(file))
        if with_parent:
            parents[int(with_parent[1])] = int(with_parent[2])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:             # it has ended meanwhile
        return ""
