"""How far, and which way, each update of a round leads: numbers for people, who look for the one unlike the others.

They decide nothing: no order, no seed and no journal knows them. The mean here is that of the changes, each client
counting once and none longer than their median, so that no change, however long, turns it its own way. They are read in
column blocks of a few megabytes, whatever the number of clients; of a large model only some blocks are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from math import ceil, isfinite
from statistics import median

import numpy as np

from fednode.core.aggregation import Updates
from fednode.core.metrics import Floats
from fednode.core.params import Params
from fednode.core.records import Change, Outcome, updates_of

SAMPLE_ELEMENTS = 1 << 19       # of a model: one of up to 524,288 params is measured whole
COLUMN_ELEMENTS = 1 << 14       # at least 32 blocks make a sample
BLOCK_ELEMENTS = 1 << 20        # of all updates together: 8 MB as float64
FEWEST = 3                      # to compare: of two that differ nobody can say which one is odd
LONG = 5.0                      # times the median: a site may well have a few times the data of another


def with_changes(outcomes: Sequence[Outcome], start: Params) -> tuple[Outcome, ...]:
    """The outcomes, each with the change that leads from `start` to its update."""
    brought = updates_of(outcomes)
    if not brought:
        return tuple(outcomes)
    found = measured(Updates([update.client for update in brought], brought, start.manifest), start)
    return tuple(replace(outcome, change=found.get(outcome.client)) for outcome in outcomes)


def measured(updates: Updates, start: Params) -> dict[str, Change]:
    """By client. Counts (integer tensors) have no part in it; of a sample the norm is that of a whole like it.

    Two passes: the lengths say how much of each change the mean takes, then come the angles.
    """
    squares, towards, own, num_read = np.zeros(len(updates)), np.zeros(len(updates)), 0.0, 0
    with np.errstate(all="ignore"):         # a hostile update may be beyond all bounds: its length is infinite
        for changes in _columns(updates, start):
            squares += np.einsum("ik,ik->i", changes, changes)
            num_read += changes.shape[1]
        lengths = np.sqrt(squares)
        shares = np.where(np.isfinite(lengths), np.fmin(1.0, np.median(lengths) / lengths), 0.0)
        for changes in _columns(updates, start):
            mean = np.einsum("i,ik->k", shares, changes)
            towards += np.einsum("ik,k->i", changes, mean)
            own += float(np.einsum("k,k", mean, mean))
        norms = lengths * np.sqrt(_num_floats(start) / max(1, num_read))
        cosines = np.clip(towards / (lengths * np.sqrt(own)), -1.0, 1.0)
    return {
        update.client: Change(norm=norm, cosine=cosine if isfinite(cosine) else None)
        for update, norm, cosine in zip(updates, norms.tolist(), cosines.tolist(), strict=True)
    }


def standing_apart(changes: Mapping[str, Change]) -> dict[str, str]:
    """Who stands apart from the others of its round, and how, in words. No verdict: see docs/how-to."""
    if len(changes) < FEWEST:
        return {}
    usual = median(change.norm for change in changes.values())
    told = {client: " and ".join(_oddities(change, usual)) for client, change in changes.items()}
    return {client: f"its change {words}" for client, words in told.items() if words}


def _oddities(change: Change, usual: float) -> Iterator[str]:
    if change.norm > LONG * usual > 0:
        yield f"is {change.norm / usual:.3g} times as long as the median"
    if change.cosine is not None and change.cosine < 0:
        yield f"leads away from the mean (cosine {change.cosine:.2f})"


def _columns(updates: Updates, start: Params) -> Iterator[Floats]:
    """(updates, elements): the changes, block by block, of evenly spaced blocks where the model is large."""
    size = min(COLUMN_ELEMENTS, max(1, BLOCK_ELEMENTS // len(updates)))
    buffer = np.empty(len(updates) * size)
    floats = (column for column in updates.columns(size) if start[column.tensor].dtype.kind == "f")
    for column in islice(floats, 0, None, max(1, ceil(_num_floats(start) / SAMPLE_ELEMENTS))):
        origin = start[column.tensor].reshape(-1)[column.start : column.stop]
        stacked = np.concatenate(column.rows, out=buffer[: len(updates) * len(origin)])
        changes = stacked.reshape(len(updates), -1)
        changes -= origin.astype(np.float64)
        yield changes


def _num_floats(start: Params) -> int:
    return sum(tensor.num_elements for tensor in start.manifest.tensors if np.dtype(tensor.dtype).kind == "f")
