"""What a torch task's dataset is made into: examples that can be counted, labelled and put into batches.

Datasets that lie in memory as tensors are indexed a whole batch at a time; others give item by item. No workers, no
DataLoader: the order of a batch is decided by whoever asks. Imports torch, so `torch_task.py` imports it late.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset, default_collate

from fednode.errors import TaskFailed

Indices: TypeAlias = NDArray[np.int64]
Batch: TypeAlias = Sequence[Tensor]         # the model's inputs, then the targets

_FIX = "return a TensorDataset, a tuple (inputs, targets), or a Dataset with a length whose items are such tuples"


class Examples(Protocol):
    """All that a dataset holds."""

    def __len__(self) -> int: ...

    def batch(self, rows: Indices) -> Batch:
        """The examples `rows`, in that order, stacked along a new first axis."""
        ...

    def labels(self) -> NDArray[Any] | None:
        """One for each example, where they can be had without reading every example."""
        ...


@dataclass(frozen=True)
class InMemory:
    """Tensors of equal length; the last one holds the targets."""

    tensors: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.tensors[0])

    def batch(self, rows: Indices) -> Batch:
        index = torch.from_numpy(rows)
        return [tensor.index_select(0, index) for tensor in self.tensors]

    def labels(self) -> NDArray[Any] | None:
        return self.tensors[-1].numpy(force=True)


@dataclass(frozen=True)
class ItemByItem:
    """A dataset that makes its items when they are asked for."""

    dataset: Any

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, rows: Indices) -> Batch:
        found = default_collate([self.dataset[row] for row in rows.tolist()])
        if not isinstance(found, list | tuple) or len(found) < 2:
            kind = type(self.dataset[0]).__name__
            raise TaskFailed(f"an item of dataset() is a {kind}, not (inputs, targets)", fix=_FIX)
        return cast(Batch, found)

    def labels(self) -> NDArray[Any] | None:
        return _attached_labels(self.dataset)


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one site has of a split."""

    examples: Examples
    rows: Indices | None = None             # None: everything

    def __len__(self) -> int:
        return len(self.examples) if self.rows is None else len(self.rows)

    def batch(self, positions: Indices) -> Batch:
        return self.examples.batch(positions if self.rows is None else self.rows[positions])


def examples_of(dataset: object) -> Examples:
    """The examples of what `TorchTask.dataset` returned. Raises TaskFailed where that is no dataset."""
    if (tensors := _tensors(dataset)) is not None:
        return InMemory(tensors)
    if isinstance(dataset, Dataset | Sequence) and hasattr(dataset, "__len__"):
        return ItemByItem(dataset)
    raise TaskFailed(f"dataset() returned a {type(dataset).__name__}, which cannot be counted or cut", fix=_FIX)


def every_label(dataset: Any) -> NDArray[Any]:
    """The targets of all items, each of which is made for it: slow where items are files."""
    return np.asarray([np.asarray(dataset[row][-1]) for row in range(len(dataset))])


def batches(order: Indices, size: int) -> Iterator[Indices]:
    """`order` in stretches of `size`. A last one of one example joins the one before: BatchNorm cannot train on it."""
    num_batches = max(1, len(order) // size if len(order) % size == 1 else -(-len(order) // size))
    for number in range(num_batches):
        stop = len(order) if number == num_batches - 1 else (number + 1) * size
        yield order[number * size : stop]


def _tensors(dataset: object) -> tuple[Tensor, ...] | None:
    """The tensors that are all there is to `dataset`; None where its items are made by code of their own."""
    if type(dataset) is Subset and (tensors := _tensors(dataset.dataset)) is not None:
        rows = torch.as_tensor(list(dataset.indices), dtype=torch.int64)
        return tuple(tensor[rows] for tensor in tensors)
    if isinstance(dataset, TensorDataset) and type(dataset).__getitem__ is TensorDataset.__getitem__:
        return _checked(dataset.tensors)
    if isinstance(dataset, tuple) and all(isinstance(part, Tensor | np.ndarray) for part in dataset):
        return _checked(tuple(torch.as_tensor(part) for part in dataset))
    return None


def _checked(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    lengths = [len(tensor) if tensor.ndim else 0 for tensor in tensors]
    if len(tensors) < 2 or len(set(lengths)) != 1:
        raise TaskFailed(f"dataset() returned {len(tensors)} tensors, of lengths {lengths}", fix=_FIX)
    return tensors


def _attached_labels(dataset: Any) -> NDArray[Any] | None:
    if isinstance(dataset, Subset):
        labels = _attached_labels(dataset.dataset)
        return None if labels is None else labels[list(dataset.indices)]
    if (tensors := _tensors(dataset)) is not None:
        return tensors[-1].numpy(force=True)
    found = getattr(dataset, "targets", getattr(dataset, "labels", None))
    return None if found is None or callable(found) else np.asarray(found)
