"""The robust strategies against references written another way, and against whoever wants to break them."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from strategy_scene import bits, params, played, update

from fednode.core import geometry
from fednode.core.aggregation import Updates
from fednode.core.geometry import inner_products, moved
from fednode.core.params import Params
from fednode.core.records import State, Update
from fednode.core.seeds import numpy_rng
from fednode.errors import TooFewUpdates
from fednode.strategies.centered_clipping import CenteredClipping
from fednode.strategies.geometric_median import GeometricMedian
from fednode.strategies.median import Median
from fednode.strategies.multi_krum import MultiKrum
from fednode.strategies.robust import Robust
from fednode.strategies.trimmed_mean import TrimmedMean

EVERY = [kind(hostile=2) for kind in (Median, TrimmedMean, MultiKrum, GeometricMedian, CenteredClipping)]
every_strategy = pytest.mark.parametrize("strategy", EVERY, ids=[type(one).__name__ for one in EVERY])
few = settings(max_examples=25, deadline=None)
SHAPES = {"w": (3, 2), "b": (4,)}
SIZE = 10


def model(values: np.ndarray, counter: int = 0, dtype: str = "float64") -> Params:
    """A row of SIZE numbers as two tensors, and a counter beside them."""
    return Params({
        "w": values[:6].reshape(3, 2).astype(dtype), "b": values[6:].astype(dtype),
        "seen": np.array(counter, "int64"),
    })


def row(of: Params) -> np.ndarray:
    return np.concatenate([of["w"].reshape(-1), of["b"]]).astype(np.float64)


def cohort(rows: np.ndarray, dtype: str = "float64") -> list[Update]:
    """Whose numbers of examples differ widely: none of these rules may look at them."""
    return [update(f"client-{i:02}", model(values, i, dtype), 10 ** (i % 5)) for i, values in enumerate(rows)]


def after(strategy: Robust, rows: np.ndarray, start: np.ndarray) -> np.ndarray:
    return row(played(strategy, State(params=model(start)), cohort(rows)).params)


def drawn(seed: int, num_clients: int) -> tuple[np.ndarray, np.ndarray]:
    """(clients, SIZE) updates of many magnitudes, and where they started."""
    rng = numpy_rng(seed)
    start = rng.normal(size=SIZE)
    return start + rng.normal(size=(num_clients, SIZE)) * 10.0 ** rng.integers(-3, 3, (num_clients, 1)), start


cohorts = st.builds(drawn, st.integers(0, 2**32), st.integers(7, 24))


# --- references ----------------------------------------------------------------------------------------


@given(found=cohorts)
@few
def test_the_median_is_that_of_each_param(found):
    rows, start = found
    wanted = [statistics.median(column.tolist()) for column in rows.T]
    assert after(Median(hostile=2), rows, start) == pytest.approx(wanted, rel=1e-12)


@given(found=cohorts)
@few
def test_the_trimmed_mean_is_scipys(found):
    rows, start = found
    wanted = stats.trim_mean(rows, (2 + 1e-9) / len(rows), axis=0)
    assert after(TrimmedMean(hostile=2), rows, start) == pytest.approx(wanted, rel=1e-9, abs=1e-12)


@given(found=cohorts)
@few
def test_multi_krum_averages_those_with_the_nearest_neighbours(found):
    rows, start = found
    num_near = len(rows) - 4
    scores = []
    for i, one in enumerate(rows):
        apart = sorted(float(((one - other) ** 2).sum()) for j, other in enumerate(rows) if j != i)
        scores.append(sum(apart[:num_near]))
    best = sorted(range(len(rows)), key=scores.__getitem__)[:num_near]
    assert after(MultiKrum(hostile=2), rows, start) == pytest.approx(rows[best].mean(axis=0), rel=1e-6, abs=1e-9)


@given(found=cohorts)
@few
def test_no_point_is_nearer_to_all_than_the_geometric_median(found):
    rows, start = found

    def away(point: np.ndarray) -> float:
        return float(np.linalg.norm(rows - point, axis=1).sum())

    ours = after(GeometricMedian(hostile=2), rows, start)
    theirs = optimize.minimize(away, np.median(rows, axis=0), method="BFGS").x
    assert away(ours) <= min(away(theirs), *(away(one) for one in rows)) * (1 + 1e-5)


@given(found=cohorts, radius=st.sampled_from([0.0, 0.5, 1e6]), steps=st.integers(1, 4))
@few
def test_centered_clipping_by_its_formula(found, radius, steps):
    rows, start = found
    centre = start
    for _ in range(steps):
        lengths = np.linalg.norm(rows - centre, axis=1)
        limit = radius or statistics.median(lengths.tolist())
        changes = [(one - centre) * min(1.0, limit / length) for one, length in zip(rows, lengths, strict=True)]
        centre = centre + np.mean(changes, axis=0)
    assert after(CenteredClipping(hostile=2, radius=radius, steps=steps), rows, start) == pytest.approx(
        centre, rel=1e-6, abs=1e-8
    )


def test_centered_clipping_that_cuts_nothing_is_the_mean_of_the_clients():
    rows, start = drawn(1, 9)
    assert after(CenteredClipping(hostile=2, radius=1e9), rows, start) == pytest.approx(rows.mean(axis=0), rel=1e-9)


# --- whoever wants to break them -----------------------------------------------------------------------


@every_strategy
@pytest.mark.parametrize("far", [10.0, 1e6, 1e30, 3e38])
@given(seed=st.integers(0, 2**32))
@few
def test_hostile_clients_lead_nobody_far_away(strategy: Robust, far, seed):
    """Two of nine send whatever they like, in either direction; the model stays among the honest ones."""
    rng = numpy_rng(seed)
    start, honest = np.zeros(SIZE), rng.normal(loc=1.0, scale=0.1, size=(7, SIZE))
    hostile = np.stack([np.full(SIZE, far), np.full(SIZE, -far if seed % 2 else far)])
    rows = np.concatenate([honest, hostile])[rng.permutation(9)].astype(np.float32)
    found = row(played(strategy, State(params=model(start, dtype="float32")), cohort(rows, "float32")).params)
    assert np.linalg.norm(found - honest.mean(axis=0)) < np.linalg.norm(start - honest.mean(axis=0))


@every_strategy
def test_a_cohort_in_which_they_could_decide_is_refused(strategy: Robust):
    rows, start = drawn(3, strategy.least_updates)
    after(strategy, rows, start)
    with pytest.raises(TooFewUpdates, match=f"there are {strategy.least_updates - 1} updates") as error:
        after(strategy, rows[1:], start)
    assert f"min_updates to {strategy.least_updates}" in error.value.fix


def test_how_many_it_takes():
    assert [type(one)(hostile=2).least_updates for one in EVERY] == [5, 5, 7, 5, 5]
    assert [type(one)(hostile=0).least_updates for one in EVERY] == [1, 1, 3, 1, 1]


# --- what holds for all of them ------------------------------------------------------------------------


@every_strategy
@given(found=cohorts, rng=st.randoms(use_true_random=False))
@few
def test_the_order_of_arrival_changes_no_bit(strategy: Robust, found, rng):
    rows, start = found
    calm, hasty = cohort(rows), rng.sample(cohort(rows), len(rows))
    models = [played(strategy, State(params=model(start)), updates).params for updates in (calm, hasty)]
    assert bits(models[0]) == bits(models[1])


@every_strategy
def test_blocks_change_nothing_but_the_last_bits(strategy: Robust, monkeypatch):
    """Twenty columns of a few elements each, as a large model has many."""
    rows, start = drawn(5, 9)
    whole = after(strategy, rows, start)
    monkeypatch.setattr(geometry, "BLOCK_ELEMENTS", 18)
    assert after(strategy, rows, start) == pytest.approx(whole, rel=1e-9)


@every_strategy
def test_updates_that_change_nothing_change_nothing(strategy: Robust):
    start = np.arange(SIZE) / 8
    assert after(strategy, np.stack([start] * 8), start).tolist() == start.tolist()


@every_strategy
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtypes_stay_and_counters_follow(strategy: Robust, dtype):
    rows, start = drawn(6, 9)
    found = played(strategy, State(params=model(start, 2, dtype)), cohort(rows, dtype)).params
    assert found.manifest == model(start, 0, dtype).manifest
    assert 0 <= found["seen"].item() <= 8


@every_strategy
def test_a_mask_is_what_most_say(strategy: Robust):
    masks = [[True, False]] * 7 + [[False, True]] * 2
    updates = [
        update(f"c{i}", Params({**params(w=[1.0 + i / 100]), **params("bool", mask=mask)}))
        for i, mask in enumerate(masks)
    ]
    state = State(params=Params({**params(w=[0.0]), **params("bool", mask=[False, False])}))
    assert played(strategy, state, updates).params["mask"].tolist() == [True, False]


@given(seed=st.integers(0, 2**32))
@few
def test_inner_products_and_moves_by_plain_numpy(seed):
    rows, start = drawn(seed, 8)
    updates = Updates([one.client for one in cohort(rows)], cohort(rows), model(start).manifest)
    assert inner_products(updates, model(start)) == pytest.approx((rows - start) @ (rows - start).T, rel=1e-9, abs=1e-9)
    shares = numpy_rng(seed).normal(size=8) * (np.arange(8) % 2)
    assert row(moved(updates, model(start), shares)) == pytest.approx(
        start + shares @ (rows - start), rel=1e-9, abs=1e-9
    )


