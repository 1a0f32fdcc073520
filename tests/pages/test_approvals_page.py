"""Approval by hand on the client's own page: in a real browser beside a real client node and a real central node."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gated_task import MARKUP
from page_scene import PageAt, assert_accessible
from playwright.sync_api import Page, expect

from federation_scene import Federation, free_port, wait_until

SOURCE = Path(__file__).with_name("gated_task.py").read_text()
WORD = '[policy]\nmax_epochs = 2\nmin_cohort = 2\nmax_wall_time = "2h"\napprove = "by-hand"\n'


@dataclass
class Site:
    """A client node whose operator approves by hand, its page, and the file of its task."""

    federation: Federation
    port: int
    file: Path

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def write(self, source: str) -> None:
        """Put this into the task's file and start the client node again."""
        self.file.write_text(source)
        if "hospital-a" in self.federation.members:
            self.federation.stop("hospital-a")
        place = ("--data", str(self.file.parent), "--port", str(self.port))
        self.federation.start_client("hospital-a", "--task", f"{self.file}:Gated", *place)
        wait_until(self.says, f"the page: {self.federation.log('hospital-a')}")

    def says(self) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"{self.url}/status.json", timeout=10) as answer:
                found: dict[str, Any] = json.load(answer)
        except OSError:
            return {}
        return found if found["approvals"] and found["status"]["code"] in ("waiting", "online") else {}

    def offered(self) -> list[str]:
        """As the central node has it."""
        return [offer["fingerprint"] for row in self.federation.get("clients") for offer in row["offers"]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    fed = Federation(tmp_path_factory.mktemp("approvals"))
    (fed.folder / "fednode.toml").write_text(WORD)
    (fed.folder / "data").mkdir()
    fed.start_central()
    made = Site(fed, free_port(), fed.folder / "data" / "gated_task.py")
    made.write(SOURCE)
    yield made
    fed.stop_all()


def test_a_new_source_is_shown_whole_approved_and_offered(site: Site, page: Page) -> None:
    page.goto(site.url)
    expect(page.locator("#status")).to_contain_text("Waiting for your approval")
    expect(page.get_by_text("No version of it was approved before")).to_be_visible()
    expect(page.locator(".own-diff")).to_contain_text(f'MARKUP = "{MARKUP}"')      # as text
    assert page.locator("main img").count() == 0
    waiting = site.says()["approvals"][0]
    assert (waiting["verdict"], waiting["difference"][-1]) == ("waiting", "+" + SOURCE.splitlines()[-1])
    assert site.offered() == []
    page.get_by_role("button", name=f"Approve {waiting['fingerprint']}").click()
    expect(page.locator("#status")).to_contain_text("Online")
    wait_until(lambda: site.offered() == [waiting["fingerprint"]], "the offer")
    expect(page.get_by_text("at most 2 epochs a round", exact=True)).to_be_visible()


def test_an_edited_source_waits_with_what_is_different_and_can_be_refused(site: Site, page_at: PageAt) -> None:
    site.write(SOURCE.replace("params + 0.1", "params + 0.2") + f"# {'a long line ' * 20}\n")
    page = page_at()
    page.goto(site.url)
    lines = page.locator(".own-diff span")
    expect(page.locator(".own-diff [data-change='-']").last).to_contain_text("params + 0.1, num_examples=7")
    expect(page.locator(".own-diff [data-change='+']").last).to_contain_text("a long line")
    assert lines.count() < 20                                   # the difference, not the file
    for width, scheme in ((1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        expect(page.locator("html")).to_have_attribute("data-bs-theme", scheme)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert_accessible(page)
    fingerprint = site.says()["approvals"][0]["fingerprint"]
    page.get_by_role("button", name=f"Refuse {fingerprint}").press("Enter")
    expect(page.locator("#approve-title")).to_have_count(0)
    wait_until(lambda: site.offered() == [], "the offers")
    page.get_by_role("button", name=f"Approve {fingerprint}").click()          # a mind may be changed
    wait_until(lambda: site.offered() == [fingerprint], "the offers")


def test_no_other_sites_page_can_approve(site: Site) -> None:
    key = site.says()["approvals"][0]["key"]
    for path in (f"/approve/{key}", f"/refuse/{key}"):
        request = urllib.request.Request(site.url + path, method="POST", headers={"Origin": "http://evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(request, timeout=10)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(urllib.request.Request(f"{site.url}/approve/0", method="POST"), timeout=10)
