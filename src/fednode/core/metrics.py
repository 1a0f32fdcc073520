"""Metrics that add up: what a task declares and returns, and how a federation's value is made of its clients'.

A client returns a float (pooled as a mean by examples), a `Sum` or a `Histogram`; the pooled value is a
function, from a closed list, of the pooled sums. So a pooled score is the score on the pooled examples, not
an average of averages, and whoever pools needs none of the task's code.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
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

DETECTION_RATE = 0.9            # `threshold` is the highest that still finds this share of the positives
DEFAULT_CUT = 0.5               # of a metric derived from a Histogram, without `at`
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
        finite = {name: value for name, value in values.items() if np.isfinite(_array_of(value)).all()}
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


def _array_of(value: Value) -> Floats:
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


def require_poolable(specs: Sequence[Metric], metrics: Metrics) -> None:
    """Raise TaskFailed where a value is not of the kind that its metric's `combine` can read."""
    for spec in specs:
        if spec.source not in metrics.values:
            continue
        try:
            FUNCTIONS[spec.combine](metrics.values[spec.source], DEFAULT_CUT)
        except TaskFailed as error:
            raise TaskFailed(f"metric {spec.name!r}: {error.message}", fix=error.fix) from None


def pool(specs: Sequence[Metric], evaluations: Mapping[str, Metrics]) -> list[Pooled]:
    """Every declared metric over all clients that brought a value that fits, summed in name order."""
    order = sorted(evaluations, key=str.encode)
    found: dict[str, Pooled] = {}
    for spec in sorted(specs, key=lambda spec: spec.combine != "threshold"):
        parts = _fitting(spec, [evaluations[name] for name in order])
        if parts and (pooled := _pool_one(spec, parts, found)) is not None:
            found[spec.name] = pooled
    return [found[spec.name] for spec in specs if spec.name in found]


def _fitting(spec: Metric, evaluations: Sequence[Metrics]) -> list[Metrics]:
    """The evaluations that have the metric's value, in the shape of most: one stranger must not stop the run."""
    groups: dict[tuple[type, tuple[int, ...]], list[Metrics]] = {}
    for metrics in evaluations:
        if (value := metrics.values.get(spec.source)) is not None:
            groups.setdefault((type(value), _array_of(value).shape), []).append(metrics)
    return max((group for group in groups.values() if _can_pool(spec, group[0])), key=len, default=[])


def _can_pool(spec: Metric, metrics: Metrics) -> bool:
    try:
        require_poolable([spec], metrics)
    except TaskFailed:
        return False
    return True


def _pool_one(spec: Metric, parts: Sequence[Metrics], found: Mapping[str, Pooled]) -> Pooled | None:
    cut = _cut(spec, found)
    examples = [part.num_examples.get(spec.split, 0) for part in parts]
    total = _total(spec, [part.values[spec.source] for part in parts], examples)
    value = None if cut is None or total is None else FUNCTIONS[spec.combine](total, cut)
    if value is None or not np.isfinite(value).all():
        return None
    return Pooled(name=spec.name, value=value, num_clients=len(parts), num_examples=sum(examples))


def _cut(spec: Metric, found: Mapping[str, Pooled]) -> float | None:
    """Where the metric cuts its Histogram; None where that is a threshold that has no value itself."""
    if not isinstance(spec.at, str):
        return DEFAULT_CUT if spec.at is None else spec.at
    threshold = found[spec.at].value if spec.at in found else None
    return threshold if isinstance(threshold, float) else None


def _total(spec: Metric, values: Sequence[Value], examples: Sequence[int]) -> Value | None:
    """The sum of sums; of floats their mean by examples, or their sum for `sum`. None: no examples."""
    if isinstance(values[0], Sum | Histogram):
        return type(values[0])(sum(_array_of(value) for value in values))
    numbers = cast(Sequence[float], values)
    if spec.combine == "sum":
        return _added(numbers)
    if sum(examples) == 0:
        return None
    return _added(number * count for number, count in zip(numbers, examples, strict=True)) / sum(examples)


def _added(numbers: Iterable[float]) -> float:
    """One after the other: the built-in `sum` rounds otherwise since Python 3.12."""
    return reduce(operator.add, numbers, 0.0)


# One entry a name of `Combine`: pooled value and threshold in, the metric out; None where it is undefined
# (no positives, no examples), which is told as "no value" rather than as a number.
Result: TypeAlias = float | list[list[float]] | None


def _mean(total: Value, at: float) -> Result:
    if isinstance(total, float):
        return total
    if isinstance(total, Sum) and total.values.shape == (2,):
        return _ratio(total.values[0], total.values[1])
    raise TaskFailed("`mean` takes a float or a Sum of [total, count]", fix="return one of the two")


def _sum(total: Value, at: float) -> Result:
    return float(np.sum(_array_of(total)))


def _confusion(total: Value, at: float) -> Floats:
    """The confusion matrix (rows: truth): a Sum as it is, a Histogram cut at the threshold."""
    if isinstance(total, Sum) and total.values.ndim == 2 and len(set(total.values.shape)) == 1:
        return total.values
    if isinstance(total, Histogram):
        cut = round(at * total.counts.shape[1])
        return np.stack([total.counts[:, :cut].sum(axis=1), total.counts[:, cut:].sum(axis=1)], axis=1)
    raise TaskFailed("this metric needs a Histogram or a square Sum (truth x prediction)", fix="set the metric's `of`")


def _accuracy(total: Value, at: float) -> Result:
    if isinstance(total, float) or _array_of(total).shape == (2,):      # or [correct, all]
        return _mean(total, at)
    confusion = _confusion(total, at)
    return _ratio(np.trace(confusion), confusion.sum())


def _recalls(total: Value, at: float) -> list[float | None]:
    confusion = _confusion(total, at)
    return [_ratio(confusion[c, c], confusion[c].sum()) for c in range(len(confusion))]


def _balanced_accuracy(total: Value, at: float) -> Result:
    recalls = [recall for recall in _recalls(total, at) if recall is not None]
    return sum(recalls) / len(recalls) if recalls else None


def _sensitivity(total: Value, at: float) -> Result:
    return _two_recalls(total, at)[1]


def _specificity(total: Value, at: float) -> Result:
    return _two_recalls(total, at)[0]


def _two_recalls(total: Value, at: float) -> list[float | None]:
    recalls = _recalls(total, at)
    if len(recalls) != 2:
        raise TaskFailed(f"positives and negatives of {len(recalls)} classes", fix="give a Histogram or a 2 x 2 Sum")
    return recalls


def _rates(total: Value) -> Floats | None:
    """False and true positive rate at every edge of the bins, from above, so from (0, 0) to (1, 1): (bins + 1, 2)."""
    if not isinstance(total, Histogram):
        raise TaskFailed("`roc`, `auc` and `threshold` need a Histogram", fix="set the metric's `of`")
    if (total.counts.sum(axis=1) == 0).any():
        return None
    found = np.concatenate([np.zeros((2, 1)), np.cumsum(total.counts[:, ::-1], axis=1)], axis=1)
    return cast(Floats, (found / found[:, -1:]).T)


def _roc(total: Value, at: float) -> Result:
    rates = _rates(total)
    return None if rates is None else cast(list[list[float]], rates.tolist())


def _auc(total: Value, at: float) -> Result:
    rates = _rates(total)
    if rates is None:
        return None
    x, y = rates.T
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


def _threshold(total: Value, at: float) -> Result:
    rates = _rates(total)
    if rates is None:
        return None
    bins_taken = int(np.argmax(rates[:, 1] >= DETECTION_RATE))
    return 1.0 - bins_taken / (len(rates) - 1)


def _ratio(part: float, whole: float) -> float | None:
    return float(part) / float(whole) if whole else None


FUNCTIONS: Mapping[str, Callable[[Value, float], Result]] = {
    "mean": _mean, "sum": _sum, "accuracy": _accuracy, "balanced_accuracy": _balanced_accuracy,
    "sensitivity": _sensitivity, "specificity": _specificity, "auc": _auc, "roc": _roc, "threshold": _threshold,
}
