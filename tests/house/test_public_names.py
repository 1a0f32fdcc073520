"""What `import fednode` gives, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fednode

PUBLIC = (
    "Task TorchTask TrainConfig Cancelled Site Partition Picture Samples Visit Metric Metrics Sum Histogram Params "
    "Update Strategy State Updates simulate Simulation FednodeError DataError partition_indices __version__"
).split()


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_resolve(name: str) -> None:
    assert getattr(fednode, name) is not None


def test_the_public_names_are_all_and_only_these() -> None:
    assert sorted(fednode.__all__) == sorted(PUBLIC)


def test_an_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Trainer'"):
        _ = fednode.Trainer


def _loaded_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return set(out.split())


def test_importing_fednode_loads_no_array_and_no_learning_library() -> None:
    assert not _loaded_after("import fednode") & {"numpy", "torch", "pydantic"}


def test_the_help_loads_no_torch_numpy_web_framework_or_sql() -> None:
    heavy = {"torch", "numpy", "fastapi", "starlette", "uvicorn", "sqlalchemy", "pydantic", "httpx2"}
    statement = (
        "import contextlib, io, fednode.cli.app as cli\nsys.argv = ['fednode', '--help']\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit): cli.main()"
    )
    assert not _loaded_after(statement) & heavy


def test_the_central_node_needs_no_learning_library() -> None:
    assert "torch" not in _loaded_after("import fednode.central.app, fednode.store.sql, fednode.rounds")


def test_a_task_without_torch_loads_no_torch() -> None:
    assert "torch" not in _loaded_after("from fednode.tasks.registry import load_task; load_task('mnist_3v7')")
