"""The median of every param."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fednode.core.geometry import by_element
from fednode.strategies.base import State, Updates
from fednode.strategies.robust import Robust


@dataclass(frozen=True, kw_only=True)
class Median(Robust):
    """The coordinate-wise median (Yin et al. 2018, arXiv:1803.01498, definition 1), each client counting once.

    Less than half of the cohort may be hostile.
    """

    def robust(self, state: State, updates: Updates) -> State:
        return State(params=by_element(updates, lambda rows: np.median(rows, axis=0)))
