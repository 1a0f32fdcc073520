"""The command line against a real central node and real clients: what a person types and reads, and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from federation_scene import Federation

TASK = ("mnist_3v7", "--set", "task.epochs=2")
PROTOTYPE_LINES = """\
Client registered successfully
Federated Learning config:
--Learning Rate: 1.0
--Epochs: 2
--Batch size: 256
Training started...
Accuracy of model trained at epoch 1 : 0.
Accuracy of model trained at epoch 2 : 0.
Training finished...
""".splitlines()


@pytest.fixture
def two(federation: Federation) -> Federation:
    """A central node and two clients that offer the task without a framework."""
    federation.start_central()
    for number, name in enumerate(("hospital-a", "hospital-b"), 1):
        federation.start_client(name, "--task", "mnist_3v7", "--offline-sample", "--partition", f"{number}/2")
    federation.wait_for_clients("hospital-a", "hospital-b")
    return federation


def test_a_run_is_followed_to_its_end_and_everything_about_it_can_be_read(two: Federation) -> None:
    followed = two.cli("run", *TASK, "--rounds", "2", "--follow")
    assert followed.returncode == 0, followed.stderr
    assert "round 2/2" in followed.stdout
    assert "Run #1 completed after 2 rounds" in followed.stdout

    (run,) = two.json("runs")
    assert (run["status"], run["rounds"], run["clients"]) == ("completed", 2, ["hospital-a", "hospital-b"])
    assert run["metrics"]["accuracy"] > 0.9
    assert {client["name"] for client in two.json("clients")} == {"hospital-a", "hospital-b"}
    models = two.json("models")
    assert [model["round"] for model in models] == [2, 1, 0]
    assert models[0]["sha256"] == run["model_sha256"]

    got = two.json("models", "get", models[0]["id"], "-o", str(two.folder / "got.safetensors"))
    assert load_file(got["path"])["weight"].shape == (784,)
    for command in (("runs",), ("runs", "show", "1"), ("clients",), ("models",), ("logs", "1")):
        shown = two.cli(*command)
        assert shown.returncode == 0, shown.stderr
        assert len(shown.stdout.splitlines()) >= 2, command
    assert "hospital-a" in two.cli("runs", "show", run["run_id"][:16]).stdout


def test_the_client_prints_the_prototypes_lines(two: Federation) -> None:
    assert two.cli("run", *TASK, "--rounds", "1", "--follow").returncode == 0
    lines = two.log("hospital-a").splitlines()
    assert f"Registering in server: {two.url}" in lines
    place = 0
    for wanted in PROTOTYPE_LINES:
        place = next(i for i in range(place, len(lines)) if lines[i].startswith(wanted)) + 1


def test_without_follow_the_id_alone_is_printed_and_with_json_every_line_is_json(two: Federation) -> None:
    accepted = two.cli("run", *TASK, "--rounds", "1")
    assert accepted.returncode == 0
    assert accepted.stdout.strip().startswith("run_")
    followed = two.cli("run", *TASK, "--rounds", "1", "--seed", "3", "--follow", "--json")
    lines = [json.loads(line) for line in followed.stdout.splitlines()]
    assert {"what", "seq", "fields"} <= lines[0].keys()
    assert lines[-1]["status"] == "completed"
    assert lines[-1]["config"]["seed"] == 3
    assert [run["number"] for run in two.json("runs")] == [2, 1]


def test_what_cannot_be_is_refused_with_the_thing_and_the_fix(two: Federation) -> None:
    for args, told in [
        (("run", "mnits_3v7"), "mnist_3v7"),
        (("run", "mnist_3v7", "--strategy", "fedavgx"), "fedavg"),
        (("run", "mnist_3v7", "--strategy", "my_strategy.py:Mine"), "fednode.strategies"),
        (("run", "mnist_3v7", "--set", "task.epoch=3"), "epochs"),
        (("run", "mnist_3v7", "--epochs", "0"), "epochs"),
        (("run", "mnist_3v7", "--clients", "hospital-c"), "hospital-c"),
        (("run", "mnist_3v7", "--clients", "hospital-a", "--min-updates", "2"), "min_updates"),
        (("run", "mnist_3v7", "--rounds", "-1"), "rounds"),
        (("runs", "show", "99"), "99"),
        (("pause", "run_nothing"), "run_nothing"),
        (("models", "get", "nothing"), "nothing"),
    ]:
        done = two.cli(*args)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False), (args, done.stderr)
        assert told in done.stderr, (args, done.stderr)
    assert two.json("runs") == []


def test_pause_resume_and_cancel(two: Federation) -> None:
    long = two.run_in_background(*TASK, "--rounds", "500")
    assert two.json("pause", long, "--now")["status"] == "paused"
    assert two.json("resume", "1")["status"] in ("queued", "running")
    cancelled = two.json("cancel", "#1")
    assert cancelled["status"] == "cancelled"
    assert cancelled["model_sha256"] is not None or cancelled["rounds"] == 0
    again = two.cli("resume", "1")
    assert again.returncode == 1
    assert "cancelled" in again.stderr


def test_nobody_there_is_said_with_the_address(federation: Federation) -> None:
    done = federation.cli("runs")
    assert done.returncode == 3
    assert str(federation.port) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_central_node_on_the_same_port_or_folder_is_refused(federation: Federation) -> None:
    federation.start_central()
    taken = federation.cli("central", "--port", str(federation.port), "--state-dir", str(federation.folder / "other"))
    assert taken.returncode == 2
    assert str(federation.port) in taken.stderr
    locked = federation.cli("central", "--port", "0", "--state-dir", str(federation.folder / "central"))
    assert locked.returncode == 2
    assert str(federation.folder / "central") in locked.stderr


def test_a_client_is_refused_before_it_does_anything_wrong(federation: Federation, tmp_path: Path) -> None:
    federation.start_central()
    for args, code, told in [
        (("--name", "Hospital A"), 2, "Hospital A"),
        (("--name", "a", "--central", "localhost:5000"), 2, "http://"),
        (("--name", "a", "--task", "mnits"), 2, "mnist"),
        (("--name", "a", "--task", "mnist_3v7", "--data", str(tmp_path / "nowhere")), 6, "nowhere"),
        (("--name", "a", "--partition", "4/3"), 2, "no part 4 of 3"),
        (("--name", "a", "--split", "dirichlet:0.5"), 2, "--partition"),
        (("--name", "a", "--task", "mnist_3v7", "--offline-sample", "--token", "op_wrong"), 4, "join"),
    ]:
        done = federation.cli("client", "--state-dir", str(tmp_path / "c"), *args, timeout_s=60)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), (args, done.stderr)
        assert told in done.stderr, (args, done.stderr)


def test_a_bind_beyond_loopback_needs_insecure_and_then_a_token(federation: Federation) -> None:
    refused = federation.cli("central", "--host", "0.0.0.0", "--port", "0", "--state-dir", str(federation.folder / "c"))
    assert refused.returncode == 2
    assert "--insecure" in refused.stderr
    federation.start_central("--host", "0.0.0.0", "--insecure")
    assert federation.json("runs") == []                # this user's note opens it
    stranger = federation.cli("runs", "--token", "join_nonsense")
    assert stranger.returncode == 4


def test_the_central_node_ends_within_ten_seconds_of_sigterm(two: Federation) -> None:
    two.run_in_background(*TASK, "--rounds", "500")
    assert two.stop("central", patience_s=10) == 0
