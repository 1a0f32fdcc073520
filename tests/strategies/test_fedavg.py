"""FedAvg, by hand."""

from __future__ import annotations

from strategy_scene import params, played, update

from fednode.core.records import State
from fednode.strategies.fedavg import FedAvg


def test_two_rounds_are_two_means_by_examples():
    state = State(params=params(w=[0.0, 0.0]))
    state = played(FedAvg(), state, [update("a", params(w=[1.0, 2.0]), 1), update("b", params(w=[3.0, 6.0]), 3)])
    assert state.params["w"].tolist() == [2.5, 5.0]         # (1 + 3 * 3) / 4, (2 + 3 * 6) / 4
    state = played(FedAvg(), state, [update("a", params(w=[5.0, 1.0]), 2), update("b", params(w=[8.0, 4.0]), 1)])
    assert state.params["w"].tolist() == [6.0, 2.0]         # (2 * 5 + 8) / 3, (2 * 1 + 4) / 3


def test_it_remembers_nothing():
    state = State(params=params(w=[0.0]), memory={"old": params(w=[1.0])})
    assert played(FedAvg(), state, [update("a", params(w=[1.0]))]).memory == {}
