"""The point with the least sum of distances to all updates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fednode.core.geometry import inner_products, moved
from fednode.core.metrics import Floats
from fednode.strategies.base import State, Updates
from fednode.strategies.robust import Robust, distances

MAX_STEPS = 1_000
TOLERANCE = 1e-9                # of the shares, which are between 0 and 1
SMOOTHING = 1e-6                # of the median distance: the paper's nu, which keeps the step away from a division by 0


@dataclass(frozen=True, kw_only=True)
class GeometricMedian(Robust):
    """RFA, the geometric median by the smoothed Weiszfeld algorithm (Pillutla et al. 2022, arXiv:1912.13445).

    Less than half of the cohort may be hostile. Unlike the paper's, each client counts once: a number of examples
    is a client's own word. The steps, which cost no pass over the params, go on until nothing moves.
    """

    def robust(self, state: State, updates: Updates) -> State:
        shares = weiszfeld(inner_products(updates, state.params))
        return State(params=moved(updates, state.params, shares))


def weiszfeld(products: Floats) -> Floats:
    """(n,): the share of each update in their geometric median; they add up to 1.

    The first point is the model that everybody started from, so that not even the first step is led by who is far.
    """
    shares = np.zeros(len(products))
    for _ in range(MAX_STEPS):
        apart = distances(products, shares)
        nearness = 1 / np.maximum(apart, SMOOTHING * float(np.median(apart)) or 1.0)
        following = nearness / nearness.sum()
        if float(np.abs(following - shares).max()) <= TOLERANCE:
            break
        shares = following
    return np.asarray(following)
