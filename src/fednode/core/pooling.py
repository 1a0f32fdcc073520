"""How a federation's metrics are made of its clients': a function, from a closed list, of the pooled sums.

So a pooled score is the score on the pooled examples, not an average of averages, and whoever pools needs none of the
task's code. What a task declares and returns is in `metrics.py`; `docs/reference/metrics.md` is made of the docstrings
of the functions at the end.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import TypeAlias, cast

import numpy as np

from fednode.core.metrics import Combine, Floats, Histogram, Metric, Metrics, Pooled, Sum, Value, array_of
from fednode.errors import TaskFailed

DETECTION_RATE = 0.9            # `threshold` is the highest that still finds this share of the positives
DEFAULT_CUT = 0.5               # of a metric derived from a Histogram, without `at`


@np.errstate(over="ignore", invalid="ignore")      # a client may send 1e308: what overflows is no value
def require_poolable(specs: Sequence[Metric], metrics: Metrics) -> None:
    """Raise TaskFailed where a value is not of the kind that its metric's `combine` can read."""
    for spec in specs:
        if spec.source not in metrics.values:
            continue
        try:
            FUNCTIONS[spec.combine](metrics.values[spec.source], DEFAULT_CUT)
        except TaskFailed as error:
            told = f"metric {spec.name!r} cannot be made of {_described(metrics.values[spec.source])}: {error.message}"
            raise TaskFailed(told, fix=error.fix) from None


def require_declared(specs: Sequence[Metric], metrics: Metrics) -> None:
    """Raise TaskFailed where a value is made into no metric, or is a mean over no examples: nobody would see it."""
    sources = {spec.source for spec in specs}
    for name in sorted(metrics.values.keys() - sources):
        raise TaskFailed(
            f"evaluate() returns {name!r}, but `measures` are made of {', '.join(sorted(sources)) or 'nothing'}",
            fix=f"add Metric(name={name!r}) to `measures`, or do not return it",
        )
    for spec in specs:
        is_mean = isinstance(metrics.values.get(spec.source), float) and spec.combine != "sum"
        if is_mean and not metrics.num_examples.get(spec.split):
            fix = f"return Metrics(values=..., num_examples={{{spec.split!r}: how many}}), or a Sum of [part, all]"
            raise TaskFailed(f"evaluate() returns {spec.source!r} as a mean, and not of how many examples", fix=fix)


def _described(value: Value) -> str:
    return "a number" if isinstance(value, float) else f"a {type(value).__name__} of shape {array_of(value).shape}"


@np.errstate(over="ignore", invalid="ignore")
def pool(specs: Sequence[Metric], evaluations: Mapping[str, Metrics]) -> list[Pooled]:
    """Every declared metric over all clients that brought a value that fits, summed in name order."""
    order = sorted(evaluations, key=str.encode)
    found: dict[str, Pooled] = {}
    for spec in sorted(specs, key=lambda spec: spec.combine != "threshold"):
        parts = _fitting(spec, [evaluations[name] for name in order])
        if parts and (pooled := _pool_one(spec, parts, found)) is not None:
            found[spec.name] = pooled
    return [found[spec.name] for spec in specs if spec.name in found]


def pooled_sum(spec: Metric, evaluations: Mapping[str, Metrics]) -> tuple[Value | None, tuple[str, ...]]:
    """The Sum or Histogram that the metric is made of, added up in name order, and over whom; None: there is none."""
    order = sorted(evaluations, key=str.encode)
    fitting = _fitting(spec, [evaluations[name] for name in order])
    values = [part.values[spec.source] for part in fitting]
    if not values or isinstance(values[0], float):
        return None, ()
    names = tuple(name for name in order if any(evaluations[name] is part for part in fitting))
    return _total(spec, values, [0] * len(values)), names


def _fitting(spec: Metric, evaluations: Sequence[Metrics]) -> list[Metrics]:
    """The evaluations that have the metric's value, in the shape of most: one stranger must not stop the run."""
    groups: dict[tuple[type, tuple[int, ...]], list[Metrics]] = {}
    for metrics in evaluations:
        if (value := metrics.values.get(spec.source)) is not None:
            groups.setdefault((type(value), array_of(value).shape), []).append(metrics)
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
        return type(values[0])(sum(array_of(value) for value in values))
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
    """The mean by examples of floats; total / count of a Sum of [total, count]."""
    if isinstance(total, float):
        return total
    if isinstance(total, Sum) and total.values.shape == (2,):
        return _ratio(total.values[0], total.values[1])
    raise TaskFailed("`mean` takes a float or a Sum of [total, count]", fix="return one of the two")


def _sum(total: Value, at: float) -> Result:
    """Everything added up: floats, or all the numbers of a Sum or Histogram."""
    return float(np.sum(array_of(total)))


def _confusion(total: Value, at: float) -> Floats:
    """The confusion matrix (rows: truth): a Sum as it is, a Histogram cut at the threshold."""
    if isinstance(total, Sum) and total.values.ndim == 2 and len(set(total.values.shape)) == 1:
        return total.values
    if isinstance(total, Histogram):
        cut = round(at * total.counts.shape[1])
        return np.stack([total.counts[:, :cut].sum(axis=1), total.counts[:, cut:].sum(axis=1)], axis=1)
    raise TaskFailed("this metric needs a Histogram or a square Sum (truth x prediction)", fix="set the metric's `of`")


def _accuracy(total: Value, at: float) -> Result:
    """Right / all, of a Sum of [right, all], a confusion matrix or a Histogram cut at `at`; of floats their mean."""
    if isinstance(total, float) or array_of(total).shape == (2,):      # or [correct, all]
        return _mean(total, at)
    confusion = _confusion(total, at)
    return _ratio(np.trace(confusion), confusion.sum())


def _recalls(total: Value, at: float) -> list[float | None]:
    confusion = _confusion(total, at)
    return [_ratio(confusion[c, c], confusion[c].sum()) for c in range(len(confusion))]


def _balanced_accuracy(total: Value, at: float) -> Result:
    """Mean recall of the classes that have examples, of a confusion matrix or a Histogram cut at `at`."""
    recalls = [recall for recall in _recalls(total, at) if recall is not None]
    return sum(recalls) / len(recalls) if recalls else None


def _sensitivity(total: Value, at: float) -> Result:
    """Positives found / positives, of a 2 x 2 Sum or a Histogram cut at `at`."""
    return _two_recalls(total, at)[1]


def _specificity(total: Value, at: float) -> Result:
    """Negatives found / negatives, of a 2 x 2 Sum or a Histogram cut at `at`."""
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
    """Points (false positive rate, true positive rate) from (0, 0) to (1, 1), one an edge of the Histogram's bins."""
    rates = _rates(total)
    return None if rates is None else cast(list[list[float]], rates.tolist())


def _auc(total: Value, at: float) -> Result:
    """Area under the ROC curve of a Histogram, by trapezoids."""
    rates = _rates(total)
    if rates is None:
        return None
    x, y = rates.T
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


def _threshold(total: Value, at: float) -> Result:
    """The highest edge of a Histogram's bins at which 0.9 of the positives are found."""
    rates = _rates(total)
    if rates is None:
        return None
    bins_taken = int(np.argmax(rates[:, 1] >= DETECTION_RATE))
    return 1.0 - bins_taken / (len(rates) - 1)


def _ratio(part: float, whole: float) -> float | None:
    return float(part) / float(whole) if whole else None


FUNCTIONS: Mapping[Combine, Callable[[Value, float], Result]] = {
    "mean": _mean, "sum": _sum, "accuracy": _accuracy, "balanced_accuracy": _balanced_accuracy,
    "sensitivity": _sensitivity, "specificity": _specificity, "auc": _auc, "roc": _roc, "threshold": _threshold,
}
