"""Runs beside one another in a real browser, and the federated model against each client alone."""

from __future__ import annotations

import re

import pytest
from page_scene import PageAt, assert_accessible
from playwright.sync_api import Page, expect

from federation_scene import Federation

SAME = ("mnist_3v7", "--rounds", "3", "--epochs", "2", "--seed", "7")       # as the run of `shared`


@pytest.fixture(scope="module")
def compared(shared: Federation) -> Federation:
    """#1: federated, 3 rounds of 2 epochs. #2: 1 round at another rate. #3 and #4: as #1, each client alone."""
    asked = [
        ("mnist_3v7", "--rounds", "1", "--epochs", "2", "--seed", "7", "--learning-rate", "0.01"),
        (*SAME, "--clients", "hospital-1"), (*SAME, "--clients", "hospital-2"),
    ]
    for run_id in [shared.run_in_background(*args) for args in asked]:
        assert shared.end_of(run_id)["status"] == "completed"
    return shared


def settings(page: Page) -> list[str]:
    """The rows of the table of settings, as text."""
    return [" ".join(text.split()) for text in page.locator("#settings tbody tr").all_inner_texts()]


def test_two_runs_are_chosen_from_the_list_and_lie_beside_one_another(compared: Federation, page: Page) -> None:
    page.goto(f"{compared.url}/runs")
    page.get_by_label("Compare run #2").check()
    page.get_by_label("Compare run #1").check()
    page.get_by_role("button", name="Compare the selected runs").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(r"Compare\s+#2,\s+#1"))
    found = compared.get("compare?run=2&run=1")
    (accuracy,) = [row for row in found["metrics"] if row["name"] == "accuracy"]
    shown = page.locator("#scores tr", has_text="accuracy").locator("td")
    expect(shown.nth(accuracy["best"])).to_contain_text("★ best")
    expect(page.locator("#scores .best")).to_have_count(sum(row["best"] is not None for row in found["metrics"]))
    expect(page.get_by_text("trained for different numbers of rounds")).to_be_visible()


def test_what_differs_comes_first_and_can_be_shown_alone(compared: Federation, page: Page) -> None:
    page.goto(f"{compared.url}/compare?run=1&run=2")
    rows = settings(page)
    assert sorted(rows[:2]) == ["rounds differs 3 1", f"task.learning_rate differs {default_rate(compared)} 0.01"]
    assert not any("differs" in row for row in rows[2:])
    page.get_by_role("link", name="Only what differs (2)").click()
    expect(page.locator("#settings tbody tr")).to_have_count(2)
    assert settings(page) == rows[:2]
    page.get_by_role("link", name=f"All {len(rows)} settings").click()
    expect(page.locator("#settings tbody tr")).to_have_count(len(rows))


def default_rate(federation: Federation) -> str:
    return f"{federation.get('runs/1')['config']['task_config']['learning_rate']:g}"


def test_curves_lie_over_one_another(compared: Federation, page: Page) -> None:
    page.goto(f"{compared.url}/compare?run=1&run=2")
    plot = page.locator(".plot")
    expect(plot.locator("canvas")).to_be_visible()
    expect(plot).to_have_attribute("aria-label", re.compile(r"accuracy over 4 rounds. Last: #1 0\.\d{4}, #2 0\.\d{4}"))
    expect(plot.locator(".u-legend")).to_contain_text("#2")
    page.get_by_role("button", name="loss", exact=True).click()
    expect(plot).to_have_attribute("aria-label", re.compile("loss over 4 rounds"))


def test_each_client_alone_stands_beside_the_federated_model(compared: Federation, page: Page) -> None:
    page.goto(f"{compared.url}/compare?run=1")
    table = page.locator("#alone")
    expect(table.get_by_role("heading")).to_contain_text("each client alone, by accuracy")
    expect(table.get_by_text("no example left its client")).to_be_visible()
    told = compared.get("compare?run=1")["alone"]
    for row in told["clients"]:
        shown = table.locator("tr", has_text=row["client"])
        for text in (f"{row['federated']:.4f}", f"{row['alone']:.4f}", f"{row['difference']:+.4f}", f"#{row['run']}"):
            expect(shown).to_contain_text(text)
    expect(table.locator("tfoot")).to_contain_text(f"{told['mean']['difference']:+.4f}")
    expect(table.locator("tfoot")).to_contain_text("over 2 of 2 clients")


def test_a_run_without_local_only_runs_says_how_to_get_them(compared: Federation, page: Page) -> None:
    page.goto(f"{compared.url}/compare?run=2&run=3")
    command = page.locator("#alone-command")
    expect(command).to_contain_text("fednode run mnist_3v7 --rounds 1")
    expect(command).to_contain_text("--clients hospital-1")
    expect(command).to_contain_text("--set task.learning_rate=0.01")


def test_what_cannot_be_compared_leads_to_a_choice(compared: Federation, page: Page) -> None:
    page.goto(f"{compared.url}/compare")
    expect(page.get_by_role("alert")).to_have_count(0)
    page.goto(f"{compared.url}/compare?run=2")
    expect(page.get_by_role("alert")).to_contain_text("run #2 has nothing to be compared with")
    expect(page.get_by_label("Compare run #2")).to_be_checked()
    page.get_by_label("Compare run #4").press("Space")
    page.get_by_role("button", name="Compare the selected runs").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Compare #4, #2")
    answer = page.goto(f"{compared.url}/compare?run=1&run=1")
    assert answer is not None
    assert answer.status == 422
    expect(page.get_by_role("alert")).to_contain_text("run #1 cannot be compared with itself")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_everybody_can_read_it(compared: Federation, page_at: PageAt, width: int, scheme: str) -> None:
    page = page_at(width, scheme)
    for query in ("?run=1&run=2&run=3", ""):
        page.goto(f"{compared.url}/compare{query}")
        if query:
            expect(page.locator(".plot canvas")).to_be_visible()
        assert_accessible(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width       # tables scroll on their own


def test_scores_move_on_while_a_run_trains(compared: Federation, page: Page) -> None:
    run_id = compared.run_in_background("mnist_3v7", "--rounds", "500", "--epochs", "20")
    number = compared.get(f"runs/{run_id}")["number"]
    page.goto(f"{compared.url}/compare?run=1&run={number}")
    rounds = page.locator("#scores tr", has_text="Rounds").locator("td").nth(1)
    expect(page.get_by_text(f"Not ended yet: #{number}")).to_be_visible()
    expect(rounds).to_have_text(re.compile(r"^([3-9]|\d\d+) of 500"))
    assert compared.cli("cancel", str(number)).returncode == 0
    expect(page.locator("#scores .status").nth(1)).to_have_text("cancelled")
