"""All numbers of a run, page by page: each once, in order, whatever is added meanwhile."""

from __future__ import annotations

from store_scenes import a_round, config, play, running

from fednode.clock import HandClock
from fednode.core.metrics import Histogram, Metric, Metrics
from fednode.core.records import Run
from fednode.core.status import RunStatus
from fednode.store.metric_rows import MetricRow, MetricRows
from fednode.store.sql import SqlStore


async def rows_of(sql: SqlStore, run: Run, **asked: int) -> list[MetricRow]:
    return [row async for page in MetricRows(sql).pages(run.id, **asked) for row in page]


async def test_each_number_comes_once_and_in_order_however_long_a_page_is(sql: SqlStore) -> None:
    run = await running(sql)
    await play(sql, run, 1, {"a": 1, "b": 3})
    await play(sql, run, 2, {"a": 5, "b": 9})
    await play(sql, await running(sql), 1, {"c": 1})        # another run's
    found = await rows_of(sql, run)
    assert [(row.model_round, row.client, row.name) for row in found] == [
        (model, client, name) for model in (0, 1) for client in ("", "a", "b") for name in ("accuracy", "loss")
    ]
    # Right of 10: a 1 and 5, b 3 and 9; pooled (1 + 3) / 20 and (5 + 9) / 20.
    assert [row.value for row in found if row.name == "accuracy"] == [0.2, 0.1, 0.3, 0.7, 0.5, 0.9]
    for page_rows in (1, 5, 12, 13):
        pages = [page async for page in MetricRows(sql).pages(run.id, page_rows=page_rows)]
        assert [len(page) <= page_rows for page in pages] == [True] * len(pages)
        assert [row for page in pages for row in page] == found
    assert await rows_of(sql, run, from_round=1) == found[6:]


async def test_a_row_says_when_its_model_was_committed(sql: SqlStore, clock: HandClock) -> None:
    run = await running(sql)
    await play(sql, run, 1, {"a": 1})
    first_s = clock.wall_s()
    await clock.advance(60)
    await play(sql, run, 2, {"a": 2})
    await play(sql, run, 3, {"a": 3}, pooled=False)          # the round is still open: no model 3
    sql.report_progress(a_round(run, 3, "a"), "a", 1, {"loss": 0.5})
    await sql.record_event("afterwards", {})                 # what was written before is there
    found = {(row.model_round, row.phase): row.committed_s for row in await rows_of(sql, run)}
    assert found == {
        (0, "test"): first_s, (1, "test"): first_s, (2, "test"): first_s + 60, (3, "local"): None,
    }


async def test_rows_that_come_while_somebody_reads_are_read_once_or_not(sql: SqlStore) -> None:
    run = await running(sql)
    await play(sql, run, 1, {"a": 1, "b": 3})
    seen: list[MetricRow] = []
    async for page in MetricRows(sql).pages(run.id, page_rows=2):
        if not seen:
            await play(sql, run, 2, {"a": 5, "b": 9})
        seen += page
    assert seen == await rows_of(sql, run)


async def test_a_curve_has_no_row(sql: SqlStore) -> None:
    declared = (Metric(name="auc", combine="auc", of="scores"), Metric(name="roc", combine="roc", of="scores"))
    run = await sql.move_run((await sql.create_run(config(), declared)).id, RunStatus.RUNNING)
    await play(sql, run, 1, {"a": 1})
    opened = await sql.open_round(a_round(run, 2, "a"))
    counts = Metrics(values={"scores": Histogram([[3, 1], [1, 3]])}, num_examples={"test": 8})
    await sql.report_evaluation(opened, "a", counts)
    assert [row.name for row in await rows_of(sql, run)] == ["auc"]
