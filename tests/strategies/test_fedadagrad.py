"""FedAdagrad, by hand: tau 1, so v is 1 before the first round; learning rate 12.75 = 3 * 4.25."""

from __future__ import annotations

import pytest
from strategy_scene import path

from fednode.strategies.fedadagrad import FedAdagrad


def test_two_rounds_by_hand():
    # 1: change 0.75, m = 0.75, v = 1 + 0.5625 = 1.25^2, w = 0 + 12.75 * 0.75 / (1.25 + 1) = 4.25
    # 2: change 7.25 - 4.25 = 3, m = 3, v = 1.5625 + 9 = 3.25^2, w = 4.25 + 12.75 * 3 / (3.25 + 1) = 13.25
    assert path(FedAdagrad(server_learning_rate=12.75, tau=1.0), 0.75, 7.25) == [[4.25], [13.25]]


def test_with_momentum_if_somebody_wants_it():
    # 1: m = 0.75 / 2.  2: change 5.125 - 2.125 = 3, m = 0.375 / 2 + 3 / 2 = 1.6875
    halves = FedAdagrad(server_learning_rate=12.75, beta1=0.5, tau=1.0)
    assert path(halves, 0.75, 5.125) == [[2.125], [pytest.approx(2.125 + 12.75 * 1.6875 / 4.25, rel=1e-6)]]
