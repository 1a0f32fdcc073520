"""Who stands apart, on the page of a run in a real browser: said in words, with the numbers beside each client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from page_scene import PageAt, assert_accessible
from playwright.sync_api import Page, expect

from federation_scene import Federation
from fednode.clock import SystemClock
from fednode.core.params import Params
from fednode.core.records import Outcome, Round, Run, RunConfig, Update
from fednode.core.status import RoundKind, RunStatus
from fednode.rounds import run_rounds
from fednode.store.sql import SqlStore
from fednode.strategies.fedavg import FedAvg

STEPS = {"clinic": 1.0, "hospital-1": 1.0, "hospital-2": 2.0, "intruder": -8.0}


class Steppers:
    """`ports.Fleet`: everybody is there and adds its step."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def gather(self, run: Run, num_needed: int, attempt: int) -> tuple[str, ...]:
        return tuple(STEPS)

    async def dispatch(self, run: Run, round_: Round) -> AsyncIterator[Outcome]:
        checkpoint = (await self._store.position(run.id)).checkpoint
        start = checkpoint.state.params if checkpoint else Params({"w": np.zeros(4, "float32")})
        for client in round_.cohort:
            moved = start + STEPS[client] if round_.kind is RoundKind.TRAIN else start
            update = Update(client=client, params=moved, num_examples=10)
            outcome = Outcome(client=client, update=None if round_.kind is RoundKind.EVALUATE else update)
            await self._store.report(round_, outcome)
            yield outcome


async def _play(state_dir: Path) -> None:
    store = await SqlStore.open(state_dir, SystemClock())
    config = RunConfig(
        task="toy", fingerprint="toy@1", task_config={}, strategy="fedavg", strategy_config={}, rounds=2,
        min_updates=4, cohort_fraction=1.0, deadline_s=600.0, seed=7,
    )
    run = await store.create_run(config, ())
    await run_rounds(await store.move_run(run.id, RunStatus.RUNNING), FedAvg(), Steppers(store), store)
    await store.close()


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """A central node with a run of two rounds in which one client of four turned its change."""
    fed = Federation(tmp_path_factory.mktemp("federation"))
    with ThreadPoolExecutor(1) as pool:                 # the browser of these tests has this thread's event loop
        pool.submit(asyncio.run, _play(fed.folder / "central")).result()
    fed.start_central()
    yield fed
    fed.stop_all()


def cells(page: Page, client: str) -> list[str]:
    row = page.locator("#run-round tbody tr").filter(has=page.get_by_role("link", name=client, exact=True))
    return [cell.inner_text().strip() for cell in row.locator("td").all()]


def test_the_page_says_who_stands_apart_and_how(fed: Federation, page: Page) -> None:
    page.goto(f"{fed.url}/runs/1")
    expect(page.locator("#apart")).to_have_text(
        "intruder stands apart in round 2: its change is 5.33 times as long as the median "
        "and leads away from the mean (cosine -1.00)."
    )
    found = [cells(page, client) for client in ("intruder", "hospital-2")]
    assert [(row[0], *row[5:7]) for row in found] == [("intruder apart", "16", "-1.00"), ("hospital-2", "4", "1.00")]
    page.locator("#rounds").get_by_role("link", name="1", exact=True).click()
    expect(page.locator("#apart")).to_contain_text("intruder stands apart in round 1")
    expect(page.get_by_role("columnheader", name="Change", exact=True)).to_be_visible()
    page.locator("#rounds").get_by_role("link", name="0", exact=True).click()
    expect(page.get_by_text("in round 0")).to_be_visible()
    expect(page.locator("#apart")).to_have_count(0)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_it_is_accessible(fed: Federation, page_at: PageAt, width: int, scheme: str) -> None:
    page = page_at(width, scheme)
    page.goto(f"{fed.url}/runs/1")
    expect(page.locator("#apart")).to_be_visible()
    assert_accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
