"""Every store that fednode ships, opened and closed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from store_scenes import AnyStore

from fednode.clock import HandClock
from fednode.store.memory import MemoryStore
from fednode.store.sql import SqlStore


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(params=["memory", "sql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: HandClock) -> AsyncIterator[AnyStore]:
    if request.param == "memory":
        yield MemoryStore(clock)
        return
    opened = await SqlStore.open(tmp_path, clock)
    yield opened
    await opened.close()


@pytest.fixture
async def sql(tmp_path: Path, clock: HandClock) -> AsyncIterator[SqlStore]:
    opened = await SqlStore.open(tmp_path, clock)
    yield opened
    await opened.close()
