"""What holds for every strategy that starts from the mean, whatever the updates. The robust ones: `test_robust.py`."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategy_scene import bits, params, played, update

from fednode.core.params import Params
from fednode.core.records import State, Update
from fednode.core.seeds import numpy_rng
from fednode.strategies.base import Strategy
from fednode.strategies.fedadam import FedAdam
from fednode.strategies.fedavg import FedAvg
from fednode.strategies.fedavgm import FedAvgM
from fednode.strategies.fedprox import FedProx
from fednode.strategies.registry import STRATEGIES, load_strategy
from fednode.strategies.robust import Robust

OF_THE_MEAN = [name for name, kind in STRATEGIES.items() if not issubclass(kind, Robust)]
EVERY = [load_strategy(name, {}) for name in OF_THE_MEAN]
few = settings(max_examples=25)
every_strategy = pytest.mark.parametrize("strategy", EVERY, ids=OF_THE_MEAN)

SIZE = 6


def drawn_updates(seed: int, num_clients: int) -> list[Update]:
    """Values of many magnitudes, so that another order of additions shows in the bits."""
    rng = numpy_rng(seed)
    values = rng.normal(size=(num_clients, SIZE)) * 10.0 ** rng.integers(-6, 4, (num_clients, SIZE))
    return [
        update(f"client-{i + 1}", model(values[i], i), int(rng.integers(1, 10**6))) for i in range(num_clients)
    ]


def cohorts(min_size: int = 1) -> st.SearchStrategy[list[Update]]:
    return st.builds(drawn_updates, st.integers(0, 2**32), st.integers(min_size, 40))


def model(values: object, counter: int = 0, dtype: str = "float32") -> Params:
    return Params({"w": np.array(values, dtype), "num_batches_tracked": np.array(counter, "int64")})


@every_strategy
@given(first=cohorts(), second=cohorts(), rng=st.randoms(use_true_random=False))
@few
def test_the_order_of_arrival_changes_no_bit_of_two_rounds(strategy: Strategy, first, second, rng: random.Random):
    calm = hasty = State(params=model([0.5] * SIZE))
    for cohort in (first, second):
        calm = played(strategy, calm, cohort)
        hasty = played(strategy, hasty, rng.sample(cohort, len(cohort)))
    assert bits(calm.params) == bits(hasty.params)
    assert {k: bits(v) for k, v in calm.memory.items()} == {k: bits(v) for k, v in hasty.memory.items()}


@every_strategy
@given(updates=cohorts(), power=st.integers(1, 20))
@few
def test_only_the_proportions_of_examples_count(strategy: Strategy, updates, power):
    """By a power of two exactly: another factor may round the last bit of a product."""
    scaled = [replace(u, num_examples=u.num_examples << power) for u in updates]
    start = State(params=model([0.5] * SIZE))
    assert bits(played(strategy, start, updates).params) == bits(played(strategy, start, scaled).params)


@given(updates=cohorts())
@few
def test_a_fedavg_model_lies_between_the_least_and_the_greatest_update(updates):
    mean = played(FedAvg(), State(params=model([0.5] * SIZE)), updates).params["w"]
    stack = np.array([u.params["w"] for u in updates])
    assert (stack.min(axis=0) <= mean).all()
    assert (mean <= stack.max(axis=0)).all()


@given(start=cohorts(), first=cohorts(), second=cohorts())
@few
def test_fedavgm_without_momentum_is_fedavg(start, first, second):
    """To the rounding of w + (mean - w) in float32: two operations, each off by half a unit of the larger."""
    plain = momentum = State(params=start[0].params)
    for cohort in (first, second):
        before = momentum.params["w"]
        plain, momentum = played(FedAvg(), plain, cohort), played(FedAvgM(momentum=0.0), momentum, cohort)
        scale = np.maximum(abs(plain.params["w"]), abs(before))
        error = abs(plain.params["w"].astype("float64") - momentum.params["w"])
        assert (error <= 2 * np.finfo("float32").eps * scale + 1e-44).all()


@given(updates=cohorts())
@few
def test_fedprox_without_mu_is_fedavg(updates):
    start = State(params=model([0.5] * SIZE))
    models = [played(strategy, start, updates).params for strategy in (FedProx(mu=0.0), FedAvg())]
    assert bits(models[0]) == bits(models[1])
    assert FedProx(mu=0.0).configure({"epochs": 1}) == {"epochs": 1, "proximal_mu": 0.0}


@every_strategy
@given(updates=cohorts(min_size=17), data=st.data())
@few
def test_a_missing_client_shifts_nobody(strategy: Strategy, updates, data):
    """Its place in the cohort stays: as if it had been asked and brought an update of no weight."""
    missing = data.draw(st.sampled_from(updates))
    names = [u.client for u in updates]
    left = [u for u in updates if u is not missing]
    weightless = [u if u is not missing else replace(u, num_examples=0) for u in updates]
    start = State(params=model([0.5] * SIZE))
    assert bits(played(strategy, start, left, names).params) == bits(played(strategy, start, weightless, names).params)


@every_strategy
def test_updates_that_change_nothing_change_nothing(strategy: Strategy):
    start = State(params=model([0.25, -3.0, 0.0, 1e-3, 7.5, 100.0], 5))
    same = [Update(client=name, params=start.params, num_examples=n) for name, n in (("a", 1), ("b", 7))]
    assert bits(played(strategy, start, same).params) == bits(start.params)


@every_strategy
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_params_and_memory_keep_their_dtypes_round_after_round(strategy: Strategy, dtype):
    rng = numpy_rng(3)
    state, seen = State(params=model(np.zeros(SIZE), 0, dtype)), []
    for round_ in range(1, 4):
        cohort = [update(name, model(rng.normal(size=SIZE), round_, dtype)) for name in "abc"]
        state = played(strategy, state, cohort)
        seen.append({name: kept.manifest for name, kept in state.memory.items()})
        assert state.params.manifest == cohort[0].params.manifest
    assert seen[0] == seen[1] == seen[2]
    assert {kept["w"].dtype.name for kept in state.memory.values()} <= {dtype}


@every_strategy
@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "uint64"])
def test_counters_follow_their_mean_in_every_round(strategy: Strategy, dtype):
    """They neither run ahead by momentum nor lag behind by a learning rate, up or down."""
    state = State(params=Params({**params(w=[0.0]), **params(dtype, seen=7)}))
    for low, high, mean in ((10, 20, 15), (21, 30, 26), (2, 3, 2), (255, 255, 255), (0, 0, 0)):    # half to even
        models = {name: Params({**params(w=[1.0]), **params(dtype, seen=n)}) for name, n in (("a", low), ("b", high))}
        state = played(strategy, state, [update(name, tensors) for name, tensors in models.items()])
        assert (state.params["seen"].dtype.name, state.params["seen"].item()) == (dtype, mean)


@every_strategy
def test_masks_stay_masks(strategy: Strategy):
    state = State(params=Params({**params(w=[0.0]), **params("bool", mask=[True, False])}))
    for mask in ([True, False], [False, False], [True, True]):
        cohort = [update(name, Params({**params(w=[1.0]), **params("bool", mask=mask)})) for name in "ab"]
        state = played(strategy, state, cohort)
        assert state.params["mask"].tolist() == mask


@every_strategy
def test_a_step_leads_towards_the_mean(strategy: Strategy):
    state = played(strategy, State(params=params(w=[0.0, 0.0])), [update("a", params(w=[0.5, -0.5]))])
    assert state.params["w"][0] > 0 > state.params["w"][1]


@pytest.mark.parametrize("scale", [0.5, 20.0, 1000.0])
def test_an_adaptive_step_hardly_depends_on_the_size_of_the_change(scale):
    """What the server learning rate says of itself: about that much a round once the moments have settled."""
    state = State(params=params(w=[0.0]))
    for _ in range(400):
        before = state.params["w"][0]
        state = played(FedAdam(), state, [update("a", params(w=[before + scale]))])
    assert state.params["w"][0] - before == pytest.approx(0.03, rel=0.05)
