"""Params as bytes: the safetensors format, its canonical writer, its distrustful readers. Never pickle.

A file is 8 bytes of header length (little-endian), a JSON header, and the tensors' bytes, little-endian, one
after the other. The canonical form (names in byte order, no metadata, the header padded with spaces until the
data start at a multiple of 64) makes the file's sha256 a name for the params. Reading takes any valid file and
believes nothing before it has checked it. A body that still arrives is checked by `wire/body_check.py`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import mmap
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash

from fednode.core.params import BFLOAT16, Array, Manifest, Params, TensorSpec, manifest_of
from fednode.errors import BadParamsFile, ParamsError, StoreError, StoreFull
from fednode.wire.durable import HURRY_BYTES, fsync, hurry_open

MAX_HEADER_BYTES = 16 << 20
MAX_TENSORS = 1 << 16               # a header of so many is read in half a second, with 60 MiB of memory
MAX_NAME_BYTES = 1 << 10
ALIGNMENT = 64                      # bytes: where the data start; as wide as a cache line
PREFIX_BYTES = 8
PIECE_BYTES = 1 << 20
MAX_DIMENSIONS = 64                 # numpy's own limit
MAX_FILE_BYTES = (1 << 63) - 1      # what a file offset can say

_CODES: dict[str, str] = {
    "bool": "BOOL", "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64",
    "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
    "float16": "F16", "float32": "F32", "float64": "F64", BFLOAT16.name: "BF16",
}
_DTYPES = {code: name for name, code in _CODES.items()}
_METADATA = "__metadata__"
# Counted before anything is parsed. A tensor is one object of two lists and five words; names may hold brackets, too.
_MOST_SIGNS = {b"{": MAX_TENSORS + 2, b"[": 4 * MAX_TENSORS, b'"': 12 * MAX_TENSORS}
_SAVE_AGAIN = "copy the file again, or save the params again as safetensors"


@dataclass(frozen=True, kw_only=True)
class Written:
    """A params file that is in its place."""

    sha256: str                     # "" where none was asked for
    digest: str                     # xxh3-128, hex
    num_bytes: int                  # of the whole file


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a params file says of its tensors, checked: together they cover the data exactly once."""

    manifest: Manifest
    starts: tuple[int, ...]         # of each tensor's bytes in the file, in the manifest's order
    num_bytes: int                  # of prefix and JSON: where the data start

    @property
    def in_file_order(self) -> list[TensorSpec]:
        placed = zip(self.starts, self.manifest.tensors, strict=True)
        return [tensor for _, tensor in sorted(placed, key=_by_place)]


# --- writing ------------------------------------------------------------------------------------------


def encode_header(manifest: Manifest) -> bytes:
    """Length prefix and JSON of the canonical file. Raises ParamsError for what no file can hold."""
    rows: dict[str, object] = {}
    start = 0
    for tensor in sorted(manifest.tensors, key=_byte_order):
        if tensor.name == _METADATA:
            raise ParamsError(f"a tensor is called {_METADATA!r}, which safetensors keeps for itself", fix="rename it")
        if len(tensor.name.encode()) > MAX_NAME_BYTES:
            raise ParamsError(f"a tensor's name has more than {MAX_NAME_BYTES:,} bytes", fix="give it a shorter one")
        end = start + tensor.num_bytes
        rows[tensor.name] = {"dtype": _CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(PREFIX_BYTES + len(text)) % ALIGNMENT)
    if len(text) > MAX_HEADER_BYTES or len(rows) > MAX_TENSORS:
        raise ParamsError(
            f"{len(rows):,} tensors need a header of {len(text):,} bytes; a params file takes {MAX_HEADER_BYTES:,} "
            f"and {MAX_TENSORS:,} tensors",
            fix="stack small tensors into larger ones, or give them shorter names",
        )
    return len(text).to_bytes(PREFIX_BYTES, "little") + text


def encode(params: Params) -> bytes:
    """The canonical file as bytes: for small params; `write_params` streams."""
    return b"".join(bytes(piece) for piece in _pieces(params))


def write_params(params: Params, path: Path, *, is_durable: bool, is_named: bool = False) -> Written:
    """Write the canonical file beside `path` and rename it into place; `is_durable`: it survives a loss of power.

    `is_named`: by its sha256, which takes longer than the writing and so is made beside it. Holds two pieces of 1 MiB
    in memory. Raises StoreFull or StoreError; what was at `path` before then stays.
    """
    digest, num_bytes, num_hurried = xxhash.xxh3_128(), 0, 0
    with ThreadPoolExecutor(1) as beside:
        name = beside.submit(_sha256_of, params) if is_named else None
        with replacing(path, is_durable=is_durable) as file:
            for piece in _pieces(params):
                file.write(piece)
                digest.update(piece)
                num_bytes += len(piece)
                if is_named and num_bytes - num_hurried >= HURRY_BYTES:     # it is to last, and soon to be fsynced
                    num_hurried = num_bytes
                    hurry_open(file.fileno())
        return Written(sha256=name.result() if name else "", digest=digest.hexdigest(), num_bytes=num_bytes)


def _sha256_of(params: Params) -> str:
    sha256 = hashlib.sha256()
    for piece in _pieces(params):
        sha256.update(piece)
    return sha256.hexdigest()


@contextmanager
def replacing(path: Path, *, is_durable: bool) -> Iterator[BinaryIO]:
    """A new file that takes `path`'s place when the block ends well, and is gone when it does not."""
    with disk_errors(path):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                if is_durable:
                    os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        if is_durable:
            fsync(path.parent)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Say StoreFull or StoreError, naming `path`, where the system refuses a file."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(f"cannot write {path}: {reason}", fix=f"free space on the disk of {path.parent}") from error
        raise StoreError(
            f"cannot write {path}: {reason}", fix=f"look whether {path.parent} is there and may be written"
        ) from error


def _pieces(params: Params) -> Iterator[memoryview]:
    """The canonical file in pieces of at most 1 MiB (the header: whole), each valid until the next is asked for."""
    yield memoryview(encode_header(manifest_of(params.held)))
    for array in params.held.values():
        # Buffered: strided and foreign-endian arrays are copied a piece at a time, the others not at all.
        walk = np.nditer(
            array,
            flags=["external_loop", "buffered", "zerosize_ok"],
            op_flags=["readonly"],
            op_dtypes=[array.dtype.newbyteorder("<")],
            order="C",
            casting="equiv",
            buffersize=PIECE_BYTES // array.dtype.itemsize,
        )
        for piece in walk:
            yield np.ascontiguousarray(piece).view(np.uint8).data


# --- reading ------------------------------------------------------------------------------------------


def read_params(path: Path) -> Params:
    """The params of any valid safetensors file, as read-only views of the mapped file: nothing is read yet.

    The file must not be cut short while they live. Tensors that do not lie at a multiple of their item size
    are copied; those in BF16 are read as float32. Raises BadParamsFile naming the defect.
    """
    header = read_header(path)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    tensors = zip(header.starts, header.manifest.tensors, strict=True)
    views = {tensor.name: _view(mapped, start, tensor) for start, tensor in tensors}
    return Params.of_held(views) if any(view.dtype == BFLOAT16 for view in views.values()) else Params(views)


class _Unread(Params):
    """The params of a file that nobody has looked at yet."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __getattr__(self, name: str) -> Any:
        """Of attributes that are missing: the arrays, before the first look at them."""
        if name != "_arrays":
            raise AttributeError(name)
        self._arrays = read_params(self._path)._arrays
        return self._arrays


def params_at(path: Path) -> Params:
    """As `read_params`, but the file is opened, and its defects are told, at the first look."""
    return _Unread(path)


def read_header(path: Path) -> Header:
    """The checked header of the file at `path`. Raises BadParamsFile."""
    try:
        with path.open("rb") as file:
            num_bytes_total = os.fstat(file.fileno()).st_size
            prefix = file.read(PREFIX_BYTES)
            length = _header_length(prefix, num_bytes_total)
            return parse_header(prefix + file.read(length), num_bytes_total)
    except OSError as error:
        raise BadParamsFile(f"cannot read {path}: {error.strerror}", fix="see that it is there and readable") from error
    except BadParamsFile as error:
        raise BadParamsFile(f"{path}: {error.message}", fix=error.fix) from error


def parse_header(header: bytes, num_bytes_total: int) -> Header:
    """`header`, prefix included, of a file of `num_bytes_total`. Raises BadParamsFile naming the defect."""
    length = _header_length(header[:PREFIX_BYTES], num_bytes_total)
    num_bytes = PREFIX_BYTES + length
    rows = _parse_json(header[PREFIX_BYTES:num_bytes])
    rows.pop(_METADATA, None)
    if not rows:
        raise _bad("the header names no tensor")
    placed = sorted((_parse_tensor(name, row) for name, row in rows.items()), key=_by_place)
    _require_tiling(placed, num_bytes_total - num_bytes)
    by_name = sorted(placed, key=lambda entry: _byte_order(entry[1]))
    return Header(
        manifest=Manifest(tuple(tensor for _, tensor in by_name)),
        starts=tuple(num_bytes + start for start, _ in by_name),
        num_bytes=num_bytes,
    )


def sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_file(path: Path) -> str:
    """xxh3-128, hex."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _view(mapped: mmap.mmap, start: int, tensor: TensorSpec) -> Array:
    dtype = np.dtype(tensor.dtype).newbyteorder("<")
    if tensor.num_elements == 0:
        return np.empty(tensor.shape, dtype)
    array = np.frombuffer(mapped, dtype, count=tensor.num_elements, offset=start).reshape(tensor.shape)
    return array if array.flags.aligned else array.copy()


def _header_length(prefix: bytes, num_bytes_total: int) -> int:
    if len(prefix) < PREFIX_BYTES or num_bytes_total < PREFIX_BYTES:
        raise _bad(f"truncated: {num_bytes_total} bytes, where the header's length alone takes {PREFIX_BYTES}")
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER_BYTES:
        raise _bad(f"the header claims {length:,} bytes, more than {MAX_HEADER_BYTES:,}; is this a safetensors file?")
    if PREFIX_BYTES + length > num_bytes_total:
        raise _bad(f"truncated: the header claims {length:,} bytes, the whole file has {num_bytes_total:,}")
    return length


def _parse_json(text: bytes) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise _bad("the header is not a JSON object")
    if any(text.count(sign) > most for sign, most in _MOST_SIGNS.items()):
        raise _bad(f"the header names more than {MAX_TENSORS:,} tensors, or says far more than their shapes")
    try:
        rows = json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
        "".join(rows).encode()          # a lone surrogate is no name
    except (ValueError, RecursionError) as error:
        raise _bad(f"the header is not JSON: {str(error)[:200]}") from error
    checked: dict[str, Any] = rows
    return checked


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name, value in pairs:
        if name in rows:
            raise _bad(f"the header says {_short(name)} twice")
        rows[name] = value
    return rows


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is not a number")


def _parse_tensor(name: str, row: Any) -> tuple[int, TensorSpec]:
    """Where the tensor starts in the data, and what it is. Raises BadParamsFile."""
    said = _short(name)
    if len(name.encode()) > MAX_NAME_BYTES:
        raise _bad(f"tensor {said}: its name has more than {MAX_NAME_BYTES:,} bytes")
    if not isinstance(row, dict) or not row.keys() >= {"dtype", "shape", "data_offsets"}:
        raise _bad(f"tensor {said} lacks its dtype, shape or data_offsets")
    shape, offsets = row["shape"], row["data_offsets"]
    if not _is_counts(shape) or len(shape) > MAX_DIMENSIONS:
        raise _bad(f"tensor {said}: its shape is not a list of at most {MAX_DIMENSIONS} counts")
    if not _is_counts(offsets) or len(offsets) != 2:
        raise _bad(f"tensor {said}: its data_offsets are not a start and an end")
    tensor = TensorSpec(name=name, dtype=_parse_dtype(said, row["dtype"]), shape=tuple(shape))
    extent = math.prod(count for count in shape if count) * np.dtype(tensor.dtype).itemsize
    if extent > MAX_FILE_BYTES:
        raise _bad(f"tensor {said}: its shape overflows: no file is that large")
    if offsets[1] - offsets[0] != tensor.num_bytes:
        raise _bad(
            f"tensor {said}: {tensor.dtype} of shape {shape} takes {tensor.num_bytes:,} bytes, "
            f"its data_offsets {offsets} say otherwise"
        )
    return offsets[0], tensor


def _parse_dtype(said: str, code: Any) -> str:
    if not isinstance(code, str) or code not in _DTYPES:
        raise BadParamsFile(
            f"tensor {said} has the unknown dtype {_short(code)}", fix=f"convert it to one of: {', '.join(_DTYPES)}"
        )
    return _DTYPES[code]


def _is_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n <= MAX_FILE_BYTES for n in value)


def _require_tiling(placed: list[tuple[int, TensorSpec]], num_data_bytes: int) -> None:
    """Every byte of the data belongs to exactly one tensor."""
    end = 0
    for start, tensor in placed:
        if start != end:
            defect = "overlaps the one before it" if start < end else "leaves a gap before it"
            raise _bad(f"tensor {_short(tensor.name)} {defect}: it starts at {start:,}, not at {end:,}")
        end += tensor.num_bytes
    if end != num_data_bytes:
        defect = "truncated" if end > num_data_bytes else "bytes after the last tensor"
        raise _bad(f"{defect}: the tensors take {end:,} bytes, the file has {num_data_bytes:,} after its header")


def _by_place(entry: tuple[int, TensorSpec]) -> tuple[int, int]:
    start, tensor = entry
    return start, tensor.num_bytes      # a tensor without bytes comes before the one that starts at the same place


def _byte_order(tensor: TensorSpec) -> bytes:
    return tensor.name.encode()


def _short(word: object) -> str:
    text = repr(word)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _bad(message: str) -> BadParamsFile:
    return BadParamsFile(message, fix=_SAVE_AGAIN)
