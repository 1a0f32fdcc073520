"""Try it, in a real browser: mouse, touch and keyboard draw, a model answers, and the page moves on with a run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from page_scene import PageAt, assert_accessible
from playwright.sync_api import Page, expect

from federation_scene import Federation

TINY = Path(__file__).parents[1] / "stories" / "tiny_task.py"
ONE = ((0.5, 0.15), (0.5, 0.85))            # a stroke, in parts of the sheet


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Run #1 has a model of ten digits, run #2 one of threes and sevens."""
    fed = Federation(tmp_path_factory.mktemp("federation"))
    fed.start_central()
    names = ("hospital-1", "hospital-2")
    for number, name in enumerate(names, 1):
        tasks = ("--task", "mnist", "--task", "mnist_3v7")
        fed.start_client(name, *tasks, "--offline-sample", "--partition", f"{number}/2")
    fed.wait_for_clients(*names)
    digits = fed.run_in_background("mnist", "--rounds", "2", "--seed", "7", "--set", "task.model=linear")
    threes = fed.run_in_background("mnist_3v7", "--rounds", "3", "--seed", "7")
    assert [fed.end_of(run)["status"] for run in (digits, threes)] == ["completed", "completed"]
    yield fed
    fed.stop_all()


def open_at(page: Page, fed: Federation, query: str = "run=1") -> None:
    page.goto(f"{fed.url}/try?{query}")
    expect(page.locator("#labels tr").first).to_be_visible()
    expect(page.locator(".sample").first).to_be_visible()


def on_sheet(page: Page, stroke: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    page.locator("#sheet").scroll_into_view_if_needed()
    box = page.locator("#sheet").bounding_box()
    assert box is not None
    return [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]


def draw(page: Page, stroke: Sequence[tuple[float, float]] = ONE) -> None:
    first, *others = on_sheet(page, stroke)
    page.mouse.move(*first)
    page.mouse.down()
    for place in others:
        page.mouse.move(*place, steps=5)
    page.mouse.up()


def shares(page: Page) -> list[float]:
    return [float(text.strip("> %")) for text in page.locator("#labels td:last-child").all_inner_texts()]


def test_a_stroke_of_the_mouse_is_a_one_and_nothing_of_it_is_kept(trained: Federation, page: Page) -> None:
    open_at(page, trained)
    events = trained.get("events?limit=1000")["next"]
    expect(page.locator("#guess")).to_have_text("?")
    draw(page)
    expect(page.locator("#guess")).to_have_text("1")
    expect(page.locator("#labels .is-best th")).to_have_text("1")
    expect(page.locator("#told")).to_have_text(re.compile(r"^Most likely 1, .+ %; then \d, .+ %\.$"))
    assert len(shares(page)) == 10 and sum(shares(page)) == pytest.approx(100, abs=1)
    assert page.locator("#seen").evaluate(INK) > 0
    assert trained.get("events?limit=1000")["next"] == events
    assert page.evaluate("Object.keys(localStorage).concat(Object.keys(sessionStorage))") == []
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#guess")).to_have_text("?")
    expect(page.locator("#told")).to_have_text("")


INK = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.reduce((a, b) => a + b)"


def test_the_keyboard_alone_draws_a_one_and_clears_it(trained: Federation, page: Page) -> None:
    open_at(page, trained)
    sheet = page.locator("#sheet")
    page.locator("#model").focus()
    for _ in range(5):
        page.keyboard.press("Tab")
        if sheet.evaluate("sheet => sheet === document.activeElement"):
            break
    expect(sheet).to_be_focused()
    expect(page.locator("#cell")).to_be_visible()
    page.keyboard.press("Enter")
    for _ in range(9):
        page.keyboard.press("ArrowDown")
    expect(page.locator("#cell-told")).to_have_text("Row 13, column 8, ink.")       # it began in row 4
    page.keyboard.press("Enter")
    expect(page.locator("#cell-told")).to_have_text("Pen up.")
    expect(page.locator("#guess")).to_have_text("1")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#cell-told")).to_have_text("Row 13, column 9.")
    page.keyboard.press("Delete")
    expect(page.locator("#guess")).to_have_text("?")
    page.keyboard.press("Space")
    expect(page.locator("#cell-told")).to_have_text("Row 13, column 9, ink.")
    expect(page.locator("#guess")).to_have_text(re.compile(r"\d"))
    page.keyboard.press("Space")
    expect(page.locator("#cell-told")).to_have_text("Row 13, column 9.")
    expect(page.locator("#guess")).to_have_text("?")
    page.keyboard.press("Tab")
    expect(sheet).not_to_be_focused()
    expect(page.locator("#cell")).to_be_hidden()


def test_a_finger_draws_and_the_page_stays_where_it_is(trained: Federation, page_at: PageAt) -> None:
    page = page_at(390, has_touch=True, is_mobile=True)
    open_at(page, trained)
    first, last = on_sheet(page, ONE)
    before = page.evaluate("scrollY")
    touch = page.context.new_cdp_session(page)
    path = [(first[0], first[1] + (last[1] - first[1]) * step / 8) for step in range(9)]
    for number, (x, y) in enumerate(path):
        kind = "touchMove" if number else "touchStart"
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    expect(page.locator("#guess")).to_have_text("1")
    assert page.evaluate("scrollY") == before
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(("query", "num_samples", "num_right"), [("run=1", 10, 8), ("run=2", 8, 7)])
def test_a_trained_model_knows_most_of_the_bundled_test_digits(
    trained: Federation, page: Page, query: str, num_samples: int, num_right: int
) -> None:
    open_at(page, trained, query)
    samples = page.get_by_role("button", name="Show a test image of a")
    expect(samples).to_have_count(num_samples)
    right = 0
    for sample in samples.all():
        sample.click()
        expect(page.locator("#answer")).to_have_attribute("aria-busy", "false")
        right += (sample.get_attribute("aria-label") or "").endswith(page.locator("#guess").inner_text())
    assert right >= num_right


def test_the_page_moves_on_with_the_run_and_leaves_the_drawing_alone(trained: Federation, page: Page) -> None:
    run_id = trained.run_in_background("mnist_3v7", "--rounds", "5000", "--epochs", "1", "--seed", "7")
    number = trained.get(f"runs/{run_id}")["number"]
    try:
        page.goto(f"{trained.url}/try")
        expect(page.locator("#model")).to_have_value(f"run={number}")       # what trains now comes first
        expect(page.locator("#following")).to_be_visible()
        draw(page, ((0.3, 0.2), (0.7, 0.2), (0.45, 0.85)))
        expect(page.locator("#guess")).to_have_text(re.compile("[37]"))
        sheet = page.locator("#sheet").evaluate(INK)
        expect(page.locator("#path li").nth(3)).to_be_visible()             # four rounds looked at one drawing
        rounds = [int(text.split()[1]) for text in page.locator("#path li > :first-child").all_inner_texts()]
        assert rounds == sorted(set(rounds))
        expect(page.locator("#seen-by")).not_to_have_text(f"the model of round {rounds[-1]}")
        assert page.locator("#sheet").evaluate(INK) == sheet
    finally:
        trained.cli("cancel", str(number))
    expect(page.locator("#following")).to_be_hidden()
    expect(page.locator("#model option:checked")).to_contain_text("final model")
    last = trained.get(f"runs/{number}")["rounds"]
    expect(page.locator("#seen-by")).to_have_text(f"the model of round {last}")


def test_another_model_is_chosen_and_is_the_address_of_the_page(trained: Federation, page: Page) -> None:
    open_at(page, trained)
    draw(page)
    expect(page.locator("#guess")).to_have_text("1")
    page.get_by_label("Model", exact=True).select_option("run=2")
    expect(page.locator("#labels tr")).to_have_count(2)
    expect(page.get_by_text("It only knows 3 and 7.")).to_be_visible()
    expect(page.locator("#guess")).to_have_text(re.compile("[37]"))
    assert page.url.endswith("/try?run=2")
    first = trained.get("models")[-1]
    open_at(page, trained, f"model={first['id']}")
    expect(page.locator("#round")).to_have_text("round 0")


def test_what_cannot_be_tried_is_said_from_the_first_page_on(federation: Federation, page: Page) -> None:
    federation.start_central()
    page.goto(f"{federation.url}/try")
    expect(page.get_by_text(f"fednode client --central {federation.url} --name hospital-a")).to_be_visible()
    federation.start_client("hospital-1", "--task", f"{TINY}:Tiny")
    federation.wait_for_clients("hospital-1")
    page.reload()
    expect(page.get_by_text("fednode run tiny --follow")).to_be_visible()
    federation.run_in_background("tiny", "--rounds", "1")
    expect(page.get_by_role("alert")).to_contain_text("no task 'tiny' is installed here")      # it came by itself
    expect(page.get_by_role("alert")).to_contain_text("at the central node: install the package that has it")
    draw(page)
    expect(page.locator("#seen-by")).to_have_text("no model to ask")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible(trained: Federation, page_at: PageAt, width: int, scheme: str) -> None:
    page = page_at(width, scheme)
    open_at(page, trained)
    assert_accessible(page)
    page.locator(".sample").first.click()
    expect(page.locator("#guess")).to_have_text(re.compile(r"\d"))
    assert_accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_picture_is_made_as_mnist_was(trained: Federation, page: Page) -> None:
    open_at(page, trained)
    made = page.evaluate(
        """async (side) => {
            const { likeMnist } = await import("/static/draw.js");
            const ink = new Float32Array(side * side);
            for (let y = 50; y < 90; y++) for (let x = 5; x < 25; x++) ink[y * side + x] = 1;
            return { bar: Array.from(likeMnist(ink, side)), nothing: likeMnist(new Float32Array(side * side), side) };
        }""",
        100,
    )
    # 20 x 40 becomes 10 x 20, in the middle of 28 x 28: rows 4 to 23, columns 9 to 18.
    bar = [255 if 4 <= row < 24 and 9 <= column < 19 else 0 for row in range(28) for column in range(28)]
    assert made == {"bar": bar, "nothing": None}
