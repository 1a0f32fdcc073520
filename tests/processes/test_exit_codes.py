"""Every exit code of docs/reference/exit-codes.md in a real situation; and of every command `--json`, one line."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import typer

from federation_scene import FEDNODE, Federation, free_port, wait_until
from fednode import errors
from fednode.cli.app import app

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "exit-codes.md"
WITHOUT_JSON = {"fednode central"}          # it serves: there is no result to print


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """A central node, a client, a paused run (#1) and a cancelled one (#2)."""
    federation = Federation(tmp_path_factory.mktemp("shared"))
    try:
        federation.start_central()
        federation.start_client("hospital-a", "--task", "mnist_3v7", "--offline-sample")
        federation.wait_for_clients("hospital-a")
        for verb in (("pause", "--now"), ("cancel",)):
            run_id = federation.run_in_background("mnist_3v7", "--rounds", "5000", "--clients", "hospital-a")
            wait_until(lambda run_id=run_id: federation.get(f"runs/{run_id}")["rounds"], "a first round")
            federation.json(verb[0], run_id, *verb[1:])
        (federation.folder / "empty").mkdir()
        make_newer_store(federation.folder / "newer")
        yield federation
    finally:
        federation.stop_all()


def make_newer_store(folder: Path) -> None:
    """A state dir whose tables a newer fednode wrote."""
    folder.mkdir()
    with closing(sqlite3.connect(folder / "store.sqlite")) as database:
        database.execute("create table alembic_version (version_num text)")
        database.execute("insert into alembic_version values ('v9999')")
        database.commit()


SITUATIONS: list[tuple[int, str]] = [
    (0, "runs"),
    (0, "--version"),
    (0, "doctor --state-dir {folder}/central"),
    (1, "logs 2 --follow"),
    (1, "resume 2"),
    (2, "runs --no-such-flag"),
    (2, "no-such-command"),
    (2, "runs show 99"),
    (2, "run mnits_3v7"),
    (2, "central --port {port} --state-dir {folder}/another"),
    (2, "central --port 0 --state-dir {folder}/central"),
    (2, "logs 1 --follow --timeout soon"),
    (3, "runs --central http://127.0.0.1:{nobody}"),
    (3, "doctor --central http://127.0.0.1:{nobody} --task mnist_3v7 --offline-sample"),
    (4, "runs --token op_wrong"),
    (4, "client --name new --task mnist_3v7 --offline-sample --token join_wrong"),
    (5, "logs 1 --follow --timeout 1"),
    (6, "simulate mnist_3v7 --data {folder}/nowhere"),
    (6, "doctor --task mnist_3v7 --data {folder}/empty"),
    (6, "central restore {folder}/central.log --state-dir {folder}/restored"),
    (7, "central --port 0 --state-dir {folder}/newer"),
    (7, "central backup {folder}/file --state-dir {folder}/newer"),
]


@pytest.mark.parametrize(("code", "line"), SITUATIONS, ids=[f"{code} {line}" for code, line in SITUATIONS])
def test_each_situation_ends_with_its_code_and_says_why(shared: Federation, code: int, line: str) -> None:
    words = line.format(folder=shared.folder, port=shared.port, nobody=free_port()).split()
    done = shared.cli(*words)
    said = done.stdout + done.stderr
    assert (done.returncode, "Traceback" in said) == (code, False), said
    assert code == 0 or "Fix: " in said or "Error: " in said, said


def test_an_interrupt_ends_a_command_with_130(shared: Federation) -> None:
    with subprocess.Popen(
        [*FEDNODE, "logs", "1", "--follow"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=shared.env
    ) as following:
        assert following.stdout is not None
        assert following.stdout.readline()          # it follows
        following.send_signal(signal.SIGINT)
        _, said = following.communicate(timeout=60)
    assert (following.returncode, "Traceback" in said) == (130, False), said


def test_the_page_lists_every_code_that_there_is() -> None:
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE.read_text(), re.MULTILINE)}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.FednodeError)]
    assert listed == {kind.exit_code for kind in kinds} | {0, 130}
    assert listed == {code for code, _ in SITUATIONS} | {130}


# --- one line of JSON ---------------------------------------------------------------------------------


def commands(command: typer.core.TyperCommand | typer.core.TyperGroup, name: str = "fednode") -> dict[str, set[str]]:
    """Every command that does something, and its flags."""
    found: dict[str, set[str]] = {}
    below = getattr(command, "commands", {})
    for word, sub in below.items():
        found |= commands(sub, f"{name} {word}")
    if not below or getattr(command, "invoke_without_command", False):
        found[name] = {flag for param in command.params for flag in param.opts}
    return found


def test_every_command_that_has_a_result_takes_json() -> None:
    found = commands(typer.main.get_command(app))
    assert {name for name, flags in found.items() if "--json" not in flags} == WITHOUT_JSON


@pytest.mark.parametrize("line", [
    "runs", "runs show 1", "clients", "clients join-command", "models", "logs 1", "config show",
    "doctor --state-dir {folder}/central", "central backup {folder}/b.tar --state-dir {folder}/central",
    "client --dry-run --task mnist_3v7 --offline-sample --name new",
    "simulate mnist_3v7 --offline-sample --clients 2 --rounds 1 --workers 1",
])
def test_with_json_stdout_is_one_line_of_json(shared: Federation, line: str) -> None:
    done = shared.cli(*line.format(folder=shared.folder).split(), "--json")
    assert done.returncode == 0, done.stderr
    (only,) = done.stdout.splitlines()
    found = json.loads(only)
    assert isinstance(found, list) == (line.split()[0] in ("runs", "clients", "models", "logs", "config")
                                       and line not in ("runs show 1", "clients join-command"))
