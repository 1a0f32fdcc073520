"""bf16 on the wire: of a float32 its upper 16 bits go out, and what is read at the other end is float32 again.

bf16 has float32's range and 8 of its 24 significant bits. A value is rounded once, half to even, and is then off by at
most 2**-8 of its power of two, 0.4 % of itself; to widen it is exact. Tensors of other dtypes go as they are. The
params of a model are float32 all the time: they are narrowed on their way out, and this module says how.
"""

from __future__ import annotations

import numpy as np

from fednode.core.encoding import BF16, F32, Encoding
from fednode.core.params import BFLOAT16, FINITE_CHECK_BLOCK, Array, Manifest, Params, manifest_of
from fednode.errors import NotFinite

LARGEST = np.uint32(0x7F7F7FFF).view(np.float32)    # the next float32 lies half way to what bf16 has no number for


def encoded(params: Params, encoding: str) -> Params:
    """As they go out. Raises NotFinite where a float32 is beyond what bf16 can say."""
    return narrowed(params) if encoding == BF16 else widened(params)


def narrowed(params: Params) -> Params:
    require_narrowable(params)
    return Params.of_held({name: _narrowed_array(array) for name, array in params.held.items()})


def widened(params: Params) -> Params:
    """As a task sees them: in memory of their own where they came narrowed."""
    return Params(params) if encoding_of(params) == BF16 else params


def encoding_of(params: Params) -> Encoding:
    return encoding_on_wire(manifest_of(params.held))


def encoding_on_wire(manifest: Manifest) -> Encoding:
    """Of a params file whose header says so."""
    return BF16 if any(tensor.dtype == BFLOAT16.name for tensor in manifest.tensors) else F32


def manifest_on_wire(manifest: Manifest, encoding: str) -> Manifest:
    """What the header of a params file says that is sent so."""
    return manifest.told({"float32": BFLOAT16.name}) if encoding == BF16 else manifest


def require_narrowable(params: Params) -> None:
    """Raise NotFinite where a float32 would be rounded to an infinity."""
    for name, array in params.held.items():
        if array.dtype == np.float32 and not _is_narrowable(array.reshape(-1)):
            raise NotFinite(
                f"tensor {name!r} holds a value beyond {float(LARGEST):.3g}, which bf16 cannot say",
                fix="lower the learning rate, or send the params of this run as f32",
            )


def _is_narrowable(flat: Array) -> bool:
    blocks = (flat[i : i + FINITE_CHECK_BLOCK] for i in range(0, flat.size, FINITE_CHECK_BLOCK))
    return all(bool((np.abs(block) <= LARGEST).all()) for block in blocks)


def _narrowed_array(array: Array) -> Array:
    return array.astype(BFLOAT16) if array.dtype == np.float32 else array
