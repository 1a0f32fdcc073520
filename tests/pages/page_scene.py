"""What page tests share: how a page is opened, and axe."""

from __future__ import annotations

from collections.abc import Callable

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

PageAt = Callable[..., Page]            # `page_at(390, "dark")`, see `conftest`
PATIENCE_MS = 30_000
WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def assert_accessible(page: Page) -> None:
    """axe finds nothing against WCAG 2.2 AA, nor against good practice."""
    found = Axe().run(page, options=WCAG).response["violations"]
    told = [f"{rule['id']}: {rule['help']}: {[node['html'][:200] for node in rule['nodes'][:3]]}" for rule in found]
    assert not told, "\n".join(told)
