"""What pages, API and CLI are told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from store_scenes import METRICS, a_round, brought, config, failed, gone, measured, model_0, params, running

from fednode.clock import HandClock
from fednode.core.records import Offer, Run, State
from fednode.core.status import AssignmentStatus, RoundKind, RoundStatus, RunStatus
from fednode.errors import NameTaken, NotAuthorised, NotFound
from fednode.store.history import History
from fednode.store.queries import Queries
from fednode.store.records import ClientRecord
from fednode.store.sql import SqlStore


@pytest.fixture
async def queries(sql: SqlStore, clock: HandClock) -> AsyncIterator[Queries]:
    yield Queries(sql, clock)


async def train(store: SqlStore, run: Run, number: int) -> str:
    """One round of a and b, a right 1 time of 2 and b 2 of 2; the sha256 of its model."""
    checkpoint = (await store.position(run.id)).checkpoint
    assert checkpoint is not None
    opened = await store.open_round(a_round(run, number, base=checkpoint.model_sha256))
    for outcome in (
        brought("a", 1.0, evaluation=measured(1, 2, 0.5)), brought("b", 1.0, evaluation=measured(2, 2, 0.5)),
    ):
        await store.report(opened, outcome)
    await store.commit_round(opened, await store.outcomes(opened), State(params=params(float(number))))
    made = (await store.position(run.id)).checkpoint
    assert made is not None
    return made.model_sha256


async def test_a_run_at_a_glance(sql: SqlStore, queries: Queries, clock: HandClock) -> None:
    run = await running(sql)
    await clock.advance(30.0)
    view = await queries.run_summary("1")
    assert (view.rounds, view.metrics, view.metrics_round, view.model_sha256) == (0, {}, None, None)
    await model_0(sql, run)
    sha256 = await train(sql, run, 1)
    view = await queries.run_summary("1")
    # accuracy of model 0: (1 + 2) of (2 + 2)
    assert (view.rounds, view.metrics_round, view.model_sha256) == (1, 0, sha256)
    assert view.metrics == {"accuracy": 0.75, "loss": 0.5}
    assert (view.clients, view.seconds, view.ended_s) == (("a", "b"), 30.0, None)


async def test_a_runs_seconds_end_with_it(sql: SqlStore, queries: Queries, clock: HandClock) -> None:
    run = await sql.create_run(config(), METRICS)
    await clock.advance(100.0)
    assert (await queries.run_summary(run.id)).seconds == 0.0       # not started yet
    await sql.move_run(run.id, RunStatus.RUNNING)
    await clock.advance(5.0)
    await sql.move_run(run.id, RunStatus.CANCELLED)
    await clock.advance(100.0)
    assert (await queries.run_summary(run.id)).seconds == 5.0


async def test_runs_come_newest_first(sql: SqlStore, queries: Queries) -> None:
    made = [await sql.create_run(config(), METRICS) for _ in range(3)]
    assert [view.run.id for view in await queries.run_summaries()] == [run.id for run in reversed(made)]


async def test_a_run_is_found_by_number_id_and_unique_prefix(sql: SqlStore, queries: Queries) -> None:
    run = await running(sql)
    for ref in ("1", "#1", run.id, run.id[:-1]):
        assert (await queries.resolve_run(ref)).id == run.id
    await sql.create_run(config(), METRICS)
    for ref in ("3", "#0", "run_zzz", "", "run%", "9" * 40):
        with pytest.raises(NotFound, match="no run"):
            await queries.resolve_run(ref)
    with pytest.raises(NotFound, match="begins 2 runs"):
        await queries.resolve_run("run_")


async def test_rounds_tell_who_brought_what(sql: SqlStore, queries: Queries) -> None:
    run = await running(sql)
    base = await model_0(sql, run)
    opened = await sql.open_round(a_round(run, 1, "a", "b", "c", base=base))
    await sql.report(opened, brought("b", 1.0, num_examples=12))
    await sql.report(opened, failed("c"))
    await sql.close_round(opened, (gone("a"), *await sql.outcomes(opened)))
    newest, first = await History(sql).rounds(run.id)
    assert (newest.round.number, newest.round.status, newest.model_sha256) == (1, RoundStatus.CLOSED, None)
    assert [(c.client, c.status, c.num_examples) for c in newest.clients] == [
        ("a", AssignmentStatus.FAILED, None), ("b", AssignmentStatus.REPORTED, 12), ("c", AssignmentStatus.FAILED, None)
    ]
    assert newest.clients[0].failure == gone("a").failure
    assert (first.round.kind, first.model_sha256) == (RoundKind.INIT, base)
    listed = await History(sql).rows(run.id, before=None, limit=5)
    assert [(row.round.number, row.num_updates, row.num_clients) for row in listed] == [(1, 1, 3), (0, 1, 1)]


async def test_a_rounds_metrics_are_those_of_the_model_that_it_made(sql: SqlStore, queries: Queries) -> None:
    run = await running(sql)
    await model_0(sql, run)
    await train(sql, run, 1)
    second, first = await History(sql).rounds(run.id)
    assert second.metrics == {}                     # model 1 is measured in round 2
    assert first.metrics == {"accuracy": 0.75, "loss": 0.5}


async def test_rounds_come_a_page_at_a_time_with_the_times_of_each_step(
    sql: SqlStore, clock: HandClock
) -> None:
    run = await running(sql)
    base = await model_0(sql, run)
    opened = await sql.open_round(a_round(run, 1, "a", "b", base=base))
    await clock.advance(2.0)
    for assignment in await sql.assignments(opened):
        await sql.mark_leased(assignment)
    await clock.advance(3.0)
    await sql.report(opened, brought("a", 1.0))
    history = History(sql)
    newest = await history.newest(run.id)
    assert newest is not None
    a, b = newest.clients
    assert (a.leased_s, a.received_s) == (newest.opened_s + 2.0, newest.opened_s + 5.0)
    assert (b.leased_s, b.received_s) == (newest.opened_s + 2.0, None)
    assert [view.round.number for view in await history.rounds(run.id, before=1)] == [0]
    assert (await history.round(run.id, 7)) is None


async def test_failures_come_newest_first_with_their_place(sql: SqlStore, queries: Queries) -> None:
    run = await running(sql)
    base = await model_0(sql, run)
    opened = await sql.open_round(a_round(run, 1, "a", "b", base=base))
    await sql.report(opened, failed("b"))
    found = await History(sql).failures(run.id)
    assert [(view.number, view.attempt, view.failure) for view in found] == [(1, 1, failed("b").failure)]


async def test_metric_points_are_pooled_and_per_client_and_local(sql: SqlStore, queries: Queries) -> None:
    run = await running(sql)
    await model_0(sql, run)
    await train(sql, run, 1)
    opened = await sql.round(run.id, 1, 1)
    for value in (0.9, 0.8):                        # the same epoch twice: the first one stays
        sql.report_progress(opened, "a", 1, {"loss": value})
    await sql.set_reason(run.id, "")                # what was queued before is written now
    points = await queries.metric_points(run.id, name="accuracy")
    assert [(p.client, p.value, p.num_clients, p.num_examples) for p in points] == [
        ("", 0.75, 2, 4), ("a", 0.5, 1, 2), ("b", 1.0, 1, 2)
    ]
    (local,) = await queries.metric_points(run.id, phase="local")
    assert (local.model_round, local.client, local.step, local.name, local.value) == (1, "a", 1, "loss", 0.9)
    assert await queries.metric_points(run.id, client="", from_round=1) == []


async def test_models_are_found_by_id_and_hash(sql: SqlStore, queries: Queries) -> None:
    run = await running(sql)
    base = await model_0(sql, run)
    sha256 = await train(sql, run, 1)
    newest, first = await queries.models()
    assert (newest.sha256, newest.parent, newest.round, newest.run_number) == (sha256, base, 1, 1)
    assert (first.sha256, first.parent, first.num_params) == (base, "", 2)
    assert first.metrics == {"accuracy": 0.75, "loss": 0.5}
    for ref in (newest.id, newest.sha256, newest.sha256[:12]):
        assert (await queries.model(ref)).id == newest.id
    with pytest.raises(NotFound, match="no model"):
        await queries.model("nope")
    with pytest.raises(NotFound, match="begins 2 models"):
        await queries.model("mdl_")


async def test_a_model_that_two_runs_share_is_one(sql: SqlStore, queries: Queries) -> None:
    sha256 = await model_0(sql, await running(sql), 1.0)
    await running(sql, start_model=sha256)
    assert len(await queries.models()) == 2
    assert (await queries.model(sha256[:10])).sha256 == sha256


async def test_events_can_be_read_on_from_any_point(sql: SqlStore, queries: Queries) -> None:
    run = await running(sql)
    await sql.record_event("client gone", {"client": "a"})
    events = await queries.events()
    assert [event.seq for event in events] == [1, 2, 3]
    assert [event.what for event in await queries.events(after=1, limit=1)] == ["run started"]
    assert [event.what for event in await queries.events(run_id=run.id)] == ["run created", "run started"]
    assert [event.seq for event in await queries.newest_events(limit=2)] == [3, 2]


# --- client nodes -------------------------------------------------------------------------------------------------

OFFER = Offer(task="toy", fingerprint="toy@1", schema={"type": "object"}, metrics=METRICS, supports=("proximal",))


def record(name: str, *, key: str = "k1", secret: str = "s1") -> ClientRecord:
    return ClientRecord(id=f"cli_{name}", name=name, public_key=key, secret_sha256=secret, joined_s=1.0)


async def test_a_client_that_joined_is_known_by_its_secret(sql: SqlStore) -> None:
    await sql.add_client(record("a"))
    assert (await sql.client("a")).name == "a"
    found = await sql.client_by_secret("s1")
    assert found is not None
    assert found.name == "a"
    assert await sql.client_by_secret("other") is None
    with pytest.raises(NotFound):
        await sql.client("b")


async def test_a_name_belongs_to_the_key_that_took_it(sql: SqlStore) -> None:
    first = await sql.add_client(record("a"))
    again = await sql.add_client(replace(record("a", secret="s2"), id="cli_other"))
    assert (again.id, again.secret_sha256) == (first.id, "s2")
    assert await sql.client_by_secret("s1") is None
    with pytest.raises(NameTaken):
        await sql.add_client(record("a", key="k2", secret="s3"))


async def test_a_revoked_client_stays_out(sql: SqlStore) -> None:
    await sql.add_client(record("a"))
    await sql.revoke_client("a")
    assert (await sql.client("a")).is_revoked
    with pytest.raises(NotAuthorised):
        await sql.add_client(record("a", secret="s2"))


async def test_presence_and_last_seen_survive(sqlite: SqlStore, tmp_path: Path) -> None:
    await sqlite.add_client(record("b", secret="sb"))
    await sqlite.add_client(record("a", secret="sa"))
    await sqlite.set_presence("a", (OFFER,), {"fednode": "1.0"})
    await sqlite.touch({"a": 77.0, "b": 88.0, "nobody": 99.0})
    await sqlite.rotate_secret("b", "new")
    await sqlite.close()
    store = await SqlStore.open(tmp_path, HandClock())
    a, b = await store.clients()
    await store.close()
    assert (a.offers, a.versions, a.last_seen_s) == ((OFFER,), {"fednode": "1.0"}, 77.0)
    assert (b.name, b.last_seen_s, b.secret_sha256) == ("b", 88.0, "new")
