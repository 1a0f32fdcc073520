"""fednode: a federated learning network. Its public names, each resolved on first use.

Importing fednode loads no numpy and no torch, so that `fednode --help` costs nothing. Names are imported inside
the house from where they live; only this module re-exports.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fednode.core.metrics import Histogram, Metric, Metrics, Sum
    from fednode.core.params import Params
    from fednode.core.records import Update
    from fednode.errors import DataError, FednodeError
    from fednode.simulation.simulate import Simulation, simulate
    from fednode.strategies.base import State, Strategy, Updates
    from fednode.tasks.base import Cancelled, Partition, Picture, Samples, Site, Task, TrainConfig, Visit
    from fednode.tasks.partition import partition_indices
    from fednode.tasks.torch_task import TorchTask

    __version__: str

_HOMES = {
    "Histogram": "core.metrics", "Metric": "core.metrics", "Metrics": "core.metrics", "Sum": "core.metrics",
    "Params": "core.params", "Update": "core.records", "DataError": "errors", "FednodeError": "errors",
    "Simulation": "simulation.simulate", "simulate": "simulation.simulate",
    "State": "strategies.base", "Strategy": "strategies.base", "Updates": "strategies.base",
    "Cancelled": "tasks.base", "Partition": "tasks.base", "Picture": "tasks.base", "Samples": "tasks.base",
    "Site": "tasks.base", "Task": "tasks.base", "TrainConfig": "tasks.base", "Visit": "tasks.base",
    "TorchTask": "tasks.torch_task", "partition_indices": "tasks.partition",
}

__all__ = [
    "Cancelled", "DataError", "FednodeError", "Histogram", "Metric", "Metrics", "Params", "Partition", "Picture",
    "Samples", "Simulation", "Site", "State", "Strategy", "Sum", "Task", "TorchTask", "TrainConfig", "Update",
    "Updates", "Visit", "__version__", "partition_indices", "simulate",
]


def __getattr__(name: str) -> object:
    """PEP 562: called once for each name, which then lies in the module."""
    if name == "__version__":
        value: object = import_module("importlib.metadata").version("fednode")
    elif name in _HOMES:
        value = getattr(import_module(f"fednode.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'fednode' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
