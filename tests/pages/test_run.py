"""The page of a run in a real browser: it is watched, never reloaded, whatever happens to the federation behind it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from page_scene import PageAt, assert_accessible
from playwright.sync_api import Page, expect

from federation_scene import Federation

FAILING_TASK = '''
import numpy as np
from fednode import Params, Task, TrainConfig

class Broken(Task):
    """Fails, with markup in its words."""

    name = "broken"
    Config = TrainConfig

    def initial_params(self, seed):
        return Params({"w": np.zeros(1, np.float32)})

    def train(self, params, visit):
        raise RuntimeError("<img src=x onerror=alert(1)> the <b>disk</b> is on fire")

    def evaluate(self, params, visit):
        from fednode import Metrics
        return Metrics(values={}, num_examples={"test": 1})

    def check(self, site):
        return {}
'''


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Two clients that can train and fail; tests kill what they like and start it again."""
    fed = Federation(tmp_path_factory.mktemp("federation"))
    (fed.folder / "broken.py").write_text(FAILING_TASK)
    fed.start_central()
    for number in (1, 2):
        name = f"hospital-{number}"
        task_args = ("--task", "mnist_3v7", "--task", f"{fed.folder / 'broken.py'}:Broken")
        fed.start_client(name, *task_args, "--offline-sample", "--partition", f"{number}/2")
    fed.wait_for_clients("hospital-1", "hospital-2")
    yield fed
    fed.stop_all()


def start(fed: Federation, task: str = "mnist_3v7", *args: str) -> int:
    run_id = fed.run_in_background(task, *args)
    return int(fed.get(f"runs/{run_id}")["number"])


def mark(page: Page) -> None:
    """A page that is loaded anew has lost it."""
    page.evaluate("window.isTheSamePage = true")


def assert_untouched(page: Page) -> None:
    assert page.evaluate("window.isTheSamePage") is True


def test_scores_rounds_and_the_end_come_to_an_open_page(fed: Federation, page: Page) -> None:
    number = start(fed, "mnist_3v7", "--rounds", "30", "--epochs", "20")
    page.goto(f"{fed.url}/runs/{number}")
    mark(page)
    curves = page.get_by_role("img", name="accuracy over")
    expect(curves).to_be_visible()
    first = curves.get_attribute("aria-label")
    expect(curves).not_to_have_attribute("aria-label", first or "")
    assert "hospital-1" in (first or "")
    expect(page.locator("#clients svg rect.train").first).to_be_visible()
    expect(page.locator("h1 .status")).to_have_text("completed", timeout=90_000)
    expect(page.locator("#rounds tr")).to_have_count(25)                # the newest; the others are a page away
    expect(page.locator("#round-30-1")).to_contain_text("2 of 2")
    expect(curves).to_have_attribute("aria-label", f"accuracy over 31 rounds. Last: {last_scores(fed, number)}")
    assert_untouched(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the params").click()
    assert download.value.path().stat().st_size > 3_000


def last_scores(fed: Federation, number: int) -> str:
    found = fed.get(f"runs/{number}/curves?name=accuracy")
    rows = [("global model", found["pooled"]), *((one["name"], one["values"]) for one in found["clients"])]
    return ", ".join(f"{name} {values[-1]:.4f}" for name, values in rows)


def test_older_rounds_are_a_page_away_and_each_has_its_timeline(fed: Federation, page: Page) -> None:
    number = start(fed, "mnist_3v7", "--rounds", "30", "--epochs", "1")
    fed.end_of(f"{number}")
    page.goto(f"{fed.url}/runs/{number}")
    page.get_by_role("link", name="Older").click()
    expect(page.locator("#rounds tr").first.get_by_role("link")).to_have_text("6")      # 7 to 31 were on the first page
    page.locator("#rounds").get_by_role("link", name="2", exact=True).click()
    expect(page.get_by_text("in round 2")).to_be_visible()
    assert "evaluated and trained" in (page.locator("#clients svg").first.get_attribute("aria-label") or "")


def test_a_failure_is_there_within_seconds_with_its_traceback_as_text(fed: Federation, page: Page) -> None:
    page.goto(f"{fed.url}/runs/{start(fed, 'broken', '--rounds', '1')}")
    mark(page)
    failures = page.locator("#run-failures details")
    expect(failures).to_have_count(2, timeout=15_000)
    expect(failures.first).to_contain_text("hospital-1, round 1: task_error")
    failures.first.locator("summary").click()
    expect(failures.first.locator("pre")).to_contain_text("raise RuntimeError")
    expect(failures.first).to_contain_text("<img src=x onerror=alert(1)> the <b>disk</b> is on fire")
    assert page.locator("main img, main b").count() == 0
    assert_untouched(page)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the run").click()
    expect(page.locator("h1 .status")).to_have_text("cancelled")


def test_the_page_says_that_the_central_node_is_gone_and_goes_on_when_it_is_back(fed: Federation, page: Page) -> None:
    number = start(fed, "mnist_3v7", "--rounds", "400", "--epochs", "5")
    page.goto(f"{fed.url}/runs/{number}")
    mark(page)
    banner = page.get_by_text("The central node does not answer.")
    expect(page.locator("#round-3-1")).to_be_attached()
    expect(banner).to_be_hidden()
    fed.kill("central")
    expect(banner).to_be_visible()
    known = page.locator("#rounds tr").first.get_attribute("id") or ""
    fed.restart_central()
    expect(banner).to_be_hidden()
    expect(page.locator("#rounds tr").first).not_to_have_id(known)
    assert_untouched(page)
    fed.kill("hospital-2")
    fed.start("hospital-2")
    fed.wait_for_clients("hospital-1", "hospital-2")
    assert_untouched(page)
    fed.cli("cancel", str(number))
    expect(page.locator("h1 .status")).to_have_text("cancelled")


def test_the_overview_follows_a_run_from_its_launch(fed: Federation, page: Page) -> None:
    page.goto(fed.url)
    mark(page)
    number = start(fed, "mnist_3v7", "--rounds", "10", "--epochs", "5")
    expect(page.locator(f"#run-{number}")).to_contain_text("10 of 10", timeout=60_000)
    expect(page.locator(f"#run-{number}")).to_contain_text("completed")
    expect(page.get_by_role("heading", name=f"Run #{number}, mnist_3v7")).to_be_visible()
    expect(page.locator("#overview-facts .status")).to_have_text("idle")
    expect(page.locator("#runs tr")).to_have_count(len(fed.get("runs")))
    assert_untouched(page)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_overview_runs_and_run_are_accessible(fed: Federation, page_at: PageAt, width: int, scheme: str) -> None:
    if not fed.get("runs"):
        fed.end_of(fed.run_in_background("mnist_3v7", "--rounds", "2"))
    number = fed.get("runs")[-1]["number"]
    page = page_at(width, scheme)
    for path in ("/", "/runs", f"/runs/{number}", "/runs/999"):
        page.goto(fed.url + path)
        page.wait_for_timeout(300)
        assert_accessible(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} is wider than the screen"


def test_no_script_no_matter(fed: Federation, page_at: PageAt) -> None:
    if not fed.get("runs"):
        fed.end_of(fed.run_in_background("mnist_3v7", "--rounds", "2"))
    page = page_at(java_script_enabled=False)
    page.goto(f"{fed.url}/runs/1")
    expect(page.locator("#rounds tr").first).to_be_visible()
    expect(page.get_by_role("link", name="as JSON")).to_be_visible()
    page.goto(fed.url)
    expect(page.get_by_role("link", name="Launch training").first).to_be_visible()
