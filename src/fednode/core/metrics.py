"""Metrics that add up: what a task declares, and what a client returns: a float, a `Sum` or a `Histogram`.

How a federation's value is made of its clients' is in `pooling.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np
from numpy.typing import NDArray

from fednode.core.json import Json, JsonObject
from fednode.errors import BadConfig, TaskFailed

Floats: TypeAlias = NDArray[np.float64]
Combine: TypeAlias = Literal[
    "mean", "sum", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "auc", "roc", "threshold"
]
Goal: TypeAlias = Literal["max", "min", "none"]
Split: TypeAlias = Literal["test", "val"]

MAX_EXAMPLES = 2**53            # more would not be exact as a float64


@dataclass(frozen=True, eq=False)
class Sum:
    """An array that adds up over clients: counts, a confusion matrix (rows: truth, columns: prediction)."""

    values: Floats

    def __init__(self, values: object) -> None:
        object.__setattr__(self, "values", _floats(values))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sum) and np.array_equal(self.values, other.values)


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of scores in equal bins over [0, 1]; shape (2, bins): row 0 negatives, row 1 positives."""

    counts: Floats

    def __init__(self, counts: object) -> None:
        array = _floats(counts)
        if array.ndim != 2 or len(array) != 2 or (array < 0).any():
            fix = "give counts of shape (2, bins): row 0 negatives, row 1 positives"
            raise TaskFailed(f"no Histogram: shape {array.shape}, least count {array.min(initial=0.0)}", fix=fix)
        object.__setattr__(self, "counts", array)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and np.array_equal(self.counts, other.counts)

    @staticmethod
    def of_scores(scores: Floats, labels: Floats, bins: int = 1000) -> Histogram:
        """Histogram of scores in [0, 1] by their 0/1 labels, both of shape (examples,)."""
        rows = [np.histogram(scores[labels == label], bins=bins, range=(0.0, 1.0))[0] for label in (0, 1)]
        return Histogram(np.stack(rows))


Value: TypeAlias = float | Sum | Histogram


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What a task declares of one metric.

    `of` names the `Sum` or `Histogram` that it is derived from (None: its own value). `at` is where a metric derived
    from a `Histogram` cuts it, to the nearest edge of a bin: a number in [0, 1], or the name of a `threshold` metric.
    Raises BadConfig where a field is not one of the words above.
    """

    name: str
    combine: Combine = "mean"
    goal: Goal = "max"
    unit: str = ""
    of: str | None = None
    at: float | str | None = None
    split: Split = "test"

    def __post_init__(self) -> None:
        for word, kind in ((self.combine, Combine), (self.goal, Goal), (self.split, Split)):
            if word not in (words := get_args(kind)):
                raise BadConfig(f"metric {self.name!r} cannot be {word!r}", fix=f"take one of: {', '.join(words)}")
        if isinstance(self.at, int | float):
            object.__setattr__(self, "at", float(self.at))
            if not 0 <= self.at <= 1:
                raise BadConfig(f"metric {self.name!r} is cut at {self.at}", fix="give a number from 0 to 1")

    @property
    def source(self) -> str:
        """The name of the value that it is made of."""
        return self.of or self.name

    def to_json(self) -> JsonObject:
        return {
            "name": self.name, "combine": self.combine, "goal": self.goal, "unit": self.unit,
            "of": self.of, "at": self.at, "split": self.split,
        }

    @staticmethod
    def from_json(row: JsonObject) -> Metric:
        """Raises BadConfig on anything that `to_json` does not write."""
        texts = [row.get(name) for name in ("name", "combine", "goal", "unit", "split")]
        is_metric = row.keys() == _EXAMPLE.keys() and all(isinstance(text, str) for text in texts)
        if not is_metric or isinstance(row["at"], bool) or not isinstance(row["at"], int | float | str | None):
            raise BadConfig(f"{row!r} does not declare a metric", fix=f"give it like this: {_EXAMPLE}")
        return Metric(**cast(dict[str, Any], dict(row)))


_EXAMPLE = Metric(name="accuracy").to_json()


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """What one evaluation of a model found: a value a name, and the examples it was measured on, by split.

    Numbers of any kind become floats. What is not finite is left out, as if it had not been measured: a diverged
    loss cannot travel as JSON, and would swallow everybody else's. Raises TaskFailed on what is no metric value.
    """

    values: Mapping[str, Value]
    num_examples: Mapping[Split, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values = {name: _checked_value(name, value) for name, value in self.values.items()}
        finite = {name: value for name, value in values.items() if np.isfinite(array_of(value)).all()}
        object.__setattr__(self, "values", finite)
        counts = {split: _checked_count(split, count) for split, count in self.num_examples.items()}
        object.__setattr__(self, "num_examples", counts)

    def to_json(self) -> JsonObject:
        return {
            "values": {name: value_to_json(self.values[name]) for name in sorted(self.values)},
            "num_examples": {split: self.num_examples[split] for split in sorted(self.num_examples)},
        }

    @staticmethod
    def from_json(row: JsonObject) -> Metrics:
        """Raises TaskFailed on anything that `to_json` does not write."""
        values, counts = row.get("values"), row.get("num_examples")
        if not isinstance(values, Mapping) or not isinstance(counts, Mapping):
            raise TaskFailed(f"{row!r} are no metrics", fix="give two objects, `values` and `num_examples`")
        kept = {name: value_from_json(value) for name, value in values.items()}
        return Metrics(values=kept, num_examples=cast(Mapping[Split, int], counts))


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """One metric of the whole federation: a number or a curve, over how many clients and examples."""

    name: str
    value: float | list[list[float]]
    num_clients: int
    num_examples: int


def value_to_json(value: Value) -> Json:
    if isinstance(value, Sum):
        return {"sum": value.values.tolist()}
    if isinstance(value, Histogram):
        return {"histogram": value.counts.tolist()}
    return float(value)


def value_from_json(value: Json) -> Value:
    """Raises TaskFailed on anything that `value_to_json` does not write."""
    if isinstance(value, Mapping) and set(value) == {"sum"}:
        return Sum(value["sum"])
    if isinstance(value, Mapping) and set(value) == {"histogram"}:
        return Histogram(value["histogram"])
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise TaskFailed(f"{value!r} is no metric value", fix="a number, a Sum or a Histogram")


def _floats(values: object) -> Floats:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise TaskFailed(f"{values!r} is no array of numbers", fix="give an array, or nested lists") from None


def _checked_value(name: str, value: object) -> Value:
    if isinstance(value, Sum | Histogram):
        return value
    array = np.array(None) if isinstance(value, str | bytes) else np.asarray(value)
    if array.ndim > 0 or array.dtype.kind not in "biuf":
        raise TaskFailed(f"metric {name!r} is {value!r}", fix="return a number, a Sum or a Histogram")
    return float(array)


def _checked_count(split: str, count: object) -> int:
    is_count = isinstance(count, int | np.integer) and 0 <= count <= MAX_EXAMPLES
    if not is_count or split not in get_args(Split):
        raise TaskFailed(f"num_examples of the split {split!r} is {count!r}", fix="count the examples of test and val")
    return int(cast(int, count))


def array_of(value: Value) -> Floats:
    if isinstance(value, Sum):
        return value.values
    return value.counts if isinstance(value, Histogram) else np.array(value, dtype=np.float64)


def check_metrics(specs: Sequence[Metric]) -> None:
    """Raise BadConfig where a name is declared twice, or a metric is cut at what is no `threshold` metric."""
    names = Counter(spec.name for spec in specs)
    thresholds = {spec.name for spec in specs if spec.combine == "threshold"}
    for spec in specs:
        if names[spec.name] > 1:
            raise BadConfig(f"metric {spec.name!r} is declared twice", fix="rename one of the two")
        if isinstance(spec.at, str) and spec.at not in thresholds:
            fix = f"declare Metric(name={spec.at!r}, combine='threshold', of=...) too"
            raise BadConfig(f"metric {spec.name!r} is cut at {spec.at!r}, which is no threshold metric", fix=fix)
