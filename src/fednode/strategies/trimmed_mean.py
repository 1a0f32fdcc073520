"""The mean of every param, without its extremes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fednode.core.geometry import by_element
from fednode.core.metrics import Floats
from fednode.strategies.base import State, Updates
from fednode.strategies.robust import Robust


@dataclass(frozen=True, kw_only=True)
class TrimmedMean(Robust):
    """The coordinate-wise trimmed mean (Yin et al. 2018, arXiv:1803.01498, definition 2).

    Of each param the `hostile` lowest and the `hostile` highest values are left out, and the others averaged, each
    client counting once: the paper's beta is hostile / cohort, under one half.
    """

    def robust(self, state: State, updates: Updates) -> State:
        return State(params=by_element(updates, self._trimmed))

    def _trimmed(self, rows: Floats) -> Floats:
        kept = np.sort(rows, axis=0)[self.hostile : len(rows) - self.hostile]
        return np.asarray(kept.mean(axis=0))
