"""What rules ask that look at every update by itself: element by element, or as points around the model.

All of it goes over column blocks: a few megabytes, whatever the number of clients and the size of the model. The
rules that look at distances need one pass, for the inner products of the changes: where a geometric median lies, or
who is far from everybody, is then a matter of a small matrix. Bits depend on no number of threads: no BLAS here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from fednode.core.aggregation import Column, Updates
from fednode.core.metrics import Floats
from fednode.core.params import Array, Params, cast_array

BLOCK_ELEMENTS = 1 << 20        # of all updates together: 8 MB as float64


def by_element(updates: Updates, rule: Callable[[Floats], Floats]) -> Params:
    """`rule` of each element's values, from (updates, elements) to (elements,), in the manifest's dtypes."""
    return _filled(updates, lambda column: rule(_stacked(column)))


def inner_products(updates: Updates, start: Params) -> Floats:
    """(n, n): of the changes that lead from `start` to each update. Counts (integer tensors) have no part in it."""
    found = np.zeros((len(updates), len(updates)))
    with np.errstate(all="ignore"):         # a hostile update may be beyond all bounds: its products are infinite
        for column in _columns(updates):
            origin = _of(start, column)
            if origin.dtype.kind == "f":
                changes = _stacked(column) - origin.astype(np.float64)
                for index, change in enumerate(changes):
                    found[index, index:] += np.einsum("k,jk->j", change, changes[index:])
    return np.triu(found) + np.triu(found, 1).T


def moved(updates: Updates, start: Params, shares: Floats) -> Params:
    """start + the sum of `shares`[i] * (update i - start), of shares that are not 0; of counts the median of all."""
    taken = [(index, share) for index, share in enumerate(shares.tolist()) if share]

    def rule(column: Column) -> Floats:
        origin = _of(start, column).astype(np.float64)
        if _of(start, column).dtype.kind != "f":        # where shares do not add up to 1 a count would lag behind
            return np.asarray(np.median(_stacked(column), axis=0))
        total = np.zeros_like(origin)
        for index, share in taken:
            total += share * (column.rows[index].astype(np.float64) - origin)
        return origin + total

    return _filled(updates, rule)


def _filled(updates: Updates, rule: Callable[[Column], Floats]) -> Params:
    tensors = updates.manifest.tensors
    found = {tensor.name: np.empty(tensor.num_elements, tensor.dtype) for tensor in tensors}
    for column in _columns(updates):
        target = found[column.tensor]
        target[column.start : column.stop] = cast_array(rule(column), target.dtype.name)
    return Params({tensor.name: found[tensor.name].reshape(tensor.shape) for tensor in tensors})


def _columns(updates: Updates) -> Iterator[Column]:
    return updates.columns(max(1, BLOCK_ELEMENTS // len(updates)))


def _stacked(column: Column) -> Floats:
    return np.stack(column.rows).astype(np.float64, copy=False)


def _of(start: Params, column: Column) -> Array:
    return start[column.tensor].reshape(-1)[column.start : column.stop]
