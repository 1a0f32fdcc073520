"""Seeds: everything that should count does, nothing else, and no release may move them."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from fednode.core.seeds import (
    SEED_BITS,
    client_seed,
    derive_seed,
    init_seed,
    numpy_rng,
    selection_rng,
    visit_seed,
)


def test_seeds_are_those_of_the_first_release():
    """The first 63 bits of the sha256 of `[7,"init"]` and `[7,"visit",1,"a"]`. A change here changes every run."""
    assert init_seed(7) == 5710945977939328395
    assert visit_seed(7, 1, "a") == 4692921616781117213


@given(st.integers(0, 2**63 - 1), st.integers(0, 10**6), st.text(max_size=20))
def test_a_seed_fits_a_signed_64_bit_integer(seed, number, name):
    assert 0 <= visit_seed(seed, number, name) < 2**SEED_BITS
    assert 0 <= client_seed(seed, name) < 2**SEED_BITS


def test_run_round_client_and_purpose_all_count():
    runs, rounds, clients = (1, 2), (1, 2, 11), ("a", "b", "1", "init", "visit")
    visits = [visit_seed(*parts) for parts in itertools.product(runs, rounds, clients)]
    others = [client_seed(run, client) for run in runs for client in clients] + [init_seed(run) for run in runs]
    assert len({*visits, *others}) == len(visits) + len(others)


def test_parts_cannot_run_into_each_other():
    assert derive_seed("a", "bc") != derive_seed("ab", "c")
    assert derive_seed(1, 12) != derive_seed(11, 2)
    assert derive_seed(1, "2") != derive_seed(1, 2)


def test_an_attempt_selects_anew_and_trains_the_same():
    names = [f"c{i}" for i in range(100)]
    draws = [selection_rng(7, 3, attempt).sample(names, 10) for attempt in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_a_numpy_generator_is_pcg64_by_name():
    assert numpy_rng(7).bit_generator.__class__.__name__ == "PCG64"
    assert numpy_rng(7).integers(2**32, size=3).tolist() == numpy_rng(7).integers(2**32, size=3).tolist()
