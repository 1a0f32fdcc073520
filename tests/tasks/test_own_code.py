"""A file beside a task's file: what it says is part of what the task is, and it is the one that runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fednode.client.approvals import code_of_file
from fednode.errors import NotFound, TaskFailed
from fednode.own_code import neighbours_of, source_of
from fednode.tasks.registry import load_task

TASK = """
import numpy as np
from fednode import Metrics, Params, Task, Update
{imports}
class Constant(Task):
    def initial_params(self, seed):
        return Params({{"w": np.zeros(1, np.float32)}})
    def train(self, params, visit):
        return Update(client=visit.site.client, params=params, num_examples=1)
    def evaluate(self, params, visit):
        return Metrics(values={{}})
"""


def written(folder: Path, imports: str, beside: dict[str, str]) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "own.py").write_text(TASK.format(imports=imports))
    for name, text in beside.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return f"{folder / 'own.py'}:Constant"


def fingerprint(spec: str) -> str:
    return load_task(spec).fingerprint


@pytest.mark.parametrize("imports", ["from {0}_one import RATE", "def later():\n    import {0}_one"])
def test_a_neighbour_is_part_of_the_fingerprint_however_it_is_imported(tmp_path: Path, imports: str) -> None:
    name = f"nb{len(imports)}"              # another each time: a process keeps what a name means
    beside = {f"{name}_one.py": f"from {name}_two import RATE", f"{name}_two.py": "RATE = 3"}
    spec = written(tmp_path, imports.format(name), beside)
    before = fingerprint(spec)
    (tmp_path / "unrelated.py").write_text("x = 1")
    assert fingerprint(spec) == before
    (tmp_path / f"{name}_two.py").write_text("RATE = 31")
    assert fingerprint(spec) != before


def test_the_same_neighbours_elsewhere_say_the_same(tmp_path: Path) -> None:
    imports = "def later():\n    import nb_pack.part, nb_same"
    beside = {"nb_same.py": "x = 1", "nb_pack/__init__.py": "", "nb_pack/part.py": "y = 2"}
    here, there = (
        Path(written(tmp_path / place, imports, beside).removesuffix(":Constant")) for place in ("here", "there")
    )
    assert source_of(here) == source_of(there)
    assert b"# --- nb_pack/part.py, beside it ---" in source_of(here)
    (tmp_path / "there" / "nb_pack" / "part.py").write_text("y = 3")
    assert source_of(here) != source_of(there)


def test_an_edited_neighbour_is_what_runs_next(tmp_path: Path) -> None:
    spec = written(tmp_path, "from nb_edited import ROUNDS", {"nb_edited.py": "ROUNDS = 3"})
    text = (tmp_path / "own.py").read_text().replace("(Task):", "(Task):\n    default_rounds = ROUNDS")
    (tmp_path / "own.py").write_text(text)
    assert load_task(spec).kind.default_rounds == 3
    (tmp_path / "nb_edited.py").write_text("ROUNDS = 12")
    assert load_task(spec).kind.default_rounds == 12


def test_a_neighbour_whose_name_means_another_file_is_refused(tmp_path: Path) -> None:
    imports = "def later():\n    import nb_common"
    load_task(written(tmp_path / "a", "from nb_common import x", {"nb_common.py": "x = 1"}))
    with pytest.raises(NotFound, match=r"imports 'nb_common', which lies beside it, but .* means .*/a/nb_common.py"):
        load_task(written(tmp_path / "b", imports, {"nb_common.py": "x = 2"}))
    with pytest.raises(NotFound, match="imports 'numpy'"):
        load_task(written(tmp_path / "c", "", {"numpy.py": "raise ValueError"}))


def test_names_of_python_and_of_fednode_and_installed_packages_are_no_neighbours(tmp_path: Path) -> None:
    spec = written(tmp_path, "import json", {"json.py": "raise ValueError", "fednode.py": "raise ValueError"})
    assert neighbours_of(Path(spec.rpartition(":")[0])) == {}
    installed = Path(pytest.__file__).parent.with_name("typing_extensions.py")
    assert installed.exists() and neighbours_of(installed) == {}


@pytest.mark.parametrize(("text", "spec", "error", "told", "fix"), [
    ("x = 1\nclass Thing: pass", "own.py", NotFound, "there is no task in .*own.py", "extends fednode.Task"),
    ("class Thing: pass", "own.py:Thing", NotFound, "no task 'Thing': that class extends something else", "none"),
    ("from fednode.tasks.mnist import Mnist", "own.py:Mnist", NotFound, "imported there from fednode.tasks.mnist", ""),
    (TASK.format(imports=""), "own.py:constant", NotFound, "no task 'constant'", "did you mean .*own.py:Constant"),
    (TASK.format(imports="") + "class B(Constant): pass\n", "own.py", NotFound, "2 tasks: B, Constant", "own.py:"),
    ("from .model import Net", "own.py", TaskFailed, r"relative import .*\(own.py, line 1\)", "without the dot"),
    ("x = 1\nopen('/nowhere/x')", "own.py", TaskFailed, r"FileNotFoundError: .*\(own.py, line 2\)", "mend"),
    ("from fednode import Metric\nMetric(name='a', combine='rmse')", "own.py", TaskFailed, "cannot be 'rmse'", "mean"),
])
def test_a_file_without_a_task_to_use_says_why(
    tmp_path: Path, text: str, spec: str, error: type[NotFound | TaskFailed], told: str, fix: str
) -> None:
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(error, match=told) as refused:
        load_task(str(tmp_path / spec))
    assert re.search(fix, refused.value.fix), refused.value.fix


def test_what_an_operator_approves_by_hand_is_what_a_run_pins(tmp_path: Path) -> None:
    spec = written(tmp_path, "from nb_approved import x", {"nb_approved.py": "x = 1"})
    asked = code_of_file(spec)
    assert asked.fingerprint == fingerprint(spec)
    assert "x = 1" in asked.source
