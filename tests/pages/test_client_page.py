"""The client's own page, in a real browser beside a real client node and a real central node."""

from __future__ import annotations

import contextlib
import http.client
import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from gated_task import MARKUP
from page_scene import assert_accessible
from playwright.sync_api import Page, expect

from federation_scene import Federation, free_port, wait_until
from fednode.errors import BadConfig
from fednode.settings import load_settings

TASK = f"{Path(__file__).with_name('gated_task.py')}:Gated"
PAUSED = "sharing paused by its owner"
EPOCHS = ("--epochs", "3")

expect.set_options(timeout=30_000)


@dataclass
class Site:
    """One client node with a page, and the folder by which a test holds up its training."""

    federation: Federation
    name: str
    port: int

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def data(self) -> Path:
        return self.federation.folder / f"data-{self.name}"

    def close_gate(self) -> None:
        (self.data / "closed").touch()

    def open_gate(self) -> None:
        (self.data / "closed").unlink(missing_ok=True)

    def status(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/status.json", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def until(self, code: str) -> dict[str, Any]:
        """What it says of itself, once its status is this."""

        def there() -> dict[str, Any] | None:
            with contextlib.suppress(OSError):
                said = self.status()
                return said if said["status"]["code"] == code else None
            return None

        found: dict[str, Any] = wait_until(there, f"{code} at {self.name}: {self.federation.log(self.name)}")
        return found

    def row(self) -> dict[str, Any]:
        """What the central node says of it."""
        return next(row for row in self.federation.get("clients") if row["name"] == self.name)


@pytest.fixture(scope="module")
def federation_of_two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    fed = Federation(tmp_path_factory.mktemp("own"))
    fed.start_central()
    for name in ("hospital-a", "hospital-b"):
        (fed.folder / f"data-{name}").mkdir()
    fed.start_client("hospital-b", "--task", TASK, "--data", str(fed.folder / "data-hospital-b"))
    yield fed
    fed.stop_all()


@pytest.fixture(scope="module")
def joined(federation_of_two: Federation) -> Site:
    site = Site(federation_of_two, "hospital-a", free_port())
    site.federation.start_client("hospital-a", "--task", TASK, "--data", str(site.data), "--port", str(site.port))
    site.federation.wait_for_clients("hospital-a", "hospital-b")
    return site


@pytest.fixture
def site(joined: Site) -> Iterator[Site]:
    """It shares, and nothing is in its way; afterwards no run is left."""
    yield joined
    joined.open_gate()
    for run in joined.federation.get("runs"):
        if run["status"] in ("running", "queued", "paused"):
            joined.federation.cli("cancel", str(run["number"]))
    if joined.status()["sharing"]["is_paused"]:
        urllib.request.urlopen(urllib.request.Request(f"{joined.url}/resume", method="POST"), timeout=10)
    joined.until("online")


def train_and_hold(site: Site, rounds: int = 2) -> str:
    """A run in whose first round `site` waits before its last epoch; its id."""
    site.close_gate()
    run_id = site.federation.run_in_background("gated", "--rounds", str(rounds), *EPOCHS)
    wait_until(lambda: (site.status()["work"] or {}).get("epoch") == 2, f"training: {site.federation.log(site.name)}")
    return run_id


def test_it_trains_and_the_page_moves(site: Site, page: Page) -> None:
    before = site.status()["left"]
    page.goto(site.url)
    expect(page.get_by_role("heading", level=1)).to_have_text("hospital-a")
    expect(page.locator("#status")).to_contain_text("Online")
    expect(page.get_by_text(site.federation.url, exact=True)).to_be_visible()
    run_id = train_and_hold(site)
    expect(page.locator("#status")).to_contain_text("Training: epoch 3 of 3")
    expect(page.get_by_text("round 1 of 2")).to_be_visible()
    expect(page.get_by_text("Own model after epoch 2")).to_be_visible()
    expect(page.get_by_role("progressbar", name="Progress of this step")).to_have_attribute("value", "2")
    expect(page.locator("[aria-current=step]")).to_have_text("train")

    site.open_gate()
    assert site.federation.end_of(run_id)["status"] == "completed"
    expect(page.locator("#status")).to_contain_text("Online")
    expect(page.locator("#done tr", has_text="round 2 of 2")).to_contain_text("sent")
    expect(page.locator("#log")).to_contain_text("Accuracy of model trained at epoch 3 : 0.3000")

    received = sizes_at_the_central_node(site, run_id)
    assert len(received) in (2, 3)      # two rounds; the initial params are one client's
    left = site.status()["left"]
    assert left["updates"] - before["updates"] == len(received)
    assert left["params_bytes"] - before["params_bytes"] == sum(received)
    assert (left["images"], left["labels"]) == (0, 0)
    assert sum(sending["bytes"] for sending in left["recent"]) == left["params_bytes"] + left["other_bytes"]
    newest = next(sending for sending in left["recent"] if sending["what"] == "params")
    assert (newest["has_arrived"], newest["round"], newest["bytes"]) == (True, 2, received[0])
    expect(page.locator("#updates")).to_have_text(str(left["updates"]))


def sizes_at_the_central_node(site: Site, run_id: str) -> list[int]:
    """Bytes of the updates that the central node has of this site, newest first."""
    rows = [row for round_ in site.federation.get(f"runs/{run_id}")["history"] for row in round_["clients"]]
    return [row["num_bytes"] for row in rows if row["client"] == site.name and row["num_bytes"]]


def test_a_pause_ends_the_work_in_hand_and_takes_no_more_and_outlives_a_restart(site: Site, page: Page) -> None:
    fed = site.federation
    run_id = train_and_hold(site)
    page.goto(site.url)
    page.get_by_role("button", name="Pause sharing").click()
    expect(page.get_by_text("this is finished and sent, and nothing new is taken")).to_be_visible()
    expect(page.locator("#status")).to_contain_text("Training: epoch 3 of 3")
    site.open_gate()
    expect(page.locator("#status")).to_contain_text("Sharing is paused")
    expect(page.locator("#done tr").first).to_contain_text("round 1 of 2")

    waiting = f"waiting for 2 of 2 clients: hospital-a: {PAUSED}"
    wait_until(lambda: fed.get(f"runs/{run_id}")["reason"] == waiting, "the run's reason")
    assert (site.row()["status"], site.row()["reason"]) == ("gone", PAUSED)

    assert fed.stop("hospital-a") == 0
    assert (site.row()["status"], site.row()["reason"]) == ("gone", PAUSED)
    expect(page.locator("#gone")).to_be_visible()
    fed.start("hospital-a")
    expect(page.locator("#gone")).to_be_hidden()
    site.until("paused")
    assert (site.row()["status"], site.row()["reason"]) == ("gone", PAUSED)
    page.get_by_role("button", name="Resume sharing").click()
    assert fed.end_of(run_id)["status"] == "completed"
    assert site.row()["reason"] == ""
    attempts = [row["attempt"] for row in fed.get(f"runs/{run_id}")["history"]]
    assert set(attempts) == {1}         # a pause costs no attempt of any round


def test_work_that_the_owner_stops_is_told_as_withdrawn(site: Site, page: Page) -> None:
    run_id = train_and_hold(site)
    page.goto(site.url)
    page.get_by_role("button", name="Pause and stop now").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("thrown away")
    dialog.get_by_role("button", name="Keep").click()
    expect(page.locator("#status")).to_contain_text("Training")
    page.get_by_role("button", name="Pause and stop now").click()
    dialog.get_by_role("button", name="Pause and stop").click()
    expect(page.locator("#status")).to_contain_text("Sharing is paused")
    expect(page.locator("#done tr").first).to_contain_text(f"failed: {PAUSED}")
    told = wait_until(lambda: failures_at_the_central_node(site, run_id), "the failure")
    assert told == [("hospital-a", "withdrawn", PAUSED)]


def failures_at_the_central_node(site: Site, run_id: str) -> list[tuple[str, str, str]]:
    rows = [row for round_ in site.federation.get(f"runs/{run_id}")["history"] for row in round_["clients"]]
    return [(row["client"], row["failure"]["code"], row["failure"]["reason"]) for row in rows if row["failure"]]


def test_the_page_says_when_the_central_node_is_away_and_when_the_client_is(site: Site, page: Page) -> None:
    fed = site.federation
    page.goto(site.url)
    fed.kill("central")
    expect(page.locator("#status")).to_contain_text("Cannot reach the central node")
    expect(page.locator("#live")).to_contain_text("start the central node there")
    fed.restart_central()
    expect(page.locator("#status")).to_contain_text("Online")
    before = site.status()["left"]

    fed.kill("hospital-a")
    expect(page.locator("#gone")).to_be_visible()
    expect(page.locator("#gone")).to_contain_text("The client node does not answer")
    fed.start("hospital-a")
    expect(page.locator("#gone")).to_be_hidden()
    expect(page.locator("#status")).to_contain_text("Online")
    after = site.status()["left"]
    assert [after[name] for name in ("since_s", "updates", "params_bytes")] == [
        before[name] for name in ("since_s", "updates", "params_bytes")
    ]


def test_markup_is_shown_as_text(site: Site, page: Page) -> None:
    (site.data / "broken").touch()
    site.federation.run_in_background("gated", "--rounds", "1", *EPOCHS)
    page.goto(site.url)
    expect(page.locator("#log")).to_contain_text(f"the disk holds {MARKUP}")
    (site.data / "broken").unlink()
    expect(page.locator("#done tr", has_text="failed:").first).to_contain_text(MARKUP)
    expect(page.get_by_role("rowheader", name=MARKUP)).to_be_visible()
    assert page.locator("main img").count() == 0


def test_the_page_works_for_everybody(site: Site, page: Page) -> None:
    page.goto(site.url)
    page.get_by_text("sendings").click()
    for width, scheme in ((1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")):
        show_at(page, width, scheme)
        assert_accessible(page)
    train_and_hold(site)
    expect(page.locator("#status")).to_contain_text("Training")
    assert_accessible(page)
    page.get_by_role("button", name="Pause sharing").press("Enter")
    expect(page.get_by_role("button", name="Resume sharing")).to_be_visible()
    for width, scheme in ((1280, "light"), (390, "dark")):
        show_at(page, width, scheme)
        assert_accessible(page)


def show_at(page: Page, width: int, scheme: Literal["light", "dark"]) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    expect(page.locator("html")).to_have_attribute("data-bs-theme", scheme)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("headers", [
    {"Host": "evil.example"}, {"Host": "evil.example:5001"}, {"Host": ""}, {"Origin": "http://evil.example"},
    {"Origin": "null"}, {"Origin": "http://localhost:1"}, {"X-Forwarded-For": "10.0.0.1"}, {"Via": "1.1 proxy"},
], ids=str)
def test_strangers_are_refused(site: Site, method: str, headers: dict[str, str]) -> None:
    for path in ("/pause",) if method == "POST" else ("/", "/live", "/status.json", "/healthz", "/static/own.js"):
        status, answer = ask(site, method, path, headers)
        assert (status, answer["code"]) == (403, "not_authorised"), path
    assert not site.status()["sharing"]["is_paused"]


def test_a_page_of_ones_own_machine_may_do_what_it_shows(site: Site) -> None:
    own = {"Host": f"localhost:{site.port}", "Origin": f"http://localhost:{site.port}"}
    assert ask(site, "POST", "/pause", own)[0] == 303
    assert site.status()["sharing"]["is_paused"]
    assert ask(site, "GET", "/healthz", own) == (200, {"status": "ok"})


def ask(site: Site, method: str, path: str, headers: dict[str, str]) -> tuple[int, Any]:
    line = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
    try:
        line.request(method, path, headers=headers)
        answer = line.getresponse()
        body = answer.read()
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        assert "set-cookie" not in answer.headers
        return answer.status, json.loads(body) if body.startswith(b"{") else body
    finally:
        line.close()


def test_a_port_that_is_taken_is_told_before_anything_begins(site: Site) -> None:
    folder = site.federation.folder / "other"
    done = site.federation.cli("client", "--name", "other", "--state-dir", str(folder), "--port", str(site.port))
    assert done.returncode == 2
    assert f"port {site.port}, for the client's own page, is in use" in done.stderr
    assert "--port" in done.stderr
    assert not folder.exists()


def test_of_the_prototypes_address_only_the_port_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLIENT_URL", "http://hospital-a.example:5003")
    assert load_settings().page_port == 5003
    monkeypatch.setenv("FEDNODE_PAGE_PORT", "5004")
    assert load_settings().page_port == 5004
    assert load_settings(page_port=5005).page_port == 5005
    monkeypatch.setenv("FEDNODE_PAGE_PORT", "http://hospital-a.example:port")
    with pytest.raises(BadConfig, match="page_port"):
        load_settings()
