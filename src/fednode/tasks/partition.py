"""Partitions: how one shared folder is cut into the parts of several sites.

Pure: labels in, indices out. Every site computes all parts from the same seed and takes its own, so parts are
disjoint and complete without anybody talking to anybody. `torch_task.py` and numpy tasks call `partition_indices`.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fednode.core.seeds import derive_seed, numpy_rng
from fednode.errors import BadConfig, DataError
from fednode.tasks.base import Partition

Indices: TypeAlias = NDArray[np.int64]
Parts: TypeAlias = list[list[int]]          # units of each part, in the order in which they were dealt

SPLITS = "iid, dirichlet:ALPHA, shards:N"
MIN_ALPHA, MAX_ALPHA = 1e-3, 1e6            # beyond them every part is one label, or the cut is iid to the example


def parse_partition(text: str, split: str = "iid", seed: int = 0) -> Partition:
    """The partition that `--partition K/N --split ... --partition-seed ...` names. Raises BadConfig."""
    found = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text, re.ASCII)
    if found is None:
        raise BadConfig(f"partition {text!r} is not of the form K/N", fix="part 2 of 5 is written 2/5")
    partition = Partition(index=int(found[1]), count=int(found[2]), split=split, seed=seed)
    _require_valid(partition)
    return partition


def partition_indices(
    labels: NDArray[Any] | None,
    num_examples: int,
    partition: Partition | None,
    *,
    groups: Sequence[Any] | None = None,
    is_test: bool = False,
    min_examples: int = 1,
) -> Indices:
    """Ascending indices of this site's part; over all parts they are disjoint and complete. None: all of them.

    `iid` deals shuffled examples; `dirichlet:ALPHA` cuts each label by shares drawn from a symmetric Dirichlet
    distribution (Hsu et al. 2019, arXiv:1909.06335); `shards:N` deals N stretches of the examples sorted by label
    to each part (McMahan et al. 2017, arXiv:1602.05629). Examples of one group (a patient's images) stay together.
    Every part has at least `min_examples`: what is missing is moved over from the largest part. A test split is
    always cut iid, into parts of at least one example.

    Raises BadConfig (no such part or split), DataError (too few examples or groups for that many parts).
    """
    if partition is None:
        return np.arange(num_examples)
    name, value = _require_valid(partition)
    if is_test:
        name, min_examples = "iid", 1
    rng = numpy_rng(derive_seed("partition", partition.seed, "test" if is_test else "train"))
    units = _units(labels if name != "iid" else None, num_examples, groups)
    _require_enough(units, num_examples, partition, min_examples)
    if name == "iid":
        parts = _deal(units, partition.count, rng)
    elif units.labels is None:
        raise BadConfig(f"split {partition.split!r} needs labels, and these data have none", fix="use --split iid")
    elif name == "dirichlet":
        parts = _cut_by_shares(units.labels, partition.count, value, rng)
    else:
        parts = _deal_shards(units.labels, partition.count, int(value), rng)
    _move_to_the_poor(parts, units.sizes, min_examples)
    mine = np.zeros(len(units.sizes), np.bool_)
    mine[parts[partition.index - 1]] = True
    return np.flatnonzero(mine[units.of_example]).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class _Units:
    """What is dealt: single examples, or groups that stay whole."""

    of_example: Indices             # (examples,): the unit of each example
    sizes: Indices                  # (units,): examples in each
    labels: Indices | None          # (units,): label number of each; of a group, its most frequent one
    are_examples: bool              # no groups: every size is 1


def _units(labels: NDArray[Any] | None, num_examples: int, groups: Sequence[Any] | None) -> _Units:
    _require_one_each("labels", labels, num_examples)
    _require_one_each("groups", groups, num_examples)
    numbers = None if labels is None else np.unique(np.asarray(labels), return_inverse=True)[1].reshape(-1)
    if groups is None:
        return _Units(
            of_example=np.arange(num_examples), sizes=np.ones(num_examples, np.int64), labels=numbers, are_examples=True
        )
    of_example = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
    sizes = np.bincount(of_example)
    if numbers is not None:
        counts = np.zeros((len(sizes), int(numbers.max(initial=0)) + 1), np.int64)
        np.add.at(counts, (of_example, numbers), 1)
        numbers = counts.argmax(axis=1)
    return _Units(of_example=of_example, sizes=sizes, labels=numbers, are_examples=False)


def _deal(units: _Units, count: int, rng: np.random.Generator) -> Parts:
    """Each unit, in shuffled order, to the part that has the fewest examples (of equals, the first)."""
    order = rng.permutation(len(units.sizes))
    if units.are_examples:
        return [order[part::count].tolist() for part in range(count)]
    parts: Parts = [[] for _ in range(count)]
    fill = [(0, part) for part in range(count)]
    for unit in order.tolist():
        size, part = fill[0]
        parts[part].append(unit)
        heapq.heapreplace(fill, (size + int(units.sizes[unit]), part))
    return parts


def _cut_by_shares(labels: Indices, count: int, alpha: float, rng: np.random.Generator) -> Parts:
    parts: Parts = [[] for _ in range(count)]
    for label in range(int(labels.max()) + 1):
        members = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet(np.full(count, alpha))
        cuts = np.rint(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        for part, stretch in zip(parts, np.split(members, cuts), strict=True):
            part.extend(stretch.tolist())
    return parts


def _deal_shards(labels: Indices, count: int, per_part: int, rng: np.random.Generator) -> Parts:
    if len(labels) < count * per_part:
        raise DataError(
            f"{len(labels):,} units of data cannot be cut into {count} x {per_part} shards",
            fix="ask for fewer parts, or for fewer shards each",
        )
    shuffled = rng.permutation(len(labels))
    by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    shards = np.array_split(by_label, count * per_part)
    order = rng.permutation(len(shards)).reshape(count, per_part)
    return [[unit for shard in sorted(row.tolist()) for unit in shards[shard].tolist()] for row in order]


def _move_to_the_poor(parts: Parts, sizes: Indices, min_examples: int) -> None:
    """Until every part has `min_examples`: the poorest gets a unit of the largest part that can spare one.

    No choice in it is left to chance. A giver keeps `min_examples`, so what is missing shrinks with every move.
    Raises DataError where groups are too large to be spared.
    """
    poor = [(size, part) for part, size in enumerate(int(sizes[part].sum()) for part in parts)]
    rich = [(-size, part) for size, part in poor if size > min_examples]
    heapq.heapify(poor)
    heapq.heapify(rich)
    while poor[0][0] < min_examples:
        if not rich:
            raise DataError(
                f"{int(sizes.sum()):,} examples in {len(sizes):,} groups do not make {len(parts):,} parts of at least "
                f"{min_examples} examples",
                fix="ask for fewer parts: the examples of a group stay together",
            )
        size, giver = rich[0]
        position = _spare(parts[giver], sizes, -size - min_examples)
        if position is None:
            heapq.heappop(rich)
            continue
        unit = parts[giver].pop(position)
        heapq.heapreplace(rich, (size + int(sizes[unit]), giver))
        has, taker = poor[0]
        parts[taker].append(unit)
        heapq.heapreplace(poor, (has + int(sizes[unit]), taker))
        if has + int(sizes[unit]) > min_examples:
            heapq.heappush(rich, (-has - int(sizes[unit]), taker))


def _spare(part: Sequence[int], sizes: Indices, surplus: int) -> int | None:
    """Where in `part` the unit stands that was dealt last and is not larger than `surplus`; None: there is none."""
    return next((at for at in range(len(part) - 1, -1, -1) if sizes[part[at]] <= surplus), None)


def _require_valid(partition: Partition) -> tuple[str, float]:
    """Name and number of the split. Raises BadConfig."""
    index, count = partition.index, partition.count
    if not 1 <= index <= count:
        fix = "K counts from 1 and is at most N: the parts of 3 are 1/3, 2/3 and 3/3"
        raise BadConfig(f"there is no part {index} of {count}", fix=fix)
    name, colon, text = partition.split.partition(":")
    if name == "iid" and not colon:
        return name, 0.0
    if name == "dirichlet":
        return name, _number(partition.split, text, float, MIN_ALPHA, MAX_ALPHA, "dirichlet:0.5")
    if name == "shards":
        return name, _number(partition.split, text, int, 1, 1_000_000, "shards:2")
    raise BadConfig(f"there is no split {partition.split!r}", fix=f"the splits: {SPLITS}")


def _number(split: str, text: str, kind: type[int] | type[float], least: float, most: float, example: str) -> float:
    try:
        value = float(kind(text))
    except ValueError:
        wrong = f"split {split!r}: {text!r} is no {'whole ' if kind is int else ''}number"
        raise BadConfig(wrong, fix=f"for example {example}") from None
    if not least <= value <= most:
        raise BadConfig(f"split {split!r}: {text} is not between {least:g} and {most:g}", fix=f"for example {example}")
    return value


def _require_one_each(what: str, values: Sequence[Any] | NDArray[Any] | None, num_examples: int) -> None:
    if values is not None and len(values) != num_examples:
        raise DataError(
            f"there are {len(values):,} {what} for {num_examples:,} examples", fix="give one for each example"
        )


def _require_enough(units: _Units, num_examples: int, partition: Partition, min_examples: int) -> None:
    if num_examples < partition.count * min_examples:
        most = num_examples // max(min_examples, 1)
        raise DataError(
            f"{num_examples:,} examples are too few for {partition.count:,} parts of at least {min_examples}",
            fix=f"cut them into at most {most:,}, or add data" if most else "add data",
        )
    if len(units.sizes) < partition.count:
        raise DataError(
            f"{len(units.sizes):,} groups of examples are too few for {partition.count:,} parts",
            fix=f"cut them into at most {len(units.sizes):,}, or add data",
        )
