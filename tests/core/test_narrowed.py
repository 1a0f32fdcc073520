"""bf16: rounded once, half to even, and never to what is no number; read, it is float32."""

from __future__ import annotations

import math
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fednode.core.aggregation import Updates
from fednode.core.encoding import BF16, F32
from fednode.core.narrowed import LARGEST, encoded, encoding_of, manifest_on_wire, narrowed, widened
from fednode.core.params import Params, manifest_of
from fednode.core.records import Update
from fednode.core.seeds import numpy_rng
from fednode.errors import NotFinite
from fednode.wire.codec import read_params, write_params

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False).filter(lambda x: abs(x) <= float(LARGEST))
TIES = st.integers(0, 0x7F7E).map(lambda upper: float(np.uint32((upper << 16) + 0x8000).view(np.float32)))


def sent(*values: float) -> list[float]:
    """What arrives of these values."""
    return narrowed(Params({"w": np.array(values, np.float32)}))["w"].tolist()


def nearest(value: float) -> float:
    """The bf16 next to `value`, in fractions: a whole number of steps of 2**(exponent - 7), and of 2**-133 or more."""
    exponent = max(math.frexp(value)[1] - 1, -126)
    step = Fraction(2) ** (exponent - 7)
    return math.copysign(float(round(Fraction(value) / step) * step), value)        # `round` takes half to even


@given(FLOATS | TIES | TIES.map(lambda x: -x))
def test_a_value_arrives_as_the_nearest_that_bf16_has(value: float) -> None:
    arrived = sent(value)[0]
    assert arrived == nearest(value)
    assert math.copysign(1, arrived) == math.copysign(1, value)         # -0.0, and what becomes it
    assert sent(arrived) == [arrived]                                   # twice is once
    if abs(value) >= 2.0**-126:
        assert abs(arrived - value) <= 2**-8 * abs(value)               # 0.4 %


def test_ties_go_to_the_even_neighbour() -> None:
    # Between 1 and 2 the steps are 1/128: half a step above 1, and above 1 + 1/128, whose last bit is odd.
    assert sent(1 + 1 / 256, 1 + 3 / 256) == [1.0, 1 + 2 / 128]


@pytest.mark.parametrize("sign", [1, -1])
def test_what_would_become_an_infinity_is_refused_by_its_name(sign: int) -> None:
    last = np.array([0.0, sign * LARGEST], np.float32)
    assert abs(narrowed(Params({"w": last}))["w"][1]) == float.fromhex("0x1.fep127")    # its largest
    for beyond in (np.nextafter(last, np.float32(sign * np.inf)), np.float32([sign * np.inf]), np.float32([np.nan])):
        with pytest.raises(NotFinite, match=r"'w' holds a value beyond 3\.4e\+38") as refused:
            narrowed(Params({"a": np.zeros(3, np.float32), "w": beyond}))
        assert "f32" in refused.value.fix


def test_only_float32_is_narrowed_and_only_who_moves_it_sees_that() -> None:
    arrays = {
        "b": np.array([True, False]), "d": np.array([1 / 3]), "h": np.array([1 / 3], np.float16),
        "i": np.array([2**40 + 1]), "w": np.float32([[1 / 3, 2], [3, 4]]), "z": np.zeros((0, 3), np.float32),
    }
    params = Params(arrays)
    out = encoded(params, BF16)
    assert out.manifest == params.manifest
    assert (encoding_of(out), encoding_of(params)) == (BF16, F32)
    assert manifest_of(out.held) == manifest_on_wire(params.manifest, BF16)
    assert manifest_of(out.held).num_bytes == params.manifest.num_bytes - 4 * 2
    for name in "bdhi":
        assert out[name].tobytes() == arrays[name].tobytes()
    back = encoded(out, F32)
    assert (encoding_of(back), back.manifest) == (F32, params.manifest)
    assert back["w"].tolist() == [[nearest(float(np.float32(1 / 3))), 2], [3, 4]]
    assert (out - params)["w"].dtype == np.float32                      # and so is arithmetic
    assert encoding_of(out.copied()) == BF16
    with pytest.raises(ValueError, match="read-only"):
        out["w"][0, 0] = 1


def test_a_run_as_f32_sends_what_it_has() -> None:
    params = Params({"w": np.float32([1 / 3])})
    assert encoded(params, F32) is params
    assert manifest_on_wire(params.manifest, F32) == params.manifest


def test_updates_are_widened_before_they_are_summed() -> None:
    rng = numpy_rng(3)
    values = {f"c{i}": Params({"w": rng.normal(size=70_001).astype(np.float32)}) for i in range(20)}

    def updates(*, is_narrow: bool) -> Updates:
        found = [
            Update(client=name, num_examples=i + 1, params=narrowed(of) if is_narrow else widened(narrowed(of)))
            for i, (name, of) in enumerate(values.items())
        ]
        return Updates(list(values), found, values["c0"].manifest)

    narrow, wide = updates(is_narrow=True), updates(is_narrow=False)
    mean = narrow.mean()["w"]
    assert mean.dtype == np.float32
    assert mean.tobytes() == wide.mean()["w"].tobytes()
    assert len(set((mean.view(np.uint32) & 0xFFFF).tolist())) > 1000    # and the sum is not rounded to bf16
    for one, other in zip(narrow.columns(), wide.columns(), strict=True):
        assert [row.dtype for row in one.rows] == [np.float32] * 20     # also for who looks at each of them
        assert [row.tobytes() for row in one.rows] == [row.tobytes() for row in other.rows]


def test_updates_are_widened_a_block_at_a_time(tmp_path: Path) -> None:
    model = Params({"w": numpy_rng(4).normal(size=1 << 20).astype(np.float32)})         # 4 MiB
    write_params(narrowed(model), tmp_path / "update", is_durable=False)
    brought = [Update(client=f"c{i}", num_examples=1, params=read_params(tmp_path / "update")) for i in range(8)]
    updates = Updates([update.client for update in brought], brought, model.manifest)
    tracemalloc.start()
    mean = updates.mean()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert mean["w"].tobytes() == brought[0].params["w"].tobytes()
    assert peak < (4 + 3) * 2**20                       # the mean and three columns of float64; 8 models would be 32
