"""What a model takes for what: the score histogram or the confusion matrix of everybody's examples, or of one client's.

Both are the sums that clients brought of a model, added up as `core/pooling.py` does for the numbers that come of them.
A histogram holds the confusion matrix of every threshold: whoever reads it cuts it where he likes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from sqlalchemy import Connection, and_, func, select

from fednode.core.metrics import Combine, Histogram, Metric, Metrics, Split, Sum, Value, array_of
from fednode.core.pooling import DEFAULT_CUT, DETECTION_RATE, pool, pooled_sum
from fednode.core.records import Run
from fednode.core.status import RoundKind, RoundStatus
from fednode.errors import NotFound
from fednode.store.reports import POOLED
from fednode.store.schema import evaluation, round_

CUT: tuple[Combine, ...] = ("accuracy", "balanced_accuracy", "sensitivity", "specificity")
READ: tuple[Combine, ...] = (*CUT, "auc", "roc", "threshold")

_Total: TypeAlias = tuple[Metric, Value, tuple[str, ...]]       # a metric, what it is made of, added up over whom


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Where a histogram is cut for the numbers that are told of the model: from this score on it says positive."""

    value: float
    cut: int                        # the edge of a bin: so many bins are below
    name: str | None                # of the metric that chose it; None: the task fixed it
    split: Split | None             # on which it was chosen
    detection_rate: float | None    # the share of that split's positives that it finds


@dataclass(frozen=True, kw_only=True)
class ConfusionView:
    """One Sum or Histogram of a model, of all its clients or of one."""

    run: int                                    # its number
    round: int | None                           # of the model; None: nobody has measured one yet
    names: tuple[str, ...]                      # what there is of it, the split test first
    of: str | None                              # which of these this is; None: there is none
    split: Split | None
    kind: Literal["histogram", "matrix"] | None
    counts: tuple[tuple[float, ...], ...]       # histogram: negatives, positives by bin; matrix: truth x prediction
    threshold: Threshold | None                 # of a histogram, where it has one
    client: str                                 # "": everybody
    clients: tuple[str, ...]                    # whom it was measured by, in name order


def confusion_of(c: Connection, run: Run, of: str | None, model_round: int | None, client: str) -> ConfusionView:
    """`of` None: the first there is. `model_round` None: the newest model that was pooled.

    Raises NotFound where the task declares no such value, or that client did not measure that model.
    """
    number, measured = _measured(c, run, model_round)
    totals = _totals(run.metrics, measured)
    if not totals and of is None:
        return ConfusionView(
            run=run.number, round=number, names=(), of=None, split=None, kind=None, counts=(), threshold=None,
            client=POOLED, clients=(),
        )
    name = next(iter(totals)) if of is None else of
    if name not in totals:
        told = f"run #{run.number} has no {name!r} to show of round {number}"
        raise NotFound(told, fix=f"what it has: {', '.join(totals) or 'nothing'}", field="of")
    spec, total, who = totals[name]
    if client and client not in who:
        told = f"{client!r} has not measured the model of round {number}"
        raise NotFound(told, fix=f"who has: {', '.join(who)}", field="client")
    shown = measured[client].values[name] if client else total
    return ConfusionView(
        run=run.number, round=number, names=tuple(totals), of=name, split=spec.split,
        kind="histogram" if isinstance(shown, Histogram) else "matrix", counts=_counts(shown),
        threshold=_threshold(run.metrics, name, shown, measured), client=client, clients=who,
    )


def _measured(c: Connection, run: Run, model_round: int | None) -> tuple[int | None, Mapping[str, Metrics]]:
    """The model's round, and what was measured of it: by the cohort over which it is pooled, else by whoever has."""
    committed = and_(
        round_.c.run_id == run.id, round_.c.status == RoundStatus.COMMITTED.value,
        round_.c.kind != RoundKind.INIT.value,
    )
    if model_round is None:
        newest = c.execute(select(func.max(round_.c.number)).where(committed)).scalar()
        if newest is None:
            return None, {}
        model_round = int(newest) - 1
    cohort = c.execute(select(round_.c.cohort).where(committed, round_.c.number == model_round + 1)).scalar()
    of_model = and_(evaluation.c.run_id == run.id, evaluation.c.model_round == model_round)
    rows = c.execute(select(evaluation.c.client, evaluation.c.metrics).where(of_model))
    asked = None if cohort is None else frozenset(json.loads(cohort))
    return model_round, {
        row.client: Metrics.from_json(json.loads(row.metrics)) for row in rows if asked is None or row.client in asked
    }


def _totals(metrics: Sequence[Metric], measured: Mapping[str, Metrics]) -> dict[str, _Total]:
    """By name what there is to show, the split test first."""
    found: dict[str, _Total] = {}
    for spec in sorted(metrics, key=lambda spec: spec.split != "test"):
        total, who = pooled_sum(spec, measured) if spec.combine in READ else (None, ())
        if total is not None and _is_confusion(total):
            found.setdefault(spec.source, (spec, total, who))
    return found


def _is_confusion(total: Value) -> bool:
    if isinstance(total, Sum):
        shape = total.values.shape
        return len(shape) == 2 and shape[0] == shape[1] > 1
    return isinstance(total, Histogram)


def _counts(value: Value) -> tuple[tuple[float, ...], ...]:
    """Whole where they are: a thousand bins are half as long so."""
    return tuple(tuple(int(x) if x.is_integer() else x for x in row) for row in array_of(value).tolist())


def _threshold(
    metrics: Sequence[Metric], name: str, shown: Value, measured: Mapping[str, Metrics]
) -> Threshold | None:
    """As the task's own metrics cut it: at a threshold of the model's, over everybody, or where the task says."""
    if not isinstance(shown, Histogram):
        return None
    at = _at(metrics, name)
    if isinstance(at, float):
        return _edge(at, shown, None)
    chosen = [spec for spec in metrics if spec.name == at]
    values = [pooled.value for pooled in pool(chosen, measured)]
    return _edge(values[0], shown, chosen[0]) if values and isinstance(values[0], float) else None


def _at(metrics: Sequence[Metric], name: str) -> float | str:
    of_it = [spec for spec in metrics if spec.source == name]
    chosen = [spec.at for spec in of_it if spec.combine in CUT and spec.at is not None]
    choosing = [spec.name for spec in of_it if spec.combine == "threshold"]
    return [*chosen, *choosing, DEFAULT_CUT][0]


def _edge(value: float, shown: Histogram, chosen_by: Metric | None) -> Threshold:
    return Threshold(
        value=value, cut=round(value * shown.counts.shape[1]), name=chosen_by.name if chosen_by else None,
        split=chosen_by.split if chosen_by else None, detection_rate=DETECTION_RATE if chosen_by else None,
    )
