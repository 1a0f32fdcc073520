"""The pages in a real browser: train from the overview, watch the run's table grow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from federation_scene import Federation

CHROMIUM = which("chromium") or which("chromium-browser") or which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            tmp_path / "browser", executable_path=CHROMIUM, args=FLAGS, viewport={"width": 1280, "height": 900}
        )
        page = browser.new_page()
        page.set_default_timeout(30_000)
        yield page
        browser.close()


def test_a_newcomer_trains_from_the_browser(federation: Federation, page: Page) -> None:
    federation.start_central()
    page.goto(federation.url)
    expect(page.get_by_text("Nobody has registered yet")).to_be_visible()
    expect(page.get_by_text(f"fednode client --central {federation.url}")).to_be_visible()

    for number in (1, 2):
        name = f"hospital-{number}"
        federation.start_client(name, "--task", "mnist_3v7", "--offline-sample", "--partition", f"{number}/2")
    federation.wait_for_clients("hospital-1", "hospital-2")
    page.reload()
    expect(page.get_by_text("2 online")).to_be_visible()

    form = page.get_by_role("form", name="Launch mnist_3v7")
    form.get_by_label("Rounds").fill("3")
    form.get_by_label("Epochs").fill("2")
    form.get_by_role("button", name="Launch training").click()
    expect(page.get_by_role("heading", name="Run #1: mnist_3v7")).to_be_visible()
    expect(page.locator("dd.status")).to_have_text("completed", timeout=60_000)     # it refreshes by itself
    expect(page.get_by_text("3 of 3")).to_be_visible()
    expect(page.locator("tbody tr")).to_have_count(4)                               # rounds 0 to 3

    with page.expect_download() as download:
        page.get_by_text("Download the params").click()
    assert download.value.path().stat().st_size > 3_000


def test_a_wrong_field_is_named_and_nothing_starts(federation: Federation, page: Page) -> None:
    federation.start_central()
    federation.start_client("hospital-1", "--task", "mnist_3v7", "--offline-sample")
    federation.wait_for_clients("hospital-1")
    page.goto(federation.url)
    form = page.get_by_role("form", name="Launch mnist_3v7")
    form.get_by_label("Learning rate").fill("0")
    form.get_by_role("button", name="Launch training").click()
    expect(page.get_by_role("alert")).to_contain_text("learning_rate")
    assert federation.json("runs") == []


def test_no_page_answers_a_stranger(federation: Federation) -> None:
    federation.start_central("--host", "0.0.0.0", "--insecure")
    import urllib.error
    import urllib.request

    for path in ("/", "/runs/1"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(federation.url + path)
        assert caught.value.code == 401
        assert "op_" in caught.value.read().decode()
