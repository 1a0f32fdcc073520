"""FedAdam, by hand: tau 1, so v is 1 before the first round; beta1 = beta2 = 1/2; learning rate 78 = 13 * 6."""

from __future__ import annotations

import pytest
from strategy_scene import params, path, played, update

from fednode.core.records import State
from fednode.strategies.fedadam import FedAdam

HALVES = FedAdam(server_learning_rate=78.0, beta1=0.5, beta2=0.5, tau=1.0)


def test_two_rounds_by_hand():
    # 1: change 7, m = 7 / 2, v = 1 / 2 + 49 / 2 = 25, w = 0 + 78 * 3.5 / (5 + 1) = 45.5
    # 2: change 80.5 - 45.5 = 35, m = 3.5 / 2 + 35 / 2 = 19.25, v = 25 / 2 + 1225 / 2 = 625,
    #    w = 45.5 + 78 * 19.25 / (25 + 1) = 103.25
    assert path(HALVES, 7.0, 80.5) == [[45.5], [103.25]]


def test_both_moments_are_kept_and_nothing_else():
    state = played(HALVES, State(params=params(w=[0.0])), [update("a", params(w=[7.0]))])
    assert {name: kept["w"].tolist() for name, kept in state.memory.items()} == {
        "first_moment": [3.5], "second_moment": [25.0]
    }


def test_there_is_no_bias_correction():
    # The defaults: m = 0.1 * 1, v = 0.99 * 1e-6 + 0.01 * 1, w = 0.03 * 0.1 / (sqrt(v) + 0.001)
    assert path(FedAdam(), 1.0)[0] == [pytest.approx(0.03 * 0.1 / (0.01000099**0.5 + 0.001), rel=1e-6)]
