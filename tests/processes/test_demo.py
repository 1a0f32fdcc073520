"""The demo as a person meets it: real processes, the bundled sample, and everything that can go wrong around it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

FEDNODE = [sys.executable, "-m", "fednode"]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return os.environ | {"FEDNODE_STATE_DIR": str(tmp_path / "state")}


def demo(env: dict[str, str], *args: str, timeout_s: float = 200) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*FEDNODE, "demo", *args], capture_output=True, text=True, env=env, timeout=timeout_s)


def processes_of(folder: Path) -> list[str]:
    """Command lines of the processes that have `folder` in theirs."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder) in line and "pytest" not in line:
            found.append(line)
    return found


def wait_for_no_process_of(folder: Path) -> None:
    end = time.monotonic() + 20
    while found := processes_of(folder):
        assert time.monotonic() < end, f"orphans: {found}"
        time.sleep(0.05)


def test_the_demo_trains_across_real_processes_and_ends_with_its_accuracy(env, tmp_path: Path) -> None:
    done = demo(env)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    (place,) = [place for place, line in enumerate(lines) if line.startswith("Final test accuracy: ")]
    accuracy = float(lines[place].partition(": ")[2])
    assert accuracy >= 0.95
    assert any(line.startswith("Dashboard: http://127.0.0.1:") for line in lines)
    assert sum(line.startswith("round ") for line in lines) == 5
    model = next(line for line in lines if line.startswith("Model: ")).split()[1]
    assert Path(model).stat().st_size > 10_000
    assert any("sample" in line for line in lines)
    assert_alone_is_told(lines[place + 1 :], accuracy)
    wait_for_no_process_of(tmp_path)


def assert_alone_is_told(lines: list[str], accuracy: float) -> None:
    """After the result: what each client reached with its own images only; it is less."""
    table = [line.split() for line in lines if line.startswith(("hospital-", "mean "))]
    rows = {name: [float(text) for text in texts[:3]] for name, *texts in table}
    assert rows.keys() == {"hospital-1", "hospital-2", "hospital-3", "mean"}
    for federated, alone, difference in rows.values():
        assert difference == pytest.approx(federated - alone, abs=1e-4)
    assert rows["mean"][2] > 0
    # The test images are cut in three parts of 666 or 667: the mean of their scores is nearly the score of all.
    assert rows["mean"][0] == pytest.approx(accuracy, abs=2e-3)


def test_with_json_the_last_line_is_one_object_and_talk_goes_to_stderr(env) -> None:
    done = demo(env, "--json", "--rounds", "1", "--clients", "2")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert result.keys() >= {"run_id", "status", "rounds", "metrics", "model_sha256", "seconds", "model_path", "url"}
    assert (result["status"], result["rounds"]) == ("completed", 1)
    assert [row["client"] for row in result["alone"]["clients"]] == ["hospital-1", "hospital-2"]


def test_a_port_that_is_taken_is_said_when_it_was_asked_for(env) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = demo(env, "--port", str(port))
    assert done.returncode == 2
    assert f"port {port} is in use" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["Ctrl-C", "SIGTERM", "kill -9"])
@pytest.mark.parametrize("after_s", [0.5, 4.0])
def test_however_the_demo_is_ended_no_process_is_left(env, tmp_path: Path, how: signal.Signals, after_s: float) -> None:
    running = subprocess.Popen([*FEDNODE, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    time.sleep(after_s)
    running.send_signal(how)
    _, errors = running.communicate(timeout=40)
    assert "Traceback" not in errors
    # A signal before Python has loaded anything ends it the plain way; there is nothing to stop yet.
    assert running.returncode in {signal.SIGINT: (130, -2), signal.SIGTERM: (130, -15), signal.SIGKILL: (-9,)}[how]
    wait_for_no_process_of(tmp_path)


def test_an_interrupted_demo_goes_on_where_it_was(env) -> None:
    running = subprocess.Popen([*FEDNODE, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    assert running.stdout is not None
    for line in running.stdout:
        if line.startswith("round 1"):
            break
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=40)
    again = demo(env, "--json")
    assert again.returncode == 0, again.stderr
    result = json.loads(again.stdout.splitlines()[-1])
    assert (result["number"], result["rounds"]) == (1, 5)


def test_a_demo_that_is_interrupted_while_clients_train_alone_goes_on_there(env) -> None:
    args = ("--rounds", "1", "--clients", "2")
    running = subprocess.Popen(
        [*FEDNODE, "demo", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )
    assert running.stdout is not None
    for line in running.stdout:
        if line.startswith("Now each client alone"):
            break
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=40)
    again = demo(env, *args, "--json")
    assert again.returncode == 0, again.stderr
    result = json.loads(again.stdout.splitlines()[-1])
    assert (result["number"], result["rounds"], result["alone"]["run"]) == (1, 1, 1)
    assert [row["run"] for row in result["alone"]["clients"]] == [2, 3]


def test_demos_that_start_in_the_same_moment_do_not_meet_at_one_port(env, tmp_path: Path) -> None:
    args = [*FEDNODE, "demo", "--rounds", "1", "--clients", "1", "--exit"]
    running = [
        subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**env, **own})
        for own in ({"FEDNODE_STATE_DIR": str(tmp_path / name)} for name in ("one", "two"))
    ]
    told = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], told
    ports = {line for output, _ in told for line in output.splitlines() if line.startswith("Dashboard:")}
    assert len(ports) == 2


def test_a_second_demo_beside_the_first_has_its_own_folder_and_port(env, tmp_path: Path) -> None:
    first = subprocess.Popen([*FEDNODE, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    assert first.stdout is not None
    for line in first.stdout:
        if line.startswith("Dashboard"):
            break
    second = demo(env, "--rounds", "1", "--clients", "1", "--json")
    assert second.returncode == 0, second.stderr
    assert "demo-2" in json.loads(second.stdout.splitlines()[-1])["model_path"]
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=40)
    wait_for_no_process_of(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(env, tmp_path: Path) -> None:
    file = tmp_path / "a-file"
    file.write_text("not a folder")
    done = demo(env, "--state-dir", str(file / "below"))
    assert done.returncode == 6
    assert str(file / "below") in done.stderr
    assert "--state-dir" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_torch_the_demo_says_what_to_install(env, tmp_path: Path) -> None:
    """An import hook hides torch, as on a machine that does not have it."""
    hook = tmp_path / "sitecustomize.py"
    hook.write_text(
        "from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        "def without(name, path=None, target=None):\n"
        "    return None if name == 'torch' else find(name, path, target)\n"
        "PathFinder.find_spec = without\n"
    )
    done = demo(env | {"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 2
    assert "pip install 'fednode[torch]'" in done.stderr
    assert "Traceback" not in done.stderr
