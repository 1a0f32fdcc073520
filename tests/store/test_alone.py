"""The federated model against each client's own local-only run."""

from __future__ import annotations

from typing import Any

import pytest
from store_scenes import play, running

from fednode.clock import HandClock
from fednode.core.records import Run
from fednode.store.alone import AloneScore, Mean
from fednode.store.queries import Queries
from fednode.store.sql import SqlStore


@pytest.fixture
def sql(sqlite: SqlStore) -> SqlStore:
    """Its questions are those of `test_curves.py`, which asks every database."""
    return sqlite


@pytest.fixture
def queries(sql: SqlStore, clock: HandClock) -> Queries:
    return Queries(sql, clock)


async def federated(store: SqlStore) -> Run:
    """Run #1: model 1 is right 8 times of 10 on a's test data, 6 on b's."""
    run = await running(store, clients=("a", "b"))
    await play(store, run, 1, {"a": 1, "b": 1})
    await play(store, run, 2, {"a": 8, "b": 6})
    return run


async def alone(store: SqlStore, client: str, correct: int, *, out_of: int = 10, **changes: Any) -> Run:
    """A run of this client only, whose model 1 is right so many times."""
    run = await running(store, **({"clients": (client,)} | changes))
    await play(store, run, 1, {client: 0}, out_of=out_of)
    await play(store, run, 2, {client: correct}, out_of=out_of)
    return run


async def test_each_client_is_beside_its_own_local_only_run(sql: SqlStore, queries: Queries) -> None:
    run = await federated(sql)
    await alone(sql, "b", 7)
    await alone(sql, "a", 5)
    table = await queries.alone(run)
    assert table is not None
    assert (table.run, table.rounds, table.name, table.goal, table.num_clients) == (1, 1, "accuracy", "max", 2)
    a, b = table.clients
    assert a == AloneScore(                         # 100 examples: what a brought in round 1
        client="a", run=3, rounds=1, federated=0.8, alone=0.5, difference=pytest.approx(0.3), num_test_examples=10,
        num_examples=100,
    )
    assert (b.client, b.run, b.federated, b.alone, b.difference) == ("b", 2, 0.6, 0.7, pytest.approx(-0.1))
    # (0.8 + 0.6) / 2, (0.5 + 0.7) / 2, (0.3 - 0.1) / 2
    assert table.mean == Mean(federated=pytest.approx(0.7), alone=pytest.approx(0.6), difference=pytest.approx(0.1))


async def test_a_client_that_did_not_train_alone_has_no_row(sql: SqlStore, queries: Queries) -> None:
    run = await federated(sql)
    assert await queries.alone(run) is None
    await alone(sql, "b", 7)
    await alone(sql, "c", 9)                        # no member
    table = await queries.alone(run)
    assert table is not None
    assert ([row.client for row in table.clients], table.num_clients) == (["b"], 2)
    assert table.mean == Mean(federated=0.6, alone=0.7, difference=pytest.approx(-0.1))


@pytest.mark.parametrize("changes", [
    {"task_config": {"epochs": 2}}, {"fingerprint": "toy@2"}, {"clients": ("a", "b")}, {"out_of": 20},
], ids=["another config", "another task", "not alone", "other test data"])
async def test_what_is_not_the_same_but_for_the_roster_is_left_out(sql: SqlStore, queries: Queries, changes) -> None:
    run = await federated(sql)
    await alone(sql, "a", 5, **changes)
    assert await queries.alone(run) is None


async def test_a_run_that_started_from_the_federated_model_was_not_alone(sql: SqlStore, queries: Queries) -> None:
    run = await federated(sql)
    checkpoint = (await sql.position(run.id)).checkpoint
    assert checkpoint is not None
    await alone(sql, "a", 9, start_model=checkpoint.model_sha256)
    assert await queries.alone(run) is None


async def test_a_local_only_run_has_no_such_table(sql: SqlStore, queries: Queries) -> None:
    await federated(sql)
    local = await alone(sql, "a", 5)
    await alone(sql, "a", 6)
    assert await queries.alone(local) is None


async def test_before_a_trained_model_is_scored_there_is_nothing_to_compare(sql: SqlStore, queries: Queries) -> None:
    run = await running(sql)
    assert await queries.alone(run) is None
    await play(sql, run, 1, {"a": 1, "b": 1})       # model 0: nobody has trained it
    await alone(sql, "a", 5)
    assert await queries.alone(run) is None
    await play(sql, run, 2, {"a": 8, "b": 6}, pooled=False)
    assert await queries.alone(run) is None


async def test_a_local_only_run_that_has_only_begun_is_left_out(sql: SqlStore, queries: Queries) -> None:
    run = await federated(sql)
    await play(sql, await running(sql, clients=("b",)), 1, {"b": 1})
    assert await queries.alone(run) is None


async def test_of_several_the_named_one_counts_then_the_likest_then_the_newest(sql: SqlStore, queries: Queries) -> None:
    run = await federated(sql)
    like = await alone(sql, "a", 1)
    await alone(sql, "a", 2, seed=8)
    longer = await alone(sql, "a", 3, rounds=9)
    assert await chosen(queries, run) == like.number
    newer = await alone(sql, "a", 4)
    assert await chosen(queries, run) == newer.number
    assert await chosen(queries, run, longer.id) == longer.number


async def chosen(queries: Queries, run: Run, *preferred: str) -> int:
    table = await queries.alone(run, preferred)
    assert table is not None
    (row,) = table.clients
    return row.run
