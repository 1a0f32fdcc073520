"""Tasks by name, by file and by class; fingerprints; what is said where something is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fednode.errors import BadConfig, DataError, NotFound, TaskFailed
from fednode.tasks.base import Site, Task, Visit
from fednode.tasks.mnist import Mnist
from fednode.tasks.registry import installed_tasks, load_task, offer_of

EXAMPLE = Path(__file__).with_name("my_digits.py")

NUMPY_TASK = """
import numpy as np
from fednode import Metrics, Params, Task, Update

class Constant(Task):
    def initial_params(self, seed):
        return Params({"w": np.zeros(1, np.float32)})
    def train(self, params, visit):
        return Update(client=visit.site.client, params=params, num_examples=1)
    def evaluate(self, params, visit):
        return Metrics(values={})
"""


def written(folder: Path, text: str, name: str = "my_task.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_tasks_that_come_with_fednode_are_installed() -> None:
    assert {"mnist", "mnist_3v7"} <= set(installed_tasks())


def test_a_built_in_task_is_fingerprinted_by_its_version() -> None:
    found = load_task("mnist")
    assert (found.spec, found.name, found.fingerprint, found.kind) == ("mnist", "mnist", "mnist@1", Mnist)
    assert load_task(Mnist) == found


def test_an_unknown_name_is_answered_with_the_nearest_and_all_others() -> None:
    with pytest.raises(NotFound, match="'minst'") as missing:
        load_task("minst")
    assert "did you mean 'mnist'?" in missing.value.fix
    assert "mnist_3v7" in missing.value.fix


def test_a_file_is_fingerprinted_by_its_source(tmp_path: Path) -> None:
    path = written(tmp_path, NUMPY_TASK)
    first = load_task(f"{path}:Constant")
    assert first.name == "constant" and first.fingerprint.startswith("constant#")
    assert len(first.fingerprint) == len("constant#") + 12
    assert load_task(f"{path}:Constant") == first
    path.write_text(NUMPY_TASK + "\n# edited\n")
    edited = load_task(f"{path}:Constant")
    assert edited.fingerprint != first.fingerprint and edited.kind is not first.kind


def test_the_same_file_elsewhere_has_the_same_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    here, there = written(tmp_path, NUMPY_TASK), written(tmp_path / "b", NUMPY_TASK)
    assert load_task(f"{here}:Constant").fingerprint == load_task(f"{there}:Constant").fingerprint


def test_the_only_task_of_a_file_needs_no_name_and_relative_paths_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, NUMPY_TASK)
    monkeypatch.chdir(tmp_path)
    found = load_task("my_task.py")
    assert found == load_task("my_task.py:Constant")
    assert found.spec == f"{tmp_path / 'my_task.py'}:Constant"


def test_a_class_from_a_file_is_what_the_file_is() -> None:
    by_file = load_task(f"{EXAMPLE}:Digits")
    by_class = load_task(by_file.kind)
    assert (by_class.spec, by_class.fingerprint) == (by_file.spec, by_file.fingerprint)


def test_a_class_typed_into_a_notebook_can_be_used() -> None:
    space: dict[str, object] = {"__name__": "__main__notebook__"}
    exec(NUMPY_TASK, space)
    kind = space["Constant"]
    assert isinstance(kind, type)
    assert load_task(kind).fingerprint == "constant#unsaved"


def test_a_subclass_does_not_pass_for_the_task_that_it_extends(tmp_path: Path) -> None:
    path = written(tmp_path, "from fednode.tasks.mnist import Mnist\nclass Mine(Mnist):\n    version = 1\n")
    found = load_task(f"{path}:Mine")
    assert found.name == "mine" and found.fingerprint.startswith("mine#")


@pytest.mark.parametrize(
    ("text", "spec", "error", "said"),
    [
        (NUMPY_TASK, "other.py:Constant", NotFound, "other.py cannot be read: No such file"),
        (NUMPY_TASK, "my_task.py:Konstant", NotFound, "has no task 'Konstant'"),
        ("x = 1", "my_task.py", NotFound, "there is no task in "),
        ("def f(:\n", "my_task.py:A", TaskFailed, "SyntaxError"),
        ("raise SystemExit(3)", "my_task.py:A", TaskFailed, "SystemExit: 3"),
        ("import no_such_module_xyz", "my_task.py:A", NotFound, "needs no_such_module_xyz, which is not installed"),
        ("from fednode import Task\nclass A(Task): pass", "my_task.py:A", NotFound, "not define evaluate, init"),
    ],
)
def test_what_cannot_be_loaded_is_said_honestly(
    tmp_path: Path, text: str, spec: str, error: type[Exception], said: str
) -> None:
    written(tmp_path, text)
    with pytest.raises(error, match=said):
        load_task(str(tmp_path / spec))


def test_a_file_that_failed_can_be_mended(tmp_path: Path) -> None:
    path = written(tmp_path, "raise ValueError('once')")
    for _ in range(2):
        with pytest.raises(TaskFailed, match="ValueError: once"):
            load_task(f"{path}:Constant")
    path.write_text(NUMPY_TASK)
    assert load_task(f"{path}:Constant").name == "constant"


def test_a_file_may_import_its_neighbours(tmp_path: Path) -> None:
    written(tmp_path, "RATE = 3", "neighbour_of_my_task.py")
    path = written(tmp_path, "from neighbour_of_my_task import RATE" + NUMPY_TASK + "    default_rounds = RATE\n")
    assert load_task(f"{path}:Constant").kind.default_rounds == 3


def test_an_offer_holds_what_the_central_node_needs() -> None:
    offer = offer_of(load_task("mnist_3v7"), Site(client="a", offline_sample=True))
    assert offer.schema["additionalProperties"] is False
    assert offer.schema["properties"]["epochs"]["default"] == 20
    assert "proximal_mu" not in offer.schema["properties"]
    assert [metric.name for metric in offer.metrics] == ["accuracy", "loss"]


def test_an_offer_needs_data(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        offer_of(load_task("mnist"), Site(client="a", data=tmp_path / "nowhere"))


def test_a_task_is_bound_to_a_checked_config() -> None:
    assert load_task("mnist").bind({"epochs": 3}).config.epochs == 3
    with pytest.raises(BadConfig, match="epochs"):
        load_task("mnist").bind({"epochs": 0})


def digits_folder(tmp_path: Path) -> Path:
    """100 images a split, of ten digits: digit d is a bright row d."""
    labels = np.arange(100) % 10
    images = np.zeros((100, 28, 28), np.uint8)
    images[np.arange(100), labels] = 255
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", images=images, labels=labels)
    return tmp_path


def test_the_example_of_a_persons_own_task_has_23_lines_and_learns(tmp_path: Path) -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 23
    found = load_task(f"{EXAMPLE}:Digits")
    site = Site(client="a", data=digits_folder(tmp_path))
    offer = offer_of(found, site)
    assert (offer.task, offer.summary["train_examples"]) == ("digits", 100)
    task: Task = found.bind({"epochs": 30, "batch_size": 10, "learning_rate": 0.5})
    visit = Visit(site=site, config=task.config, seed=1, client_seed=1, round=1)
    update = task.train(task.initial_params(1), visit)
    assert task.evaluate(update.params, visit).values["accuracy"] == 1.0


def without_torch(statement: str) -> str:
    """What `statement` says in a process in which torch cannot be imported."""
    code = f"import sys; sys.modules['torch'] = None\nfrom fednode.tasks.registry import *\n{statement}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr


def test_without_torch_the_numpy_task_works_and_the_others_say_what_to_install(tmp_path: Path) -> None:
    shutil.copy(EXAMPLE, tmp_path / "my_digits.py")
    said = without_torch(
        "print(load_task('mnist_3v7').fingerprint)\n"
        f"for spec in ('mnist', {str(tmp_path / 'my_digits.py')!r}):\n"
        "    try: load_task(spec)\n"
        "    except Exception as error: print(type(error).__name__, error.message, error.fix)"
    )
    assert said.splitlines() == [
        "mnist_3v7@1",
        "NotFound the task mnist needs torch, which is not installed here pip install 'fednode[torch]'",
        f"NotFound the task {tmp_path / 'my_digits.py'} needs torch, which is not installed here "
        "pip install 'fednode[torch]'",
    ]


def test_looking_tasks_up_imports_no_torch() -> None:
    code = (
        "import sys; from fednode.tasks.registry import load_task; load_task('mnist'); load_task('mnist_3v7');"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "False"
