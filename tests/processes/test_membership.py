"""Who belongs: what a client would say of itself, the command that admits it, a secret that is voided in mid-run."""

from __future__ import annotations

import json
import shlex
import socket
from pathlib import Path

import pytest

import fednode
from federation_scene import Federation, wait_until

CLIENTS = ("hospital-a", "hospital-b")
DATA = ("--task", "mnist_3v7", "--offline-sample")
ROUNDS, SEED = 30, 5


def secret_of(federation: Federation, name: str) -> str:
    path = federation.folder / "clients" / name / "secrets.json"
    return str(json.loads(path.read_text())[federation.url][name])


def test_running_clients_go_on_by_their_keys_when_secrets_and_join_token_are_void(federation: Federation) -> None:
    federation.start_central()
    join_token = federation.json("clients", "join-command")["join_token"]
    for number, name in enumerate(CLIENTS, 1):
        federation.start_client(name, *DATA, "--partition", f"{number}/2", "--token", join_token)
    federation.wait_for_clients(*CLIENTS)
    run_id = federation.run_in_background("mnist_3v7", "--rounds", str(ROUNDS), "--seed", str(SEED))
    before = {name: secret_of(federation, name) for name in CLIENTS}

    assert federation.json("clients", "join-command", "--new-token")["join_token"] != join_token
    for name in CLIENTS:
        assert federation.json("clients", "rotate", name)["name"] == name
    for name in CLIENTS:
        wait_until(lambda name=name: secret_of(federation, name) != before[name], f"a new secret of {name}")
        assert federation.cli("runs", "--token", before[name]).returncode == 4

    summary = federation.end_of(run_id)
    calm = fednode.simulate("mnist_3v7", clients=CLIENTS, rounds=ROUNDS, seed=SEED, offline_sample=True)
    assert (summary["status"], summary["model_sha256"]) == ("completed", calm.model_sha256), summary
    for name in CLIENTS:
        assert federation.members[name].poll() is None, federation.log(name)
        assert "Failed" not in federation.log(name)


def test_the_join_command_is_the_one_that_another_machine_needs(federation: Federation, tmp_path: Path) -> None:
    federation.start_central()
    done = federation.cli("clients", "join-command", "--name", "hospital-c")
    (command,) = done.stdout.splitlines()
    assert "this machine only" in done.stderr
    words = shlex.split(command)
    assert words[:2] == ["fednode", "client"]
    assert federation.url in words
    federation.env["FEDNODE_STATE_DIR"] = str(tmp_path / "another-machine")     # no note of a central node lies there
    federation.start("hospital-c", *words[1:], *DATA)
    wait_until(lambda: "Client registered successfully" in federation.log("hospital-c"), "the client to join")
    wrong = federation.cli("clients", "join-command", "--name", "Hospital C")
    assert (wrong.returncode, wrong.stdout) == (2, "")


def test_a_dry_run_tells_what_a_start_would_send_and_calls_nobody(federation: Federation) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        nobody.setblocking(False)
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        told = federation.json("client", *DATA, "--dry-run", "--name", "hospital-c", "--central", url)
        spoken = federation.cli("client", *DATA, "--dry-run", "--name", "hospital-c", "--central", url)
        with pytest.raises(BlockingIOError):
            nobody.accept()
    assert not (federation.folder / "state").exists()
    assert "images" in told["never"]
    assert (told["central"], told["name"], told["key_fingerprint"]) == (url, "hospital-c", None)
    assert "Nothing was sent" in spoken.stdout
    assert "mnist_3v7@" in spoken.stdout

    federation.start_central()
    federation.start_client("hospital-c", *DATA)
    federation.wait_for_clients("hospital-c")
    (row,) = federation.json("clients")
    assert row["versions"] == told["versions"]
    assert [offer["fingerprint"] for offer in row["offers"]] == [offer["fingerprint"] for offer in told["offers"]]
    assert [offer["summary"] for offer in row["offers"]] == [offer["summary"] for offer in told["offers"]]
    own = ("--state-dir", str(federation.folder / "clients" / "hospital-c"))
    again = federation.json("client", *DATA, "--dry-run", "--name", "hospital-c", *own)
    assert again["key_fingerprint"].startswith("sha256:")


def test_a_client_whose_key_is_known_needs_no_token_at_another_address(federation: Federation) -> None:
    federation.start_central()
    join_token = federation.json("clients", "join-command")["join_token"]
    federation.start_client("hospital-a", *DATA, "--token", join_token)
    federation.wait_for_clients("hospital-a")
    federation.stop("hospital-a")
    moved = federation.url.replace("127.0.0.1", "localhost")        # no secret is kept for this one
    federation.json("clients", "join-command", "--new-token")
    federation.start_client("hospital-a", *DATA, "--token", join_token, "--central", moved)
    federation.wait_for_clients("hospital-a")
    stranger = federation.cli(
        "client", *DATA, "--name", "hospital-b", "--token", join_token, "--central", moved, "--state-dir",
        str(federation.folder / "clients" / "hospital-b"),
    )
    assert stranger.returncode == 4
    assert "no longer" in stranger.stderr
