"""Which model is the best, when a run has waited long enough for a better one, and which models it keeps."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from fednode.core.best import best_measure, best_of, due, is_kept, measures_of_best, num_trained, why_stopped
from fednode.core.metrics import Metric
from fednode.core.records import Best, Position, RunConfig
from fednode.core.status import RoundKind

ACCURACY, LOSS = Metric(name="accuracy"), Metric(name="loss", goal="min")
CURVE, CUT = Metric(name="roc", combine="roc", of="scores"), Metric(name="threshold", combine="threshold", goal="none")
HELD_BACK = Metric(name="val_loss", goal="min", split="val")
CONFIG = RunConfig(
    task="toy", fingerprint="toy@1", task_config={}, strategy="fedavg", strategy_config={}, rounds=10, min_updates=1,
    cohort_fraction=1.0, deadline_s=600.0, seed=7, best_metric="accuracy", patience=3,
)


def standing(next_round: int, best: Best | None = None, last: RoundKind | None = RoundKind.TRAIN) -> Position:
    return Position(
        checkpoint=None, open_round=None, next_round=next_round, next_attempt=1, last_kind=last, best=best
    )


def scored(number: int, value: float = 0.5) -> Best:
    return Best(metric="accuracy", round=number, value=value)


def test_a_metric_without_a_goal_and_a_curve_make_no_model_the_best() -> None:
    assert measures_of_best((CUT, CURVE, LOSS, ACCURACY)) == [LOSS, ACCURACY]


def test_where_nobody_chose_what_was_held_back_from_training_decides_before_the_test_split() -> None:
    anything = replace(CONFIG, best_metric="")
    assert best_measure(anything, (ACCURACY, HELD_BACK)) == HELD_BACK
    assert best_measure(anything, (ACCURACY, LOSS)) == ACCURACY
    assert best_measure(CONFIG, (LOSS, ACCURACY)) == ACCURACY
    assert best_measure(CONFIG, (LOSS,)) is None


def test_the_earliest_of_the_best_is_the_best_and_no_number_never_is() -> None:
    values = {0: math.nan, 1: 0.25, 2: 0.75, 3: 0.75, 4: 0.5}
    assert best_of(ACCURACY, values) == scored(2, 0.75)
    assert best_of(LOSS, values) == Best(metric="loss", round=1, value=0.25)
    assert best_of(ACCURACY, {0: math.nan}) is None
    assert best_of(ACCURACY, {}) is None


@pytest.mark.parametrize(("position", "kind"), [
    (standing(0, last=None), RoundKind.INIT),
    (standing(1, last=RoundKind.INIT), RoundKind.TRAIN),
    (standing(6, scored(2)), RoundKind.TRAIN),          # models 0 to 4 are measured: two are no better than 2
    (standing(7, scored(2)), RoundKind.EVALUATE),       # model 5 is the third
    (standing(4), RoundKind.TRAIN),                     # nobody measured models 0, 1 and 2: two after the first
    (standing(5), RoundKind.EVALUATE),
    (standing(11, scored(9)), RoundKind.EVALUATE),      # ten rounds are trained
    (standing(8, scored(2), RoundKind.EVALUATE), None),
])
def test_the_next_round_follows_from_what_was_measured(position: Position, kind: RoundKind | None) -> None:
    assert due(CONFIG, position) is kind


def test_a_run_without_patience_trains_all_its_rounds() -> None:
    assert due(replace(CONFIG, patience=None), standing(10, scored(0))) is RoundKind.TRAIN


def test_a_run_that_stopped_early_says_so_and_why() -> None:
    assert why_stopped(CONFIG, standing(8, scored(2, 0.9612))) == (
        "stopped early: no better accuracy than 0.9612 of round 2 for 3 rounds"
    )
    assert why_stopped(CONFIG, standing(6)) == "stopped early: nobody measured accuracy for 3 rounds"
    assert why_stopped(CONFIG, standing(12, scored(9))) == ""
    assert why_stopped(replace(CONFIG, patience=None), standing(12)) == ""


def test_looking_back_a_run_had_as_many_rounds_as_the_loop_gave_it() -> None:
    values = {0: 0.1, 1: 0.2, 2: 0.5, 3: 0.4, 4: 0.5, 5: 0.3, 6: 0.9}
    assert num_trained(CONFIG, ACCURACY, values, 5) == 10       # models 0 to 4 are known: it may still get better
    assert num_trained(CONFIG, ACCURACY, values, 6) == 6        # model 5 was the third that was not
    assert num_trained(CONFIG, ACCURACY, values, 7) == 6        # the last measurement changes nothing
    assert num_trained(replace(CONFIG, rounds=5), ACCURACY, values, 6) == 5


def test_the_first_the_newest_the_best_and_every_kth_model_are_kept() -> None:
    def kept(keep_every: int, best: Best | None) -> list[int]:
        config = replace(CONFIG, keep_every=keep_every)
        return [number for number in range(8) if is_kept(config, number, 7, best)]

    assert kept(1, scored(4)) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert kept(3, scored(4)) == [0, 3, 4, 6, 7]
    assert kept(0, scored(4)) == [0, 4, 7]
    assert kept(0, None) == [0, 7]
