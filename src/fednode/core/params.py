"""Model params: named arrays in name order, and the manifest that says what they must look like.

A `Params` is a value: nothing changes it, arithmetic makes new ones. Its arrays may be views of a
memory-mapped file, so a `Params` of any size can be cheap. Aggregation over many of them: `aggregation`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from fednode.core.json import Json
from fednode.errors import NotFinite, ParamsError, ParamsMismatch

Array: TypeAlias = NDArray[np.generic]

DTYPES = frozenset(
    ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]
)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)         # as float32 tensors may come over the wire: see `narrowed`
FINITE_CHECK_BLOCK = 1 << 16    # elements: a block that stays in the cache is checked at memory speed


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """What one tensor must look like."""

    name: str
    dtype: str                  # a numpy name of DTYPES
    shape: tuple[int, ...]

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.num_elements * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Manifest:
    """Names, dtypes and shapes of a run's params, in name order. Derived from model 0, binding ever after."""

    tensors: tuple[TensorSpec, ...]

    @property
    def num_bytes(self) -> int:
        return sum(tensor.num_bytes for tensor in self.tensors)

    @property
    def num_params(self) -> int:
        return sum(tensor.num_elements for tensor in self.tensors)

    def told(self, other: Mapping[str, str]) -> Manifest:
        """With other dtypes for some."""
        return Manifest(tuple(replace(t, dtype=other.get(t.dtype, t.dtype)) for t in self.tensors))

    def to_json(self) -> list[Json]:
        return [[t.name, t.dtype, list(t.shape)] for t in self.tensors]

    @staticmethod
    def from_json(rows: Iterable[tuple[str, str, list[int]]]) -> Manifest:
        return Manifest(tuple(TensorSpec(name=n, dtype=d, shape=tuple(s)) for n, d, s in rows))


class Params(Mapping[str, Array]):
    """Named arrays, iterated in name order (byte order). Immutable; equal only to itself: compare hashes.

    Arithmetic keeps float dtypes, whatever kind of number the other side is, and makes float64 of integer and bool
    tensors, so that a difference of counters may be negative. `cast` brings them back.
    """

    __slots__ = ("_arrays",)
    __array_ufunc__ = None      # `np.float64(0.9) * params` comes to __rmul__, instead of numpy taking us for an object

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        checked = {name: _checked(name, arrays[name]) for name in sorted(arrays, key=str.encode)}
        if not checked:
            raise ParamsError("these params hold no tensor", fix="return at least one named array")
        self._arrays = checked

    @classmethod
    def of_held(cls, held: Mapping[str, Array]) -> Params:
        """Of arrays of which the float32 ones may be held as bf16. To everybody they are float32; only `held` tells."""
        params = object.__new__(Params)
        params._arrays = {name: frozen(held[name]) for name in sorted(held, key=str.encode)}
        return params

    def __getitem__(self, name: str) -> Array:
        return widened_array(self._arrays[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"Params({len(self)} tensors, {self.manifest.num_params:,} params)"

    @property
    def manifest(self) -> Manifest:
        return manifest_of(self._arrays).told({BFLOAT16.name: "float32"})

    @property
    def held(self) -> Mapping[str, Array]:
        """The arrays as they lie here and in a file, for who moves params or reads them in blocks: see `narrowed`."""
        return self._arrays

    def copied(self) -> Params:
        """The same, in memory of its own."""
        return Params.of_held({name: np.array(array) for name, array in self._arrays.items()})

    def map(self, function: Callable[[Array], Array]) -> Params:
        """`function` of every array, which must keep its shape."""
        return Params({name: function(array) for name, array in self.items()})

    def filled(self, value: float) -> Params:
        """The same names, shapes and dtypes, `value` everywhere. Holds one number a tensor, not a model."""
        return self.map(lambda array: np.broadcast_to(np.asarray(value, array.dtype), array.shape))

    def cast(self, manifest: Manifest) -> Params:
        """The same values in the manifest's dtypes: floats rounded once, integers half to even.

        Raises ParamsMismatch where names or shapes differ, NotFinite where a NaN or an infinity would become an
        integer, or a finite value is beyond the range of the float dtype.
        """
        require_shapes(self, manifest)
        changed = [t for t in manifest.tensors if t.dtype != self[t.name].dtype.name]
        for tensor in changed:
            _require_finite(tensor.name, self[tensor.name])
        cast = Params({t.name: cast_array(self[t.name], t.dtype) for t in manifest.tensors})
        for tensor in changed:
            _require_finite(tensor.name, cast[tensor.name])
        return cast

    def sqrt(self) -> Params:
        return self.map(lambda array: np.sqrt(_as_floats(array)))

    def sign(self) -> Params:
        return self.map(lambda array: np.sign(_as_floats(array)))

    def __neg__(self) -> Params:
        return self.map(lambda array: np.negative(_as_floats(array)))

    def __add__(self, other: Params | float) -> Params:
        return self._combine(other, np.add)

    def __sub__(self, other: Params | float) -> Params:
        return self._combine(other, np.subtract)

    def __mul__(self, other: Params | float) -> Params:
        return self._combine(other, np.multiply)

    def __truediv__(self, other: Params | float) -> Params:
        return self._combine(other, np.divide)

    __radd__ = __add__
    __rmul__ = __mul__

    def _combine(self, other: Params | float, operation: np.ufunc) -> Params:
        # An overflow is no warning on somebody's terminal: it is an infinity, and `require_finite` names its tensor.
        with np.errstate(all="ignore"):
            if not isinstance(other, Params):
                number = float(other)       # a np.float64 would widen every float32 tensor, a Python float does not
                return self.map(lambda array: operation(_as_floats(array), number))
            require_shapes(other, self.manifest)
            return Params({n: operation(_as_floats(array), _as_floats(other[n])) for n, array in self.items()})


def manifest_of(arrays: Mapping[str, Array]) -> Manifest:
    return Manifest(tuple(TensorSpec(name=n, dtype=a.dtype.name, shape=a.shape) for n, a in arrays.items()))


def widened_array(array: Array) -> Array:
    return frozen(array.astype(np.float32)) if array.dtype == BFLOAT16 else array


def frozen(array: Array) -> Array:
    """A view that nobody can write to."""
    view = array.view()
    view.flags.writeable = False
    return view


def _as_floats(array: Array) -> Array:
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def cast_array(array: Array, dtype: str) -> Array:
    """`array`, which must be finite, in `dtype`; integers round half to even and stay within the dtype's range."""
    target = np.dtype(dtype)
    if array.dtype == target:
        return array
    if target.kind == "f":
        with np.errstate(over="ignore"):
            return array.astype(target)
    rounded = np.rint(array, dtype=np.float64) if array.dtype.kind == "f" else array
    if target.kind == "b":
        return rounded.astype(target)
    lowest, highest = _limits(target, rounded.dtype)
    return np.clip(rounded, lowest, highest).astype(target)


def _limits(target: np.dtype[np.generic], source: np.dtype[np.generic]) -> tuple[np.generic, np.generic]:
    """The least and greatest value of integer dtype `target` that `source` (float64, an integer or bool) can hold."""
    to = np.iinfo(target.name)
    if source.kind == "f":                  # float64(2**63 - 1) is 2**63, which is one too many for int64
        top = np.float64(to.max)
        return np.float64(to.min), top if int(top) <= to.max else np.nextafter(top, 0.0)
    if source.kind == "b":
        return np.bool_(False), np.bool_(True)
    by = np.iinfo(source.name)
    return source.type(max(to.min, by.min)), source.type(min(to.max, by.max))


def require_shapes(params: Params, manifest: Manifest) -> None:
    """Raise ParamsMismatch unless names and shapes are the manifest's (dtypes may differ)."""
    wanted = {tensor.name: tensor.shape for tensor in manifest.tensors}
    for name in sorted(wanted.keys() ^ params.keys(), key=str.encode):
        state = "lack" if name in wanted else "have an extra"
        raise ParamsMismatch(f"these params {state} tensor {name!r}", fix=_SAME_TASK)
    for name, array in params.items():
        if array.shape != wanted[name]:
            raise ParamsMismatch(
                f"tensor {name!r} has shape {array.shape}, the run's params have {wanted[name]}", fix=_SAME_TASK
            )


def require_match(params: Params, manifest: Manifest) -> None:
    """Raise ParamsMismatch unless names, shapes and dtypes are the manifest's."""
    require_shapes(params, manifest)
    for tensor in manifest.tensors:
        got = params[tensor.name].dtype.name
        if got != tensor.dtype:
            raise ParamsMismatch(
                f"tensor {tensor.name!r} has dtype {got}, the run's params have {tensor.dtype}", fix=_SAME_TASK
            )


def require_finite(params: Params) -> None:
    """Raise NotFinite where a float tensor holds a NaN or an infinity."""
    for name, array in params.items():
        _require_finite(name, array)


def _require_finite(name: str, array: Array) -> None:
    if array.dtype.kind == "f" and not _is_finite(array):
        raise NotFinite(
            f"tensor {name!r} holds a NaN or an infinity",
            fix="lower the learning rate, or look for broken examples in the data",
        )


def _is_finite(array: Array) -> bool:
    flat = array.reshape(-1)
    blocks = range(0, flat.size, FINITE_CHECK_BLOCK)
    return all(bool(np.isfinite(flat[i : i + FINITE_CHECK_BLOCK]).all()) for i in blocks)


def _checked(name: str, array: Array) -> Array:
    array = np.asarray(array)
    if array.dtype.name not in DTYPES:
        raise ParamsError(
            f"tensor {name!r} has dtype {array.dtype.name}, which params cannot hold",
            fix=f"convert it to one of: {', '.join(sorted(DTYPES))}",
        )
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return frozen(array)


_SAME_TASK = "give this client node the task version and the task config that the run was started with"
