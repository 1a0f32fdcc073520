"""One metric's numbers in one run, read by the rounds that they are wanted of: the primary key finds their rows.

What is made of them: `curves.py`, `alone.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, func, select

from fednode.core.metrics import Metric
from fednode.core.records import Run
from fednode.store.reports import LOCAL, POOLED
from fednode.store.schema import metric

Values = tuple[float | None, ...]


def number_metrics(run: Run) -> list[Metric]:
    """What the task declares, without curves, in its order; the split test first."""
    return sorted((spec for spec in run.metrics if spec.combine != "roc"), key=lambda spec: spec.split != "test")


def newest_measured(c: Connection, run_id: str) -> int:
    """The newest model that anybody measured; -1: none. (Of any metric: one that nobody measures costs no search.)"""
    measured = and_(metric.c.run_id == run_id, metric.c.phase != LOCAL)
    newest = select(metric.c.model_round).where(measured).order_by(metric.c.model_round.desc()).limit(1)
    found: int | None = c.execute(newest).scalar()
    return -1 if found is None else found


def with_numbers(c: Connection, run: Run, newest: int) -> list[Metric]:
    """The metrics that have a number: of the model `newest`, or of the one before it, which is pooled."""
    among = and_(metric.c.run_id == run.id, metric.c.model_round.in_((newest, newest - 1)), metric.c.phase != LOCAL)
    found = set(c.execute(select(metric.c.name).where(among, metric.c.value.is_not(None)).distinct()).scalars())
    return [spec for spec in number_metrics(run) if spec.name in found]


@dataclass(frozen=True)
class Score:
    """What one client measured of a model."""

    value: float
    num_examples: int               # that it was measured on


class Scores:
    """What was measured of one metric in one run."""

    def __init__(self, c: Connection, run_id: str, spec: Metric) -> None:
        self._c, self._run_id, self._spec = c, run_id, spec

    def clients(self, rounds: Sequence[int], at_most: int) -> list[str]:
        """Who measured it, in name order."""
        found = select(metric.c.client).where(self._of_clients(rounds)).distinct().limit(at_most)
        return sorted(self._c.execute(found).scalars(), key=str.encode)

    def of(self, client: str, rounds: Sequence[int]) -> Values:
        """One client's values ("": pooled), a value a round; None: not measured."""
        wanted = select(metric.c.model_round, metric.c.value).where(self._among(rounds), metric.c.client == client)
        found = {row.model_round: row.value for row in self._c.execute(wanted)}
        return tuple(found.get(number) for number in rounds)

    def extent(self, rounds: Sequence[int]) -> tuple[Values, Values]:
        """The lowest and the highest over all clients, a value a round."""
        low, high = func.min(metric.c.value), func.max(metric.c.value)
        wanted = select(metric.c.model_round, low.label("low"), high.label("high")).where(self._of_clients(rounds))
        found = {row.model_round: (row.low, row.high) for row in self._c.execute(wanted.group_by(metric.c.model_round))}
        pairs = [found.get(number, (None, None)) for number in rounds]
        return tuple(low for low, _ in pairs), tuple(high for _, high in pairs)

    def newest_pooled(self, rounds: Sequence[int]) -> int:
        """The newest of these whose value is pooled; -1: none."""
        pooled = and_(self._among(rounds), metric.c.client == POOLED)
        found: int | None = self._c.execute(select(func.max(metric.c.model_round)).where(pooled)).scalar()
        return -1 if found is None else found

    def by_client(self, model_round: int) -> dict[str, Score]:
        """Everybody who measured that model, in name order."""
        wanted = select(metric.c.client, metric.c.value, metric.c.num_examples).where(self._of_clients((model_round,)))
        found = sorted(self._c.execute(wanted), key=lambda row: row.client.encode())
        return {row.client: Score(row.value, row.num_examples) for row in found}

    def _of_clients(self, rounds: Sequence[int]) -> ColumnElement[bool]:
        return and_(self._among(rounds), metric.c.client != POOLED)

    def _among(self, rounds: Sequence[int]) -> ColumnElement[bool]:
        return and_(
            metric.c.run_id == self._run_id, metric.c.model_round.in_(rounds), metric.c.phase == self._spec.split,
            metric.c.step == 0, metric.c.name == self._spec.name, metric.c.value.is_not(None),
        )
