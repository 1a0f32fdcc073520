"""Shell completion as the installed console script gives it: commands, and names that only a central node knows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from federation_scene import Federation

BIN = Path(sys.executable).parent
ASKING = {
    "bash": {"COMP_WORDS": "fednode cl", "COMP_CWORD": "1"},
    "zsh": {"_TYPER_COMPLETE_ARGS": "fednode cl"},
    "fish": {"_TYPER_COMPLETE_ARGS": "fednode cl", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
}

pytestmark = pytest.mark.skipif(not (BIN / "fednode").exists(), reason="fednode is not installed as a console script")


def ask(shell: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    variables = os.environ | env | {"_FEDNODE_COMPLETE": f"complete_{shell}"}
    return subprocess.run([BIN / "fednode"], capture_output=True, text=True, env=variables, timeout=60)


@pytest.mark.parametrize("shell", ASKING)
def test_each_shell_is_offered_the_commands_that_begin_so(shell: str) -> None:
    done = ask(shell, ASKING[shell])
    assert done.stderr == ""
    assert "client" in done.stdout
    assert "clients" in done.stdout
    assert "simulate" not in done.stdout


def in_bash(script: str, home: Path, env: dict[str, str]) -> str:
    """What a bash of this home prints, with the console script on its path."""
    variables = os.environ | env | {"HOME": str(home), "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, env=variables, timeout=120, cwd=home
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_bash_that_installed_it_completes_commands_and_the_clients_of_the_central_node(
    federation: Federation, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    # As typed: the shell is found by itself, and its next start knows the completion.
    installed = in_bash("fednode --install-completion; true", home, federation.env)
    assert "bash" in installed
    federation.start_central()
    federation.start_client("hospital-a", "--task", "mnist_3v7", "--offline-sample")
    federation.wait_for_clients("hospital-a")
    script = """
        . "$HOME/.bashrc"
        complete -p fednode
        for line in "fednode clients ro" "fednode clients rotate hos" "fednode run mn" "fednode logs "; do
            COMP_WORDS=($line); [[ $line == *" " ]] && COMP_WORDS+=("")
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
            _fednode_completion fednode
            echo "$line: ${COMPREPLY[*]}"
        done
    """
    assert in_bash(script, home, federation.env).splitlines()[1:] == [
        "fednode clients ro: rotate", "fednode clients rotate hos: hospital-a", "fednode run mn: mnist_3v7",
        "fednode logs : ",
    ]


def test_where_no_central_node_answers_nothing_is_offered_and_nothing_said(federation: Federation) -> None:
    done = ask("bash", federation.env | {"COMP_WORDS": "fednode logs ", "COMP_CWORD": "2"})
    assert (done.stdout.strip(), done.stderr) == ("", "")
