"""FedAvg: the mean of the updates, by examples."""

from __future__ import annotations

from dataclasses import dataclass

from fednode.strategies.base import State, Strategy, Updates


@dataclass(frozen=True, kw_only=True)
class FedAvg(Strategy):
    """Federated averaging (McMahan et al. 2017, arXiv:1602.05629, algorithm 1): w = sum of n_k / n * w_k."""

    def aggregate(self, state: State, updates: Updates) -> State:
        return State(params=updates.mean())
