"""The round loop, told as stories: who is asked, what goes wrong, where it goes on."""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest
from scripted_fleet import Killed, ScriptedFleet, brought, model, scene, visit

from fednode.core.journal import check_chain
from fednode.core.json import JsonObject
from fednode.core.metrics import Pooled
from fednode.core.records import Outcome, Round, Run, RunConfig, State
from fednode.core.status import FailureCode, RoundKind, RoundStatus, RunStatus
from fednode.errors import RoundClosed, RunHalted
from fednode.rounds import run_rounds
from fednode.strategies.base import Strategy, Updates
from fednode.strategies.fedavg import FedAvg
from fednode.strategies.fedavgm import FedAvgM
from fednode.strategies.fedprox import FedProx

GONE, DEADLINE, TASK_ERROR = FailureCode.GONE, FailureCode.DEADLINE, FailureCode.TASK_ERROR


async def test_a_calm_run_makes_a_model_a_round_and_measures_the_last():
    a_scene = await scene()
    fleet = await a_scene.play()
    assert await a_scene.status() == (RunStatus.COMPLETED, "")
    assert await a_scene.w() == 6.0                         # 0, then (1 + 2 + 6) / 3 = 3 more in each round
    everybody = ["a", "b", "c"]
    assert [(row["round"], row["kind"], row["cohort"]) for row in await a_scene.decisions("round opened")] == [
        (0, "init", ["a"]), (1, "train", everybody), (2, "train", everybody), (3, "evaluate", everybody)
    ]
    assert fleet.gathered == [(1, 1), (2, 1), (2, 1), (1, 1)]
    check_chain(await a_scene.store.journal(a_scene.run.id))


async def test_metrics_belong_to_the_model_that_they_measure():
    a_scene = await scene()
    await a_scene.play()
    # w is 0, 3, 6; the distances to 1, 2 and 6: 1 2 6, 2 1 3, 5 4 0.
    pooled = await a_scene.store.pooled(a_scene.run.id)
    assert {model_round: rows[0].value for model_round, rows in pooled.items()} == {0: 3.0, 1: 2.0, 2: 3.0}


async def test_the_order_of_arrival_changes_neither_model_nor_journal():
    calm, hasty = await scene(rounds=3), await scene(rounds=3)
    await calm.play()
    await hasty.play(reverse_arrival=True)
    journals = [await s.store.journal(s.run.id) for s in (calm, hasty)]
    assert journals[0] == journals[1]


# --- round 0 -------------------------------------------------------------------------------------------


async def test_the_first_by_name_makes_the_initial_params_and_after_a_failure_the_next():
    a_scene = await scene()
    await a_scene.play(script={(0, 1, "a"): TASK_ERROR, (0, 2, "b"): GONE})
    opened = [row for row in await a_scene.decisions("round opened") if row["round"] == 0]
    assert [(row["attempt"], row["cohort"]) for row in opened] == [(1, ["a"]), (2, ["b"]), (3, ["c"])]
    assert (await a_scene.status())[0] is RunStatus.COMPLETED


async def test_round_0_needs_one_client_even_where_a_model_needs_more():
    a_scene = await scene(min_updates=3)
    assert (await a_scene.play()).gathered[0] == (1, 1)


async def test_names_go_round_when_attempts_outnumber_them():
    a_scene = await scene(min_updates=1)
    await a_scene.play(present=("a", "b"), script={(0, 1, "a"): GONE, (0, 2, "b"): GONE})
    opened = await a_scene.decisions("round opened")
    assert [row["cohort"] for row in opened if row["round"] == 0] == [["a"], ["b"], ["a"]]


# --- attempts ------------------------------------------------------------------------------------------


async def test_fewer_than_min_updates_abandon_the_attempt_and_the_next_begins():
    a_scene = await scene(rounds=1)
    fleet = await a_scene.play(script={(1, 1, "a"): TASK_ERROR, (1, 1, "b"): GONE})
    first = await a_scene.store.round(a_scene.run.id, 1, 1)
    assert (first.status, first.reason) == (
        RoundStatus.ABANDONED, "round 1, attempt 1: 1 updates. a: task_error as told; b: gone as told"
    )
    assert fleet.gathered == [(1, 1), (2, 1), (2, 2), (1, 1)]
    assert await a_scene.w() == 3.0


async def test_an_update_of_an_abandoned_attempt_is_taken_over_not_trained_again():
    a_scene = await scene(rounds=1)
    fleet = await a_scene.play(script={(1, 1, "a"): TASK_ERROR, (1, 1, "b"): GONE})
    assert [work for work in fleet.worked if work[0] == 1] == [(1, 1, "c"), (1, 2, "a"), (1, 2, "b")]


async def test_enough_updates_make_the_model_whoever_failed():
    a_scene = await scene(rounds=1)
    await a_scene.play(script={(1, 1, "c"): TASK_ERROR})
    assert await a_scene.w() == 1.5                         # (1 + 2) / 2
    assert (await a_scene.decisions("round closed"))[1]["outcomes"] == [["a", 1], ["b", 1], ["c", "task_error"]]


async def test_after_three_attempts_the_run_is_paused_with_its_reason_and_can_be_resumed():
    a_scene = await scene(rounds=1)
    broken = {(1, attempt, client): TASK_ERROR for attempt in (1, 2, 3) for client in "ab"}
    fleet = await a_scene.play(script=broken)
    status, reason = await a_scene.status()
    assert status is RunStatus.PAUSED
    assert reason == (
        "3 attempts failed; the last: round 1, attempt 3: 1 updates. a: task_error as told; b: task_error as told"
    )
    assert fleet.gathered[1:] == [(2, 1), (2, 2), (2, 3)]

    await a_scene.resume()
    assert (await a_scene.play()).gathered[0] == (2, 4)
    assert ((await a_scene.status())[0], await a_scene.w()) == (RunStatus.COMPLETED, 3.0)


async def test_a_resumed_run_has_three_attempts_again():
    a_scene = await scene(rounds=1)
    broken = {(1, attempt, client): GONE for attempt in range(1, 7) for client in "abc"}
    await a_scene.play(script=broken)
    await a_scene.resume()
    fleet = await a_scene.play(script=broken)
    assert fleet.gathered == [(2, 4), (2, 5), (2, 6)]
    assert (await a_scene.status())[0] is RunStatus.PAUSED


async def test_another_attempt_selects_anew_and_other_rounds_do_too():
    names = tuple(f"c{i}" for i in range(20))
    a_scene = await scene(rounds=3, cohort_fraction=0.25)
    await a_scene.play(present=names, script={(1, 1, name): GONE for name in names})
    cohorts = [tuple(row["cohort"]) for row in await a_scene.decisions("round opened") if row["kind"] == "train"]
    assert [len(cohort) for cohort in cohorts] == [5, 5, 5, 5]
    assert len(set(cohorts)) == 4
    assert all(cohort == tuple(sorted(cohort)) for cohort in cohorts)


# --- deadlines -----------------------------------------------------------------------------------------


async def test_at_the_deadline_the_outcomes_are_frozen_and_the_round_goes_on_without_who_is_late():
    a_scene = await scene(rounds=1)
    await a_scene.play(script={(1, 1, "c"): DEADLINE})
    assert await a_scene.w() == 1.5
    assert (await a_scene.decisions("round closed"))[1]["outcomes"] == [["a", 1], ["b", 1], ["c", "deadline"]]
    round_ = await a_scene.store.round(a_scene.run.id, 1, 1)
    with pytest.raises(RoundClosed):
        await a_scene.store.report(round_, visit(round_, "c", model(0.0)))


class LastMoment(ScriptedFleet):
    """It gives `c` up, and in that moment `c` reports."""

    async def dispatch(self, run: Run, round_: Round) -> AsyncIterator[Outcome]:
        async for outcome in super().dispatch(run, round_):
            yield outcome
            if outcome.is_missing:
                await self.store.report(round_, visit(round_, outcome.client, model(0.0)))


async def test_what_reached_the_store_before_the_round_was_closed_counts_whatever_the_fleet_believed():
    a_scene = await scene(rounds=1)
    fleet = LastMoment(store=a_scene.store, script={(1, 1, "c"): DEADLINE})
    await run_rounds(a_scene.run, FedAvg(), fleet, a_scene.store)
    assert await a_scene.w() == 3.0
    assert (await a_scene.decisions("round closed"))[1]["outcomes"] == [["a", 1], ["b", 1], ["c", 1]]


@dataclass(frozen=True, kw_only=True)
class DiesWhileAggregating(FedAvg):
    def aggregate(self, state: State, updates: Updates) -> State:
        raise Killed


async def test_a_frozen_round_stays_frozen_over_a_restart():
    a_scene = await scene(DiesWhileAggregating(), rounds=1)
    with pytest.raises(Killed):
        await a_scene.play(script={(1, 1, "c"): GONE})
    closed = (await a_scene.store.position(a_scene.run.id)).open_round
    assert closed is not None
    assert closed.status is RoundStatus.CLOSED
    with pytest.raises(RoundClosed):
        await a_scene.store.report(closed, visit(closed, "c", model(0.0)))

    a_scene.strategy = FedAvg()
    fleet = await a_scene.play()                            # c is back; but the round went without it
    assert (await a_scene.w(), fleet.worked) == (1.5, [(2, 1, "a"), (2, 1, "b"), (2, 1, "c")])


# --- restarts ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CountsSelections(FedAvgM):
    momentum: float = 0.5
    selected: list[str] = field(default_factory=list)

    def select(self, present: Sequence[str], config: RunConfig, rng: object) -> list[str]:
        self.selected.append("once more")
        return list(present)


@pytest.mark.parametrize("client", ["a", "b", "c"])
@pytest.mark.parametrize("number", [1, 2, 3])
async def test_killed_and_started_again_ends_as_never_killed(number, client):
    """And nobody who reported works again."""
    calm, killed = await scene(CountsSelections()), await scene(CountsSelections())
    await calm.play()
    with pytest.raises(Killed):
        await killed.play(killed_before=(number, client))
    fleet = await killed.play()

    assert await killed.w() == await calm.w()
    velocities = [(await s.state()).memory["velocity"]["w"].tolist() for s in (calm, killed)]
    assert velocities[0] == velocities[1]
    assert await killed.store.journal(killed.run.id) == await calm.store.journal(calm.run.id)
    again = sorted(c for n, _, c in fleet.worked if n == number)
    assert again == [c for c in "abc" if c >= client]


async def test_a_restart_never_selects_again():
    a_scene = await scene(CountsSelections())
    for client in ("a", "b", "c"):
        with pytest.raises(Killed):
            await a_scene.play(killed_before=(1, client))
    assert a_scene.strategy == CountsSelections(selected=["once more"])
    await a_scene.play(present=("a", "b", "c", "new"))
    assert a_scene.strategy == CountsSelections(selected=["once more"] * 2)
    cohorts = [row["cohort"] for row in await a_scene.decisions("round opened")]
    assert cohorts == [["a"], ["a", "b", "c"], ["a", "b", "c", "new"], ["a", "b", "c", "new"]]


async def test_killed_in_round_0_the_same_client_is_asked_again():
    a_scene = await scene()
    with pytest.raises(Killed):
        await a_scene.play(killed_before=(0, "a"))
    await a_scene.play(present=("0", "a", "b", "c"), script={(n, 1, "0"): GONE for n in (1, 2, 3)})
    assert (await a_scene.decisions("round opened"))[0]["cohort"] == ["a"]
    assert await a_scene.w() == 6.0


# --- the last round ------------------------------------------------------------------------------------


async def test_the_last_evaluation_completes_with_whoever_answered():
    a_scene = await scene(rounds=1)
    await a_scene.play(script={(2, 1, "a"): DEADLINE, (2, 1, "b"): TASK_ERROR})
    assert await a_scene.status() == (RunStatus.COMPLETED, "")
    # w is 3; only c answered, whose number is 6.
    pooled = await a_scene.store.pooled(a_scene.run.id)
    assert pooled[1] == (Pooled(name="loss", value=3.0, num_clients=1, num_examples=1),)


async def test_the_last_evaluation_completes_though_nobody_answered():
    a_scene = await scene(rounds=1)
    await a_scene.play(script={(2, 1, client): GONE for client in "abc"})
    assert await a_scene.status() == (RunStatus.COMPLETED, "")
    assert (await a_scene.store.pooled(a_scene.run.id))[1] == ()
    assert await a_scene.w() == 3.0


async def test_everybody_measures_the_last_model_whatever_the_cohorts_were():
    a_scene = await scene(rounds=1, min_updates=1, cohort_fraction=0.3)
    await a_scene.play()
    last = (await a_scene.decisions("round opened"))[-1]
    assert (last["kind"], last["cohort"]) == ("evaluate", ["a", "b", "c"])


# --- what cannot be aggregated -------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Multiplies(FedAvg):
    """What a strategy with a bad setting makes: NaN, or more than a float32 can hold."""

    by: float

    def aggregate(self, state: State, updates: Updates) -> State:
        widened = updates.mean().map(lambda array: array.astype("float64") * self.by)
        return State(params=widened)


@pytest.mark.parametrize("by", [float("nan"), float("inf"), 1e39])
async def test_a_model_that_is_not_finite_ends_the_run_as_failed_with_its_reason(by):
    a_scene = await scene(Multiplies(by=by))
    fleet = await a_scene.play()
    status, reason = await a_scene.status()
    assert (status, reason.split(". ")[0]) == (RunStatus.FAILED, "round 1: tensor 'w' holds a NaN or an infinity")
    assert "learning rate" in reason
    assert await a_scene.w() == 0.0                         # the last committed model is kept
    assert fleet.gathered == [(1, 1), (2, 1)]               # and nobody is asked again
    assert (await a_scene.decisions("ended")) == [{"status": "failed"}]


@dataclass(frozen=True, kw_only=True)
class Raises(Strategy):
    def aggregate(self, state: State, updates: Updates) -> State:
        return State(params=updates[7].params)


@dataclass(frozen=True, kw_only=True)
class ReturnsParams(Strategy):
    def aggregate(self, state: State, updates: Updates) -> State:
        return updates.mean()           # type: ignore[return-value]


@pytest.mark.parametrize(("strategy", "told"), [
    (Raises(), r"the strategy Raises raised IndexError: list index out of range \(test_rounds.py, line \d+\)\. mend"),
    (ReturnsParams(), r"the strategy ReturnsParams returned a Params from aggregate\. return State\("),
], ids=["raises", "returns"])
async def test_a_strategy_whose_code_is_wrong_ends_the_run_as_failed_with_its_reason(strategy: Strategy, told: str):
    a_scene = await scene(strategy)
    await a_scene.play()
    status, reason = await a_scene.status()
    assert status is RunStatus.FAILED
    assert re.match("round 1: " + told, reason)


class SelectsNobody(FedAvg):
    def select(self, present: Sequence[str], config: RunConfig, rng: random.Random) -> list[str]:
        raise ValueError("nobody is good enough")


class ConfiguresNothing(FedAvg):
    def configure(self, config: JsonObject) -> JsonObject:
        return {"epochs": config["epoch"]}


@pytest.mark.parametrize(("strategy", "number", "told"), [
    (SelectsNobody(), 1, "SelectsNobody raised ValueError: nobody is good enough (test_rounds.py, line"),
    (ConfiguresNothing(), 0, "ConfiguresNothing raised KeyError: 'epoch' (test_rounds.py, line"),
], ids=["select", "configure"])
async def test_a_strategy_that_raises_before_a_round_ends_the_run_as_failed(
    strategy: Strategy, number: int, told: str
):
    a_scene = await scene(strategy)
    await a_scene.play()
    status, reason = await a_scene.status()
    assert status is RunStatus.FAILED
    assert reason.startswith(f"round {number}: the strategy {told}")
    assert (await a_scene.decisions("ended")) == [{"status": "failed"}]


class NobodyHasExamples(ScriptedFleet):
    async def _answer(self, run: Run, round_: Round, client: str) -> Outcome:
        return Outcome(client=client, update=brought(client, model(0.0), num_examples=0))


async def test_updates_without_examples_end_the_run_as_failed():
    a_scene = await scene()
    await run_rounds(a_scene.run, FedAvg(), NobodyHasExamples(store=a_scene.store), a_scene.store)
    status, reason = await a_scene.status()
    assert (status, reason.split(". ")[0]) == (RunStatus.FAILED, "round 1: 3 updates with no examples between them")


# --- people --------------------------------------------------------------------------------------------


class SomebodyPauses(ScriptedFleet):
    """While round 1 is under way, before client b reports."""

    async def _answer(self, run: Run, round_: Round, client: str) -> Outcome:
        if (round_.number, client) == (1, "b"):
            await self.store.move_run(run.id, RunStatus.PAUSED, "a person paused it")
        return await super()._answer(run, round_, client)


async def test_a_pause_passes_through_the_loop_and_a_resume_goes_on_with_the_open_round():
    a_scene = await scene(rounds=1)
    with pytest.raises(RunHalted):
        await run_rounds(a_scene.run, FedAvg(), SomebodyPauses(store=a_scene.store), a_scene.store)
    assert await a_scene.status() == (RunStatus.PAUSED, "a person paused it")
    assert await a_scene.w() == 0.0                         # not committed: it did not happen

    await a_scene.resume()
    fleet = await a_scene.play()
    assert ((await a_scene.status())[0], await a_scene.w()) == (RunStatus.COMPLETED, 3.0)
    assert [work for work in fleet.worked if work[0] == 1] == []         # all three reports were kept


class SomebodyCancels(ScriptedFleet):
    async def gather(self, run: Run, num_needed: int, attempt: int) -> tuple[str, ...]:
        if num_needed == 2:
            await self.store.move_run(run.id, RunStatus.CANCELLED, "a person cancelled it")
        return await super().gather(run, num_needed, attempt)


async def test_a_cancelled_run_opens_no_round():
    a_scene = await scene()
    with pytest.raises(RunHalted):
        await run_rounds(a_scene.run, FedAvg(), SomebodyCancels(store=a_scene.store), a_scene.store)
    assert [row["round"] for row in await a_scene.decisions("round opened")] == [0]
    assert await a_scene.status() == (RunStatus.CANCELLED, "a person cancelled it")


# --- what the cohort is told ---------------------------------------------------------------------------


async def test_a_strategys_config_is_what_the_cohort_receives():
    a_scene = await scene(FedProx(mu=0.25), rounds=1)
    await a_scene.play()
    round_ = await a_scene.store.round(a_scene.run.id, 1, 1)
    assert round_.config == {"epochs": 1, "proximal_mu": 0.25}
    assert (round_.kind, round_.budget_s) == (RoundKind.TRAIN, 600.0)


async def test_each_round_starts_from_the_model_of_the_round_before():
    a_scene = await scene()
    await a_scene.play()
    committed = [row["model_sha256"] for row in await a_scene.decisions("model committed")]
    assert [row["base_model"] for row in await a_scene.decisions("round opened")] == ["", *committed]
