"""What the pages Clients, client, Models, model, Events, Journal and Settings are told."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import update
from store_scenes import METRICS, a_round, brought, failed, model_0, play, running

from fednode.clock import HandClock
from fednode.core.records import Offer, Run
from fednode.core.status import AssignmentStatus, RoundKind, RunStatus
from fednode.errors import NotFound
from fednode.store import schema
from fednode.store.client_history import ClientHistory
from fednode.store.client_list import ClientList
from fednode.store.event_list import EventList, EventQuery, is_of
from fednode.store.journal_pages import JournalPages
from fednode.store.model_cards import ModelCards
from fednode.store.queries import Queries
from fednode.store.records import ClientRecord, Event
from fednode.store.sql import SqlStore
from fednode.store.usage import usage_of


async def join(store: SqlStore, *names: str) -> None:
    for name in names:
        offer = Offer(task="toy", fingerprint="toy@1", schema={}, metrics=METRICS)
        await store.add_client(ClientRecord(
            id=f"cli_{name}", name=name, public_key=name, secret_sha256=name, offers=(offer,), last_seen_s=5.0
        ))


async def trained(store: SqlStore, clock: HandClock, rounds: int = 2, start_model: str = "") -> Run:
    """A run of a and b; the clock moves, so that ids of models do too. a is right 5 times of 10, b 10."""
    run = await running(store, rounds=rounds, start_model=start_model)
    if not start_model:
        await model_0(store, run)
    for number in range(1, rounds + 1):
        await clock.advance(1.0)
        await play(store, run, number, {"a": 5, "b": 10})
    await clock.advance(1.0)
    return run


# --- clients ------------------------------------------------------------------------------------------------------


async def test_clients_are_listed_without_their_offers_which_are_read_of_those_asked_for(sql: SqlStore) -> None:
    await join(sql, "b", "a")
    await sql.revoke_client("b")
    reader = ClientList(sql)
    assert [(one.name, one.is_revoked, one.last_seen_s) for one in await reader.all()] == [
        ("a", False, 5.0), ("b", True, 5.0)
    ]
    records = await reader.records(["b", "nobody"])
    assert [offer.task for offer in records["b"].offers] == ["toy"]
    assert list(records) == ["b"]


async def test_updates_are_counted_by_client(sql: SqlStore, clock: HandClock) -> None:
    await trained(sql, clock)
    reader = ClientList(sql)
    assert await reader.num_updates() == {"a": 3, "b": 2}           # a made the initial params, too
    assert await reader.num_updates(["b", "c"]) == {"b": 2}


async def test_a_clients_work_comes_newest_first_with_its_run_and_its_end(sql: SqlStore, clock: HandClock) -> None:
    run = await running(sql)
    base = await model_0(sql, run)
    opened = await sql.open_round(a_round(run, 1, "a", "b", base=base))
    for assignment in await sql.assignments(opened):
        await sql.mark_leased(assignment)
    await clock.advance(3.0)
    await sql.report(opened, brought("a", 1.0, num_examples=7))
    await sql.report(opened, failed("b", reason="no data"))
    newest, first = await ClientHistory(sql).works("a")
    assert (newest.run_number, newest.task, newest.number, newest.kind) == (run.number, "toy", 1, RoundKind.TRAIN)
    assert (newest.status, newest.num_examples, newest.took_s, newest.failure) == (
        AssignmentStatus.REPORTED, 7, 3.0, None
    )
    assert (first.kind, first.took_s) == (RoundKind.INIT, None)     # nobody noted when it was leased
    [of_b] = await ClientHistory(sql).works("b")
    assert of_b.failure is not None
    assert (of_b.failure.reason, of_b.num_bytes) == ("no data", None)
    assert await ClientHistory(sql).works("a", limit=1) == [newest]
    assert await ClientHistory(sql).works("nobody") == []


async def test_what_a_client_measured_is_told_by_model_newest_first(sql: SqlStore, clock: HandClock) -> None:
    run = await trained(sql, clock)
    first_two = await ClientHistory(sql).measured("a", run.id)
    assert [(one.model_round, one.values) for one in first_two] == [
        (1, {"accuracy": 0.5, "loss": 0.5}), (0, {"accuracy": 0.5, "loss": 0.5})
    ]
    assert [one.model_round for one in await ClientHistory(sql).measured("a", run.id, limit=1)] == [1]


# --- models -------------------------------------------------------------------------------------------------------


async def test_models_come_a_page_at_a_time_newest_first(sql: SqlStore, clock: HandClock) -> None:
    first, second = await trained(sql, clock), await trained(sql, clock)
    cards = ModelCards(sql, Queries(sql, clock))
    places = [(model.run_number, model.round) for model in await cards.page(None, limit=4)]
    assert places == [(2, 2), (2, 1), (2, 0), (1, 2)]
    assert [(m.run_number, m.round) for m in await cards.page(None, limit=4, offset=4)] == [(1, 1), (1, 0)]
    assert [model.round for model in await cards.page(first.id, limit=2)] == [2, 1]
    assert (await cards.count(None), await cards.count(second.id)) == (6, 3)
    newest, measured_one = await cards.page(second.id, limit=2)
    # accuracy of model 1: (5 + 10) of (10 + 10); of model 2 nobody measured anything
    assert (newest.metrics, measured_one.metrics["accuracy"]) == ({}, 0.75)


async def test_a_models_card_tells_who_made_it_of_what(sql: SqlStore, clock: HandClock) -> None:
    run = await trained(sql, clock)
    cards = ModelCards(sql, Queries(sql, clock))
    newest = (await cards.page(run.id, limit=1))[0]
    card = await cards.card(newest.sha256)
    assert [model.round for model in card.lineage] == [1, 0]
    assert (card.is_whole, card.run.id) == (True, run.id)
    assert [(one.client, one.num_examples, one.environment) for one in card.contributions] == [
        ("a", 200, {"threads": 1}), ("b", 200, {"threads": 1})
    ]
    with pytest.raises(NotFound):
        await cards.card("nothing")


async def test_lineage_goes_on_where_a_run_began_with_a_model_and_ends_after_twenty(
    sql: SqlStore, clock: HandClock
) -> None:
    first = await trained(sql, clock, rounds=3)
    cards = ModelCards(sql, Queries(sql, clock))
    start = (await cards.page(first.id, limit=1))[0]
    second = await trained(sql, clock, rounds=19, start_model=start.sha256)
    by_round = {model.round: model for model in await cards.page(second.id, limit=50)}
    card = await cards.card(by_round[2].id)
    places = [(model.run_number, model.round) for model in card.lineage]
    assert places == [(2, 1), (2, 0), (1, 3), (1, 2), (1, 1), (1, 0)]
    assert card.is_whole
    long = await cards.card(by_round[19].id)
    assert (len(long.lineage), long.lineage[-1].run_number, long.is_whole) == (20, 1, False)


# --- events -------------------------------------------------------------------------------------------------------


async def test_events_are_narrowed_by_kind_run_and_client_and_paged_by_seq(sql: SqlStore, clock: HandClock) -> None:
    await join(sql, "a", "a-b")
    run = await trained(sql, clock, rounds=1)
    reader = EventList(sql)
    queries = {
        "kind": EventQuery(whats=("client joined",)), "run": EventQuery(run_id=run.id),
        "client": EventQuery(client="a-b"),
    }
    found = {name: await reader.newest(query, 100) for name, query in queries.items()}
    assert [one.event.fields for one in found["kind"]] == [{"client": "a-b"}, {"client": "a"}]
    assert {one.run_number for one in found["run"]} == {run.number}
    assert [one.event.what for one in found["client"]] == ["client joined"]     # and none that names "a" alone
    everything = await reader.newest(EventQuery(), 100)
    for name, query in queries.items():
        assert [one for one in everything if is_of(one.event, query)] == found[name]
    older = await reader.newest(EventQuery(before=everything[1].event.seq), 2)
    assert older == everything[2:4]


async def test_who_is_away_is_known_from_the_events_of_going_and_coming(sql: SqlStore, clock: HandClock) -> None:
    await sql.record_event("client gone", {"clients": ["a", "b"], "reason": "unheard of for 60 s"})
    await clock.advance(5.0)
    await sql.record_event("client back", {"clients": ["a"], "away_s": 5.0})
    assert list(await EventList(sql).away()) == ["b"]


def test_an_event_of_no_kind_that_is_asked_for_is_none_of_them() -> None:
    event = Event(seq=1, wall_s=0.0, what="round opened", run_id="run_1", fields={"cohort": ["a"]})
    assert is_of(event, EventQuery(client="a"))
    assert not is_of(event, EventQuery(client="a", whats=("client joined",)))
    assert not is_of(event, EventQuery(run_id="run_2"))


# --- journal, usage -----------------------------------------------------------------------------------------------


async def test_a_journal_is_read_in_pages_and_checked_whole(sql: SqlStore, clock: HandClock, tmp_path: Path) -> None:
    run = await trained(sql, clock)
    pages, rows = JournalPages(sql), await Queries(sql, clock).journal(run.id)
    page = await pages.page(run.id, first=3, limit=2)
    assert (list(page.rows), page.num_rows, page.head) == (rows[2:4], len(rows), rows[-1].hash)
    assert await pages.damage(run.id) == ""
    entry = schema.journal.c.seq == 2
    await sql._writer.write(lambda c: c.execute(update(schema.journal).where(entry).values(entry='{"what":"ended"}')))
    assert "row 2 of the journal" in await pages.damage(run.id)


async def test_a_run_that_decided_nothing_has_an_empty_page(sql: SqlStore, clock: HandClock) -> None:
    page = await JournalPages(sql).page("run_none", first=1, limit=5)
    assert (page.rows, page.num_rows, page.head) == ((), 0, "")


async def test_usage_counts_rows_and_bytes(sql: SqlStore, clock: HandClock, tmp_path: Path) -> None:
    run = await trained(sql, clock, rounds=1)
    await sql.end_run(run.id, RunStatus.COMPLETED)
    usage = await usage_of(sql, tmp_path)
    assert (usage.rows["runs"], usage.rows["rounds"], usage.rows["models"], usage.rows["clients"]) == (1, 2, 2, 0)
    on_disk = sum(path.stat().st_size for path in (tmp_path / "params").rglob("*") if path.is_file())
    assert usage.params_bytes == on_disk > 0
    assert usage.database_bytes > 0
    assert usage.free_bytes > 0
    assert usage.revision
