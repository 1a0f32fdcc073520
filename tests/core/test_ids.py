"""Ids are ordered by time and unique by entropy; names are what a URL and a path can hold."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fednode.core.ids import ALPHABET, is_name, make_id

entropy = st.binary(min_size=10, max_size=10)
times = st.integers(0, 2**48 - 1)


def test_an_id_by_hand():
    """2 bits of nothing, 48 of time, 80 of entropy: 1 ms is bit 80, that is bit 0 of the digit 16 from the right."""
    assert make_id("run", 0, bytes(10)) == "run_" + "0" * 26
    assert make_id("run", 1, bytes(10)) == "run_" + "0" * 9 + "1" + "0" * 16
    assert make_id("mdl", 0, bytes(9) + b"\x1f") == "mdl_" + "0" * 25 + "z"
    assert make_id("cli", 2**48 - 1, b"\xff" * 10) == "cli_7" + "z" * 25


@given(times, entropy)
def test_an_id_has_26_characters_of_crockfords_alphabet(now_ms, noise):
    assert re.fullmatch(f"run_[{ALPHABET}]{{26}}", make_id("run", now_ms, noise))


@given(times, times, entropy, entropy)
def test_ids_sort_by_the_time_they_were_made(first, second, noise, other):
    ids = make_id("run", first, noise), make_id("run", second, other)
    assert (ids[0] < ids[1]) == ((first, noise) < (second, other))


def test_the_alphabet_lacks_what_looks_alike():
    assert len(set(ALPHABET)) == 32
    assert not set("ilou") & set(ALPHABET)
    assert list(ALPHABET) == sorted(ALPHABET)


@pytest.mark.parametrize("name", ["a", "7", "hospital-a", "client-1", "st.mary_2", "a" * 63])
def test_a_name_that_may_be(name):
    assert is_name(name)


@pytest.mark.parametrize(
    "name", ["", "-a", ".a", "_a", "A", "ä", "a b", "a/b", "..", "a\n", "a\x00", "a:b", "a" * 64]
)
def test_a_name_that_may_not_be(name):
    assert not is_name(name)
