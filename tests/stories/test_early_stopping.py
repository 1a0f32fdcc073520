"""A run stops when its models get no better: the same rounds whatever dies on the way, simulated and served alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripted_fleet import Killed, scene

import fednode
from fednode.core.records import Best
from fednode.core.status import FailureCode, RunStatus
from fednode.errors import BadConfig

TINY = f"{Path(__file__).with_name('tiny_task.py')}:Tiny"
STOPPED = "stopped early: no better loss than 2.0000 of round 1 for 2 rounds"
PATIENT = {"rounds": 10, "patience": 2, "best_metric": "loss"}


async def test_a_run_that_gets_no_better_measures_its_last_model_and_is_completed() -> None:
    # w is 0, 3, 6, 9; its mean distances to 1, 2 and 6: 3, 2, 3, 6. Model 3, measured in round 4, is the second
    # that is no better than model 1.
    a_scene = await scene(**PATIENT)
    await a_scene.play()
    assert await a_scene.status() == (RunStatus.COMPLETED, STOPPED)
    opened = await a_scene.decisions("round opened")
    assert [(row["round"], row["kind"]) for row in opened] == [
        (0, "init"), (1, "train"), (2, "train"), (3, "train"), (4, "train"), (5, "evaluate"),
    ]
    assert sorted(await a_scene.store.pooled(a_scene.run.id)) == [0, 1, 2, 3, 4]     # the last model was measured too


async def test_a_run_with_more_patience_than_rounds_plays_them_all() -> None:
    a_scene = await scene(rounds=4, patience=9)
    await a_scene.play()
    assert await a_scene.status() == (RunStatus.COMPLETED, "")
    assert len(await a_scene.decisions("model committed")) == 5


@pytest.mark.parametrize("killed_before", [(3, "b"), (4, "a"), (4, "c"), (5, "a"), (5, "c")])
async def test_a_restart_stops_the_run_where_it_would_have_stopped(killed_before: tuple[int, str]) -> None:
    calm, killed = await scene(**PATIENT), await scene(**PATIENT)
    await calm.play()
    with pytest.raises(Killed):
        await killed.play(killed_before=killed_before)
    await killed.play()
    assert await killed.status() == (RunStatus.COMPLETED, STOPPED)
    assert await killed.store.journal(killed.run.id) == await calm.store.journal(calm.run.id)


async def test_what_nobody_could_measure_is_no_improvement() -> None:
    unmeasured = {(number, 1, name): FailureCode.TASK_ERROR for number in (1, 2, 3) for name in "bc"}
    a_scene = await scene(**(PATIENT | {"best_metric": "accuracy", "min_updates": 1}))     # which no client brings
    await a_scene.play(script=unmeasured)
    assert await a_scene.status() == (RunStatus.COMPLETED, "stopped early: nobody measured accuracy for 2 rounds")


def test_a_simulation_stops_early_to_the_same_bits() -> None:
    def tiny(**settings: object) -> fednode.Simulation:
        return fednode.simulate(TINY, clients=3, rounds=30, seed=7, best_metric="accuracy", **settings)  # type: ignore[arg-type]

    patient, plain = tiny(patience=3), tiny()
    assert patient.status == plain.status == "completed"
    assert patient.rounds < plain.rounds == 30
    assert patient.reason.startswith("stopped early: no better accuracy than")
    assert patient.history == plain.history[: patient.rounds + 1]        # until then nothing is otherwise
    best = max(range(patient.rounds), key=lambda number: patient.history[number]["accuracy"])
    assert plain.best == Best(metric="accuracy", round=best, value=patient.history[best]["accuracy"])
    assert patient.rounds == best + 3 + 1       # the third model after the best is measured in the round after it
    assert tiny(patience=3, workers=2).journal == patient.journal


@pytest.mark.parametrize(("settings", "told"), [
    ({"best_metric": "f1"}, "take one of: accuracy, loss"), ({"patience": 0}, "patience"),
])
def test_a_metric_that_the_task_does_not_have_and_no_patience_at_all_are_refused(
    settings: dict[str, object], told: str
) -> None:
    with pytest.raises(BadConfig) as refused:
        fednode.simulate(TINY, **settings)  # type: ignore[arg-type]
    assert told in f"{refused.value} {refused.value.fix}"
