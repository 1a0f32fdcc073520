"""Nobody reads what is printed, or it cannot be written: a command ends without a traceback, a node goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from federation_scene import FEDNODE, Federation, wait_until
from fednode.cli.terminal import Terminal
from fednode.logs import configure_logs


def unread(*args: str, lines: int, env: dict[str, str]) -> tuple[int, str]:
    """A command whose reader leaves after so many lines: its exit code, and what it said on stderr."""
    command = subprocess.Popen(
        [*FEDNODE, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True, bufsize=1
    )
    assert command.stdout is not None
    for _ in range(lines):
        assert command.stdout.readline()
    command.stdout.close()
    _, said = command.communicate(timeout=120)
    return command.returncode, said


@pytest.mark.parametrize(("args", "lines"), [
    (("--help",), 0), (("config", "show"), 1), (("doctor", "--json"), 0),
], ids=str)
def test_a_command_whose_reader_leaves_ends_without_a_traceback(
    tmp_path: Path, args: tuple[str, ...], lines: int
) -> None:
    code, said = unread(*args, lines=lines, env=os.environ | {"FEDNODE_STATE_DIR": str(tmp_path)})
    assert code in (0, 1)
    assert said == ""


def test_a_demo_whose_reader_leaves_ends_with_all_its_processes(tmp_path: Path) -> None:
    code, said = unread("demo", "--clients", "1", lines=2, env=os.environ | {"FEDNODE_STATE_DIR": str(tmp_path)})
    assert (code, said) == (0, "")
    assert not list((tmp_path / "centrals").glob("*.json")), "its central node has put away its note"


def test_a_client_whose_reader_leaves_goes_on(federation: Federation) -> None:
    federation.start_central()
    client = subprocess.Popen(
        [*FEDNODE, "client", "--name", "a", "--task", "mnist_3v7", "--offline-sample"], env=federation.env,
        cwd=federation.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    federation.members["a"] = client        # ended with the others
    assert client.stdout is not None
    assert client.stderr is not None
    assert client.stdout.readline()
    client.stdout.close()
    wait_until(lambda: federation.get("clients"), "the client to join")
    wait_until(lambda: federation.get("clients")[0]["offers"], "its offer")
    run = federation.end_of(federation.run_in_background("mnist_3v7", "--rounds", "1"))
    assert run["status"] == "completed"
    assert client.poll() is None
    client.terminate()
    assert client.stderr.read() == ""
    client.stderr.close()


# --- logs -----------------------------------------------------------------------------------------------------


@pytest.fixture
def logs_as_they_were() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_log_that_cannot_be_written_breaks_nothing(logs_as_they_were: None) -> None:
    with Path("/dev/full").open("w") as full:
        with pytest.raises(OSError, match="No space"):
            print("the disk is really full", file=full, flush=True)
        configure_logs(stream=full)
        for _ in range(3):
            structlog.get_logger().error("run.waits", error="no space left")
        with pytest.raises(OSError, match="No space"):
            full.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())


def test_a_terminal_that_outlives_its_reader_falls_silent() -> None:
    """Printed twice: the second time there is nobody to be told that there is nobody."""
    said = f"from {Terminal.__module__} import Terminal; t = Terminal(outlives_reader=True)\n" \
           "import sys; input(); t.print('one'); t.print('two'); sys.stderr.write('still here')"
    child = subprocess.Popen([sys.executable, "-c", said], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.close()
    _, told = child.communicate("\n", timeout=60)
    assert (child.returncode, told) == (0, "still here")
