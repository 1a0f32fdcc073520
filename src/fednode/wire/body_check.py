"""The check of an update's body while it arrives: the central node refuses a bad one before its last byte.

Header against the run's manifest, every float finite, every bool 0 or 1, the length exact; in passing it takes the
digest. Memory: the header and one element, whatever the size. The format itself: `wire/codec.py`.
"""

from __future__ import annotations

import numpy as np
import xxhash

from fednode.core.encoding import Encoding
from fednode.core.narrowed import encoding_on_wire
from fednode.core.params import BFLOAT16, FINITE_CHECK_BLOCK, Array, Manifest, TensorSpec
from fednode.errors import BadParamsFile, NotFinite, ParamsMismatch, TooLarge
from fednode.wire.codec import PREFIX_BYTES, encode_header, parse_header

HEADER_SLACK_BYTES = 64 << 10       # what another writer's header may take beyond twice the canonical one
_SAME_TASK = "give this client node the task version and the task config that the run was started with"


class BodyCheck:
    """Feed it the body's chunks in order, cut anywhere; after a restart, the stored bytes again, then the rest.

    Raises ParamsMismatch or TooLarge at once where `num_bytes`, as announced, cannot be a body of `manifest`.
    After an error it is spent: the body is refused.
    """

    def __init__(self, manifest: Manifest, num_bytes: int) -> None:
        _require_size(manifest, num_bytes)
        self._manifest = manifest
        self._num_bytes = num_bytes
        self._num_fed = 0
        self._digest = xxhash.xxh3_128()
        self._header: bytearray | None = bytearray()       # None: read and found good
        self._tensors: list[TensorSpec] = []               # in the file's order, the one that arrives now last
        self._num_left = 0                                 # bytes of that one still to come
        self._split = bytearray()                          # the begun element that the next chunk completes

    @property
    def encoding(self) -> Encoding:
        """In which it is to come."""
        return encoding_on_wire(self._manifest)

    def feed(self, chunk: bytes | bytearray | memoryview) -> None:
        """Raises BadParamsFile, ParamsMismatch, NotFinite or TooLarge as soon as it is known."""
        bytes_ = memoryview(chunk).cast("B")
        self._num_fed += len(bytes_)
        if self._num_fed > self._num_bytes:
            raise TooLarge(
                f"a body of more than the {self._num_bytes:,} bytes that were announced",
                fix="announce the update again, with its exact size",
            )
        self._digest.update(bytes_)
        if self._header is not None:
            bytes_ = self._feed_header(self._header, bytes_)
        while bytes_:
            bytes_ = self._feed_tensor(bytes_)

    def finish(self) -> str:
        """The xxh3-128 of the whole body, hex. Raises BadParamsFile when it is short."""
        if self._num_fed < self._num_bytes:
            raise BadParamsFile(
                f"truncated: {self._num_fed:,} bytes of {self._num_bytes:,} came",
                fix="ask for the offset and send the rest",
            )
        return self._digest.hexdigest()

    def _feed_header(self, header: bytearray, bytes_: memoryview) -> memoryview:
        """Take the header's part of `bytes_`; what is left belongs to the tensors."""
        bytes_ = _move(header, bytes_, PREFIX_BYTES)
        if len(header) < PREFIX_BYTES:
            return bytes_
        length = int.from_bytes(header[:PREFIX_BYTES], "little")
        data_bytes = self._num_bytes - PREFIX_BYTES - length
        if data_bytes != self._manifest.num_bytes:
            raise ParamsMismatch(
                f"the body's header claims {length:,} bytes, which leaves {data_bytes:,} of {self._num_bytes:,} "
                f"for the tensors; the run's params have {self._manifest.num_bytes:,}",
                fix=_SAME_TASK,
            )
        bytes_ = _move(header, bytes_, PREFIX_BYTES + length)
        if len(header) == PREFIX_BYTES + length:
            found = parse_header(bytes(header), self._num_bytes)
            _require_same(found.manifest, self._manifest)
            self._tensors = found.in_file_order[::-1]
            self._header = None
        return bytes_

    def _feed_tensor(self, bytes_: memoryview) -> memoryview:
        """Check what `bytes_` hold of the tensor that arrives now; what is left belongs to the next."""
        tensor = self._tensors[-1]
        self._num_left = self._num_left or tensor.num_bytes
        part, rest = bytes_[: self._num_left], bytes_[self._num_left :]
        self._num_left -= len(part)
        size = np.dtype(tensor.dtype).itemsize
        if self._split:
            part = _move(self._split, part, size)
            if len(self._split) == size:
                _require_values(tensor, memoryview(bytes(self._split)))
                self._split.clear()
        num_whole = len(part) - len(part) % size
        _require_values(tensor, part[:num_whole])
        self._split += part[num_whole:]
        if not self._num_left:
            self._tensors.pop()
        return rest


def _move(target: bytearray, bytes_: memoryview, size: int) -> memoryview:
    """Fill `target` up to `size` from the front of `bytes_`; the rest of them."""
    num_missing = max(0, size - len(target))
    target += bytes_[:num_missing]
    return bytes_[num_missing:]


def _require_size(manifest: Manifest, num_bytes: int) -> None:
    header_bytes = len(encode_header(manifest))
    if num_bytes < manifest.num_bytes + PREFIX_BYTES:
        raise ParamsMismatch(
            f"an update of {num_bytes:,} bytes; the run's params have {manifest.num_bytes:,} without a header",
            fix=_SAME_TASK,
        )
    limit = manifest.num_bytes + 2 * header_bytes + HEADER_SLACK_BYTES
    if num_bytes > limit:
        raise TooLarge(
            f"an update of {num_bytes:,} bytes; this run's take {manifest.num_bytes + header_bytes:,}, "
            f"the limit is {limit:,}",
            fix=_SAME_TASK,
        )


def _require_same(found: Manifest, wanted: Manifest) -> None:
    got = {tensor.name: tensor for tensor in found.tensors}
    want = {tensor.name: tensor for tensor in wanted.tensors}
    for name in sorted(got.keys() | want.keys(), key=str.encode):
        if name not in got:
            raise ParamsMismatch(f"the update lacks tensor {name!r}", fix=_SAME_TASK)
        if name not in want:
            raise ParamsMismatch(f"the update has an extra tensor {name!r}", fix=_SAME_TASK)
        if got[name] != want[name]:
            raise ParamsMismatch(
                f"tensor {name!r} is {got[name].dtype} of shape {list(got[name].shape)}, "
                f"the run's is {want[name].dtype} of shape {list(want[name].shape)}",
                fix=_SAME_TASK,
            )


def _require_values(tensor: TensorSpec, bytes_: memoryview) -> None:
    """Raise NotFinite for a NaN or an infinity, BadParamsFile for a bool that is neither 0 nor 1."""
    dtype = np.dtype(tensor.dtype).newbyteorder("<")
    if dtype.kind == "f" or dtype == BFLOAT16:
        if not _is_finite(np.frombuffer(bytes_, dtype)):
            raise NotFinite(
                f"tensor {tensor.name!r} holds a NaN or an infinity",
                fix="lower the learning rate, or look for broken examples in the data",
            )
    elif dtype.kind == "b" and bytes_ and np.frombuffer(bytes_, np.uint8).max() > 1:
        raise BadParamsFile(f"bool tensor {tensor.name!r} holds a byte that is neither 0 nor 1", fix=_SAME_TASK)


def _is_finite(values: Array) -> bool:
    blocks = range(0, values.size, FINITE_CHECK_BLOCK)
    with np.errstate(invalid="ignore"):         # of a signalling NaN in bf16: what comes is a stranger's
        return all(bool(np.isfinite(values[i : i + FINITE_CHECK_BLOCK]).all()) for i in blocks)
