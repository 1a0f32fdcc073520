"""What all strategies share: who is asked, and where a step starts."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from strategy_scene import params, update

from fednode.core.aggregation import Updates
from fednode.core.params import Params
from fednode.core.records import RunConfig, State
from fednode.strategies.base import Strategy, change_of
from fednode.strategies.fedavg import FedAvg

PRESENT = tuple(f"client-{i}" for i in range(1, 11))


def config(min_updates: int = 2, cohort_fraction: float = 1.0) -> RunConfig:
    return RunConfig(
        task="t", fingerprint="t@1", task_config={}, strategy="fedavg", strategy_config={}, rounds=1, seed=7,
        min_updates=min_updates, cohort_fraction=cohort_fraction, deadline_s=600.0,
    )


@pytest.mark.parametrize(
    ("min_updates", "cohort_fraction", "size"), [(2, 1.0, 10), (2, 0.3, 3), (5, 0.3, 5), (2, 0.01, 2), (12, 1.0, 10)]
)
def test_a_cohort_is_a_fraction_of_those_who_are_there_and_never_fewer_than_needed(min_updates, cohort_fraction, size):
    chosen = FedAvg().select(PRESENT, config(min_updates, cohort_fraction), random.Random(1))
    assert len(chosen) == len(set(chosen)) == size
    assert set(chosen) <= set(PRESENT)


def test_a_selection_depends_on_names_not_on_their_order():
    chosen = [FedAvg().select(names, config(2, 0.3), random.Random(1)) for names in (PRESENT, PRESENT[::-1])]
    assert chosen[0] == chosen[1]


def test_everybody_is_asked_equally_often():
    draws = [FedAvg().select(PRESENT, config(3, 0.3), random.Random(seed)) for seed in range(2000)]
    counts = Counter(name for chosen in draws for name in chosen)
    assert set(counts) == set(PRESENT)
    assert all(500 < count < 700 for count in counts.values())      # 600 of 2000 expected, 20 standard deviation


def test_the_config_goes_out_as_it_is():
    assert FedAvg().configure({"epochs": 2}) == {"epochs": 2}


def test_floats_step_from_where_they_are_and_counts_from_their_mean():
    old = Params({**params(w=[1.0]), **params("int64", seen=[10])})
    new = [
        update(name, Params({**params(w=[w]), **params("int64", seen=[seen])}))
        for name, w, seen in (("a", 2.0, 20), ("b", 4.0, 22))
    ]
    start, change = change_of(State(params=old), Updates("ab", new, old.manifest))
    assert (start["w"].tolist(), change["w"].tolist()) == ([1.0], [2.0])
    assert (start["seen"].tolist(), change["seen"].tolist()) == ([21], [0.0])


def test_a_strategy_that_says_nothing_is_told_so():
    with pytest.raises(NotImplementedError, match="Strategy does not say how to aggregate"):
        Strategy().aggregate(State(params=params(w=[1.0])), Updates("a", [update("a", params(w=[1.0]))], PLAIN))


PLAIN = params(w=[0.0]).manifest
