"""One contract, every store: what the round loop and the central node may rely on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from store_scenes import (
    AnyStore,
    a_round,
    brought,
    config,
    failed,
    gone,
    measured,
    model_0,
    params,
    running,
)

from fednode.clock import HandClock
from fednode.core.journal import JournalRow, next_row
from fednode.core.metrics import Pooled
from fednode.core.records import Outcome, Run, State
from fednode.core.status import AssignmentStatus, FailureCode, RoundKind, RoundStatus, RunStatus
from fednode.errors import AlreadyReported, IllegalMove, NotFound, RoundClosed, RunHalted, StoreError, Withdrawn
from fednode.store.memory import MemoryStore
from fednode.store.queries import Queries
from fednode.store.sql import SqlStore


async def journal_of(store: AnyStore, run: Run) -> tuple[JournalRow, ...]:
    if isinstance(store, MemoryStore):
        return await store.journal(run.id)
    return tuple(await Queries(store, HandClock()).journal(run.id))


async def pooled_of(store: AnyStore, run: Run, model_round: int) -> dict[str, tuple[object, int, int]]:
    if isinstance(store, MemoryStore):
        found: tuple[Pooled, ...] = (await store.pooled(run.id)).get(model_round, ())
        return {p.name: (p.value, p.num_clients, p.num_examples) for p in found}
    points = await Queries(store, HandClock()).metric_points(run.id, client="")
    return {p.name: (p.value, p.num_clients, p.num_examples) for p in points if p.model_round == model_round}


async def events_of(store: AnyStore) -> list[str]:
    if isinstance(store, MemoryStore):
        return [event.what for event in store.events]
    return [event.what for event in await Queries(store, HandClock()).events()]


def words(journal: tuple[JournalRow, ...]) -> list[object]:
    return [row.entry["what"] for row in journal]


async def statuses(store: AnyStore, run: Run, number: int, attempt: int = 1) -> dict[str, str]:
    round_ = await store.round(run.id, number, attempt)
    return {found.client: found.status.value for found in await store.assignments(round_)}


# --- the whole story ------------------------------------------------------------------------------------------


async def play(store: AnyStore) -> Run:
    """One train round of two clients, one of whom fails; then the last evaluation, where one is gone."""
    run = await running(store, rounds=1)
    base = await model_0(store, run)
    opened = await store.open_round(a_round(run, 1, "a", "b", base=base))
    outcomes = (brought("a", 1.0, 2.0, evaluation=measured(1, 2, 0.5)), failed("b"))
    for outcome in reversed(outcomes):
        await store.report(opened, outcome)
    await store.commit_round(opened, outcomes, State(params=params(1.0, 2.0)))
    position = await store.position(run.id)
    assert position.checkpoint is not None
    last = a_round(run, 2, "a", "b", base=position.checkpoint.model_sha256, kind=RoundKind.EVALUATE)
    opened = await store.open_round(last)
    await store.report_evaluation(opened, "a", measured(2, 2, 0.1))
    final = await store.close_round(opened, (*await store.outcomes(opened), gone("b")))
    await store.commit_round(opened, final, None)
    await store.end_run(run.id, RunStatus.COMPLETED)
    return run


async def test_a_run_from_model_0_to_its_end_is_told_by_its_journal(store: AnyStore) -> None:
    run = await play(store)
    journal = await journal_of(store, run)
    assert words(journal) == [
        "created", "round opened", "round closed", "model committed",
        "round opened", "round closed", "model committed",
        "round opened", "round closed", "ended",
    ]
    assert journal[5].entry["outcomes"] == [["a", 10], ["b", "task_error"]]
    assert journal[8].entry["outcomes"] == [["a", None], ["b", "gone"]]


async def test_each_journal_row_is_hashed_with_the_one_before(store: AnyStore) -> None:
    journal = await journal_of(store, await play(store))
    previous = None
    for row in journal:
        assert row == next_row(previous, row.entry)
        previous = row


async def test_the_same_story_has_the_same_journal_in_every_store(tmp_path: Path) -> None:
    memory = MemoryStore(HandClock())
    sql = await SqlStore.open(tmp_path, HandClock())
    in_memory = await journal_of(memory, await play(memory))
    on_disk = await journal_of(sql, await play(sql))
    await sql.close()
    assert [row.hash for row in in_memory] == [row.hash for row in on_disk]


async def test_pooled_metrics_belong_to_the_model_that_was_measured(store: AnyStore) -> None:
    run = await play(store)
    assert await pooled_of(store, run, 0) == {"accuracy": (0.5, 1, 2), "loss": (0.5, 1, 2)}
    assert await pooled_of(store, run, 1) == {"accuracy": (1.0, 1, 2), "loss": (0.1, 1, 2)}
    assert await pooled_of(store, run, 2) == {}


async def test_pooling_weighs_by_examples(store: AnyStore) -> None:
    run = await running(store)
    opened = await store.open_round(a_round(run, 1, base=await model_0(store, run)))
    outcomes = (brought("a", 1.0, evaluation=measured(1, 1, 4.0)), brought("b", 1.0, evaluation=measured(0, 3, 0.0)))
    for outcome in outcomes:
        await store.report(opened, outcome)
    await store.commit_round(opened, outcomes, State(params=params(1.0)))
    # accuracy: (1 + 0) of (1 + 3); loss: (4.0 * 1 + 0.0 * 3) / 4
    assert await pooled_of(store, run, 0) == {"accuracy": (0.25, 2, 4), "loss": (1.0, 2, 4)}


async def test_people_are_told_what_happened_in_order(store: AnyStore) -> None:
    await play(store)
    assert await events_of(store) == [
        "run created", "run started",
        "round opened", "update received", "round closed", "round committed",
        "round opened", "failure received", "update received", "round closed", "round committed",
        "round opened", "evaluation received", "round closed", "round committed", "run ended",
    ]


# --- where a run stands ---------------------------------------------------------------------------------------


async def test_a_new_run_stands_before_model_0(store: AnyStore) -> None:
    run = await store.create_run(config(), ())
    position = await store.position(run.id)
    assert (position.checkpoint, position.open_round) == (None, None)
    assert (position.next_round, position.next_attempt) == (0, 1)
    assert (run.status, run.number) == (RunStatus.QUEUED, 1)
    assert (await store.create_run(config(), ())).number == 2


async def test_an_open_round_is_returned_as_it_is_and_never_selected_again(store: AnyStore) -> None:
    run = await running(store)
    opened = await store.open_round(a_round(run, 0, "a"))
    assert await store.open_round(a_round(run, 0, "b")) == opened
    assert (await store.position(run.id)).open_round == opened
    assert opened.cohort == ("a",)
    assert words(await journal_of(store, run)) == ["created", "round opened"]


async def test_a_committed_round_moves_the_position_on(store: AnyStore) -> None:
    run = await running(store)
    base = await model_0(store, run, 3.0)
    position = await store.position(run.id)
    assert position.checkpoint is not None
    assert (position.checkpoint.round, position.checkpoint.model_sha256) == (0, base)
    assert position.checkpoint.state.params["w"].tolist() == [3.0]
    assert (position.open_round, position.next_round, position.next_attempt) == (None, 1, 1)


async def test_the_strategys_memory_comes_back_with_its_checkpoint(store: AnyStore) -> None:
    run = await running(store)
    opened = await store.open_round(a_round(run, 0, "a"))
    outcome = brought("a", 0.0)
    await store.report(opened, outcome)
    memory = {"velocity": params(0.5), "second": params(0.25, 4.0)}
    await store.commit_round(opened, (outcome,), State(params=params(1.0), memory=memory))
    checkpoint = (await store.position(run.id)).checkpoint
    assert checkpoint is not None
    found = {name: kept["w"].tolist() for name, kept in checkpoint.state.memory.items()}
    assert found == {"velocity": [0.5], "second": [0.25, 4.0]}


async def test_a_closed_round_is_still_the_runs_position_with_its_frozen_outcomes(store: AnyStore) -> None:
    run = await running(store)
    opened = await store.open_round(a_round(run, 1, base=await model_0(store, run)))
    await store.report(opened, brought("a", 5.0))
    await store.close_round(opened, (brought("a", 5.0), gone("b")))
    position = await store.position(run.id)
    assert position.open_round is not None
    assert position.open_round.status is RoundStatus.CLOSED
    frozen = await store.outcomes(opened)
    assert [outcome.client for outcome in frozen] == ["a", "b"]
    assert frozen[0].update is not None
    assert frozen[0].update.params["w"].tolist() == [5.0]
    assert frozen[1].failure == gone("b").failure
    again = await store.close_round(opened, (gone("a"), gone("b")))     # nothing that is said later counts
    assert [o.failure for o in again] == [o.failure for o in frozen]
    assert words(await journal_of(store, run)).count("round closed") == 2


async def test_committing_twice_is_committing_once(store: AnyStore) -> None:
    run = await running(store)
    base = await model_0(store, run)
    first = await store.round(run.id, 0, 1)
    await store.commit_round(first, (brought("a", 9.0),), State(params=params(9.0)))
    position = await store.position(run.id)
    assert position.checkpoint is not None
    assert position.checkpoint.model_sha256 == base
    assert words(await journal_of(store, run)).count("model committed") == 1


# --- attempts -------------------------------------------------------------------------------------------------


async def test_an_abandoned_attempt_is_followed_by_the_next_one_of_the_same_round(store: AnyStore) -> None:
    run = await running(store)
    base = await model_0(store, run)
    opened = await store.open_round(a_round(run, 1, base=base))
    await store.abandon_round(opened, (gone("a"), gone("b")), "nobody answered")
    position = await store.position(run.id)
    assert (position.open_round, position.next_round, position.next_attempt) == (None, 1, 2)
    assert (await store.round(run.id, 1, 1)).status is RoundStatus.ABANDONED
    assert words(await journal_of(store, run))[-2:] == ["round opened", "round closed"]
    with pytest.raises(IllegalMove):
        await store.open_round(a_round(run, 1, base=base))


async def test_the_next_attempt_takes_over_updates_of_its_cohort(store: AnyStore) -> None:
    run = await running(store)
    base = await model_0(store, run)
    opened = await store.open_round(a_round(run, 1, "a", "b", "c", base=base))
    await store.report(opened, brought("a", 1.0, evaluation=measured(1, 2, 0.5)))
    await store.report(opened, brought("c", 3.0))
    await store.report(opened, failed("b"))
    await store.abandon_round(opened, (), "too few updates")
    again = await store.open_round(a_round(run, 1, "a", "b", attempt=2, base=base))
    (outcome,) = await store.outcomes(again)
    assert outcome.client == "a"
    assert outcome.update is not None
    assert outcome.update.params["w"].tolist() == [1.0]
    assert outcome.evaluation is not None
    assert outcome.evaluation.to_json() == measured(1, 2, 0.5).to_json()
    assert await statuses(store, run, 1, 2) == {"a": "reported", "b": "waiting"}
    await store.report(again, brought("a", 1.0))
    with pytest.raises(AlreadyReported):
        await store.report(again, brought("a", 2.0))


# --- reports --------------------------------------------------------------------------------------------------


async def test_the_same_report_again_is_fine_and_another_one_is_not(store: AnyStore) -> None:
    run = await running(store)
    opened = await store.open_round(a_round(run, 1, base=await model_0(store, run)))
    await store.report(opened, brought("a", 1.0))
    await store.report(opened, brought("a", 1.0))
    for other in (brought("a", 1.5), brought("a", 1.0, num_examples=11), failed("a")):
        with pytest.raises(AlreadyReported):
            await store.report(opened, other)
    (kept,) = await store.outcomes(opened)
    assert kept.update is not None
    assert (kept.update.params["w"].tolist(), kept.update.num_examples) == ([1.0], 10)


async def test_a_failure_that_was_reported_stands(store: AnyStore) -> None:
    run = await running(store)
    opened = await store.open_round(a_round(run, 1, base=await model_0(store, run)))
    await store.report(opened, failed("a"))
    await store.report(opened, failed("a"))
    with pytest.raises(AlreadyReported):
        await store.report(opened, brought("a", 1.0))
    assert await statuses(store, run, 1) == {"a": "failed", "b": "waiting"}


async def test_a_report_to_a_frozen_round_is_late_and_people_see_it(store: AnyStore) -> None:
    run = await running(store)
    opened = await store.open_round(a_round(run, 1, base=await model_0(store, run)))
    await store.report(opened, brought("a", 1.0))
    frozen = await store.close_round(opened, (brought("a", 1.0), gone("b")))
    with pytest.raises(RoundClosed):
        await store.report(opened, brought("b", 2.0))
    with pytest.raises(RoundClosed):
        await store.report_evaluation(opened, "b", measured(1, 1, 0.0))
    assert [o.failure for o in await store.outcomes(opened)] == [o.failure for o in frozen]
    assert "late" in await events_of(store)


async def test_a_report_counts_even_where_the_loop_gave_the_client_up(store: AnyStore) -> None:
    run = await running(store)
    opened = await store.open_round(a_round(run, 1, base=await model_0(store, run)))
    await store.report(opened, brought("b", 2.0))
    closed = await store.close_round(opened, (gone("a"), gone("b")))
    assert [outcome.failure is None for outcome in closed] == [False, True]
    assert closed[1].update is not None
    assert closed[1].update.params["w"].tolist() == [2.0]


async def test_a_round_is_not_closed_over_an_update_that_nobody_reported(store: AnyStore) -> None:
    run = await running(store)
    opened = await store.open_round(a_round(run, 0, "a"))
    with pytest.raises(StoreError, match="no report"):
        await store.commit_round(opened, (brought("a", 1.0),), State(params=params(1.0)))
    assert (await store.position(run.id)).open_round == opened


async def test_only_the_cohort_may_report(store: AnyStore) -> None:
    run = await running(store)
    opened = await store.open_round(a_round(run, 0, "a"))
    with pytest.raises(NotFound):
        await store.report(opened, brought("b", 1.0))


async def test_outcomes_come_in_name_order_whatever_the_order_of_arrival(store: AnyStore) -> None:
    run = await running(store)
    opened = await store.open_round(a_round(run, 1, "a", "b", "c", base=await model_0(store, run)))
    for name in ("c", "a", "b"):
        await store.report(opened, brought(name, 1.0))
    assert [outcome.client for outcome in await store.outcomes(opened)] == ["a", "b", "c"]


async def test_an_evaluation_posted_first_comes_with_the_outcome_and_counts(store: AnyStore) -> None:
    run = await running(store)
    opened = await store.open_round(a_round(run, 1, base=await model_0(store, run)))
    await store.report_evaluation(opened, "a", measured(1, 2, 0.5))
    await store.report_evaluation(opened, "a", measured(2, 2, 0.0))
    assert await store.outcomes(opened) == ()
    await store.report(opened, brought("a", 1.0, evaluation=measured(0, 2, 9.0)))
    (outcome,) = await store.outcomes(opened)
    assert outcome.evaluation is not None
    assert outcome.evaluation.to_json() == measured(1, 2, 0.5).to_json()


async def test_a_client_that_measured_and_went_still_counts_in_the_pool(store: AnyStore) -> None:
    run = await running(store)
    opened = await store.open_round(a_round(run, 1, base=await model_0(store, run)))
    await store.report_evaluation(opened, "b", measured(2, 2, 0.0))
    await store.report(opened, brought("a", 1.0, evaluation=measured(0, 2, 1.0)))
    closed = await store.close_round(opened, (brought("a", 1.0), gone("b")))
    await store.commit_round(opened, closed, State(params=params(1.0)))
    assert await pooled_of(store, run, 0) == {"accuracy": (0.5, 2, 4), "loss": (0.5, 2, 4)}


async def test_in_an_evaluate_round_the_evaluation_is_the_report(store: AnyStore) -> None:
    run = await running(store, rounds=0)
    last = a_round(run, 1, base=await model_0(store, run), kind=RoundKind.EVALUATE)
    opened = await store.open_round(last)
    await store.report_evaluation(opened, "b", measured(1, 1, 0.0))
    await store.report_evaluation(opened, "b", measured(1, 1, 0.0))
    (outcome,) = await store.outcomes(opened)
    assert (outcome.client, outcome.update, outcome.failure) == ("b", None, None)
    assert await statuses(store, run, 1) == {"a": "waiting", "b": "reported"}


# --- pause, cancel, end ---------------------------------------------------------------------------------------


async def test_a_run_that_does_not_run_halts_its_loop(store: AnyStore) -> None:
    run = await running(store)
    opened = await store.open_round(a_round(run, 0, "a"))
    await store.move_run(run.id, RunStatus.PAUSED, "a person said so")
    outcome = brought("a", 1.0)
    await store.report(opened, outcome)     # what a client brings is kept, paused or not
    for verb in (
        store.open_round(a_round(run, 0, "a")), store.close_round(opened, (outcome,)),
        store.commit_round(opened, (outcome,), State(params=params(1.0))),
        store.abandon_round(opened, (outcome,), "why"), store.end_run(run.id, RunStatus.COMPLETED),
    ):
        with pytest.raises(RunHalted):
            await verb
    position = await store.position(run.id)
    assert position.open_round == opened
    assert len(await store.outcomes(opened)) == 1


async def test_pause_now_and_resume_keep_cohort_and_attempt(store: AnyStore) -> None:
    run = await running(store)
    opened = await store.open_round(a_round(run, 1, base=await model_0(store, run)))
    await store.report(opened, brought("a", 1.0))
    await store.move_run(run.id, RunStatus.PAUSED, withdraw=True)
    assert await statuses(store, run, 1) == {"a": "reported", "b": "withdrawn"}
    with pytest.raises(Withdrawn):
        await store.report(opened, brought("b", 2.0))
    await store.move_run(run.id, RunStatus.QUEUED)
    await store.move_run(run.id, RunStatus.RUNNING)
    assert (await store.position(run.id)).open_round == opened
    assert await statuses(store, run, 1) == {"a": "reported", "b": "waiting"}
    await store.report(opened, brought("b", 2.0))


async def test_cancel_abandons_the_open_round_and_keeps_the_last_model(store: AnyStore) -> None:
    run = await running(store)
    base = await model_0(store, run)
    opened = await store.open_round(a_round(run, 1, base=base))
    await store.move_run(run.id, RunStatus.CANCELLED, "no longer wanted")
    position = await store.position(run.id)
    assert position.checkpoint is not None
    assert (position.open_round, position.checkpoint.model_sha256) == (None, base)
    assert (await store.round(run.id, 1, 1)).status is RoundStatus.ABANDONED
    assert set((await statuses(store, run, 1)).values()) == {"withdrawn"}
    assert (await journal_of(store, run))[-1].entry == {"what": "ended", "status": "cancelled"}
    with pytest.raises(Withdrawn):
        await store.report(opened, brought("a", 1.0))
    with pytest.raises(IllegalMove):
        await store.move_run(run.id, RunStatus.RUNNING)


async def test_a_failed_run_ends_with_its_reason_and_no_open_round(store: AnyStore) -> None:
    run = await running(store)
    await store.open_round(a_round(run, 0, "a"))
    await store.end_run(run.id, RunStatus.FAILED, "round 0: NaN")
    ended = await store.run(run.id)
    assert (ended.status, ended.reason) == (RunStatus.FAILED, "round 0: NaN")
    assert (await store.position(run.id)).open_round is None


async def test_the_loop_may_pause_its_run(store: AnyStore) -> None:
    run = await running(store)
    await store.end_run(run.id, RunStatus.PAUSED, "3 attempts failed")
    assert (await store.run(run.id)).reason == "3 attempts failed"
    assert words(await journal_of(store, run)) == ["created"]      # a pause decides nothing


async def test_a_reason_comes_and_goes(store: AnyStore) -> None:
    run = await running(store)
    await store.set_reason(run.id, "waiting for 2 of 3 clients")
    assert (await store.run(run.id)).reason == "waiting for 2 of 3 clients"
    await store.set_reason(run.id, "")
    assert (await store.run(run.id)).reason == ""


@pytest.mark.parametrize("status", [RunStatus.CANCELLED, RunStatus.PAUSED])
async def test_why_a_run_waits_does_not_hide_why_it_was_ended_or_paused(store: AnyStore, status: RunStatus) -> None:
    run = await running(store)
    await store.move_run(run.id, status, "by a person")
    await store.set_reason(run.id, "attempt 2 of 3 begins at 13:46")
    assert (await store.run(run.id)).reason == "by a person"


# --- starting from a model ------------------------------------------------------------------------------------


async def test_a_run_may_start_from_a_model_that_is_there(store: AnyStore) -> None:
    sha256 = await model_0(store, await running(store), 4.0)
    run = await running(store, start_model=sha256)
    position = await store.position(run.id)
    assert position.checkpoint is not None
    assert (position.checkpoint.round, position.next_round) == (0, 1)
    assert position.checkpoint.state.params["w"].tolist() == [4.0]
    assert words(await journal_of(store, run)) == ["created", "model committed"]


async def test_a_run_cannot_start_from_a_model_that_is_not_there(store: AnyStore) -> None:
    with pytest.raises(NotFound, match="no model"):
        await store.create_run(config(start_model="f" * 64), ())
    assert await store.runs() == []


# --- small things ---------------------------------------------------------------------------------------------


async def test_leases_count_deliveries_until_a_report(store: AnyStore) -> None:
    run = await running(store)
    opened = await store.open_round(a_round(run, 0, "a"))
    (assignment,) = await store.assignments(opened)
    await store.mark_leased(assignment)
    await store.mark_leased(assignment)
    await store.save_budget(opened, 599.0)      # a write that is awaited: what was queued before it is there
    (leased,) = await store.assignments(opened)
    assert (leased.status, leased.deliveries) == (AssignmentStatus.LEASED, 2)
    await store.report(opened, brought("a", 1.0))
    await store.mark_leased(assignment)
    await store.save_budget(opened, 598.0)
    (reported,) = await store.assignments(opened)
    assert (reported.status, reported.deliveries) == (AssignmentStatus.REPORTED, 2)


async def test_the_budget_left_is_kept(store: AnyStore) -> None:
    run = await running(store)
    opened = await store.open_round(a_round(run, 0, "a"))
    assert await store.budget_left_s(opened) == 600.0
    await store.save_budget(opened, 12.5)
    assert await store.budget_left_s(opened) == 12.5


async def test_what_is_not_there_is_not_found(store: AnyStore) -> None:
    with pytest.raises(NotFound):
        await store.run("run_nope")
    run = await running(store)
    with pytest.raises(NotFound):
        await store.round(run.id, 5, 1)
    with pytest.raises(NotFound):
        await store.outcomes(a_round(run, 5))


async def test_a_diverged_loss_stops_no_round(store: AnyStore) -> None:
    run = await running(store)
    opened = await store.open_round(a_round(run, 1, base=await model_0(store, run)))
    outcomes = (
        brought("a", 1.0, evaluation=measured(1, 2, float("nan"))),
        brought("b", 1.0, evaluation=measured(1, 2, float("inf"))),
    )
    for outcome in outcomes:
        await store.report(opened, outcome)
    await store.commit_round(opened, await store.outcomes(opened), State(params=params(1.0)))
    assert await pooled_of(store, run, 0) == {"accuracy": (0.5, 2, 4)}      # inf + nan is no number


async def test_params_of_an_update_have_the_bits_that_were_sent(store: AnyStore) -> None:
    run = await running(store)
    opened = await store.open_round(a_round(run, 0, "a"))
    sent = brought("a", 0.1, -0.0, 1e-45, 3.4e38)
    await store.report(opened, sent)
    (kept,) = await store.outcomes(opened)
    assert sent.update is not None
    assert kept.update is not None
    assert kept.update.params["w"].tobytes() == sent.update.params["w"].tobytes()
    assert kept.update.params["w"].dtype == np.float32
    assert kept.update.environment == {"threads": 1}


async def test_failures_keep_their_code_reason_and_traceback(store: AnyStore) -> None:
    run = await running(store)
    opened = await store.open_round(a_round(run, 0, "a"))
    sent = failed("a", FailureCode.REFUSED, "not finite")
    await store.report(opened, sent)
    assert await store.outcomes(opened) == (Outcome(client="a", failure=sent.failure),)
