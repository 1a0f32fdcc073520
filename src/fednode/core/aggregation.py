"""The canonical sum: how the updates of a cohort become one `Params`, bit for bit the same everywhere.

For every element: each block of 16 clients (by rank in the cohort's name order) sums float64(num_examples) *
float64(x) in name order; block sums are added in block order; the total is divided by the float64 sum of
num_examples and cast once. Who is missing adds nothing and shifts nobody. Served and simulated runs, however
many processes train, call this one function. It reads column by column, so memory does not grow with clients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import overload

import numpy as np

from fednode.core.metrics import Floats
from fednode.core.params import Array, Manifest, Params, cast_array, widened_array
from fednode.core.records import Update, by_client_name
from fednode.errors import TooFewUpdates

BLOCK_CLIENTS = 16
COLUMN_ELEMENTS = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Column:
    """The same stretch of one tensor in every update: `rows[i]` belongs to the i-th update in name order."""

    tensor: str
    start: int                      # in elements of the flat tensor
    stop: int
    rows: Sequence[Array]           # each of shape (stop - start,)


class Updates(Sequence[Update]):
    """The updates of one round, in name order. Lazy and re-readable: params may lie in memory-mapped files."""

    def __init__(self, cohort: Sequence[str], updates: Sequence[Update], manifest: Manifest) -> None:
        """`cohort` is everybody who was asked: ranks, and so blocks, come from it. Raises TooFewUpdates."""
        if sum(update.num_examples for update in updates) <= 0:
            raise TooFewUpdates(
                f"{len(updates)} updates with no examples between them", fix="check the data of these client nodes"
            )
        self._updates = sorted(updates, key=by_client_name)
        self._ranks = {name: rank for rank, name in enumerate(sorted(cohort, key=str.encode))}
        self.manifest = manifest

    @overload
    def __getitem__(self, index: int) -> Update: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Update]: ...

    def __getitem__(self, index: int | slice) -> Update | Sequence[Update]:
        return self._updates[index]

    def __len__(self) -> int:
        return len(self._updates)

    @property
    def num_examples(self) -> int:
        return sum(update.num_examples for update in self._updates)

    def mean(self) -> Params:
        """The canonical mean by examples, in the manifest's dtypes."""
        means = {t.name: np.empty(t.num_elements, t.dtype) for t in self.manifest.tensors}
        buffers = _Buffers()
        for column in self._held_columns(COLUMN_ELEMENTS):
            mean = self._column_sum(column, buffers) / np.float64(self.num_examples)
            means[column.tensor][column.start : column.stop] = cast_array(mean, means[column.tensor].dtype.name)
        return Params({t.name: means[t.name].reshape(t.shape) for t in self.manifest.tensors})

    def columns(self, num_elements: int = COLUMN_ELEMENTS) -> Iterator[Column]:
        """Every element of every tensor once, in stretches of at most `num_elements`."""
        for column in self._held_columns(num_elements):
            yield replace(column, rows=[widened_array(row) for row in column.rows])

    def _held_columns(self, num_elements: int) -> Iterator[Column]:
        """The same, of updates that came in bf16 as that: the product with a float64 widens them, exactly."""
        for tensor in self.manifest.tensors:
            rows = [update.params.held[tensor.name].reshape(-1) for update in self._updates]
            for start in range(0, tensor.num_elements, num_elements):
                stop = min(start + num_elements, tensor.num_elements)
                yield Column(tensor=tensor.name, start=start, stop=stop, rows=[row[start:stop] for row in rows])

    @cached_property
    def _blocks(self) -> list[list[int]]:
        """Indices of the updates, grouped by block, in block order."""
        blocks: dict[int, list[int]] = {}
        for index, update in enumerate(self._updates):
            blocks.setdefault(self._ranks[update.client] // BLOCK_CLIENTS, []).append(index)
        return [blocks[block] for block in sorted(blocks)]

    def _column_sum(self, column: Column, buffers: _Buffers) -> Floats:
        total, block_sum, product = buffers.cut(column.stop - column.start)
        total.fill(0.0)
        for block in self._blocks:
            block_sum.fill(0.0)
            for index in block:
                np.copyto(product, column.rows[index])      # widened first: a product made in float32 is another one
                product *= np.float64(self._updates[index].num_examples)
                np.add(block_sum, product, out=block_sum)
            np.add(total, block_sum, out=total)
        return total


class _Buffers:
    """Three float64 columns, reused: fresh memory costs more than the arithmetic."""

    def __init__(self) -> None:
        self._columns = np.empty((3, COLUMN_ELEMENTS), np.float64)

    def cut(self, size: int) -> tuple[Floats, Floats, Floats]:
        total, block_sum, product = self._columns[:, :size]
        return total, block_sum, product
