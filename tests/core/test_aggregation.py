"""The canonical mean: its bits are the definition's, whoever is missing and whoever comes first."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fednode.core import aggregation
from fednode.core.aggregation import BLOCK_CLIENTS, COLUMN_ELEMENTS, Updates
from fednode.core.params import DTYPES, Params
from fednode.core.records import Update
from fednode.core.seeds import numpy_rng
from fednode.errors import TooFewUpdates


def update(client: str, values: object, num_examples: int = 1, dtype: str = "float32") -> Update:
    return Update(client=client, params=Params({"w": np.array(values, dtype)}), num_examples=num_examples)


def mean_of(updates: Sequence[Update], cohort: Sequence[str] | None = None) -> np.ndarray:
    names = [u.client for u in updates] if cohort is None else cohort
    return Updates(names, updates, updates[0].params.manifest).mean()["w"]


def naive_mean(updates: Sequence[Update], cohort: Sequence[str]) -> list[float]:
    """The definition, element by element in Python floats: blocks of 16 ranks, name order, one division."""
    ranks = {name: rank for rank, name in enumerate(sorted(cohort, key=lambda name: name.encode()))}
    num_examples = float(sum(u.num_examples for u in updates))
    means = []
    for element in range(updates[0].params["w"].size):
        total = 0.0
        for block in range(len(cohort) // 16 + 1):
            block_sum = 0.0
            for u in sorted(updates, key=lambda u: u.client.encode()):
                if ranks[u.client] // 16 == block:
                    block_sum += float(u.num_examples) * float(u.params["w"].reshape(-1)[element])
            total += block_sum
        means.append(total / num_examples)
    return means


def many_updates(num_clients: int, size: int = 50, seed: int = 7, dtype: str = "float32") -> list[Update]:
    """Values of many magnitudes, so that another order of additions shows in the bits."""
    rng = numpy_rng(seed)
    scales = 10.0 ** rng.integers(-6, 7, (num_clients, size))
    values, counts = rng.normal(size=(num_clients, size)) * scales, rng.integers(1, 1000, num_clients)
    return [update(f"client-{i + 1}", values[i], int(counts[i]), dtype) for i in range(num_clients)]


def test_the_mean_weighs_by_examples():
    mean = mean_of([update("a", [0.0, 1.0], num_examples=1), update("b", [4.0, 1.0], num_examples=3)])
    assert mean.tolist() == [3.0, 1.0]          # (0 * 1 + 4 * 3) / 4, (1 * 1 + 1 * 3) / 4


@pytest.mark.parametrize("num_clients", [1, 2, 16, 17, 40])
def test_its_bits_are_those_of_the_definition(num_clients):
    updates = many_updates(num_clients, dtype="float64")
    names = [u.client for u in updates]
    assert mean_of(updates).tolist() == naive_mean(updates, names)


def test_forty_clients_in_three_blocks_differ_from_one_long_sum():
    """Else the test above would not see a sum without blocks."""
    updates = many_updates(40, dtype="float64")
    long_sum = np.zeros(50)
    for u in sorted(updates, key=lambda u: u.client):
        long_sum += np.float64(u.num_examples) * u.params["w"]
    assert mean_of(updates).tolist() != (long_sum / sum(u.num_examples for u in updates)).tolist()


@pytest.mark.parametrize("missing", ["client-1", "client-20", "client-9"])
def test_who_is_missing_shifts_nobody_to_another_block(missing):
    updates = many_updates(40, dtype="float64")
    names = [u.client for u in updates]
    left = [u for u in updates if u.client != missing]
    assert mean_of(left, names).tolist() == naive_mean(left, names)


def test_a_missing_client_leaves_other_bits_than_a_cohort_without_it():
    """Blocks are ranks in the cohort: the first of forty is missing, and nobody moves up."""
    updates = many_updates(40, size=2000, dtype="float64")
    left = [u for u in updates if u.client != "client-1"]
    assert mean_of(left, [u.client for u in updates]).tolist() != mean_of(left).tolist()


@given(st.randoms(use_true_random=False))
def test_the_order_of_arrival_changes_no_bit(rng: random.Random):
    updates = many_updates(40)
    names = [u.client for u in updates]
    expected = mean_of(updates).tobytes()
    rng.shuffle(updates)
    rng.shuffle(names)
    assert mean_of(updates, names).tobytes() == expected


def test_names_are_ordered_by_bytes():
    """`Z` comes before `a`, and `client-10` before `client-2`."""
    updates = Updates(["a", "Z", "é"], [update("é", [1.0]), update("a", [1.0]), update("Z", [1.0])], PLAIN)
    assert [u.client for u in updates] == ["Z", "a", "é"]


def test_products_are_made_in_float64():
    """3 * (1 + 2^-23) is no float32: its neighbours are 3 + 2 * 2^-23 and 3 + 4 * 2^-23."""
    mean = mean_of([update("a", [1 + 2.0**-23], 3), update("b", [-1.0], 3)])
    assert mean.tolist() == [2.0**-24]          # (3 + 3 * 2^-23 - 3) / 6


@given(
    st.lists(
        st.tuples(st.floats(-(2.0**100), 2.0**100, width=32), st.integers(1, 10**6)), min_size=1, max_size=40
    )
)
def test_a_float32_mean_lies_between_the_least_and_the_greatest_update(pairs):
    updates = [update(f"c{i}", [x], n) for i, (x, n) in enumerate(pairs)]
    values = [x for x, _ in pairs]
    assert min(values) <= mean_of(updates)[0] <= max(values)


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=40), st.integers(0, 20))
def test_scaling_every_count_by_a_power_of_two_changes_no_bit(counts, power):
    values = numpy_rng(1).normal(size=(len(counts), 5))
    once = mean_of([update(f"c{i}", x, n) for i, (x, n) in enumerate(zip(values, counts, strict=True))])
    scaled = mean_of([update(f"c{i}", x, n << power) for i, (x, n) in enumerate(zip(values, counts, strict=True))])
    assert once.tobytes() == scaled.tobytes()


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=40), st.integers(1, 1000))
def test_scaling_every_count_changes_a_float32_mean_by_at_most_one_rounding(counts, factor):
    values = numpy_rng(1).normal(size=(len(counts), 5)) ** 2        # no cancellation
    once = mean_of([update(f"c{i}", x, n) for i, (x, n) in enumerate(zip(values, counts, strict=True))])
    scaled = mean_of([update(f"c{i}", x, n * factor) for i, (x, n) in enumerate(zip(values, counts, strict=True))])
    np.testing.assert_array_max_ulp(once, scaled, maxulp=1)


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_every_dtype_comes_back_as_it_went(dtype):
    updates = [update(name, [[0, 1]], 1, dtype) for name in "abc"]
    mean = mean_of(updates)
    assert (mean.dtype.name, mean.shape, mean.tolist()) == (dtype, (1, 2), [[0, 1]])


@pytest.mark.parametrize(("left", "right", "expected"), [(0, 1, 0), (1, 2, 2), (2, 3, 2), (-1, 0, 0), (-2, -1, -2)])
def test_means_of_integers_round_half_to_even(left, right, expected):
    assert mean_of([update("a", [left], 1, "int64"), update("b", [right], 1, "int64")]).tolist() == [expected]


def test_a_bool_is_the_majority_by_examples_and_false_at_a_tie():
    tie = [update("a", [True], 2, "bool"), update("b", [False], 2, "bool")]
    majority = [update("a", [True], 3, "bool"), update("b", [False], 2, "bool")]
    assert (mean_of(tie).tolist(), mean_of(majority).tolist()) == ([False], [True])


def test_the_greatest_integers_do_not_wrap():
    top = np.iinfo("int64").max
    mean = mean_of([update("a", [top], 1, "int64"), update("b", [top], 1, "int64")])
    assert 0 <= top - int(mean[0]) < 2048       # the next float64 below 2^63 is 1024 away


def test_a_tensor_longer_than_a_column_is_read_whole_and_once():
    size = 2 * COLUMN_ELEMENTS + 3
    values = np.arange(size, dtype="float64")
    updates = [update("a", values, 1, "float64"), update("b", values + 2, 1, "float64")]
    assert np.array_equal(mean_of(updates), values + 1)
    columns = list(Updates("ab", updates, updates[0].params.manifest).columns())
    assert [(c.start, c.stop) for c in columns] == [
        (0, COLUMN_ELEMENTS), (COLUMN_ELEMENTS, 2 * COLUMN_ELEMENTS), (2 * COLUMN_ELEMENTS, size)
    ]
    assert [len(c.rows) for c in columns] == [2, 2, 2]


def test_scalars_empty_tensors_and_strided_arrays_are_tensors_too():
    strided = np.arange(12, dtype="float32").reshape(3, 4).T
    arrays = {"count": np.array(3, "int64"), "none": np.zeros((0, 4), "float32"), "t": strided}
    updates = [Update(client=name, params=Params(arrays), num_examples=1) for name in "ab"]
    mean = Updates("ab", updates, updates[0].params.manifest).mean()
    assert mean.manifest == updates[0].params.manifest
    assert (mean["count"].item(), mean["t"].tolist()) == (3, strided.tolist())


def test_updates_can_be_read_twice():
    updates = Updates("ab", [update("a", [1.0]), update("b", [3.0])], PLAIN)
    assert updates.mean()["w"].tolist() == updates.mean()["w"].tolist() == [2.0]
    assert (len(updates), updates.num_examples, updates[0].client) == (2, 2, "a")


@pytest.mark.parametrize("updates", [[], [Update(client="a", params=Params({"w": np.zeros(1)}), num_examples=0)]])
def test_a_mean_of_nothing_is_refused(updates):
    with pytest.raises(TooFewUpdates, match=f"{len(updates)} updates"):
        Updates(["a"], updates, PLAIN)


def test_the_block_is_what_the_protocol_says():
    """Both numbers are in the definition of a run's bits, or in its memory: no accident may change them."""
    assert (BLOCK_CLIENTS, aggregation.COLUMN_ELEMENTS) == (16, 65536)


PLAIN = Params({"w": np.zeros(1, "float32")}).manifest
