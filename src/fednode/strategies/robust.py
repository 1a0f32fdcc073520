"""What the robust strategies share: how many hostile clients they are to withstand, and the cohort that this takes.

A hostile client may send whatever it likes, also a made-up number of examples: these rules count heads, not
examples. `core/geometry.py` does the arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from fednode.core.metrics import Floats
from fednode.errors import TooFewUpdates
from fednode.strategies.base import State, Strategy, Updates


@dataclass(frozen=True, kw_only=True)
class Robust(Strategy):
    """The base: `hostile` clients may send anything; a cohort in which they could decide is refused."""

    hostile: Annotated[int, Field(ge=0, le=10_000, description="Hostile clients in a cohort to withstand")] = 1

    @property
    def least_updates(self) -> int:
        """Twice the hostile ones and one more: the breakdown point of any rule is at one half."""
        return 2 * self.hostile + 1

    def aggregate(self, state: State, updates: Updates) -> State:
        if len(updates) < self.least_updates:
            raise TooFewUpdates(
                f"{type(self).__name__} withstands {self.hostile} hostile of {self.least_updates} clients or more, "
                f"and there are {len(updates)} updates",
                fix=f"set min_updates to {self.least_updates} or more, or lower strategy.hostile",
            )
        return self.robust(state, updates)

    def robust(self, state: State, updates: Updates) -> State:
        """The next state; there are `least_updates` or more."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to aggregate")


def distances(products: Floats, shares: Floats) -> Floats:
    """(n,): of each update from the point that `shares` of the changes make; infinite where that is beyond numbers."""
    with np.errstate(all="ignore"):
        towards = np.where(shares != 0, products * shares, 0.0).sum(axis=1)
        own = np.where(shares != 0, towards * shares, 0.0).sum()
        square = np.diagonal(products) - 2 * towards + own
    return np.sqrt(np.where(np.isfinite(square), np.maximum(square, 0.0), np.inf))
