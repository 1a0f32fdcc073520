"""Which model of a run is the best, when training stops because none gets better, and which round is due next.

Pure functions of what is committed: so a restart, a simulation and a look at an old store all decide alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fednode.core.metrics import Metric, Pooled
from fednode.core.records import Best, Position, Run, RunConfig
from fednode.core.status import RoundKind
from fednode.core.units import count_text, number_text


def measures_of_best(metrics: Sequence[Metric]) -> list[Metric]:
    """The metrics by which a model can be the best, in the order in which one is taken where nobody chose.

    What is measured on data held back from training comes first: whoever chooses by the test split has no test left.
    """
    return sorted((m for m in metrics if m.goal != "none" and m.combine != "roc"), key=lambda m: m.split != "val")


def best_measure(config: RunConfig, metrics: Sequence[Metric]) -> Metric | None:
    """By which metric a run's models are told apart; None where its task declares none with a goal."""
    found = measures_of_best(metrics)
    return next((m for m in found if config.best_metric in (m.name, "")), None)


def best_of(measure: Metric, values: Mapping[int, float]) -> Best | None:
    """Of the models that were measured, by round: the best, the earliest where several are as good. NaN never is."""
    sign = -1.0 if measure.goal == "max" else 1.0
    found = [(sign * value, number) for number, value in values.items() if value == value]
    if not found:
        return None
    number = min(found)[1]
    return Best(metric=measure.name, round=number, value=values[number])


def best_pooled(run: Run, pooled: Mapping[int, Sequence[Pooled]], *, before: int) -> Best | None:
    """Of the models of earlier rounds, by what was pooled of each; None also where the run has no patience."""
    measure = best_measure(run.config, run.metrics)
    if measure is None or run.config.patience is None:
        return None
    found = ((number, one) for number, of_model in pooled.items() for one in of_model if one.name == measure.name)
    values = {number: one.value for number, one in found if number < before and isinstance(one.value, float)}
    return best_of(measure, values)


def has_run_out(config: RunConfig, newest: int, best: Best | None) -> bool:
    """Whether the run's patience has ended with the measurement of model `newest`. Not measured is not better."""
    return config.patience is not None and newest - (best.round if best else 0) >= config.patience


def due(config: RunConfig, position: Position) -> RoundKind | None:
    """What kind of round comes next; None: the run is through."""
    if position.last_kind is RoundKind.EVALUATE:
        return None
    if position.next_round == 0:
        return RoundKind.INIT
    newest_measured = position.next_round - 2
    is_trained = position.next_round > config.rounds or has_run_out(config, newest_measured, position.best)
    return RoundKind.EVALUATE if is_trained else RoundKind.TRAIN


def why_stopped(config: RunConfig, position: Position) -> str:
    """The sentence of a run that is through before its last round; "" where it is not."""
    num_trained = position.next_round - 2
    if config.patience is None or num_trained >= config.rounds:
        return ""
    rounds = count_text(config.patience, "round")
    if (best := position.best) is None:
        return f"stopped early: nobody measured {config.best_metric} for {rounds}"
    return f"stopped early: no better {best.metric} than {number_text(best.value)} of round {best.round} for {rounds}"


def num_trained(config: RunConfig, measure: Metric, values: Mapping[int, float], num_measured: int) -> int:
    """How many rounds of training a run has, by what its models 0 to `num_measured` - 1 were: `due`, looking back."""
    best: Best | None = None
    for number in range(num_measured):
        known = {best.round: best.value} if best else {}
        best = best_of(measure, known | {n: values[n] for n in (number,) if n in values})
        if has_run_out(config, number, best):
            return min(number + 1, config.rounds)
    return config.rounds


def is_kept(config: RunConfig, number: int, newest: int, best: Best | None) -> bool:
    """Whether retention keeps the params of model `number`: the first, the newest, the best, every k-th."""
    is_kth = config.keep_every > 0 and number % config.keep_every == 0
    return is_kth or number in (0, newest, best.round if best else newest)
