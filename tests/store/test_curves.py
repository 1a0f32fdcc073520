"""Scores as curves: pooled, of each client, as a band; thinned where a run is long."""

from __future__ import annotations

import pytest
from store_scenes import METRICS, config, params, play, running

from fednode.clock import HandClock
from fednode.core.metrics import Metric
from fednode.core.records import Run, State
from fednode.core.status import RunStatus
from fednode.errors import NotFound
from fednode.store.curves import Curve, CurvesView, thinned
from fednode.store.queries import Queries
from fednode.store.sql import SqlStore

EVERYBODY = [f"c{number:02}" for number in range(1, 14)]        # one more than are drawn each


@pytest.fixture
def queries(sql: SqlStore, clock: HandClock) -> Queries:
    return Queries(sql, clock)


async def test_a_curve_has_a_value_for_each_model(sql: SqlStore, queries: Queries) -> None:
    run = await running(sql)
    await play(sql, run, 1, {"a": 1, "b": 3})
    await play(sql, run, 2, {"a": 5, "b": 9})
    view = await queries.curves("1", "accuracy", 500, 0)
    assert (view.run, view.name, view.goal, view.step, view.rounds) == (1, "accuracy", "max", 1, (0, 1))
    assert view.pooled == (0.2, 0.7)                # (1 + 3) / 20, (5 + 9) / 20
    assert view.clients == (Curve(name="a", values=(0.1, 0.5)), Curve(name="b", values=(0.3, 0.9)))
    assert view.band is None
    assert (await queries.curves("1", "loss", 500, 0)).goal == "min"


async def test_who_was_away_or_is_not_pooled_yet_has_no_value(sql: SqlStore, queries: Queries) -> None:
    run = await running(sql, rounds=3)
    await play(sql, run, 1, {"a": 2, "b": 4})
    await play(sql, run, 2, {"b": 6})
    await play(sql, run, 3, {"a": 8}, pooled=False)         # model 2 is measured by one, the round is still open
    view = await queries.curves("1", None, 500, 0)
    assert (view.rounds, view.pooled) == ((0, 1, 2), (0.3, 0.6, None))
    assert view.clients == (Curve(name="a", values=(0.2, None, 0.8)), Curve(name="b", values=(0.4, 0.6, None)))


async def test_a_run_that_measured_nothing_has_no_rounds(sql: SqlStore, queries: Queries) -> None:
    await running(sql)
    view = await queries.curves("1", None, 500, 0)
    assert (view.name, view.names, view.rounds, view.pooled, view.clients) == ("accuracy", (), (), (), ())


async def test_metrics_that_have_numbers_are_named_the_split_test_first(sql: SqlStore, queries: Queries) -> None:
    declared = (
        Metric(name="val_loss", split="val"), Metric(name="roc", combine="roc", of="scores"), *METRICS,
        Metric(name="auc", combine="auc", of="scores", unit="area"),
    )
    run = await sql.create_run(config(), declared)
    run = await sql.move_run(run.id, RunStatus.RUNNING)
    await play(sql, run, 1, {"a": 1, "b": 3})
    view = await queries.curves("1", None, 500, 0)
    assert (view.name, view.names) == ("accuracy", ("accuracy", "loss"))
    asked = await queries.curves("1", "auc", 500, 0)        # declared, and measured by nobody
    assert (asked.unit, asked.rounds, asked.pooled, asked.clients) == ("area", (0,), (None,), ())
    for name in ("roc", "f1"):
        with pytest.raises(NotFound, match=name) as refused:
            await queries.curves("1", name, 500, 0)
        assert refused.value.fix == "its metrics: accuracy, loss, auc, val_loss"


# --- many clients -----------------------------------------------------------------------------------------------


async def play_many(store: SqlStore, run: Run, *, num_clients: int) -> None:
    """Model 0: 0, 1, 2, ... 9, 9, ... of 10; model 1: the other way round."""
    names = EVERYBODY[:num_clients]
    hits = [min(9, rank) for rank in range(num_clients)]
    await play(store, run, 1, dict(zip(names, hits, strict=True)))
    await play(store, run, 2, dict(zip(names, reversed(hits), strict=True)))


async def test_twelve_clients_are_drawn_each(sql: SqlStore, queries: Queries) -> None:
    await play_many(sql, await running(sql), num_clients=12)
    view = await queries.curves("1", "accuracy", 500, 0)
    assert ([curve.name for curve in view.clients], view.band) == (EVERYBODY[:12], None)


async def test_more_are_drawn_as_a_band_with_its_best_and_its_worst(sql: SqlStore, queries: Queries) -> None:
    await play_many(sql, await running(sql), num_clients=13)
    view = await queries.curves("1", "accuracy", 500, 0)
    assert view.band is not None
    assert (view.band.min, view.band.max, view.band.num_clients) == ((0.0, 0.0), (0.9, 0.9), 13)
    # Model 1: c01 to c04 have 9 of 10, equal ones in name order; c13 has none.
    assert (view.band.best, view.band.worst) == ("c01", "c13")
    assert view.clients == (Curve(name="c01", values=(0.0, 0.9)), Curve(name="c13", values=(0.9, 0.0)))


async def test_the_best_has_the_lowest_where_the_goal_is_low(sql: SqlStore, queries: Queries) -> None:
    await play_many(sql, await running(sql), num_clients=13)
    view = await queries.curves("1", "loss", 500, 0)
    assert view.band is not None
    assert (view.band.best, view.band.worst) == ("c01", "c13")      # losses of model 1: 0.1 and 1.0
    assert view.band.min == (pytest.approx(0.1), pytest.approx(0.1))


async def test_the_extremes_are_of_one_pooled_model(sql: SqlStore, queries: Queries) -> None:
    run = await running(sql, rounds=4)
    await play(sql, run, 1, dict.fromkeys(EVERYBODY, 3), pooled=False)
    first = (await queries.curves("1", "accuracy", 500, 0)).band
    assert first is not None
    assert (first.min, first.max, first.best, first.worst, first.num_clients) == ((0.3,), (0.3,), None, None, 0)
    await commit(sql, run)
    await play(sql, run, 2, {"c02": 4, "c03": 6})
    await play(sql, run, 3, {"c05": 9}, pooled=False)
    view = await queries.curves("1", "accuracy", 500, 0)
    assert view.band is not None
    assert view.band.max == (0.3, 0.6, 0.9)
    assert (view.band.best, view.band.worst, view.band.num_clients) == ("c03", "c02", 2)


async def commit(store: SqlStore, run: Run) -> None:
    opened = (await store.position(run.id)).open_round
    assert opened is not None
    await store.commit_round(opened, await store.outcomes(opened), State(params=params(1.0)))


# --- long runs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("newest", "max_points", "step", "grid"), [
    (-1, 5, 1, ()),
    (0, 2, 1, (0,)),
    (4, 5, 1, (0, 1, 2, 3, 4)),
    (5, 5, 2, (0, 2, 4, 5)),
    (9, 5, 4, (0, 4, 8, 9)),                # by 2 they would be 6
    (9, 2, 16, (0, 9)),
])
def test_every_2_to_the_nth_round_is_kept_and_the_newest(newest, max_points, step, grid) -> None:
    assert thinned(newest, max_points) == (step, grid)


def test_a_long_run_keeps_its_first_and_last_round_within_the_limit() -> None:
    step, grid = thinned(10_000, 500)
    assert (step, len(grid), grid[0], grid[-1]) == (32, 314, 0, 10_000)     # 0, 32, ... 9,984, and 10,000


def test_points_of_a_growing_run_stay_on_the_grid_or_fall_away() -> None:
    for newest in range(200):
        (_, before), (step, after) = thinned(newest, 9), thinned(newest + 1, 9)
        assert set(after) - {newest + 1} <= set(before)
        assert len(after) <= 9
        assert all(number % step == 0 for number in after[:-1])


async def test_a_long_run_is_thinned_and_read_on_from_any_round(sql: SqlStore, queries: Queries) -> None:
    run = await running(sql, rounds=10)
    for number in range(1, 11):     # of model r - 1: a has r - 1 of 10 right, b 2 more, at most 10
        await play(sql, run, number, {"a": number - 1, "b": min(10, number + 1)})

    async def asked(from_round: int) -> CurvesView:
        return await queries.curves("1", "accuracy", 5, from_round)

    whole = await asked(0)
    assert (whole.step, whole.rounds) == (4, (0, 4, 8, 9))
    assert whole.pooled == (0.1, 0.5, 0.9, 0.95)    # (0 + 2) / 20, (4 + 6) / 20, (8 + 10) / 20, (9 + 10) / 20
    assert [curve.values for curve in whole.clients] == [(0.0, 0.4, 0.8, 0.9), (0.2, 0.6, 1.0, 1.0)]
    newer = await asked(5)
    assert (newer.step, newer.rounds, newer.pooled) == (4, (8, 9), (0.9, 0.95))
    assert [curve.name for curve in newer.clients] == ["a", "b"]
    assert (await asked(10)).rounds == ()


# --- several runs -----------------------------------------------------------------------------------------------


async def test_runs_lie_over_one_another_each_to_its_own_end(sql: SqlStore, queries: Queries) -> None:
    long, short = await running(sql, rounds=10), await running(sql)
    for number in range(1, 11):
        await play(sql, long, number, {"a": number - 1})
    for number in (1, 2, 3):
        await play(sql, short, number, {"a": 9 - number})
    view = await queries.pooled_curves([short, long], "accuracy", 6)
    assert (view.step, view.rounds) == (4, (0, 2, 4, 8, 9))         # 6 - 1 points for the longest; 2 is the end of #2
    assert view.series == (
        Curve(name="#2", values=(0.8, 0.6, None, None, None)), Curve(name="#1", values=(0.0, 0.2, 0.4, 0.8, 0.9)),
    )


async def test_a_run_whose_task_does_not_know_the_metric_has_no_values(sql: SqlStore, queries: Queries) -> None:
    other = await sql.create_run(config(), (Metric(name="auc", goal="none", unit="area"),))
    run = await running(sql)
    await play(sql, run, 1, {"a": 5})
    view = await queries.pooled_curves([other, run], "accuracy", 500)
    assert [curve.values for curve in view.series] == [(None,), (0.5,)]
    first = await queries.pooled_curves([other, run], None, 500)
    assert (first.name, first.goal, first.unit, first.rounds) == ("auc", "none", "area", (0,))
    assert first.names == ("accuracy", "loss")      # nobody has measured the other run
    with pytest.raises(NotFound, match="run #1, #2 has no metric 'f1'"):
        await queries.pooled_curves([other, run], "f1", 500)
