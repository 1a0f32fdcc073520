"""A task of one's own, the whole way: written, simulated, offered, on the launch form, trained with its own setting."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from federation_scene import Federation
from fednode.errors import UsageError
from fednode.simulation.simulate import simulate
from fednode.tasks.registry import load_task
from fednode.tasks.starters import FRAMEWORKS, Starter, write_starter


def ran(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_new_task_is_trained_with_its_own_setting_from_the_first_file_to_the_model(federation: Federation) -> None:
    told = federation.cli("task", "new", "wells")
    assert told.returncode == 0, told.stderr
    spec, folder = "wells.py:Wells", federation.folder
    for command in (f"simulate {spec} --clients 3", f"client --task {spec}", "run wells --set task.hidden=8"):
        assert f"fednode {command}" in told.stdout

    simulated = federation.cli("simulate", spec, "--clients", "3", "--rounds", "2", "--seed", "1", "--workers", "1")
    assert simulated.returncode == 0, simulated.stderr
    assert "completed after 2 rounds" in simulated.stdout

    federation.start_central()
    federation.start_client("a", "--task", spec)
    federation.wait_for_clients("a")
    with federation.open("/launch?task=wells") as page:
        form = page.read().decode()
    field = re.search(r"<input[^>]*name=\"task\.hidden\"[^>]*>", form)
    assert field is not None and 'value="16"' in field[0]
    assert "Units of the hidden layer" in form

    run_id = federation.run_in_background("wells", "--rounds", "1", "--seed", "1", "--set", "task.hidden=8")
    assert federation.end_of(run_id)["status"] == "completed"
    model = folder / "model.safetensors"
    assert federation.cli("models", "get", federation.json("models")[0]["id"], "-o", str(model)).returncode == 0
    assert load_file(model)["0.weight"].shape == (8, 4)


@pytest.fixture(scope="module")
def starters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Starter]:
    folder = tmp_path_factory.mktemp("starters")
    return {framework: write_starter(f"mine_{framework}", framework, folder) for framework in FRAMEWORKS}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_starter_learns_at_once_and_repeats_to_the_bit(starters: dict[str, Starter], framework: str) -> None:
    starter = starters[framework]
    changed = {starter.own_field: json.loads(starter.own_value)}
    first, again = (simulate(starter.spec, clients=2, rounds=3, seed=1, task_config=changed) for _ in "ab")
    assert (first.status, first.metrics["accuracy"] > 0.5) == ("completed", True)
    assert first.model_sha256 == again.model_sha256
    assert load_task(starter.spec).name == f"mine_{framework}"


def test_a_starters_own_test_passes_in_a_folder_of_its_own(starters: dict[str, Starter]) -> None:
    starter = starters["numpy"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", starter.test.name]
    assert "2 passed" in ran(command, starter.test.parent)


def test_starters_are_clean_by_the_rules_of_a_stranger(starters: dict[str, Starter]) -> None:
    folder = starters["torch"].task.parent
    rules = "E,F,W,I,N,UP,B,C4,SIM,RET,PTH,RUF,PIE,TID,D100,D101,ANN001,ANN201"
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--line-length", "120"]
    ran([*ruff, "--select", rules, "."], folder)


def test_the_first_starter_is_about_23_lines(starters: dict[str, Starter]) -> None:
    text = starters["torch"].task.read_text()
    assert len([line for line in text.splitlines() if line.strip()]) <= 24
    assert all("REPLACE THIS" in starter.task.read_text() for starter in starters.values())


@pytest.mark.parametrize(("name", "told", "instead"), [
    ("MyShapes", "lower-case letters", "my_shapes"), ("2nd floor", "a letter first", "task_2nd_floor"),
    ("über", "lower-case letters", "uber"), ("x.py", "lower-case letters", "x"), ("", "lower-case letters", "my_task"),
    ("class", "a word of Python", "my_class"), ("none", "a word of Python", "my_none"),
    ("random", "hide the module 'random'", "my_random"), ("numpy", "hide the module 'numpy'", "my_numpy"),
    ("fednode", "hide the module 'fednode'", "my_fednode"), ("mnist", "installed here", "my_mnist"),
    ("test_wells", "pytest", "wells"), ("sum", "its class would be Sum", "my_sum"),
    ("config", "its class would be Config", "my_config"), ("a" * 41, "41 letters", "a" * 40),
])
def test_a_name_that_would_do_harm_is_refused_with_one_that_is_fit(
    tmp_path: Path, name: str, told: str, instead: str
) -> None:
    with pytest.raises(UsageError, match=told) as refused:
        write_starter(name, "torch", tmp_path)
    assert refused.value.fix == f"for example {instead!r}"
    assert list(tmp_path.iterdir()) == []
    assert write_starter(instead, "torch", tmp_path).task.exists()


@pytest.mark.parametrize("there", ["wells.py", "test_wells.py"])
def test_nothing_is_overwritten_and_nothing_is_left_half(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(UsageError, match=f"{there} is there already"):
        write_starter("wells", "torch", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [there]
    with pytest.raises(UsageError, match="cannot be written"):
        write_starter("wells", "torch", tmp_path / there / "below")
    with pytest.raises(UsageError, match="no starter for 'jax'"):
        write_starter("waves", "jax", tmp_path)
