"""A real Chromium for the page tests, and what it must not see. One a module: its loop is in no other test's way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest
from page_scene import PATIENCE_MS, PageAt
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

from federation_scene import Federation

CHROMIUM = which("chromium") or which("chromium-browser") or which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
expect.set_options(timeout=PATIENCE_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if CHROMIUM is None:
        here = Path(__file__).parent
        for item in items:
            if item.path.is_relative_to(here):
                item.add_marker(pytest.mark.skip(reason="no Chromium on this machine"))


@pytest.fixture(scope="module")
def playwright_() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright_: Playwright) -> Iterator[Browser]:
    found = playwright_.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
    yield found
    found.close()


@pytest.fixture
def page_at(browser: Browser) -> Iterator[PageAt]:
    """A page of its own: `page_at(390, "dark")`. No other origin may be asked for anything, no script may fail."""
    contexts = []
    problems: list[str] = []

    def opened(width: int = 1280, scheme: str = "light", **options: object) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce", **options
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", lambda request: _note_foreign(page, request.url, problems))
        page.on("pageerror", lambda error: problems.append(f"script error: {error}"))
        page.on("console", lambda told: _note_console(told.text, problems))
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not problems


@pytest.fixture
def page(page_at: PageAt) -> Page:
    return page_at()


def _note_foreign(page: Page, url: str, problems: list[str]) -> None:
    if not url.startswith(("http://127.0.0.1:", "http://localhost:", "data:", "blob:", "about:")):
        problems.append(f"asked another origin: {url}")


def _note_console(text: str, problems: list[str]) -> None:
    if "Content Security Policy" in text or "Content-Security-Policy" in text:
        problems.append(text)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """One federation for all tests of a module, two clients of `mnist_3v7` and a run that has completed."""
    fed = Federation(tmp_path_factory.mktemp("federation"))
    fed.start_central()
    for number in (1, 2):
        name = f"hospital-{number}"
        fed.start_client(name, "--task", "mnist_3v7", "--offline-sample", "--partition", f"{number}/2")
    fed.wait_for_clients("hospital-1", "hospital-2")
    run_id = fed.run_in_background("mnist_3v7", "--rounds", "3", "--epochs", "2", "--seed", "7")
    assert fed.end_of(run_id)["status"] == "completed"
    yield fed
    fed.stop_all()
