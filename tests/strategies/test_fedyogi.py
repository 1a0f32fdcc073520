"""FedYogi, by hand: tau 1, so v is 1 before the first round; beta1 = beta2 = 1/2; learning rate 4."""

from __future__ import annotations

import pytest
from strategy_scene import path

from fednode.strategies.fedyogi import FedYogi

HALVES = FedYogi(server_learning_rate=4.0, beta1=0.5, beta2=0.5, tau=1.0)


def test_two_rounds_in_which_the_second_moment_grows_then_shrinks():
    # 1: change 4, m = 2, v = 1 + 16 / 2 = 9 (16 > 1: it grows), w = 0 + 4 * 2 / (3 + 1) = 2
    # 2: change 4 - 2 = 2, m = 2 / 2 + 2 / 2 = 2, v = 9 - 4 / 2 = 7 (4 < 9: it shrinks), w = 2 + 4 * 2 / (sqrt(7) + 1)
    first, second = path(HALVES, 4.0, 4.0)
    assert (first, second) == ([2.0], [pytest.approx(2 + 8 / (7**0.5 + 1), rel=1e-6)])


def test_two_rounds_in_which_the_second_moment_stays():
    # 2: change 5 - 2 = 3, m = 2 / 2 + 3 / 2 = 2.5, v = 9 since 3^2 = 9, w = 2 + 4 * 2.5 / (3 + 1) = 4.5
    assert path(HALVES, 4.0, 5.0) == [[2.0], [4.5]]
