"""Two to five runs beside one another: what they were told, what they reached, and what keeps that from being fair.

Their curves, and the table of local-only runs, are read in `store/curves.py` and `store/alone.py`. One federated run
may stand alone where its clients have trained alone: they are what it is compared with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fednode.core.encoding import F32
from fednode.core.json import Json, canonical_json
from fednode.core.metrics import Goal, Metric
from fednode.core.records import Run, RunConfig
from fednode.core.status import is_final
from fednode.errors import UsageError
from fednode.store.alone import AloneTable
from fednode.store.queries import Queries
from fednode.store.run_views import RunView
from fednode.store.scores import number_metrics

MAX_RUNS = 5
SHORT_SHA = 12                  # hex digits that people compare by eye
NOT_SET = {
    "clients": "whoever offers the task", "start_model": "fresh", "patience": "never", "keep_every": "1",
    "encoding": F32,
}
HOW = "name 2 to 5 runs, for example: fednode runs compare 1 2"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting as each run has it; None: its task or strategy has no such setting."""

    name: str                       # as `--set` and the flags call it
    values: tuple[Json, ...]
    texts: tuple[str, ...]          # the same for people
    differs: bool


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """One pooled metric of each run's newest measured model; None: not measured."""

    name: str
    unit: str
    goal: Goal
    values: tuple[float | None, ...]
    best: int | None                # the run that alone has the best value; None: nobody is ahead, or it has no goal


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs beside one another, in the order asked for."""

    runs: tuple[RunView, ...]
    settings: tuple[Setting, ...]
    metrics: tuple[MetricRow, ...]
    cautions: tuple[str, ...]       # sentences: why the scores may not be of the same thing
    alone: AloneTable | None


async def compare(queries: Queries, refs: Sequence[str]) -> Comparison:
    """Raises UsageError unless these are 2 to 5 runs, or 1 whose clients trained alone; NotFound."""
    runs = await require_runs(queries, refs)
    views = [await queries.run_summary(run.id) for run in runs]
    alone = await _alone(queries, runs)
    if len(runs) == 1 and alone is None:
        raise UsageError(
            f"run #{runs[0].number} has nothing to be compared with: none of its clients trained alone",
            fix=f"{HOW}; or train a client alone: fednode run {runs[0].config.task} --clients NAME",
        )
    return Comparison(
        runs=tuple(views), settings=tuple(_settings([run.config for run in runs])), metrics=tuple(_metrics(views)),
        cautions=tuple(_cautions(views)), alone=alone,
    )


async def require_runs(queries: Queries, refs: Sequence[str]) -> list[Run]:
    """The runs, each once. Raises UsageError, NotFound."""
    if not 1 <= len(refs) <= MAX_RUNS:
        raise UsageError(f"{len(refs)} runs cannot be compared", fix=HOW)
    runs = [await queries.resolve_run(ref) for ref in refs]
    for place, run in enumerate(runs):
        if run.id in {other.id for other in runs[:place]}:
            raise UsageError(f"run #{run.number} cannot be compared with itself", fix=HOW)
    return runs


async def _alone(queries: Queries, runs: Sequence[Run]) -> AloneTable | None:
    """Of the first run that has such a table; local-only runs that were asked for come before others."""
    for run in runs:
        if (table := await queries.alone(run, [other.id for other in runs])) is not None:
            return table
    return None


# --- settings ---------------------------------------------------------------------------------------------------


def _settings(configs: Sequence[RunConfig]) -> Iterator[Setting]:
    flat = [dict(_flat(config)) for config in configs]
    for name in dict.fromkeys(name for settings in flat for name in settings):
        values = tuple(settings.get(name) for settings in flat)
        texts = tuple(_text(name, value) for value in values)
        yield Setting(name=name, values=values, texts=texts, differs=len(set(map(canonical_json, values))) > 1)


def _flat(config: RunConfig) -> Iterator[tuple[str, Json]]:
    """Every setting by the name that a person would set it with."""
    for name, value in config.to_json().items():
        if isinstance(value, Mapping):
            group = name.removesuffix("_config")
            yield from ((f"{group}.{field}", setting) for field, setting in value.items())
        else:
            yield name, value


def _text(name: str, value: Json) -> str:
    """A hash is cut; nothing is told in words."""
    if value in (None, "", []):
        return NOT_SET.get(name, "-")
    if isinstance(value, list):
        return ", ".join(map(str, value))
    text = value if isinstance(value, str) else canonical_json(value)
    return text[:SHORT_SHA] if name == "start_model" else text


# --- scores -----------------------------------------------------------------------------------------------------


def _metrics(views: Sequence[RunView]) -> Iterator[MetricRow]:
    specs = {spec.name: spec for view in reversed(views) for spec in number_metrics(view.run)}
    measured = {name for view in views for name in view.metrics}
    in_order = dict.fromkeys(spec.name for view in views for spec in number_metrics(view.run))
    for spec in (specs[name] for name in in_order if name in measured):
        values = tuple(view.metrics.get(spec.name) for view in views)
        yield MetricRow(name=spec.name, unit=spec.unit, goal=spec.goal, values=values, best=_best(spec, values))


def _best(spec: Metric, values: Sequence[float | None]) -> int | None:
    """The place of the best value, where it is ahead of every other."""
    found = [value for value in values if value is not None]
    if len(found) < 2 or spec.goal == "none":
        return None
    best = min(found) if spec.goal == "min" else max(found)
    return values.index(best) if found.count(best) == 1 else None


def _cautions(views: Sequence[RunView]) -> Iterator[str]:
    """What a reader must know before they believe a difference."""
    if len({view.run.config.fingerprint for view in views}) > 1:
        yield "The runs train different tasks: a metric of the same name may not measure the same thing."
    elif len({view.clients for view in views}) > 1:
        yield "The runs do not have the same clients: each score is over the test data of its run's own clients."
    if unfinished := ", ".join(f"#{view.run.number}" for view in views if not is_final(view.run.status)):
        yield f"Not ended yet: {unfinished}. What is shown is the newest model that was measured."
    if len({view.metrics_round for view in views}) > 1:
        yield "The scores are of models that were trained for different numbers of rounds."
