"""The mean of the changes, none of them longer than a radius."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from fednode.core.geometry import inner_products, moved
from fednode.core.metrics import Floats
from fednode.strategies.base import State, Updates
from fednode.strategies.robust import Robust, distances


@dataclass(frozen=True, kw_only=True)
class CenteredClipping(Robust):
    """Centered clipping (Karimireddy et al. 2021, arXiv:2012.10333).

    v = v + mean of (x - v) * min(1, radius / |x - v|). v begins at the model that everybody started from, each client
    counts once. The paper sets the radius by hand; 0, the default here, takes the median length of this round's
    changes, which hostile clients cannot move far.
    """

    radius: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="Length to which changes are cut; 0: their median length")
    ] = 0.0
    steps: Annotated[int, Field(ge=1, le=100, description="How often the centre is moved in a round")] = 1

    def robust(self, state: State, updates: Updates) -> State:
        shares = clipped_shares(inner_products(updates, state.params), self.radius, self.steps)
        return State(params=moved(updates, state.params, shares))


def clipped_shares(products: Floats, radius: float, steps: int) -> Floats:
    """(n,): what of each change is in the centre after `steps`."""
    shares = np.zeros(len(products))
    for _ in range(steps):
        apart = distances(products, shares)
        limit = radius or float(np.median(apart))
        kept = np.minimum(1.0, limit / np.maximum(apart, np.finfo(float).tiny))
        shares = shares * (1 - kept.mean()) + kept / len(kept)
    return shares
