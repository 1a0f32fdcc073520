"""A run's scores as curves over its rounds: pooled, each client's, or the band between the lowest and the highest.

Long runs are thinned here, where the rows lie: every 2^n-th round is read and the newest one, no other row is
touched. The step doubles as a run grows, so points that were drawn before stay on the grid or fall away; none moves.
Asked by `Queries.curves` and, for several runs over one another, by `Queries.pooled_curves`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from fednode.core.metrics import Goal, Metric
from fednode.core.records import Run
from fednode.errors import NotFound
from fednode.store.reports import POOLED
from fednode.store.scores import Scores, Values, newest_measured, number_metrics, with_numbers

MAX_CURVES = 12             # more clients than these are drawn as a band


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One client's scores, or one run's: a value a round of the answer; None: not measured."""

    name: str
    values: Values


@dataclass(frozen=True, kw_only=True)
class Band:
    """The lowest and the highest score of each round, over everybody who measured it."""

    min: Values
    max: Values
    num_clients: int                # of the newest model that was pooled
    best: str | None                # of the same model, by the metric's goal; None: nothing is pooled yet
    worst: str | None

    @property
    def extremes(self) -> list[str]:
        return sorted({name for name in (self.best, self.worst) if name is not None}, key=str.encode)


@dataclass(frozen=True, kw_only=True)
class CurvesView:
    """One metric of a run over its rounds."""

    run: int                        # its number
    name: str
    unit: str
    goal: Goal
    names: tuple[str, ...]          # the metrics that have numbers, those of the split test first
    step: int                       # rounds are the multiples of this, and the newest one
    rounds: tuple[int, ...]         # of the models that were measured (not of the rounds that measured them)
    pooled: Values
    clients: tuple[Curve, ...]      # in name order; beside a band only its best and its worst
    band: Band | None               # of more than `MAX_CURVES` clients


@dataclass(frozen=True, kw_only=True)
class PooledCurves:
    """One metric of several runs over their rounds."""

    name: str
    unit: str
    goal: Goal
    names: tuple[str, ...]          # the metrics that have numbers in one of the runs, those of the split test first
    step: int
    rounds: tuple[int, ...]         # the multiples of `step`, and the newest one of each run
    series: tuple[Curve, ...]       # `#1`, `#2`: pooled, as the runs were asked for


def curves_of(c: Connection, run: Run, name: str | None, max_points: int, from_round: int) -> CurvesView:
    """At most `max_points` rounds, those from `from_round` on. `name` None: the first that the task declares.

    Raises NotFound where the task declares no such metric.
    """
    spec = _declared((run,), name)
    newest = newest_measured(c, run.id)
    step, grid = thinned(newest, max_points)
    scores = Scores(c, run.id, spec)
    clients = scores.clients(grid, MAX_CURVES + 1)
    rounds = tuple(number for number in grid if number >= from_round)
    band = _band(scores, spec, grid, rounds) if len(clients) > MAX_CURVES else None
    drawn = clients if band is None else band.extremes
    return CurvesView(
        run=run.number, name=spec.name, unit=spec.unit, goal=spec.goal, step=step, rounds=rounds,
        names=tuple(spec.name for spec in with_numbers(c, run, newest)), pooled=scores.of(POOLED, rounds), band=band,
        clients=tuple(Curve(name=client, values=scores.of(client, rounds)) for client in drawn),
    )


def pooled_curves_of(c: Connection, runs: Sequence[Run], name: str | None, max_points: int) -> PooledCurves:
    """The same metric of each run, thinned as the longest of them needs it. Raises NotFound where none declares it."""
    spec = _declared(runs, name)
    newest = [newest_measured(c, run.id) for run in runs]
    step, grid = thinned(max(newest), max(2, max_points - len(runs) + 1))
    rounds = tuple(sorted({*grid, *newest} - {-1}))
    known = [found.name for run, last in zip(runs, newest, strict=True) for found in with_numbers(c, run, last)]
    return PooledCurves(
        name=spec.name, unit=spec.unit, goal=spec.goal, names=tuple(dict.fromkeys(known)), step=step, rounds=rounds,
        series=tuple(Curve(name=f"#{run.number}", values=_pooled(c, run, spec.name, rounds)) for run in runs),
    )


def thinned(newest: int, max_points: int) -> tuple[int, tuple[int, ...]]:
    """The step, and which of the rounds 0 to `newest` are read: at most `max_points`, always with the newest.

    A power of two, so that the grid of a run that has grown is a part of the grid before.
    """
    step = 1
    while len(grid := _grid(newest, step)) > max_points:
        step *= 2
    return step, grid


def _grid(newest: int, step: int) -> tuple[int, ...]:
    return tuple(sorted({*range(0, newest + 1, step), newest} if newest >= 0 else ()))


def _declared(runs: Sequence[Run], name: str | None) -> Metric:
    known = [spec for run in runs for spec in number_metrics(run)]
    found = next((spec for spec in known if name in (None, spec.name)), None)
    if found is None:
        asked = ", ".join(f"#{run.number}" for run in runs)
        names = ", ".join(dict.fromkeys(spec.name for spec in known))
        raise NotFound(f"run {asked} has no metric {name!r} that is a number", fix=f"its metrics: {names or 'none'}")
    return found


def _pooled(c: Connection, run: Run, name: str, rounds: Sequence[int]) -> Values:
    """Nothing at all where the run's task does not declare the metric."""
    spec = next((spec for spec in number_metrics(run) if spec.name == name), None)
    return Scores(c, run.id, spec).of(POOLED, rounds) if spec else (None,) * len(rounds)


def _band(scores: Scores, spec: Metric, grid: Sequence[int], rounds: Sequence[int]) -> Band:
    """Of `rounds`; the extremes are those of the newest pooled model of `grid`, equal ones in name order."""
    low, high = scores.extent(rounds)
    last = scores.by_client(scores.newest_pooled(grid))
    sign = 1 if spec.goal == "min" else -1
    best_first = sorted(last, key=lambda client: sign * last[client].value)
    return Band(
        min=low, max=high, num_clients=len(last),
        best=best_first[0] if best_first else None, worst=best_first[-1] if best_first else None,
    )
