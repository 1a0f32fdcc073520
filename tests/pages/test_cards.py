"""Clients, models, events, the journal and the settings of a federation that lives: open pages keep up with it."""

from __future__ import annotations

import hashlib
import json
import re
import urllib.request
from collections.abc import Iterator

import pytest
from page_scene import PageAt, assert_accessible
from playwright.sync_api import Page, expect

from federation_scene import Federation, wait_until


@pytest.fixture(scope="module")
def shared(shared: Federation) -> Iterator[Federation]:
    """One more client, which keeps what its data are: tests revoke it, stop it, start it again."""
    shared.start_client("lab", "--task", "mnist_3v7", "--offline-sample", "--no-summary")
    shared.wait_for_clients("lab")
    yield shared


def model_of(fed: Federation, number: int) -> str:
    """The id of the model of that round of run #1."""
    return next(str(model["id"]) for model in fed.get("models?run=1") if model["round"] == number)


PAGES = ("/clients", "/clients/hospital-1", "/models", "/models/MODEL", "/events", "/runs/1/journal", "/settings")


@pytest.mark.parametrize("path", PAGES)
def test_pages_are_accessible_light_and_dark_wide_and_narrow(shared: Federation, page_at: PageAt, path: str) -> None:
    for scheme in ("light", "dark"):
        page = page_at(1280, scheme)
        page.goto(shared.url + path.replace("MODEL", model_of(shared, 3)))
        for details in page.locator("details").all()[:3]:
            details.evaluate("one => one.open = true")
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 900})
            assert_accessible(page)
            assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_a_client_shows_what_it_is_offers_and_did(shared: Federation, page: Page) -> None:
    page.goto(f"{shared.url}/clients/hospital-1")
    expect(page.get_by_role("heading", level=1)).to_contain_text("online")
    facts = shared.get("clients/hospital-1")
    expect(page.locator("#key")).to_have_text(facts["key_fingerprint"])
    expect(page.get_by_role("region", name="Examples of mnist_3v7")).to_contain_text("train")
    history = page.locator("#client-history tbody tr")
    assert history.count() == len(facts["history"])
    expect(history.first).to_contain_text("evaluate")                       # the newest: the final model was measured
    expect(page.get_by_role("img", name="accuracy from")).to_be_visible()


def test_a_client_may_keep_what_its_data_are(shared: Federation, page: Page) -> None:
    page.goto(f"{shared.url}/clients/lab")
    expect(page.get_by_text("No summary of its data")).to_be_visible()
    assert [offer["summary"] for offer in shared.get("clients/lab")["offers"]] == [{}]


def test_a_client_that_comes_and_goes_changes_an_open_list(shared: Federation, page: Page) -> None:
    page.goto(f"{shared.url}/clients")
    page.evaluate("window.isTheSamePage = true")
    shared.start_client("ward-9", "--task", "mnist_3v7", "--offline-sample")
    row = page.locator("#clients tr", has_text="ward-9")
    expect(row.locator(".status")).to_have_text("online", timeout=90_000)       # a process has to start
    expect(row.locator(".chip")).to_have_text("mnist_3v7@1")
    shared.stop("ward-9")
    expect(row.locator(".status")).to_have_text("gone")
    assert page.evaluate("window.isTheSamePage") is True


def test_a_client_is_revoked_with_the_keyboard_alone(shared: Federation, page: Page) -> None:
    page.goto(f"{shared.url}/clients/lab")
    press_until_focused(page, page.get_by_role("button", name="Revoke", exact=True))
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("Revoke lab for good?")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert shared.get("clients/lab")["status"] != "revoked"
    press_until_focused(page, page.get_by_role("button", name="Revoke", exact=True))
    page.keyboard.press("Enter")
    press_until_focused(page, page.get_by_role("button", name="Revoke the client"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("revoked")
    expect(page.get_by_role("button", name="Revoke", exact=True)).to_have_count(0)
    assert shared.get("clients/lab")["status"] == "revoked"


def press_until_focused(page: Page, wanted: object) -> None:
    """Tab, as somebody without a mouse."""
    for _ in range(40):
        if wanted.evaluate("one => one === document.activeElement"):  # type: ignore[attr-defined]
            return
        page.keyboard.press("Tab")
    pytest.fail("Tab does not get there")


def test_a_secret_is_rotated_and_the_client_goes_on(shared: Federation, page: Page) -> None:
    page.goto(f"{shared.url}/clients/hospital-2")
    page.get_by_role("button", name="Rotate secret").click()
    with page.expect_navigation():          # else the next page is asked for while this one is still coming
        page.get_by_role("button", name="Rotate the secret").click()
    page.goto(f"{shared.url}/events?client=hospital-2&kind=clients")
    expect(page.locator("#events li").first).to_contain_text("The secret of hospital-2 was made void")
    wait_until(lambda: shared.get("clients/hospital-2")["status"] == "online", "the client's new secret")


def test_models_are_listed_newest_first_and_by_run(shared: Federation, page: Page) -> None:
    page.goto(f"{shared.url}/models?run=1")
    assert page.locator("#models td:first-child a").all_inner_texts() == [f"Round {n}" for n in (3, 2, 1, 0)]
    marks = {model["round"]: model["marks"] for model in shared.get("models?run=1")}
    assert sorted(mark for found in marks.values() for mark in found) == ["best", "final"]
    for number, row in zip((3, 2, 1, 0), page.locator("#models tr").all(), strict=True):
        assert row.locator(".chip").all_inner_texts() == marks[number]
    expect(page.locator(".filters")).to_contain_text("4 models in 4 files:")
    page.get_by_role("textbox", name="Run").fill("77")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_text("there is no run '77'")).to_be_visible()


def test_a_models_card_leads_back_to_its_beginning_and_to_its_params(shared: Federation, page: Page) -> None:
    model = shared.get(f"models/{model_of(shared, 3)}")
    page.goto(f"{shared.url}/models/{model['sha256'][:12]}")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Model of round 3")
    expect(page.locator("#sha")).to_have_text(model["sha256"])
    assert page.get_by_role("region", name="Who trained it").locator("tbody tr td.name").all_inner_texts() == [
        "hospital-1", "hospital-2"
    ]
    lineage = page.locator(".lineage li")
    assert re.findall(r"Run #1, round (\d)", " ".join(lineage.all_inner_texts())) == ["3", "2", "1", "0"]
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the params").click()
    assert hashlib.sha256(download.value.path().read_bytes()).hexdigest() == model["sha256"]
    assert [row["client"] for row in shared.get(f"models/{model['id']}/card")["contributions"]] == [
        "hospital-1", "hospital-2"
    ]


def test_a_run_that_has_ended_is_deleted_after_it_was_said_what_goes(shared: Federation, page: Page) -> None:
    run = shared.end_of(shared.run_in_background("mnist_3v7", "--rounds", "1", "--epochs", "1", "--keep-every", "0"))
    page.goto(f"{shared.url}/runs/{run['number']}")
    page.get_by_role("link", name="Delete").click()
    plan = shared.get(f"runs/{run['number']}/deletion")
    expect(page.locator("dl")).to_contain_text(f"{plan['num_rows']:,}: rounds, metrics, events, journal")
    assert_accessible(page)
    page.get_by_role("button", name="Delete it for good").click()
    expect(page).to_have_url(f"{shared.url}/runs")
    page.goto(f"{shared.url}/runs/{run['number']}")
    expect(page.get_by_text(f"Run #{run['number']} was deleted")).to_be_visible()
    page.goto(f"{shared.url}/events")
    told = page.locator("#events li").filter(has_text=f"Run #{run['number']} of mnist_3v7 was deleted")
    expect(told).to_be_visible()        # where in the list: a client may have come or gone since


def test_events_are_sentences_of_a_kind_of_a_run_or_of_a_client(shared: Federation, page: Page) -> None:
    page.goto(f"{shared.url}/events?run=1&kind=rounds")
    expect(page.locator("#events li").first).to_contain_text("Round 4 measured the final model: accuracy")
    page.get_by_label("Client").fill("hospital-1")
    page.get_by_role("button", name="Show").click()
    page.get_by_role("link", name="reports").click()
    told = page.locator("#events .told").all_inner_texts()
    assert told
    assert all("hospital-1" in sentence for sentence in told)
    newest = shared.get("events/newest?run=1&kind=reports&client=hospital-1&limit=1000")
    assert [row["told"] for row in newest] == told


def test_what_happens_comes_to_the_head_of_an_open_list(shared: Federation, page: Page) -> None:
    page.goto(f"{shared.url}/events?client=hospital-1")
    request = urllib.request.Request(f"{shared.url}/api/v1/clients/hospital-1/rotate", method="POST")
    urllib.request.urlopen(request).close()
    expect(page.locator("#events li").first).to_contain_text("The secret of hospital-1 was made void")


def test_the_journal_says_that_its_chain_holds(shared: Federation, page: Page) -> None:
    page.goto(f"{shared.url}/runs/1/journal")
    expect(page.get_by_text("The chain holds:")).to_be_visible()
    rows = shared.get("runs/1/journal")
    expect(page.locator("#head")).to_have_text(rows[-1]["hash"])
    assert page.locator("tbody tr").count() == len(rows)


def test_a_new_join_token_is_made_after_a_question(shared: Federation, page: Page) -> None:
    old = shared.get("tokens/join")["join_token"]
    page.goto(f"{shared.url}/settings")
    expect(page.locator("#token")).to_be_hidden()
    page.get_by_text("Show the token").click()
    expect(page.locator("#token")).to_have_text(old)
    page.get_by_role("button", name="Make a new token").click()
    page.get_by_role("button", name="Make a new one").click()
    expect(page.locator("#token")).not_to_have_text(old)
    facts = shared.get("settings")
    assert facts["store"]["rows"]["runs"] == 1
    assert old not in json.dumps(facts)
    assert shared.get("tokens/join")["join_token"] not in json.dumps(facts)


def test_the_box_for_a_new_client_has_the_command(shared: Federation, page: Page) -> None:
    page.goto(f"{shared.url}/clients")
    page.get_by_text("Add a client").click()
    expect(page.locator("#join-here")).to_have_text(
        f"fednode client --central http://127.0.0.1:{shared.port} --name hospital-a"
    )
    expect(page.get_by_text("answers this machine only")).to_be_visible()


def test_where_others_may_come_the_box_has_address_and_token_behind_a_click(
    federation: Federation, page_at: PageAt
) -> None:
    federation.start_central("--host", "0.0.0.0", "--insecure")
    note = json.loads((federation.folder / "state" / "centrals" / f"{federation.port}.json").read_text())
    page = page_at(extra_http_headers={"Authorization": f"Bearer {note['operator_token']}"})
    page.goto(f"{federation.url}/clients")
    command = page.locator("#join-there")
    expect(page.get_by_text("Another machine")).to_be_visible()             # nobody is there: the box is open
    expect(command).to_be_hidden()
    page.get_by_text("Show the command with its token").click()
    expect(command).to_be_visible()
    told = command.inner_text()
    assert re.fullmatch(
        rf"fednode client --central http://[^ ]+:{federation.port} --name hospital-a --token {note['join_token']}", told
    )
    assert "//127." not in told
    expect(page.get_by_text("The token admits new clients until")).to_be_visible()
