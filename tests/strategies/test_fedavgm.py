"""FedAvgM, by hand."""

from __future__ import annotations

from strategy_scene import params, path, played, update

from fednode.core.records import State
from fednode.strategies.fedavgm import FedAvgM


def test_two_rounds_by_hand():
    # 1: change 4 - 0 = 4, v = 0.5 * 0 + 4 = 4, w = 0 + 4.  2: change 6 - 4 = 2, v = 0.5 * 4 + 2 = 4, w = 4 + 4.
    assert path(FedAvgM(momentum=0.5), 4.0, 6.0) == [[4.0], [8.0]]


def test_momentum_carries_on_when_nobody_pulls():
    # 3: the mean is where w is, so the change is 0, v = 0.5 * 4 = 2.
    assert path(FedAvgM(momentum=0.5), 4.0, 6.0, 8.0) == [[4.0], [8.0], [10.0]]


def test_its_velocity_is_kept_for_the_next_round():
    state = played(FedAvgM(momentum=0.5), State(params=params(w=[1.0])), [update("a", params(w=[4.0]))])
    assert state.memory["velocity"]["w"].tolist() == [3.0]
