"""The mean of the updates that have the closest neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fednode.core.geometry import inner_products, moved
from fednode.core.metrics import Floats
from fednode.strategies.base import State, Updates
from fednode.strategies.robust import Robust


@dataclass(frozen=True, kw_only=True)
class MultiKrum(Robust):
    """Multi-Krum (Blanchard et al. 2017, arXiv:1703.02757): of n updates, f of them hostile, the mean of the best.

    An update's score is the sum of its squared distances to its n - f - 2 nearest others. The n - f - 2 updates of
    the lowest scores are averaged, each counting once. Needs n >= 2 f + 3, as the paper's proposition 1 does.
    """

    @property
    def least_updates(self) -> int:
        return 2 * self.hostile + 3

    def robust(self, state: State, updates: Updates) -> State:
        num_near = len(updates) - self.hostile - 2
        scores = krum_scores(inner_products(updates, state.params), num_near)
        chosen = np.argsort(scores, kind="stable")[:num_near]           # of equals, the first by name
        shares = np.zeros(len(updates))
        shares[chosen] = 1 / num_near
        return State(params=moved(updates, state.params, shares))


def krum_scores(products: Floats, num_near: int) -> Floats:
    """(n,): the sum of each update's squared distances to its `num_near` nearest others."""
    squares = np.diagonal(products)
    with np.errstate(all="ignore"):
        apart = squares[:, None] + squares[None, :] - 2 * products
    apart = np.where(np.isfinite(apart), np.maximum(apart, 0.0), np.inf)
    np.fill_diagonal(apart, np.inf)                                     # nobody is a neighbour of itself
    return np.asarray(np.sort(apart, axis=1)[:, :num_near].sum(axis=1))
