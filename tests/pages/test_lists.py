"""Lists with a thousand clients in the store: found, sorted, paged, with all that was chosen in the address."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

import pytest
from crowd_scene import MARKUP, NUM_CLIENTS, ODD, REVOKED, fill
from page_scene import PageAt, assert_accessible
from playwright.sync_api import Page, expect

from federation_scene import Federation

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    fed = Federation(tmp_path_factory.mktemp("crowd"))
    fill(fed.folder / "central")
    fed.start_central()
    yield fed
    fed.stop_all()


def names(page: Page) -> list[str]:
    return page.locator("#clients td.name").all_inner_texts()


def test_a_page_of_a_thousand_clients_is_small_and_says_how_many_there_are(crowd: Federation, page: Page) -> None:
    with urllib.request.urlopen(f"{crowd.url}/clients") as answer:
        assert len(answer.read()) < MEGABYTE
    page.goto(f"{crowd.url}/clients")
    assert names(page) == [f"hospital-{number:04d}" for number in range(50)]
    chips = page.get_by_role("navigation", name="Clients by status")
    expect(chips.get_by_role("link", name="all")).to_have_text("all 1,000")
    expect(chips.get_by_role("link", name="revoked")).to_contain_text(str(len(REVOKED)))
    expect(page.get_by_text("Page 1 of 20")).to_be_visible()


def test_what_was_searched_filtered_and_sorted_is_in_the_address(crowd: Federation, page: Page) -> None:
    page.goto(f"{crowd.url}/clients")
    page.get_by_label("Name").fill("-01")
    page.get_by_label("Task").select_option("lungs")
    page.get_by_role("button", name="Find").click()
    found = [f"hospital-{number:04d}" for number in range(100, 200) if number % 3 == 0]
    assert names(page) == found                                             # 102, 105, ..., 198
    page.get_by_role("link", name="Name").click()
    expect(page.locator("th[aria-sort=descending]")).to_have_text("Name")
    page.get_by_role("link", name="Last seen").click()                      # the newest first: the lower number
    assert names(page) == found
    page.reload()
    assert names(page) == found
    assert (page.get_by_label("Name").input_value(), page.get_by_label("Task").input_value()) == ("-01", "lungs")
    page.get_by_role("link", name="Last seen").click()
    assert names(page) == found[::-1]


def test_a_status_filter_keeps_the_search_and_pages_go_to_the_end(crowd: Federation, page: Page) -> None:
    page.goto(f"{crowd.url}/clients?search=hospital")
    page.get_by_role("link", name="revoked").click()
    assert names(page) == list(REVOKED)
    page.get_by_role("link", name="gone").click()
    page.get_by_role("link", name="Last", exact=True).click()
    assert names(page)[-1] == f"hospital-{NUM_CLIENTS - 1:04d}"
    expect(page.get_by_text("Page 20 of 20")).to_be_visible()
    page.get_by_role("link", name="Previous").click()
    expect(page.get_by_text("Page 19 of 20")).to_be_visible()
    assert "search=hospital" in page.url
    assert "status=gone" in page.url


def test_nobody_found_is_said_with_a_way_back(crowd: Federation, page: Page) -> None:
    page.goto(f"{crowd.url}/clients?search=nobody&sort=nonsense&page=99")
    expect(page.get_by_text("No client is like that.")).to_be_visible()
    page.locator("p.empty").get_by_role("link", name="Show all").click()
    assert len(names(page)) == 50


def test_programs_get_the_same_list(crowd: Federation) -> None:
    assert len(crowd.get("clients")) == NUM_CLIENTS
    found = crowd.get("clients?search=-01&task=lungs&sort=-name&limit=2&offset=1")
    assert [client["name"] for client in found] == ["hospital-0195", "hospital-0192"]
    assert [client["name"] for client in crowd.get("clients?status=revoked")] == list(REVOKED)


@pytest.mark.parametrize("path", ["/clients?search=0007", f"/clients/{ODD}", f"/events?client={ODD}"])
def test_markup_of_a_client_is_shown_as_text(crowd: Federation, page: Page, path: str) -> None:
    page.goto(crowd.url + path)
    expect(page.locator("main")).to_contain_text(MARKUP)
    assert page.locator("main b, main img").count() == 0


def test_a_failure_has_its_reason_and_its_traceback(crowd: Federation, page: Page) -> None:
    page.goto(f"{crowd.url}/clients/{ODD}")
    row = page.locator("#client-history tbody tr")
    expect(row).to_contain_text(f"reason {MARKUP}")
    row.get_by_text("Traceback").click()
    expect(row.locator("pre")).to_have_text(f"trace {MARKUP}")
    page.get_by_role("link", name="Events of this client").click()
    page.get_by_text("Traceback").first.click()
    expect(page.locator("#events pre").first).to_have_text(f"trace {MARKUP}")


def test_a_past_that_somebody_changed_is_found(crowd: Federation, page: Page) -> None:
    page.goto(f"{crowd.url}/runs/1/journal")
    expect(page.get_by_role("alert")).to_contain_text("The chain is broken.")
    expect(page.locator("#decision-3")).to_contain_text("The run ended: completed")       # it was cancelled


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_crowded_list_is_accessible_wide_and_narrow(crowd: Federation, page_at: PageAt, scheme: str) -> None:
    for width in (1280, 390):
        page = page_at(width, scheme)
        page.goto(f"{crowd.url}/clients?status=gone&sort=-seen&page=2")
        assert_accessible(page)
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
