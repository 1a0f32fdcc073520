"""What a model takes for what, and a file that is tried, in a real browser; of a task that nothing of ours knows."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
from page_scene import PageAt, assert_accessible
from playwright.sync_api import Page, expect

from federation_scene import Federation
from shade_scene import install, png

CUT = "#confusion-cut"


@pytest.fixture(scope="module")
def shaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Two clients, each with the sixteen examples of `shade`, and a run that has completed."""
    fed = Federation(tmp_path_factory.mktemp("federation"))
    fed.env["PYTHONPATH"] = str(install(fed.folder / "site"))
    fed.start_central()
    for name in ("hospital-1", "hospital-2"):
        fed.start_client(name, "--task", "shade", "--task", "mnist_3v7", "--offline-sample")
    fed.wait_for_clients("hospital-1", "hospital-2")
    runs = [fed.run_in_background("shade", "--rounds", "1"), fed.run_in_background("mnist_3v7", "--rounds", "1")]
    assert [fed.end_of(run)["status"] for run in runs] == ["completed", "completed"]
    yield fed
    fed.stop_all()


def open_run(page: Page, fed: Federation, run: int = 1) -> None:
    page.goto(f"{fed.url}/runs/{run}")
    expect(page.locator("#confusion")).to_be_visible()


def table(page: Page) -> list[list[str]]:
    rows = page.locator(".matrix tbody tr").all()
    return [[cell.inner_text().split()[0] for cell in row.locator("th, td").all()] for row in rows]


def rate(page: Page, name: str) -> str:
    box = page.locator("#confusion .facts div").filter(has=page.get_by_text(name, exact=True))
    return box.locator("dd").inner_text()


def test_the_panel_begins_at_the_models_own_threshold_with_the_numbers_of_the_run(
    shaded: Federation, page: Page
) -> None:
    open_run(page, shaded)
    # Of each client 9 dark, 6 of them spared, and 7 bright, all found: twice that.
    assert table(page) == [["dark", "12", "6", "18"], ["bright", "0", "14", "14"]]
    metrics = shaded.get("runs/1")["metrics"]
    assert rate(page, "sensitivity") == f"{100 * metrics['found']:.1f} %" == "100.0 %"
    assert rate(page, "specificity") == f"{100 * metrics['spared']:.1f} %" == "66.7 %"
    assert (rate(page, "accuracy"), rate(page, "balanced accuracy")) == ("81.3 %", "83.3 %")    # 26 / 32, 5 / 6
    own = page.locator("#confusion-own")
    expect(own).to_contain_text("0.375 is the model's own: the highest that finds 90 % of the bright among held-back")
    expect(page.locator("[data-part=caption]")).to_contain_text("at the threshold 0.375")
    curve = shaded.get("runs/1/metrics?name=curve")
    points = next(point["curve"] for point in curve if point["client"] == "" and point["model_round"] == 1)
    drawn = page.locator("[data-part=line]").get_attribute("points") or ""
    there = [[float(number) for number in place.split(",")] for place in drawn.split()]
    assert there == [[pytest.approx(100 * x), pytest.approx(100 - 100 * y)] for x, y in points]


def test_the_keyboard_moves_the_threshold_and_brings_it_back(shaded: Federation, page: Page) -> None:
    open_run(page, shaded)
    slider = page.locator(CUT)
    expect(slider).to_have_attribute("aria-valuetext", re.compile("^0.375: finds 100.0 %.*; the model's own$"))
    expect(page.get_by_role("button", name="The model's own")).to_be_disabled()
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    # From 9/16 on: of each client 8 of 9 dark are spared (all but mark 11), 6 of 7 bright found (all but mark 6).
    told = "0.563: finds 85.7 % of bright, with 11.1 % of dark called bright"
    expect(slider).to_have_attribute("aria-valuetext", told)
    assert table(page) == [["dark", "16", "2", "18"], ["bright", "2", "12", "14"]]
    assert (rate(page, "accuracy"), rate(page, "sensitivity")) == ("87.5 %", "85.7 %")
    for key, wanted in (("End", [["dark", "18", "0", "18"], ["bright", "14", "0", "14"]]),
                        ("Home", [["dark", "0", "18", "18"], ["bright", "0", "14", "14"]])):
        page.keyboard.press(key)
        assert table(page) == wanted
    page.get_by_role("button", name="The model's own").click()
    assert table(page)[0] == ["dark", "12", "6", "18"]


def test_one_client_is_shown_by_itself(shaded: Federation, page: Page) -> None:
    open_run(page, shaded)
    page.get_by_label("Measured by").select_option("hospital-2")
    expect(page.locator("[data-part=about]")).to_have_text("The model of round 1 on 16 test examples.")
    assert table(page) == [["dark", "6", "3", "9"], ["bright", "0", "7", "7"]]
    page.get_by_label("Scores").select_option("val_marks")
    expect(page.locator("[data-part=about]")).to_have_text("The model of round 1 on 16 val examples.")
    expect(page.get_by_role("link", name="The counts as JSON")).to_have_attribute(
        "href", re.compile(r"client=hospital-2&of=val_marks$")
    )


def test_a_models_page_shows_that_model_with_the_tasks_notice(shaded: Federation, page: Page) -> None:
    first = next(model for model in shaded.get("models?run=1") if model["round"] == 0)
    page.goto(f"{shaded.url}/models/{first['id']}")
    expect(page.locator("[data-part=about]")).to_have_text("The model of round 0 on 32 test examples.")
    expect(page.get_by_text("Not a light meter.")).to_be_visible()
    assert_accessible(page)


def test_a_run_that_has_no_confusion_has_no_panel(shaded: Federation, page: Page) -> None:
    with page.expect_response(re.compile("/confusion")):
        page.goto(f"{shaded.url}/runs/2")
    expect(page.locator("#confusion")).to_be_hidden()
    expect(page.locator('a[href="#confusion"]')).to_be_hidden()


def open_try(page: Page, fed: Federation) -> None:
    page.goto(f"{fed.url}/try?run=1")
    expect(page.locator(".sample").first).to_be_visible()


def bring(page: Page, name: str, content: bytes) -> None:
    page.locator("#file").set_input_files({"name": name, "mimeType": "image/png", "buffer": content})


def test_a_file_is_judged_at_the_models_own_threshold_with_a_heat_map_over_it(
    shaded: Federation, page: Page
) -> None:
    open_try(page, shaded)
    expect(page.locator("#notice")).to_have_text("Not a light meter.")
    expect(page.locator("#sheet-box")).to_be_hidden()
    corner = np.full((4, 4), 90, np.uint8)
    corner[0, 3] = 250                              # 100 on average: 39.2 %, above 37.5 %
    bring(page, "corner.png", png(corner))
    expect(page.locator("#guess")).to_have_text("bright")
    expect(page.locator("#sure")).to_have_text("39.2 %")
    expect(page.locator("#cut")).to_have_text(
        "It says bright where the probability of that is 37.5 % or more: this model's own threshold."
    )
    expect(page.locator("#told")).to_contain_text("What speaks most for it lies at the upper right.")
    expect(page.locator("#view")).to_have_attribute("aria-label", "corner.png")
    heat = page.locator("#heat")
    expect(heat).to_be_visible()
    page.get_by_role("switch", name="Heat map").uncheck()
    expect(heat).to_be_hidden()
    page.get_by_role("button", name="dark, sample 1").click()
    expect(page.locator("#guess")).to_have_text("dark")
    page.get_by_role("switch", name="Heat map").check()
    expect(heat).to_be_visible()


def test_a_file_is_dropped_anywhere_and_what_is_no_picture_is_said(shaded: Federation, page: Page) -> None:
    open_try(page, shaded)
    drop = """content => {
        const data = new DataTransfer();
        data.items.add(new File([Uint8Array.from(content)], "dropped.png"));
        for (const type of ["dragover", "drop"]) document.querySelector("h1").dispatchEvent(
            new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
    }"""
    page.evaluate(drop, list(png(200, mode="RGBA")))
    expect(page.locator("#guess")).to_have_text("bright")
    page.evaluate(drop, list(b"hello"))
    expect(page.get_by_role("alert")).to_contain_text("this file cannot be used: its content is neither JPEG nor PNG")
    expect(page.locator("#guess")).to_have_text("?")
    expect(page.locator("#seen-by")).to_have_text("no answer")
    bring(page, "large.png", bytes((16 << 20) + 1))
    expect(page.get_by_role("alert")).to_contain_text("large.png has 16.0 MB; at most 16 are taken")
    bring(page, "fine.png", png(30))
    expect(page.locator("#guess")).to_have_text("dark")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_another_run_that_takes_drawings_brings_the_sheet_back(shaded: Federation, page: Page) -> None:
    open_try(page, shaded)
    bring(page, "fine.png", png(200))
    expect(page.locator("#guess")).to_have_text("bright")
    page.get_by_label("Model", exact=True).select_option("run=2")
    expect(page.locator("#sheet-box")).to_be_visible()
    for gone in ("#file-box", "#notice"):
        expect(page.locator(gone)).to_be_hidden()
    expect(page.locator("#guess")).to_have_text("?")
    page.get_by_role("button", name="Show a test image of a 3").first.click()
    expect(page.locator("#guess")).to_have_text(re.compile("^[37]$"))


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_panel_and_page_are_accessible(shaded: Federation, page_at: PageAt, width: int, scheme: str) -> None:
    page = page_at(width, scheme)
    open_run(page, shaded)
    assert_accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    open_try(page, shaded)
    bring(page, "fine.png", png(200))
    expect(page.locator("#heat")).to_be_visible()
    assert_accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
