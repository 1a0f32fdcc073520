"""Params: names in order, dtypes kept, casts that round once and never wrap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fednode.core.params import (
    DTYPES,
    FINITE_CHECK_BLOCK,
    Manifest,
    Params,
    TensorSpec,
    cast_array,
    require_finite,
    require_match,
    require_shapes,
)
from fednode.errors import NotFinite, ParamsError, ParamsMismatch

FLOATS = ("float16", "float32", "float64")
INTEGERS = tuple(sorted(name for name in DTYPES if name.startswith(("int", "uint"))))


def one(value: object, dtype: str = "float32") -> Params:
    return Params({"w": np.array(value, dtype)})


def test_names_are_in_byte_order_whatever_order_they_came_in():
    params = Params({"b": np.zeros(1), "é": np.zeros(1), "a.10": np.zeros(1), "a.2": np.zeros(1), "Z": np.zeros(1)})
    assert list(params) == ["Z", "a.10", "a.2", "b", "é"]       # bytes: Z 5a, a 61 2e 31 / 2e 32, b 62, é c3


def test_a_manifest_says_names_dtypes_shapes_and_bytes():
    manifest = Params({"w": np.zeros((2, 3), "float32"), "n": np.array(7, "int64")}).manifest
    assert manifest.tensors == (
        TensorSpec(name="n", dtype="int64", shape=()), TensorSpec(name="w", dtype="float32", shape=(2, 3))
    )
    assert (manifest.num_params, manifest.num_bytes) == (7, 8 + 6 * 4)
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_params_cannot_be_written_through():
    params = one([1.0])
    with pytest.raises(ValueError, match="read-only"):
        params["w"][0] = 2.0


def test_params_hold_at_least_one_tensor():
    with pytest.raises(ParamsError, match="no tensor"):
        Params({})


@pytest.mark.parametrize("dtype", ["complex64", "datetime64[s]", "U3", "O"])
def test_a_dtype_that_the_wire_cannot_carry_is_refused_by_name(dtype):
    with pytest.raises(ParamsError, match="'w' has dtype"):
        Params({"w": np.zeros(1, dtype)})


def test_big_endian_arrays_become_native_so_that_their_bytes_are_what_the_dtype_says():
    params = Params({"w": np.array([1.0, -2.5], ">f4")})
    assert params["w"].tobytes() == np.array([1.0, -2.5], "<f4").tobytes()


def test_equality_is_identity_because_comparing_models_is_what_hashes_are_for():
    params = one([1.0])
    assert params == params
    assert params != one([1.0])


@pytest.mark.parametrize("dtype", FLOATS)
def test_arithmetic_keeps_the_float_dtype_whatever_the_number(dtype):
    params = one([1.0, 4.0], dtype)
    made = [
        params + 1, 1.5 + params, params - 0.5, params * np.float64(0.9), np.float64(0.9) * params, 2 * params,
        params / np.float32(3), -params, params.sqrt(), params.sign(), params.filled(0.25), params * params,
    ]
    assert {result["w"].dtype.name for result in made} == {dtype}


@pytest.mark.parametrize("dtype", [*INTEGERS, "bool"])
def test_a_difference_of_counters_may_be_negative(dtype):
    difference = one([0], dtype) - one([1], dtype)
    assert difference["w"].tolist() == [-1.0]
    assert [(-one([1], dtype))["w"].tolist(), one([1], dtype).sqrt()["w"].dtype.name] == [[-1.0], "float64"]


def test_arithmetic_by_hand():
    left, right = one([1.0, 8.0]), one([4.0, 2.0])
    results = [left + right, left - right, left * right, left / right, (left * right).sqrt(), (left - right).sign()]
    assert [r["w"].tolist() for r in results] == [
        [5.0, 10.0], [-3.0, 6.0], [4.0, 16.0], [0.25, 4.0], [2.0, 4.0], [-1.0, 1.0]
    ]


def test_arithmetic_over_other_names_or_shapes_is_refused():
    with pytest.raises(ParamsMismatch, match=r"shape \(2,\)"):
        one([1.0]) + one([1.0, 2.0])
    with pytest.raises(ParamsMismatch, match="lack tensor 'w'"):
        Params({"v": np.zeros(1), "w": np.zeros(1)}) + Params({"v": np.zeros(1)})


def test_an_overflow_warns_nobody_and_is_found_by_name():
    with pytest.raises(NotFinite, match="'w'"):
        require_finite(one([3e38]) * 10)


def test_filled_takes_no_memory_of_a_model():
    filled = Params({"w": np.zeros((1000, 1000), "float32")}).filled(0.5)["w"]
    assert (filled.strides, filled.shape, filled[999, 999]) == ((0, 0), (1000, 1000), 0.5)


def test_integers_round_half_to_even():
    cast = cast_array(np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.6]), "int32")
    assert cast.tolist() == [-2, -2, 0, 0, 2, 2, 3]


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("source", FLOATS)
def test_floats_beyond_an_integer_dtype_stop_at_its_end_instead_of_wrapping(dtype, source):
    limits, largest = np.iinfo(dtype), float(np.finfo(source).max)
    low, high = (int(value) for value in cast_array(np.array([-largest, largest], source), dtype))
    assert low == max(limits.min, -int(largest))
    # int64 and uint64 end at a number that no float64 is; the next float64 below is the end there.
    assert high in {min(limits.max, int(largest)), int(np.nextafter(np.float64(limits.max), 0))}


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("source", INTEGERS)
def test_integers_beyond_an_integer_dtype_stop_at_its_end_instead_of_wrapping(dtype, source):
    from_, to = np.iinfo(source), np.iinfo(dtype)
    cast = cast_array(np.array([from_.min, from_.max], source), dtype)
    assert [int(value) for value in cast] == [max(from_.min, to.min), min(from_.max, to.max)]


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize("source", sorted(DTYPES))
def test_zero_and_one_survive_every_cast(source, dtype):
    cast = cast_array(np.array([0, 1], source), dtype)
    assert (cast.dtype.name, cast.tolist()) == (dtype, [0, 1])


@given(arrays.arrays(np.float64, 5, elements=st.floats(-2.0**52, 2.0**52)))
def test_a_cast_to_int64_is_pythons_own_round(values):
    assert cast_array(values, "int64").tolist() == [round(value) for value in values.tolist()]


def test_a_cast_of_params_follows_the_manifest():
    manifest = Params({"n": np.zeros(1, "int64"), "w": np.zeros(1, "float32")}).manifest
    cast = Params({"n": np.array([2.5]), "w": np.array([0.1])}).cast(manifest)
    assert cast.manifest == manifest
    assert (cast["n"].tolist(), cast["w"].tolist()) == ([2], [float(np.float32(0.1))])


def test_what_has_the_dtype_already_is_not_copied():
    params = one([1.0])
    assert np.shares_memory(params.cast(params.manifest)["w"], params["w"])


@pytest.mark.parametrize(("value", "dtype"), [(1e39, "float32"), (float("nan"), "int64"), (float("inf"), "int64")])
def test_a_cast_that_would_lose_the_value_is_refused_by_name(value, dtype):
    with pytest.raises(NotFinite, match="'w'"):
        one([value], "float64").cast(one([0], dtype).manifest)


def test_require_match_names_what_differs():
    manifest = one([1.0]).manifest
    require_match(one([2.0]), manifest)
    with pytest.raises(ParamsMismatch, match="'w' has dtype float64, the run's params have float32"):
        require_match(one([1.0], "float64"), manifest)
    with pytest.raises(ParamsMismatch, match="have an extra tensor 'x'"):
        require_shapes(Params({"w": np.zeros(1), "x": np.zeros(1)}), manifest)
    require_shapes(one([1.0], "float64"), manifest)         # dtypes may differ there


@pytest.mark.parametrize("position", [0, FINITE_CHECK_BLOCK - 1, FINITE_CHECK_BLOCK, 2 * FINITE_CHECK_BLOCK])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_broken_element_is_found_wherever_it_is(position, value):
    array = np.zeros(2 * FINITE_CHECK_BLOCK + 1, "float32")
    require_finite(Params({"w": array}))
    array[position] = value
    with pytest.raises(NotFinite, match="'w'"):
        require_finite(Params({"w": array}))
