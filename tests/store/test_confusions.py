"""What a model takes for what: sums added up by hand, cut where the task's own metrics cut them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from store_scenes import a_round, brought, config, gone, model_0, params, running

from fednode.clock import HandClock
from fednode.core.metrics import Histogram, Metric, Metrics, Sum
from fednode.core.records import Run, State
from fednode.core.status import RunStatus
from fednode.errors import NotFound
from fednode.store.confusions import Threshold
from fednode.store.queries import Queries
from fednode.store.sql import SqlStore

# Four bins, so the edges are 0, 1/4, 1/2, 3/4 and 1. The names are a task's own.
MARKS = (
    Metric(name="held back", combine="threshold", of="val_marks", split="val", goal="none"),
    Metric(name="found", combine="sensitivity", of="marks", at="held back"),
    Metric(name="spared", combine="specificity", of="marks", at="held back"),
    Metric(name="loss", goal="min"),
)
A = [[3, 1, 0, 0], [0, 1, 1, 2]]        # negatives, positives
B = [[2, 0, 1, 0], [0, 0, 0, 5]]
HELD_BACK = [[1, 0, 0, 0], [0, 0, 4, 6]]


@pytest.fixture
def queries(sql: SqlStore, clock: HandClock) -> Queries:
    return Queries(sql, clock)


async def run_of(sql: SqlStore, metrics: Sequence[Metric]) -> Run:
    run = await sql.create_run(config(rounds=3), metrics)
    return await sql.move_run(run.id, RunStatus.RUNNING)


async def play(
    sql: SqlStore, run: Run, number: int, found: Mapping[str, Mapping[str, object]], *, is_committed: bool = True
) -> None:
    """Round `number`, in which clients measure model `number` - 1."""
    checkpoint = (await sql.position(run.id)).checkpoint
    base = checkpoint.model_sha256 if checkpoint else await model_0(sql, run)
    opened = await sql.open_round(a_round(run, number, *found, base=base))
    for client, values in found.items():
        evaluation = Metrics(values=values, num_examples={"test": 8, "val": 5})
        await sql.report(opened, brought(client, 1.0, evaluation=evaluation))
    if is_committed:
        await sql.commit_round(opened, await sql.outcomes(opened), State(params=params(float(number))))


def marks(counts: list[list[int]]) -> dict[str, object]:
    return {"marks": Histogram(counts), "val_marks": Histogram(HELD_BACK), "loss": 0.5}


async def test_histograms_are_added_up_and_cut_where_the_runs_own_numbers_are(sql: SqlStore, queries: Queries) -> None:
    run = await run_of(sql, MARKS)
    await play(sql, run, 1, {"a": marks(A), "b": marks(B)})
    view = await queries.confusion("1", None, None, "")
    assert (view.run, view.round, view.of, view.split, view.kind) == (1, 0, "marks", "test", "histogram")
    assert view.counts == ((5, 1, 1, 0), (0, 1, 1, 7))
    assert (view.names, view.clients, view.client) == (("marks", "val_marks"), ("a", "b"), "")
    # 12 of 20 held-back positives are at 3/4 or above, 20 from 1/2 on: 0.5 finds 90 %, 0.75 does not.
    assert view.threshold == Threshold(value=0.5, cut=2, name="held back", split="val", detection_rate=0.9)
    told = (await queries.run_summary("1")).metrics
    assert told == {"found": 8 / 9, "spared": 6 / 7, "held back": 0.5, "loss": 0.5}
    negatives, positives = view.counts
    cut = view.threshold.cut
    assert told["found"] == sum(positives[cut:]) / sum(positives)
    assert told["spared"] == sum(negatives[:cut]) / sum(negatives)


async def test_one_client_is_cut_at_the_threshold_of_everybody(sql: SqlStore, queries: Queries) -> None:
    run = await run_of(sql, MARKS)
    await play(sql, run, 1, {"a": marks(A), "b": marks(B) | {"val_marks": Histogram([[0, 0, 0, 0], [8, 0, 0, 2]])}})
    view = await queries.confusion("1", "marks", None, "b")
    assert (view.counts, view.client, view.clients) == (((2, 0, 1, 0), (0, 0, 0, 5)), "b", ("a", "b"))
    # Pooled positives 8 0 4 8: 18 of 20 are found at no edge above 0. Of b alone it would be the same, of a 1/2.
    assert view.threshold == Threshold(value=0.0, cut=0, name="held back", split="val", detection_rate=0.9)
    held_back = await queries.confusion("1", "val_marks", None, "a")
    assert (held_back.split, held_back.counts) == ("val", ((1, 0, 0, 0), (0, 0, 4, 6)))
    assert held_back.threshold == view.threshold


async def test_the_newest_model_that_was_pooled_is_shown_and_any_other_may_be_asked_for(
    sql: SqlStore, queries: Queries
) -> None:
    run = await run_of(sql, MARKS)
    assert (await queries.confusion("1", None, None, "")).round is None
    await play(sql, run, 1, {"a": marks(A), "b": marks(B)})
    await play(sql, run, 2, {"b": marks(B)})
    await play(sql, run, 3, {"a": marks(A), "b": marks(B)}, is_committed=False)
    newest = await queries.confusion("1", None, None, "")
    assert (newest.round, newest.clients, newest.counts[0]) == (1, ("b",), (2, 0, 1, 0))
    assert (await queries.confusion("1", None, 0, "")).clients == ("a", "b")
    assert (await queries.confusion("1", None, 2, "")).clients == ("a", "b")       # so far
    nothing = await queries.confusion("1", None, 7, "")
    assert (nothing.round, nothing.names, nothing.of, nothing.counts) == (7, (), None, ())


async def test_a_stranger_with_other_bins_is_left_out_as_it_is_from_the_numbers(
    sql: SqlStore, queries: Queries
) -> None:
    run = await run_of(sql, MARKS)
    odd = marks(A) | {"marks": Histogram([[1, 1], [1, 1]])}
    await play(sql, run, 1, {"a": marks(A), "b": marks(B), "odd": odd})
    view = await queries.confusion("1", None, None, "")
    assert (view.clients, view.counts[1]) == (("a", "b"), (0, 1, 1, 7))
    with pytest.raises(NotFound, match="'odd' has not measured the model of round 0"):
        await queries.confusion("1", None, None, "odd")


async def test_who_measured_in_an_attempt_that_came_to_nothing_is_not_pooled(sql: SqlStore, queries: Queries) -> None:
    run = await run_of(sql, MARKS)
    base = await model_0(sql, run)
    first = await sql.open_round(a_round(run, 1, "a", "b", base=base))
    await sql.report_evaluation(first, "a", Metrics(values=marks(A), num_examples={"test": 8, "val": 5}))
    await sql.abandon_round(first, (gone("a"), gone("b")), "nobody reported")
    second = await sql.open_round(a_round(run, 1, "b", base=base, attempt=2))
    evaluation = Metrics(values=marks(B), num_examples={"test": 8, "val": 5})
    await sql.report(second, brought("b", 1.0, evaluation=evaluation))
    await sql.commit_round(second, await sql.outcomes(second), State(params=params(1.0)))
    assert (await queries.confusion("1", None, None, "")).clients == ("b",)


async def test_a_matrix_of_several_classes_is_shown_as_it_is(sql: SqlStore, queries: Queries) -> None:
    run = await run_of(sql, (Metric(name="accuracy", combine="accuracy", of="pairs"), Metric(name="loss", goal="min")))
    matrix = Sum([[3, 0, 1], [0, 2, 0], [0.5, 0, 4]])
    await play(sql, run, 1, {"a": {"pairs": matrix}, "b": {"pairs": matrix}})
    view = await queries.confusion("1", None, None, "")
    assert (view.kind, view.of, view.threshold) == ("matrix", "pairs", None)
    assert view.counts == ((6, 0, 2), (0, 4, 0), (1, 0, 8))


async def test_where_a_task_fixes_the_threshold_or_says_nothing_that_is_told(sql: SqlStore, queries: Queries) -> None:
    for number, (at, wanted) in enumerate(((0.75, 3), (None, 2)), 1):
        run = await run_of(sql, (Metric(name="accuracy", combine="accuracy", of="marks", at=at),))
        await play(sql, run, 1, {"a": {"marks": Histogram(A)}})
        view = await queries.confusion(str(number), None, None, "")
        assert view.threshold == Threshold(value=wanted / 4, cut=wanted, name=None, split=None, detection_rate=None)


async def test_without_a_positive_to_choose_it_on_there_is_no_threshold(sql: SqlStore, queries: Queries) -> None:
    run = await run_of(sql, MARKS)
    await play(sql, run, 1, {"a": marks(A) | {"val_marks": Histogram([[4, 0, 0, 0], [0, 0, 0, 0]])}})
    view = await queries.confusion("1", None, None, "")
    assert (view.threshold, view.kind) == (None, "histogram")


async def test_a_run_without_such_sums_has_nothing_to_show(sql: SqlStore, queries: Queries) -> None:
    run = await running(sql, rounds=2)
    await play(sql, run, 1, {"a": {"accuracy": Sum([1, 2]), "loss": 0.5}})
    view = await queries.confusion("1", None, None, "")
    assert (view.round, view.names, view.of, view.kind) == (0, (), None, None)
    with pytest.raises(NotFound, match="run #1 has no 'marks' to show of round 0") as refused:
        await queries.confusion("1", "marks", None, "")
    assert refused.value.fix == "what it has: nothing"
