"""Parts are disjoint, complete, seeded apart from the run, and leave no site without data."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.errors import BadConfig, DataError
from fednode.tasks.base import Partition
from fednode.tasks.partition import parse_partition, partition_indices

SPLITS = st.sampled_from(["iid", "dirichlet:0.1", "dirichlet:0.5", "dirichlet:100", "shards:1", "shards:3"])


def all_parts(labels: np.ndarray, count: int, split: str = "iid", seed: int = 0, **how: object) -> list[list[int]]:
    return [
        partition_indices(
            labels, len(labels), Partition(index=index, count=count, split=split, seed=seed), **how  # type: ignore[arg-type]
        ).tolist()
        for index in range(1, count + 1)
    ]


@settings(max_examples=150, deadline=None)
@given(data=st.data(), count=st.integers(1, 6), split=SPLITS, seed=st.integers(0, 99), is_test=st.booleans())
def test_parts_are_disjoint_complete_ascending_and_large_enough(data, count, split, seed, is_test) -> None:
    min_examples = data.draw(st.integers(1, 4))
    sizes = st.integers(count * max(min_examples, 3), 60)
    labels = np.asarray(data.draw(sizes.flatmap(lambda n: st.lists(st.integers(0, 3), min_size=n, max_size=n))))
    parts = all_parts(labels, count, split, seed, is_test=is_test, min_examples=min_examples)
    assert sorted(chain(*parts)) == list(range(len(labels)))
    assert all(part == sorted(part) for part in parts)
    assert min(map(len, parts)) >= (1 if is_test else min_examples)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), count=st.integers(1, 4), split=SPLITS, is_test=st.booleans())
def test_whole_groups_stay_together(data, count, split, is_test) -> None:
    patients = data.draw(st.lists(st.integers(0, 30), min_size=60, max_size=90))
    if len(set(patients)) < 3 * count:
        patients += list(range(100, 100 + 3 * count))
    labels = np.asarray([patient % 2 for patient in patients])
    parts = all_parts(labels, count, split, groups=patients, is_test=is_test)
    seen = [{patients[index] for index in part} for part in parts]
    assert sorted(chain(*parts)) == list(range(len(labels)))
    assert sum(map(len, seen)) == len(set(patients))            # no patient is in two parts
    assert all(seen)


def test_iid_parts_differ_by_one_example_at_most() -> None:
    assert sorted(map(len, all_parts(np.zeros(11), 3))) == [3, 4, 4]


def test_iid_parts_of_groups_are_as_even_as_the_groups_allow() -> None:
    groups = ["a"] * 4 + ["b"] * 4 + ["c"] * 4 + ["d"] * 4       # four patients of four images, two parts
    assert list(map(len, all_parts(np.zeros(16), 2, groups=groups))) == [8, 8]


def test_equal_seeds_cut_equally_and_other_seeds_otherwise() -> None:
    labels = np.arange(200) % 10
    for split in ("iid", "dirichlet:0.5", "shards:2"):
        assert all_parts(labels, 4, split, seed=1) == all_parts(labels, 4, split, seed=1)
        assert all_parts(labels, 4, split, seed=1) != all_parts(labels, 4, split, seed=2)


def test_two_shards_give_a_site_two_labels() -> None:
    labels = np.repeat(np.arange(10), 20)[np.random.default_rng(0).permutation(200)]     # 20 of each of ten labels
    parts = all_parts(labels, 5, "shards:2")            # 10 shards of 20: each is one label
    assert [len(set(labels[part])) for part in parts] == [2] * 5
    assert [len(part) for part in parts] == [40] * 5


def test_a_group_has_the_label_that_most_of_its_examples_have() -> None:
    groups = np.repeat(["ann", "bob", "cem", "dan"], 3)
    labels = np.asarray([1, 1, 0, 0, 0, 1, 1, 0, 1, 0, 1, 0])       # by majority: ann 1, bob 0, cem 1, dan 0
    for seed in range(10):
        parts = all_parts(labels, 2, "shards:1", seed, groups=groups)
        assert sorted(sorted(set(groups[part])) for part in parts) == [["ann", "cem"], ["bob", "dan"]]


def test_a_small_alpha_is_skewed_and_a_large_one_is_even() -> None:
    labels = np.arange(10_000) % 10

    def largest_share(split: str) -> float:
        part = all_parts(labels, 5, split)[0]
        return float(np.bincount(labels[part], minlength=10).max() / len(part))

    assert largest_share("dirichlet:1000") < 0.13       # 0.1 would be even
    assert largest_share("dirichlet:0.1") > 0.25


def test_what_a_poor_part_lacks_comes_from_the_largest() -> None:
    labels = np.zeros(100, np.int64)                    # one label, alpha 0.001: one part would get everything
    sizes = sorted(map(len, all_parts(labels, 3, "dirichlet:0.001", min_examples=20)))
    assert sizes == [20, 20, 60]


def test_the_test_split_is_cut_iid_whatever_the_split() -> None:
    labels = np.repeat([0, 1], 50)
    iid = all_parts(labels, 2, "iid", is_test=True)
    assert all_parts(labels, 2, "shards:1", is_test=True) == iid == all_parts(labels, 2, "dirichlet:0.1", is_test=True)
    assert iid != all_parts(labels, 2, "iid")           # and from another stream than the train split


def test_a_test_split_smaller_than_a_batch_is_still_cut() -> None:
    assert sorted(map(len, all_parts(np.zeros(5), 5, is_test=True, min_examples=32))) == [1] * 5


def test_labels_may_be_words_and_may_be_missing_for_iid() -> None:
    words = np.asarray(["ill", "well"] * 10)
    assert sorted(chain(*all_parts(words, 2, "shards:1"))) == list(range(20))
    assert len(partition_indices(None, 10, Partition(index=1, count=2))) == 5
    with pytest.raises(BadConfig, match="needs labels"):
        partition_indices(None, 10, Partition(index=1, count=2, split="shards:2"))


@pytest.mark.parametrize(
    ("num_examples", "how", "message"),
    [
        (4, {}, "4 examples are too few for 5 parts of at least 1"),
        (100, {"min_examples": 32}, "100 examples are too few for 5 parts of at least 32"),
        (9, {"groups": [1, 1, 1, 2, 2, 2, 3, 3, 3]}, "3 groups of examples are too few for 5 parts"),
        (9, {"groups": [1, 2]}, "2 groups for 9 examples"),
        (20, {"groups": [1] * 16 + [2, 3, 4, 5], "min_examples": 2}, "20 examples in 5 groups do not make 5 parts"),
    ],
)
def test_too_little_data_is_told_with_both_numbers(num_examples: int, how: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        all_parts(np.zeros(num_examples), 5, **how)


def test_more_shards_than_examples_are_told() -> None:
    with pytest.raises(DataError, match=r"^10 units of data cannot be cut into 5 x 3 shards"):
        all_parts(np.zeros(10), 5, "shards:3")


def test_k_n_is_read_as_it_is_written() -> None:
    assert parse_partition("2/5", "dirichlet:0.5", 7) == Partition(index=2, count=5, split="dirichlet:0.5", seed=7)
    assert parse_partition(" 1 / 1 ") == Partition(index=1, count=1)


@pytest.mark.parametrize(
    ("text", "split", "message", "fix"),
    [
        ("0/5", "iid", "no part 0 of 5", "K counts from 1"),
        ("6/5", "iid", "no part 6 of 5", "at most N"),
        ("two of five", "iid", "'two of five' is not of the form K/N", "2/5"),
        ("1/-3", "iid", "not of the form K/N", "2/5"),
        ("1/2", "random", "no split 'random'", "iid, dirichlet:ALPHA, shards:N"),
        ("1/2", "iid:3", "no split 'iid:3'", "iid, dirichlet:ALPHA, shards:N"),
        ("1/2", "dirichlet", "'' is no number", "dirichlet:0.5"),
        ("1/2", "dirichlet:0", "0 is not between 0.001 and 1e\\+06", "dirichlet:0.5"),
        ("1/2", "dirichlet:nan", "nan is not between", "dirichlet:0.5"),
        ("1/2", "dirichlet:-1", "-1 is not between", "dirichlet:0.5"),
        ("1/2", "shards:2.5", "'2.5' is no whole number", "shards:2"),
        ("1/2", "shards:0", "0 is not between", "shards:2"),
    ],
)
def test_a_partition_that_cannot_be_is_refused_with_the_fix(text: str, split: str, message: str, fix: str) -> None:
    with pytest.raises(BadConfig, match=message) as caught:
        parse_partition(text, split)
    assert fix in caught.value.fix
