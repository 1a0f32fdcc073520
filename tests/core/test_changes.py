"""How far, and which way, updates lead: against plain numpy, and whoever wants to look like the others."""

from __future__ import annotations

import tracemalloc
import warnings

import numpy as np
import pytest

from fednode.core import changes
from fednode.core.aggregation import Updates
from fednode.core.changes import measured, standing_apart, with_changes
from fednode.core.params import Params
from fednode.core.records import Change, Failure, Outcome, Update
from fednode.core.seeds import numpy_rng
from fednode.core.status import FailureCode

SHAPES = {"a": (3, 7), "b": (5,), "c": (2, 2, 2)}       # 34 floats
SIZE = sum(int(np.prod(shape)) for shape in SHAPES.values())


def model(values: np.ndarray, dtype: str = "float32", counter: int = 0) -> Params:
    """A row of numbers as three tensors, and a counter between them."""
    found: dict[str, np.ndarray] = {"b_counter": np.array(counter, "int64")}
    for name, shape in SHAPES.items():
        found[name], values = values[: int(np.prod(shape))].reshape(shape).astype(dtype), values[int(np.prod(shape)):]
    return Params(found)


def cohort(rows: np.ndarray, dtype: str = "float32") -> list[Update]:
    """Whose numbers of examples differ widely: they have no part in it."""
    return [
        Update(client=f"client-{i:02}", params=model(row, dtype, 1000 * i), num_examples=10 ** (i % 5))
        for i, row in enumerate(rows)
    ]


def found_of(rows: np.ndarray, start: np.ndarray, dtype: str = "float32") -> list[Change]:
    updates = cohort(rows, dtype)
    found = measured(Updates([one.client for one in updates], updates, updates[0].params.manifest), model(start, dtype))
    assert list(found) == [one.client for one in updates]
    return list(found.values())


def wanted_of(rows: np.ndarray, start: np.ndarray, dtype: str = "float32") -> list[tuple[float, float]]:
    """The definition: each change beside the mean of the changes, those that are too long cut to the median length."""
    moved = rows.astype(dtype).astype(np.float64) - start.astype(dtype).astype(np.float64)
    lengths = np.linalg.norm(moved, axis=1)
    mean = (moved * np.minimum(1, np.median(lengths) / lengths)[:, None]).mean(axis=0)
    return list(zip(lengths, moved @ mean / lengths / np.linalg.norm(mean), strict=True))


def drawn(seed: int, num_clients: int, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Updates that go much the same way, of very different lengths."""
    rng = numpy_rng(seed)
    start, way = rng.normal(size=size), rng.normal(size=size)
    lengths = 10.0 ** rng.uniform(-2, 2, (num_clients, 1))
    return start + lengths * (way + rng.normal(size=(num_clients, size))), start


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("num_clients", [1, 2, 3, 20])
@pytest.mark.parametrize("column", [1, 4, 1 << 14])
def test_the_numbers_are_those_of_plain_numpy(monkeypatch, dtype, num_clients, column) -> None:
    monkeypatch.setattr(changes, "COLUMN_ELEMENTS", column)
    for seed in range(5):
        rows, start = drawn(seed, num_clients)
        for got, (norm, cosine) in zip(found_of(rows, start, dtype), wanted_of(rows, start, dtype), strict=True):
            assert got.norm == pytest.approx(norm, rel=1e-9)
            assert got.cosine == pytest.approx(cosine, abs=1e-9)


def test_of_a_large_model_a_sample_is_measured_that_is_like_the_whole(monkeypatch) -> None:
    rng = numpy_rng(7)
    way, noise = rng.normal(size=60_000), rng.normal(size=(4, 60_000))
    rows = np.array([1.0, 1.0, 2.0, -1.0])[:, None] * (way + noise)
    updates = [Update(client=f"c{i}", params=Params({"w": row}), num_examples=1) for i, row in enumerate(rows)]
    start = Params({"w": np.zeros(60_000)})

    def numbers(sample: int) -> list[float | None]:
        monkeypatch.setattr(changes, "SAMPLE_ELEMENTS", sample)
        monkeypatch.setattr(changes, "COLUMN_ELEMENTS", 500)
        found = measured(Updates([one.client for one in updates], updates, start.manifest), start)
        return [number for change in found.values() for number in (change.norm, change.cosine)]

    assert numbers(60_000) == pytest.approx([n for pair in wanted_of(rows, np.zeros(60_000), "float64") for n in pair])
    assert numbers(6_000) != numbers(60_000)
    assert numbers(6_000) == pytest.approx(numbers(60_000), rel=0.05)


def test_memory_does_not_grow_with_the_clients() -> None:
    params = Params({"w": np.ones(300_000, "float32")})
    updates = [Update(client=f"c{i:02}", params=params, num_examples=1) for i in range(64)]     # 150 MB as float64
    tracemalloc.start()
    try:
        measured(Updates([one.client for one in updates], updates, params.manifest), Params({"w": params["w"] * 2}))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000


# --- who stands apart ----------------------------------------------------------------------------------


def apart(rows: np.ndarray, start: np.ndarray) -> dict[int, str]:
    names = [one.client for one in cohort(rows)]
    told = standing_apart(dict(zip(names, found_of(rows, start), strict=True)))
    return {names.index(client): words for client, words in told.items()}


def skewed(num_clients: int, seed: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Honest clients whose data differ: half of each change is its own affair, some are twice as long as others."""
    rng = numpy_rng(seed)
    start, way = rng.normal(size=SIZE), rng.normal(size=SIZE)
    return start + rng.uniform(1, 2, (num_clients, 1)) * (way + rng.normal(size=(num_clients, SIZE))), start


@pytest.mark.parametrize("num_clients", [3, 10, 50])
def test_clients_whose_data_differ_do_not_stand_apart(num_clients: int) -> None:
    assert not any(apart(*skewed(num_clients, seed)) for seed in range(20))


@pytest.mark.parametrize(("factor", "words"), [
    (-1.0, ["leads away from the mean"]), (10.0, ["times as long as the median"]),
    (-100.0, ["leads away from the mean", "times as long as the median"]),
])
def test_who_turns_or_stretches_its_change_stands_apart_and_nobody_else(factor: float, words: list[str]) -> None:
    rows, start = skewed(10)
    rows[3] = start + factor * (rows[3] - start)        # -100: the plain mean of all would go the way of this one
    told = apart(rows, start)
    assert list(told) == [3]
    assert all(word in told[3] for word in words)


def test_of_two_nobody_can_say_which_one_is_odd() -> None:
    rows, start = skewed(2)
    rows[1] = start - 100 * (rows[1] - start)
    assert apart(rows, start) == {}


def test_who_sends_back_what_it_got_has_no_direction() -> None:
    start = np.ones(SIZE)
    assert found_of(np.stack([start] * 4), start) == [Change(norm=0.0, cosine=None)] * 4
    assert apart(np.stack([start] * 4), start) == {}
    rows, start = skewed(4)
    rows[2] = start
    assert found_of(rows, start)[2] == Change(norm=0.0, cosine=None)


def test_what_is_beyond_numbers_stands_apart_and_is_no_warning() -> None:
    rows, start = skewed(5)
    rows[4] *= 1e200
    updates = cohort(rows, "float64")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measured(Updates([one.client for one in updates], updates, updates[0].params.manifest), model(start))
    assert found["client-04"].norm == np.inf
    assert list(standing_apart(found)) == ["client-04"]


def test_outcomes_without_an_update_have_no_change() -> None:
    rows, start = skewed(2)
    a, b = cohort(rows)
    failed = Outcome(client="c", failure=Failure(client="c", code=FailureCode.GONE, reason="unheard of"))
    found = with_changes((failed, Outcome(client=b.client, update=b), Outcome(client=a.client, update=a)), model(start))
    assert [outcome.client for outcome in found] == ["c", b.client, a.client]
    assert [outcome.change is None for outcome in found] == [True, False, False]
    assert with_changes((failed,), model(start)) == (failed,)
