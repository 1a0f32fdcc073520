"""The params file: what is written is canonical, what is read is checked first."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fednode.core.narrowed import narrowed
from fednode.core.params import DTYPES, Manifest, Params, TensorSpec
from fednode.errors import BadParamsFile, ParamsError, StoreError
from fednode.wire.codec import (
    MAX_HEADER_BYTES,
    MAX_NAME_BYTES,
    digest_of_file,
    encode,
    encode_header,
    parse_header,
    read_header,
    read_params,
    sha256_of_file,
    write_params,
)
from fednode.wire.durable import HURRY_BYTES

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda name: name != "__metadata__")
ARRAYS = hnp.arrays(
    st.sampled_from(sorted(DTYPES)).map(np.dtype), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
)
SOME_PARAMS = st.dictionaries(NAMES, ARRAYS, min_size=1, max_size=6).map(Params)


def same_bits(left: Params, right: Params) -> bool:
    return left.manifest == right.manifest and all(left[n].tobytes() == right[n].tobytes() for n in left)


def file_of(rows: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A hand-made params file: `rows` is the header, as JSON or as it is."""
    text = rows if isinstance(rows, bytes) else json.dumps(rows).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def tensor(start: int, end: int, *, dtype: str = "F32", shape: list[int] | None = None) -> dict[str, object]:
    return {"dtype": dtype, "shape": [(end - start) // 4] if shape is None else shape, "data_offsets": [start, end]}


def read(tmp_path: Path, content: bytes) -> Params:
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(content)
    return read_params(path)


# --- writing


def test_the_canonical_file_is_these_bytes():
    params = Params({"b": np.array([1.0], np.float32), "a": np.array([[2], [3]], np.int8)})
    text = (
        b'{"a":{"dtype":"I8","shape":[2,1],"data_offsets":[0,2]},'
        b'"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}'
    )
    # 8 + 108 = 116 bytes; the next multiple of 64 is 128, so 12 spaces, and the length says 120.
    assert len(text) == 108
    assert encode(params) == bytes([120, 0, 0, 0, 0, 0, 0, 0]) + text + b" " * 12 + b"\x02\x03" + b"\x00\x00\x80\x3f"


def test_the_header_of_a_manifest_is_that_of_its_params_whatever_the_manifests_order():
    params = Params({"a": np.zeros(3, np.float32), "b": np.zeros((2, 2), np.float64)})
    reversed_manifest = Manifest(tuple(reversed(params.manifest.tensors)))
    assert encode_header(reversed_manifest) == encode_header(params.manifest)
    assert encode(params).startswith(encode_header(params.manifest))


@pytest.mark.parametrize("count", range(1, 20))
def test_data_start_at_a_multiple_of_64(count: int):
    params = Params({"w" * count: np.zeros(1, np.float32)})
    assert (len(encode(params)) - 4) % 64 == 0


def test_names_are_in_byte_order_and_not_escaped():
    params = Params({"é": np.zeros(1, np.uint8), "z": np.zeros(1, np.uint8), "Z": np.zeros(1, np.uint8)})
    rows = json.loads(encode(params)[8:-3])
    assert list(rows) == ["Z", "z", "é"]
    assert "é".encode() in encode(params)


def test_a_tensor_cannot_have_the_metadatas_name():
    with pytest.raises(ParamsError, match="__metadata__"):
        encode(Params({"__metadata__": np.zeros(1, np.float32)}))


def test_more_names_than_a_header_holds_are_refused_when_written():
    names = [f"{number:0{MAX_NAME_BYTES}}" for number in range(MAX_HEADER_BYTES // MAX_NAME_BYTES)]
    manifest = Manifest(tuple(TensorSpec(name=name, dtype="uint8", shape=(1,)) for name in names))
    with pytest.raises(ParamsError, match="header"):
        encode_header(manifest)
    longer = Manifest((TensorSpec(name="n" * (MAX_NAME_BYTES + 1), dtype="uint8", shape=(1,)),))
    with pytest.raises(ParamsError, match="name has more than 1,024 bytes"):
        encode_header(longer)


@given(SOME_PARAMS)
@settings(max_examples=80, deadline=None)
def test_what_is_written_is_read_bit_by_bit(tmp_path_factory: pytest.TempPathFactory, params: Params):
    path = tmp_path_factory.mktemp("codec") / "params"
    written = write_params(params, path, is_durable=False, is_named=True)
    content = path.read_bytes()
    assert content == encode(params)
    assert written.num_bytes == len(content)
    assert written.sha256 == hashlib.sha256(content).hexdigest() == sha256_of_file(path)
    assert written.digest == xxhash.xxh3_128(content).hexdigest() == digest_of_file(path)
    assert same_bits(read_params(path), params)


def test_a_big_model_is_written_like_a_small_one(tmp_path: Path) -> None:
    """So big that the disk is told to begin before its end."""
    params, path = Params({"w": np.arange(HURRY_BYTES // 4 + 1000, dtype=np.float32)}), tmp_path / "model"
    written = write_params(params, path, is_durable=False, is_named=True)
    assert written.num_bytes == path.stat().st_size > HURRY_BYTES
    assert written.sha256 == sha256_of_file(path) == hashlib.sha256(encode(params)).hexdigest()


@given(SOME_PARAMS)
@settings(max_examples=80, deadline=None)
def test_the_safetensors_library_reads_what_we_write(params: Params):
    loaded = safetensors.numpy.load(encode(params))
    assert same_bits(Params(loaded), params)


@given(SOME_PARAMS, st.none() | st.dictionaries(NAMES, st.text(max_size=5), max_size=3))
@settings(max_examples=80, deadline=None)
def test_we_read_what_the_safetensors_library_writes(
    tmp_path_factory: pytest.TempPathFactory, params: Params, metadata: dict[str, str] | None
):
    path = tmp_path_factory.mktemp("codec") / "theirs"
    arrays = {name: np.array(array, order="C") for name, array in params.items()}
    path.write_bytes(safetensors.numpy.save(arrays, metadata))
    assert same_bits(read_params(path), params)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3).T,
        np.arange(12, dtype=np.int64)[::-3],
        np.broadcast_to(np.float32(7), (3, 4)),
        np.arange(5, dtype=">f8"),
        np.arange(800_000, dtype=np.float32).reshape(2, -1).T,        # 3.2 MB: more than one piece
    ],
)
def test_arrays_that_lie_otherwise_in_memory_are_written_in_c_order_and_little_endian(array: np.ndarray):
    little = array.astype(array.dtype.newbyteorder("<")).tobytes(order="C")
    assert encode(Params({"w": array})).endswith(little)
    plain = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    assert encode(Params({"w": array})) == encode(Params({"w": plain}))


def test_writing_replaces_the_file_and_leaves_no_other(tmp_path: Path):
    path = tmp_path / "model"
    write_params(Params({"w": np.zeros(3, np.float32)}), path, is_durable=True)
    write_params(Params({"w": np.ones(3, np.float32)}), path, is_durable=True)
    assert read_params(path)["w"].tolist() == [1, 1, 1]
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_names_the_place_and_keeps_what_was_there(tmp_path: Path):
    path = tmp_path / "model"
    path.write_bytes(b"before")
    with pytest.raises(ParamsError):
        write_params(Params({"__metadata__": np.zeros(1)}), path, is_durable=False)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(StoreError, match="nowhere") as caught:
        write_params(Params({"w": np.zeros(1)}), tmp_path / "nowhere" / "model", is_durable=False)
    assert "nowhere" in caught.value.fix


def test_views_hold_what_was_read_after_the_file_has_been_replaced(tmp_path: Path):
    path = tmp_path / "model"
    write_params(Params({"w": np.zeros(3, np.float32)}), path, is_durable=False)
    params = read_params(path)
    write_params(Params({"w": np.ones(3, np.float32)}), path, is_durable=False)
    assert params["w"].tolist() == [0, 0, 0]
    assert not params["w"].flags.writeable


def test_reading_copies_nothing_where_data_are_aligned(tmp_path: Path):
    path = tmp_path / "model"
    write_params(Params({"w": np.zeros(3, np.float32)}), path, is_durable=False)
    assert not read_params(path)["w"].flags.owndata
    assert read_params(path)["w"].ctypes.data % 64 == 0


def test_data_at_an_odd_place_are_read_all_the_same(tmp_path: Path):
    values = np.array([1.5, -2.5], np.float32)
    rows = {"a": tensor(0, 1, dtype="U8", shape=[1]), "w": tensor(1, 9)}
    text = json.dumps(rows).encode()
    for spaces in range(4):
        params = read(tmp_path, file_of(text + b" " * spaces, b"\x07" + values.tobytes()))
        assert params["w"].tolist() == [1.5, -2.5]
        assert params["w"].flags.aligned


def test_tensors_may_lie_in_another_order_than_their_names(tmp_path: Path):
    rows = {"a": tensor(4, 8), "b": tensor(0, 4)}
    params = read(tmp_path, file_of(rows, np.array([1, 2], np.float32).tobytes()))
    assert list(params) == ["a", "b"]
    assert (params["a"].tolist(), params["b"].tolist()) == ([2.0], [1.0])


def test_metadata_are_ignored(tmp_path: Path):
    params = read(tmp_path, file_of({"__metadata__": {"format": "pt"}, "w": tensor(0, 4)}, bytes(4)))
    assert list(params) == ["w"]


def test_a_header_says_where_its_tensors_lie(tmp_path: Path):
    path = tmp_path / "model"
    write_params(Params({"a": np.zeros(2, np.uint8), "b": np.zeros(2, np.float32)}), path, is_durable=False)
    header = read_header(path)
    assert header.num_bytes % 64 == 0
    assert header.starts == (header.num_bytes, header.num_bytes + 2)
    assert parse_header(path.read_bytes()[: header.num_bytes], path.stat().st_size) == header


# --- hostile and damaged files

MANY_ZEROS = {"dtype": "F32", "shape": [0, 2**62, 2**62], "data_offsets": [0, 0]}
THREE_OFFSETS = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}
LIST_FOR_DTYPE = {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}
TWICE_A = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
TWICE_DTYPE = b'{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
HOSTILE = {
    "overlap": (file_of({"a": tensor(0, 8), "b": tensor(4, 12)}, bytes(12)), "'b' overlaps"),
    "same place": (file_of({"a": tensor(0, 8), "b": tensor(0, 8)}, bytes(8)), "'b' overlaps"),
    "gap": (file_of({"a": tensor(0, 4), "b": tensor(8, 12)}, bytes(12)), "'b' leaves a gap"),
    "gap at the front": (file_of({"a": tensor(4, 8)}, bytes(8)), "'a' leaves a gap"),
    "bytes behind": (file_of({"a": tensor(0, 4)}, bytes(5)), "after the last tensor"),
    "truncated data": (file_of({"a": tensor(0, 8)}, bytes(7)), "truncated"),
    "truncated header": (file_of(b'{"a":', length=100), "truncated"),
    "truncated length": (b"\x10\x00\x00", "truncated"),
    "empty": (b"", "truncated"),
    "bomb length": (file_of(b"{}", length=2**63), "claims 9,223,372,036,854,775,808 bytes"),
    "just too long": (file_of(b"{}", length=MAX_HEADER_BYTES + 1), "more than 16,777,216"),
    "overflow": (file_of({"a": tensor(0, 4, shape=[2**62, 4, 1])}, bytes(4)), "overflows"),
    "overflow of 64 dimensions": (file_of({"a": tensor(0, 4, shape=[2**62] * 64)}, bytes(4)), "overflows"),
    "overflow behind a zero": (file_of({"a": MANY_ZEROS}), "overflows"),
    "wrapping shape": (file_of({"a": tensor(0, 4, shape=[2**31, 2**31])}, bytes(4)), "overflows|takes"),
    "too many dimensions": (file_of({"a": tensor(0, 4, shape=[1] * 65)}, bytes(4)), "shape"),
    "huge offset": (file_of({"a": {"dtype": "F32", "shape": [1], "data_offsets": [2**64, 2**64 + 4]}}), "data_offsets"),
    "negative dimension": (file_of({"a": tensor(0, 4, shape=[-1])}, bytes(4)), "shape"),
    "negative offset": (file_of({"a": tensor(-4, 0, shape=[1])}, bytes(4)), "data_offsets"),
    "backward offsets": (file_of({"a": tensor(4, 0, shape=[1])}, bytes(4)), "data_offsets"),
    "true is no count": (file_of({"a": tensor(0, 4, shape=[True])}, bytes(4)), "shape"),
    "fraction": (file_of(b'{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}', bytes(4)), "shape"),
    "three offsets": (file_of({"a": THREE_OFFSETS}, bytes(4)), "data_offsets"),
    "size against shape": (file_of({"a": tensor(0, 4, shape=[2])}, bytes(4)), "takes 8 bytes"),
    "duplicate names": (file_of(TWICE_A, bytes(4)), "'a' twice"),
    "duplicate keys": (file_of(TWICE_DTYPE, bytes(4)), "twice"),
    "unknown dtype": (file_of({"a": tensor(0, 4, dtype="F31")}, bytes(4)), "F31"),
    "dtype of another type": (file_of({"a": LIST_FOR_DTYPE}, bytes(4)), "dtype"),
    "no dtype": (file_of({"a": {"shape": [1], "data_offsets": [0, 4]}}, bytes(4)), "lacks its dtype"),
    "no object": (file_of({"a": 3}), "lacks its dtype"),
    "a list": (file_of(b"[1]"), "not a JSON object"),
    "leading space": (file_of(b" {}"), "not a JSON object"),
    "no tensor": (file_of({"__metadata__": {}}), "no tensor"),
    "not JSON": (file_of(b"{nonsense"), "not JSON"),
    "not UTF-8": (file_of(b'{"\xff": 1}'), "not JSON"),
    "NaN": (file_of(b'{"a":NaN}'), "not JSON"),
    "two objects": (file_of(b"{}{}"), "not JSON"),
    "deep": (file_of(b'{"a":' + b"[" * 200_000), "not JSON"),
    "long integer": (file_of(b'{"a":' + b"9" * 10_000 + b"}"), "not JSON"),
    "lone surrogate": (file_of(rb'{"\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)), "not JSON"),
    "a pickle": (b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94.", "safetensors"),
    "a zip": (b"PK\x03\x04" + b"zip" * 20, "safetensors"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_bad_file_is_refused_by_name_of_its_defect(tmp_path: Path, name: str):
    content, defect = HOSTILE[name]
    with pytest.raises(BadParamsFile, match=defect) as caught:
        read(tmp_path, content)
    assert "hostile.safetensors" in caught.value.message
    assert len(caught.value.message) < 600
    assert caught.value.fix


@given(SOME_PARAMS, st.data())
@settings(max_examples=60, deadline=None)
def test_a_file_cut_anywhere_is_refused(params: Params, data: st.DataObject):
    content = encode(params)
    cut = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(BadParamsFile):
        parse_header(content[:cut], cut)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_no_bytes_at_all_raise_anything_else(junk: bytes):
    for content in (junk, file_of(b'{"' + junk), file_of({"a": tensor(0, 4)})[:-1] + junk):
        try:
            parse_header(content, len(content))
        except BadParamsFile:
            continue


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(BadParamsFile, match=r"gone\.safetensors"):
        read_params(tmp_path / "gone.safetensors")


def test_zero_sized_and_scalar_tensors_come_back(tmp_path: Path):
    path = tmp_path / "model"
    params = Params({"empty": np.zeros((0, 3)), "scalar": np.array(2.5), "none": np.zeros((2, 0), np.bool_)})
    write_params(params, path, is_durable=False)
    assert same_bits(read_params(path), params)
    write_params(Params({"empty": np.zeros((0, 3), np.float64)}), path, is_durable=False)
    assert read_params(path)["empty"].shape == (0, 3)


def test_bf16_is_written_and_read_as_anybody_does(tmp_path: Path):
    params = Params({"count": np.array([3]), "w": np.float32([1 / 3, -0.0, 1e-40, 2])})
    written = write_params(narrowed(params), tmp_path / "narrow", is_durable=False)
    theirs = {"count": np.array([3]), "w": params["w"].astype(ml_dtypes.bfloat16)}
    loaded = safetensors.numpy.load_file(tmp_path / "narrow")
    assert loaded["w"].tobytes() == theirs["w"].tobytes() and loaded["count"].tolist() == [3]
    ours = read_params(tmp_path / "narrow")
    assert ours.manifest == params.manifest                             # float32, for whoever reads it
    assert ours["w"].tobytes() == theirs["w"].astype(np.float32).tobytes()
    assert write_params(ours, tmp_path / "again", is_durable=False) == written      # and it goes on as it came
    (tmp_path / "theirs").write_bytes(safetensors.numpy.save(theirs))
    assert read_params(tmp_path / "theirs")["w"].tobytes() == ours["w"].tobytes()
