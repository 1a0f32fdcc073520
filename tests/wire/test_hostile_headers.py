"""Headers that lie: a file with one is refused before a tensor is read, by the reader and by the check on the way.

Each defect by name, in a file of initial params (held against nothing) and in an update (held against the run's);
then any mixture of them. What a refusal may cost is bounded by counting, before anything is parsed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.core.params import Params, manifest_of
from fednode.errors import BadParamsFile, FednodeError, ParamsError, TooLarge
from fednode.wire.body_check import BodyCheck
from fednode.wire.codec import MAX_HEADER_BYTES, MAX_NAME_BYTES, MAX_TENSORS, parse_header, read_params

RUN = Params({"a": np.arange(4, dtype=np.float32), "b": np.arange(2, dtype=np.int64)})  # 16 + 16 bytes
A = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
B = {"dtype": "I64", "shape": [2], "data_offsets": [16, 32]}
DATA = RUN["a"].tobytes() + RUN["b"].tobytes()
INT64 = 2**63


def body(header: str | bytes, data: bytes = DATA, *, length: int | None = None) -> bytes:
    text = header.encode() if isinstance(header, str) else header
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def of(rows: dict[str, Any], data: bytes = DATA) -> bytes:
    return body(json.dumps(rows), data)


HOSTILE = {
    "nothing": b"",
    "seven bytes": bytes(7),
    "a length of all ones": body("{}", length=2**64 - 1),
    "a length beyond the file": body("{}", length=1_000),
    "a length of sixteen megabytes and one": body("{}", length=MAX_HEADER_BYTES + 1),
    "a length of nothing": body(""),
    "no object": body("[]"),
    "white space first": body(' {"a": 1}'),
    "two objects": body(json.dumps({"a": A, "b": B}) + "{}"),
    "no UTF-8": body(b'{"\xff": 1}'),
    "half a surrogate": body('{"\\ud800": ' + json.dumps(A) + "}"),
    "NaN": body('{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 16]}}'),
    "deep": body('{"a":' * 5_000),
    "no tensor": of({}),
    "metadata only": of({"__metadata__": {"a": "b"}}),
    "a name twice": body(f'{{"a": {json.dumps(A)}, "a": {json.dumps(A)}, "b": {json.dumps(B)}}}'),
    "a field twice": body(
        f'{{"a": {{"dtype": "F32", "dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, "b": {json.dumps(B)}}}'
    ),
    "a tensor that is none": of({"a": 7, "b": B}),
    "no dtype": of({"a": {"shape": [4], "data_offsets": [0, 16]}, "b": B}),
    "a dtype of its own": of({"a": A | {"dtype": "PICKLE"}, "b": B}),
    "a dtype that is a list": of({"a": A | {"dtype": ["F32"]}, "b": B}),
    "a shape of minus one": of({"a": A | {"shape": [-4]}, "b": B}),
    "two minus signs": of({"a": A | {"shape": [-2, -2]}, "b": B}),
    "a shape of a half": of({"a": A | {"shape": [4.0]}, "b": B}),
    "a shape of yes": of({"a": A | {"shape": [True, 4]}, "b": B}),
    "a shape that is a word": of({"a": A | {"shape": "4"}, "b": B}),
    "65 dimensions": of({"a": A | {"shape": [4] + [1] * 64}, "b": B}),
    "a shape that wraps to 16 bytes": of({"a": A | {"shape": [2**62 + 4]}, "b": B}),
    "a shape that wraps as a product": of({"a": A | {"shape": [2**32, 2**32, 4]}, "b": B}),
    "an empty shape of all the world": of(
        {"a": A, "b": B, "c": {"dtype": "F64", "shape": [0, INT64 - 1, INT64 - 1], "data_offsets": [32, 32]}}
    ),
    "an offset of minus one": of({"a": A | {"data_offsets": [-16, 0]}, "b": B}),
    "an offset backwards": of({"a": A | {"data_offsets": [16, 0]}, "b": B}),
    "an offset of int64": of({"a": A | {"data_offsets": [INT64, INT64 + 16]}, "b": B}),
    "an offset of five thousand digits": body(
        '{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, ' + "9" * 5_000 + "]}}"
    ),
    "three offsets": of({"a": A | {"data_offsets": [0, 16, 32]}, "b": B}),
    "an overlap": of({"a": A, "b": B | {"data_offsets": [8, 24]}}),
    "the same bytes twice": of({"a": A, "b": B | {"data_offsets": [0, 16]}}),
    "a gap": of({"a": A, "b": B | {"data_offsets": [24, 40]}}, DATA + bytes(8)),
    "bytes before the first": of(
        {"a": A | {"data_offsets": [8, 24]}, "b": B | {"data_offsets": [24, 40]}}, DATA + bytes(8)
    ),
    "bytes after the last": of({"a": A, "b": B}, DATA + b"!"),
    "a byte too few": of({"a": A, "b": B}, DATA[:-1]),
    "a name of a kilobyte and one": of({"n" * (MAX_NAME_BYTES + 1): A, "b": B}),
}
OTHERS = {  # sound files, but of other params than the run's
    "one missing": of({"a": A}, DATA[:16]),
    "one more": of({"a": A, "b": B, "c": {"dtype": "U8", "shape": [0], "data_offsets": [32, 32]}}),
    "another name": of({"a": A, "c": B}),
    "bfloat16": of({"a": A | {"dtype": "BF16", "shape": [8]}, "b": B}),
    "another dtype": of({"a": A | {"dtype": "I32"}, "b": B}),
    "another shape": of({"a": A | {"shape": [2, 2]}, "b": B}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_initial_params_with_a_lying_header_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "params"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(BadParamsFile):
        read_params(path)


@pytest.mark.parametrize("name", [*HOSTILE, *OTHERS])
def test_an_update_with_a_lying_header_is_refused_while_it_comes(name: str) -> None:
    sent = HOSTILE.get(name, OTHERS.get(name, b""))
    with pytest.raises((ParamsError, TooLarge)):
        taken(sent)


def taken(sent: bytes) -> str:
    """As the central node takes an update: in small pieces."""
    check = BodyCheck(RUN.manifest, len(sent))
    for start in range(0, len(sent), 100):
        check.feed(sent[start : start + 100])
    return check.finish()


def test_an_update_may_lie_in_another_order_and_say_more_of_itself() -> None:
    turned = of(
        {"b": B | {"data_offsets": [0, 16]}, "__metadata__": {"by": "hand"}, "a": A | {"data_offsets": [16, 32]}}
    )
    assert taken(turned) == taken(turned)


@pytest.mark.parametrize("sign", ['{"%d":{},', "[[],", '"%d",'], ids=["objects", "lists", "words"])
def test_a_header_of_millions_is_refused_before_it_is_parsed(sign: str) -> None:
    many = sign.replace("%d", "0") * (MAX_HEADER_BYTES // (len(sign) + 2))
    sent = body('{"a":' + many)[: 8 + MAX_HEADER_BYTES]
    with pytest.raises(BadParamsFile, match="more than 65,536 tensors"):
        parse_header(sent, len(sent) + len(DATA))


def test_as_many_tensors_as_may_be_are_read() -> None:
    rows = {f"t{n}": {"dtype": "U8", "shape": [1], "data_offsets": [n, n + 1]} for n in range(MAX_TENSORS)}
    sent = of(rows, bytes(MAX_TENSORS))
    assert len(parse_header(sent, len(sent)).starts) == MAX_TENSORS


ODD = st.sampled_from([-1, 0, 1, 4, 16, 32, INT64 - 1, INT64, 2**64, 0.5, True, None, "4", [], {}, "F32", "U8", "BF16"])
ROWS = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "I64", "U8", "F16", "BOOL"]) | ODD,
        "shape": st.lists(st.sampled_from([0, 1, 2, 4, 8, 16]) | ODD, max_size=4) | ODD,
        "data_offsets": st.lists(st.sampled_from([0, 8, 16, 24, 32]) | ODD, min_size=1, max_size=3) | ODD,
    },
)
NAMES = st.sampled_from(["a", "b", "c", "", "__metadata__", "a\u0000"])
HEADERS = st.dictionaries(NAMES, ROWS | st.sampled_from([A, B]) | ODD, max_size=4)


@given(HEADERS, st.integers(0, 40))
@settings(max_examples=150, deadline=None)
def test_whatever_a_header_says_the_params_are_what_it_says_or_there_are_none(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[str, Any], num_data_bytes: int
) -> None:
    sent = of(rows, bytes(num_data_bytes))
    path = tmp_path_factory.mktemp("params") / "params"
    path.write_bytes(sent)
    try:
        params = read_params(path)
    except FednodeError as error:
        assert type(error) is BadParamsFile
        return
    assert manifest_of(params.held).num_bytes == num_data_bytes
    assert set(params) == set(rows) - {"__metadata__"}


@given(HEADERS, st.integers(0, 40))
@settings(max_examples=150, deadline=None)
def test_whatever_an_update_says_it_is_the_runs_params_or_refused(rows: dict[str, Any], num_data_bytes: int) -> None:
    sent = of(rows, bytes(num_data_bytes))
    try:
        taken(sent)
    except FednodeError as error:
        assert isinstance(error, ParamsError | TooLarge)
        return
    found = parse_header(sent, len(sent)).manifest
    assert found == RUN.manifest
