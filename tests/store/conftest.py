"""Every store that fednode ships, opened and closed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from store_scenes import AnyStore

from fednode.clock import HandClock
from fednode.store.memory import MemoryStore
from fednode.store.sql import SqlStore
from postgres_scene import Cluster, cluster


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """One PostgreSQL for all tests of a process."""
    with cluster(is_durable=False) as made:
        yield made


@pytest.fixture(scope="session")
def _database(postgres: Cluster) -> str:
    return postgres.new_database()


@pytest.fixture
def database(request: pytest.FixtureRequest) -> str:
    """The URL of a PostgreSQL database without a row."""
    postgres, url = request.getfixturevalue("postgres"), request.getfixturevalue("_database")
    postgres.empty(url)
    return str(url)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: HandClock) -> AsyncIterator[AnyStore]:
    if request.param == "memory":
        yield MemoryStore(clock)
        return
    url = request.getfixturevalue("database") if request.param == "postgres" else ""
    opened = await SqlStore.open(tmp_path, clock, url)
    yield opened
    await opened.close()


@pytest.fixture
async def sqlite(tmp_path: Path, clock: HandClock) -> AsyncIterator[SqlStore]:
    """For what only a file can do."""
    opened = await SqlStore.open(tmp_path, clock)
    yield opened
    await opened.close()


@pytest.fixture(params=["sqlite", "postgres"])
async def sql(request: pytest.FixtureRequest, tmp_path: Path, clock: HandClock) -> AsyncIterator[SqlStore]:
    url = request.getfixturevalue("database") if request.param == "postgres" else ""
    opened = await SqlStore.open(tmp_path, clock, url)
    yield opened
    await opened.close()
