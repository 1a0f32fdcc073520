"""FedAvgM: FedAvg with momentum at the central node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from fednode.strategies.base import State, Strategy, Updates, change_of


@dataclass(frozen=True, kw_only=True)
class FedAvgM(Strategy):
    """FedAvg with momentum (Hsu et al. 2019, arXiv:1909.06335): v = momentum * v + change; w = w + v.

    `change` leads from w to the mean of the updates. 0.9 lies in the range that the paper searches (0.7 to 0.997);
    0 is FedAvg.
    """

    momentum: Annotated[float, Field(ge=0, lt=1, description="Share of the last step that is taken again")] = 0.9

    def aggregate(self, state: State, updates: Updates) -> State:
        start, change = change_of(state, updates)
        velocity = self.momentum * state.memory.get("velocity", change.filled(0.0)) + change
        return State(params=start + velocity, memory={"velocity": velocity})
