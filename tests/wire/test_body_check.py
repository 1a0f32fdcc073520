"""The check of a body that arrives: cut anywhere, the verdict is the same."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pytest
import safetensors.numpy
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.core.narrowed import manifest_on_wire, narrowed
from fednode.core.params import Params
from fednode.errors import BadParamsFile, FednodeError, NotFinite, ParamsMismatch, TooLarge
from fednode.wire.body_check import BodyCheck
from fednode.wire.codec import encode

MIXED = Params(
    {
        "bias": np.array([1, -2, 3], np.float16),               # 6 bytes: what follows is out of step with its size
        "count": np.array(7, np.int64),
        "empty": np.zeros((0, 5), np.float32),
        "mask": np.array([True, False, True]),
        "scalar": np.array(0.5, np.float64),
        "weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    }
)


def verdict(body: bytes, chunks: Iterable[bytes], params: Params = MIXED) -> str:
    """The digest, or the name of the error."""
    try:
        check = BodyCheck(params.manifest, len(body))
        for chunk in chunks:
            check.feed(chunk)
        return check.finish()
    except FednodeError as error:
        return type(error).__name__


def whole(body: bytes, params: Params = MIXED) -> str:
    return verdict(body, [body], params)


def cut(body: bytes, places: Iterable[int]) -> list[bytes]:
    ends = [0, *sorted(places), len(body)]
    return [body[start:end] for start, end in pairwise(ends)]


def spoiled(name: str, index: int, value: float) -> bytes:
    """The body of MIXED with one element of one tensor replaced."""
    arrays = {key: np.array(array) for key, array in MIXED.items()}
    arrays[name].reshape(-1)[index] = value
    return encode(Params(arrays))


BODIES = {
    "good": encode(MIXED),
    "nan at the very end": spoiled("weight", 11, np.nan),
    "infinite half": spoiled("bias", 2, -np.inf),
    "infinite double": spoiled("scalar", 0, np.inf),
    "bool of 2": encode(MIXED).replace(b"\x01\x00\x01" + np.float64(0.5).tobytes(), b"\x01\x00\x02" + bytes(8)),
    "no JSON": b"\xf8" + bytes(7) + b"{" + bytes(len(encode(MIXED)) - 9),
}


@given(st.sampled_from(sorted(BODIES)), st.lists(st.integers(0, len(encode(MIXED))), max_size=12))
@settings(max_examples=300, deadline=None)
def test_any_cutting_gives_the_same_verdict(name: str, places: list[int]):
    body = BODIES[name]
    assert verdict(body, cut(body, places)) == whole(body)


@pytest.mark.parametrize("name", BODIES)
def test_byte_by_byte_gives_the_same_verdict(name: str):
    body = BODIES[name]
    assert verdict(body, cut(body, range(len(body)))) == whole(body)


def test_a_good_body_ends_with_its_digest():
    assert whole(BODIES["good"]) == xxhash.xxh3_128(BODIES["good"]).hexdigest()


@pytest.mark.parametrize("index", [0, 5, 11])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_wherever_it_is_and_named(index: int, value: float):
    body = spoiled("weight", index, value)
    check = BodyCheck(MIXED.manifest, len(body))
    with pytest.raises(NotFinite, match="'weight'"):
        check.feed(body)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_nan_whose_bytes_come_in_two_chunks_is_found_with_its_last_byte(dtype: str):
    params = Params({"w": np.array([1, 2, 3], dtype)})
    body = encode(Params({"w": np.array([1, np.nan, 3], dtype)}))
    size = np.dtype(dtype).itemsize
    end = len(body) - size                      # of the NaN, the middle one
    for inside in range(1, size):
        check = BodyCheck(params.manifest, len(body))
        check.feed(body[: end - inside])
        check.feed(b"")
        if inside > 1:
            check.feed(body[end - inside : end - 1])
        with pytest.raises(NotFinite):
            check.feed(body[end - 1 : end])


def test_integers_may_look_like_nan():
    params = Params({"w": np.full(4, -1, np.int32)})        # 0xffffffff: as a float32 a NaN
    assert whole(encode(params), params) == xxhash.xxh3_128(encode(params)).hexdigest()


def test_a_nan_beyond_the_first_block_of_a_large_tensor_is_found():
    values = np.zeros(200_001, np.float32)                  # more than 3 blocks of 65,536
    params = Params({"w": values})
    values = values.copy()
    values[-1] = np.nan
    assert whole(encode(Params({"w": values})), params) == "NotFinite"


def test_a_bool_is_0_or_1():
    assert whole(BODIES["bool of 2"]) == "BadParamsFile"


def test_tensors_of_no_bytes_are_passed_over_wherever_they_lie():
    arrays = {"a": np.zeros(0, np.float32), "b": np.ones(1, np.float32), "c": np.zeros((3, 0), np.float64)}
    params = Params(arrays)
    assert whole(encode(params), params) == xxhash.xxh3_128(encode(params)).hexdigest()
    nothing = Params({"a": np.zeros(0, np.float32)})
    assert whole(encode(nothing), nothing) == xxhash.xxh3_128(encode(nothing)).hexdigest()


def test_a_foreign_writers_order_padding_and_metadata_are_welcome():
    arrays = {name: np.array(array, order="C") for name, array in MIXED.items()}
    theirs = safetensors.numpy.save(arrays, {"format": "pt"})
    assert whole(theirs) == xxhash.xxh3_128(theirs).hexdigest()
    arrays["weight"][2, 3] = np.nan
    assert whole(safetensors.numpy.save(arrays)) == "NotFinite"


@pytest.mark.parametrize(
    ("arrays", "defect"),
    [
        ({"v": np.zeros((2, 3), np.float32)}, "lacks|extra"),
        ({"w": np.zeros((3, 2), np.float32)}, r"shape \[3, 2\].*shape \[2, 3\]"),
        ({"w": np.zeros((2, 3), np.int32)}, "int32.*float32"),
        ({"w": np.zeros(6, np.float32)}, r"shape \[6\]"),
    ],
)
def test_another_name_shape_or_dtype_of_the_same_size_is_refused_before_the_first_tensor(arrays, defect):
    wanted = Params({"w": np.zeros((2, 3), np.float32)})
    body = encode(Params(arrays))
    check = BodyCheck(wanted.manifest, len(body))
    with pytest.raises(ParamsMismatch, match=defect) as caught:
        check.feed(body[:-24])                              # 6 elements of 4 bytes: all but the header is missing
    assert "task version" in caught.value.fix


def test_a_missing_and_an_extra_tensor_are_named():
    one, two = Params({"a": np.zeros(2)}), Params({"a": np.zeros(1), "b": np.zeros(1)})
    for sent, wanted, defect in ((one, two, "lacks tensor 'b'|'a' is"), (two, one, "extra tensor 'b'|'a' is")):
        body = encode(sent)
        with pytest.raises(ParamsMismatch, match=defect):
            BodyCheck(wanted.manifest, len(body)).feed(body)


def test_a_size_that_cannot_be_is_refused_when_it_is_announced():
    with pytest.raises(ParamsMismatch, match="an update of 10 bytes"):
        BodyCheck(MIXED.manifest, 10)
    with pytest.raises(TooLarge, match="an update of 1,000,000 bytes"):
        BodyCheck(MIXED.manifest, 1_000_000)


def test_a_header_that_claims_to_be_long_is_refused_by_its_first_8_bytes():
    body = encode(MIXED)
    check = BodyCheck(MIXED.manifest, len(body))
    with pytest.raises(ParamsMismatch, match="claims"):
        check.feed((2**40).to_bytes(8, "little"))


def test_more_bytes_than_announced_are_refused():
    body = encode(MIXED)
    check = BodyCheck(MIXED.manifest, len(body))
    check.feed(body)
    with pytest.raises(TooLarge):
        check.feed(b"x")


@pytest.mark.parametrize("num_missing", [1, 4, 40, 400])
def test_a_short_body_does_not_finish(num_missing: int):
    body = encode(MIXED)
    check = BodyCheck(MIXED.manifest, len(body))
    check.feed(body[:-num_missing])
    with pytest.raises(BadParamsFile, match="truncated"):
        check.finish()


def test_after_a_restart_the_stored_bytes_are_fed_again_and_then_the_rest():
    body = encode(MIXED)
    before = BodyCheck(MIXED.manifest, len(body))
    before.feed(body[:301])
    after = BodyCheck(MIXED.manifest, len(body))
    after.feed(memoryview(body)[:301])
    after.feed(bytearray(body[301:]))
    assert after.finish() == xxhash.xxh3_128(body).hexdigest()


def test_a_header_that_lies_about_offsets_is_refused():
    wanted = Params({"a": np.zeros(1, np.float32), "b": np.zeros(1, np.float32)})
    row = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    text = json.dumps({"a": row, "b": row}).encode()
    body = len(text).to_bytes(8, "little") + text + bytes(8)
    assert whole(body, wanted) == "BadParamsFile"


# --- updates as bf16 ----------------------------------------------------------------------------------

NARROW = narrowed(MIXED)


def as_bf16(body: bytes) -> str:
    """The digest, or the name of the error, of an update that is to come as bf16."""
    try:
        check = BodyCheck(manifest_on_wire(MIXED.manifest, "bf16"), len(body))
        for piece in cut(body, range(0, len(body), 7)):
            check.feed(piece)
        return check.finish()
    except FednodeError as error:
        return type(error).__name__


def test_an_update_as_bf16_is_checked_as_any_other():
    body = encode(NARROW)
    assert as_bf16(body) == xxhash.xxh3_128(body).hexdigest()
    for pattern in (0x7F80, 0xFF80, 0x7FC0, 0x7F81, 0xFFFF):           # infinities, and NaNs of both kinds
        for end in (0, -22):                                            # the last element of `weight`, and its first
            place = len(body) - 2 + end
            spoilt = body[:place] + pattern.to_bytes(2, "little") + body[place + 2 :]
            assert as_bf16(spoilt) == "NotFinite"
    assert as_bf16(body[:-2] + (0x7F7F).to_bytes(2, "little")) != "NotFinite"     # the largest number


def test_an_update_in_the_other_encoding_is_refused():
    assert as_bf16(encode(MIXED)) == "ParamsMismatch"
    assert whole(encode(NARROW)) == "ParamsMismatch"
    halves = {name: np.array(a, np.float16 if a.dtype == np.float32 else a.dtype) for name, a in MIXED.items()}
    assert as_bf16(encode(Params(halves))) == "ParamsMismatch"          # of the right size, in another's bits
