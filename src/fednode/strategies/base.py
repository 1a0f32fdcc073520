"""What a strategy is: pure policy. Who takes part, with what, and how updates become the next state.

A strategy is a frozen dataclass; its fields are its settings, in one schema for the form, `--set
strategy.NAME=VALUE`, the API and the docs. It never sees the network, a clock or a disk.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fednode.core.aggregation import Updates
from fednode.core.json import JsonObject
from fednode.core.params import Params
from fednode.core.records import RunConfig, State
from fednode.errors import NotFound

__all__ = ["State", "Strategy", "Updates", "change_of", "require_usable"]


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """The base: a uniform cohort, the task's config as it is. Subclasses say how to aggregate."""

    requires: ClassVar[tuple[str, ...]] = ()                # what the task must support, e.g. "proximal"

    @property
    def least_updates(self) -> int:
        """The fewest updates that it can make a model of."""
        return 1

    def select(self, present: Sequence[str], config: RunConfig, rng: random.Random) -> list[str]:
        """`cohort_fraction` of those who are there, at least `min_updates` of them, each equally likely."""
        size = max(config.min_updates, round(config.cohort_fraction * len(present)))
        return rng.sample(sorted(present, key=str.encode), min(size, len(present)))

    def configure(self, task_config: JsonObject) -> JsonObject:
        """The task's config as this round's cohort receives it."""
        return task_config

    def aggregate(self, state: State, updates: Updates) -> State:
        """The next state. Floats are cast to the manifest's dtypes by the loop."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to aggregate")


def change_of(state: State, updates: Updates) -> tuple[Params, Params]:
    """Where a step starts, and the change that leads from there to the mean of the updates.

    Integer and bool tensors start at the mean, so that their change is zero in every round: they count something
    (a batch norm's `num_batches_tracked`), and momentum or a learning rate would make nonsense of a count.
    """
    mean = updates.mean()
    start = Params({name: old if old.dtype.kind == "f" else mean[name] for name, old in state.params.items()})
    return start, mean - start


def require_usable(kind: type, asked: str) -> None:
    """Raise NotFound unless it says how to aggregate, and its settings can be set."""
    if kind.aggregate is Strategy.aggregate:        # type: ignore[attr-defined]
        raise NotFound(
            f"the strategy {asked} does not define aggregate", fix=f"define it in the class {kind.__name__}"
        )
    fields = [name for name, told in inspect.get_annotations(kind).items() if "ClassVar" not in str(told)]
    if fields and "__dataclass_fields__" not in vars(kind):
        raise NotFound(
            f"the strategy {asked} is no dataclass, so nobody can set its {', '.join(fields)}",
            fix=f"write @dataclass(frozen=True, kw_only=True) above class {kind.__name__}",
        )
