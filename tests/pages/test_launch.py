"""The launch form in a real browser: every kind of field, what is wrong beside it, and who could take part."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_scene import PageAt, assert_accessible
from playwright.sync_api import Locator, Page, expect
from stranger import Stranger, ask

from federation_scene import Federation, wait_until

SMALL_TASK = Path(__file__).parents[1] / "client" / "small_task.py"
NUM_LONG = 100_000          # rounds: a run that is still there when the test looks
END_MS = 90_000


def open_form(page: Page, fed: Federation, task: str = "mnist_3v7", **query: str) -> Locator:
    page.goto(f"{fed.url}/launch?task={task}" + "".join(f"&{name}={value}" for name, value in query.items()))
    return page.get_by_role("form", name=f"Launch {task}")


def unfold(page: Page) -> None:
    page.locator("details.more > summary").click()


def panel(page: Page) -> Locator:
    return page.locator("#launch-check")


def button(page: Page) -> Locator:
    return page.get_by_role("button", name="Launch training")


def tab_to(page: Page, wanted: Locator, key: str = "Tab") -> None:
    """By the keyboard, as somebody without a mouse gets there."""
    for _ in range(80):
        page.keyboard.press(key)
        if wanted.evaluate("element => element === document.activeElement"):
            return
    pytest.fail(f"{wanted} cannot be reached by {key}")


def launched(page: Page, fed: Federation) -> dict[str, Any]:
    """The run whose page the browser is at."""
    page.wait_for_url(re.compile(r"/runs/\d+$"))
    return fed.get(f"runs/{page.url.rpartition('/')[2]}")


def act(fed: Federation, run: Any, verb: str) -> None:
    ask(fed, "POST", f"runs/{run}/{verb}")


@pytest.fixture
def long_run(shared: Federation) -> Iterator[dict[str, Any]]:
    """A run of both hospitals that plays until the test has ended."""
    run = ask(shared, "POST", "runs", {"task": "mnist_3v7", "rounds": NUM_LONG})
    wait_until(lambda: shared.get(f"runs/{run['number']}")["rounds"] > 0, "its first round")
    yield run
    if shared.get(f"runs/{run['number']}")["status"] != "cancelled":
        act(shared, run["number"], "cancel")


def test_a_newcomer_trains_from_the_browser(federation: Federation, page: Page) -> None:
    federation.start_central()
    page.goto(federation.url)
    expect(page.get_by_text("Nobody has registered yet")).to_be_visible()
    expect(page.get_by_text(f"fednode client --central {federation.url}").first).to_be_visible()

    for number in (1, 2):
        name = f"hospital-{number}"
        federation.start_client(name, "--task", "mnist_3v7", "--offline-sample", "--partition", f"{number}/2")
    expect(page.get_by_text("2 clients offer it")).to_be_visible(timeout=60_000)
    page.get_by_role("link", name="Launch training").click()

    form = page.get_by_role("form", name="Launch mnist_3v7")
    form.get_by_label("Rounds").fill("3")
    form.get_by_label("Epochs").fill("2")
    button(page).click()
    expect(page.get_by_role("heading", name="Run #1")).to_be_visible()
    expect(page.locator("#run-head .status")).to_have_text("completed", timeout=END_MS)     # it changes by itself
    expect(page.locator("#run-head")).to_contain_text("3 of 3")
    expect(page.locator("#rounds tr")).to_have_count(4)                                     # rounds 0 to 3
    with page.expect_download() as download:
        page.get_by_text("Download the params").click()
    assert download.value.path().stat().st_size > 3_000


def test_from_the_overview_to_a_completed_run_by_keyboard_alone(shared: Federation, page: Page) -> None:
    page.goto(shared.url)
    tab_to(page, page.locator("a.launch-task[href*=mnist_3v7]"))
    page.keyboard.press("Enter")
    rounds = page.get_by_label("Rounds")
    tab_to(page, rounds)
    page.keyboard.type("2")
    expect(rounds).to_have_value("2")           # typing replaces what stood there
    expect(panel(page)).to_contain_text("--rounds 2")
    tab_to(page, button(page))
    page.keyboard.press("Enter")
    assert launched(page, shared)["rounds_planned"] == 2
    expect(page.locator("#run-head .status")).to_have_text("completed", timeout=END_MS)


def test_pause_resume_and_cancel_by_keyboard_alone(shared: Federation, page: Page, long_run: dict[str, Any]) -> None:
    page.goto(f"{shared.url}/runs/{long_run['number']}")
    status, dialog = page.locator("#run-head h1 .status"), page.locator("#confirm")

    def press(name: str) -> None:
        tab_to(page, page.locator("#run-head").get_by_role("button", name=name, exact=True))
        page.keyboard.press("Enter")

    press("Pause")                              # the open round ends first
    expect(status).to_have_text("paused")
    press("Resume")
    expect(status).to_have_text("running")
    press("Pause now")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")               # no is no
    expect(dialog).to_be_hidden()
    assert shared.get(f"runs/{long_run['number']}")["status"] == "running"
    press("Pause now")
    tab_to(page, dialog.get_by_role("button", name="Pause now"))
    page.keyboard.press("Enter")
    expect(status).to_have_text("paused")
    press("Cancel")
    expect(dialog).to_contain_text("for good")
    tab_to(page, dialog.get_by_role("button", name="Cancel the run"))
    page.keyboard.press("Enter")
    expect(status).to_have_text("cancelled")


def test_wrong_fields_are_named_beside_them_all_at_once_and_nothing_starts(shared: Federation, page: Page) -> None:
    num_runs = len(shared.get("runs"))
    form = open_form(page, shared)
    unfold(page)
    wrong = {"Rounds": "0", "Learning rate": "0", "Epochs": "", "Deadline of a round": "soon", "Quorum": "-1"}
    for label, text in wrong.items():
        form.get_by_label(label).fill(text)
    form.get_by_label("Batch size").fill("17")
    page.get_by_label("Only these").check()
    button(page).click()
    expect(page).to_have_title(re.compile("Not launched"))
    told = {
        "Rounds": "Set rounds to 1 or more", "Learning rate": "Set task.learning_rate to more than 0",
        "Epochs": "Nothing stands here", "Deadline of a round": "'soon' is no duration. Write 600, 90s, 10m",
        "Quorum": "Set min_updates to 1 or more",
    }
    for label, sentence in told.items():
        field = form.get_by_label(label)
        expect(field).to_have_attribute("aria-invalid", "true")
        expect(field).to_have_accessible_description(re.compile(re.escape(sentence)))
        expect(field).to_have_value(wrong[label])
        expect(panel(page).get_by_role("link", name=label)).to_be_visible()
    expect(form.get_by_text("No client is ticked").first).to_be_visible()
    expect(form.get_by_label("Rounds")).to_be_focused()
    expect(form.get_by_label("Batch size")).to_have_value("17")
    expect(panel(page)).to_contain_text("6 fields to correct")
    assert len(shared.get("runs")) == num_runs

    form.get_by_label("Rounds").fill("3")
    expect(form.locator("#f-rounds-error")).to_be_hidden()          # what is right again is not held against anybody
    expect(panel(page)).to_contain_text("5 fields to correct")
    panel(page).get_by_role("link", name="Quorum").click()
    expect(form.get_by_label("Quorum")).to_be_focused()


@pytest.mark.parametrize(
    ("strategy", "settings"),
    [("fedprox", {"Mu": "0.5"}), ("fedadam", {"Beta1": "0.5", "Server learning rate": "0.25"})],
)
def test_a_strategy_brings_its_own_fields_to_the_run(
    shared: Federation, page: Page, strategy: str, settings: dict[str, str]
) -> None:
    form = open_form(page, shared)
    unfold(page)
    expect(form.get_by_label("Mu")).to_be_hidden()
    form.get_by_label("How updates become the next model").select_option(strategy)
    for label, text in settings.items():
        page.get_by_role("group", name=f"Settings of {strategy}").get_by_label(label).fill(text)
    form.get_by_label("Rounds").fill("1")
    button(page).click()
    config = launched(page, shared)["config"]
    assert config["strategy"] == strategy
    for label, text in settings.items():
        assert config["strategy_config"][label.lower().replace(" ", "_")] == float(text)


def test_every_field_reaches_the_run_and_the_command_asks_for_the_same(shared: Federation, page: Page) -> None:
    form = open_form(page, shared)
    expect(form.get_by_label("Start from")).to_have_value("latest")         # there is a model that fits
    unfold(page)
    typed = {
        "Rounds": "2", "Epochs": "3", "Batch size": "16", "Learning rate": "0.25", "Quorum": "1",
        "Cohort fraction": "0.5", "Deadline of a round": "2m", "Seed": "42", "Patience": "5", "Keep one in": "0",
    }
    for label, text in typed.items():
        form.get_by_label(label).fill(text)
    form.get_by_label("Best model by").select_option(label="loss")
    form.get_by_label("Params travel as").select_option(label="bf16")
    form.get_by_label("hospital-2").check()
    expect(page.get_by_label("Only these")).to_be_checked()
    expect(panel(page)).to_contain_text("Taking part: hospital-2")
    expect(panel(page)).to_contain_text("--clients hospital-2")
    command = shlex.split(page.locator("#launch-command").inner_text())
    button(page).click()
    run = launched(page, shared)
    config = run["config"]
    assert (config["rounds"], config["seed"], config["deadline_s"], config["clients"]) == (2, 42, 120.0, ["hospital-2"])
    assert (config["min_updates"], config["cohort_fraction"]) == (1, 0.5)
    assert (config["best_metric"], config["patience"], config["keep_every"]) == ("loss", 5, 0)
    assert config["encoding"] == "bf16"
    assert config["task_config"] == {**config["task_config"], "epochs": 3, "batch_size": 16, "learning_rate": 0.25}
    assert config["start_model"]

    shared.end_of(run["run_id"])
    assert (command[:2], "latest" in command) == (["fednode", "run"], True)
    again = shared.json(*command[1:])["config"]
    assert again | {"start_model": ""} == config | {"start_model": ""}


def test_two_runs_queue_and_the_form_says_so_before(shared: Federation, page: Page, long_run: dict[str, Any]) -> None:
    open_form(page, shared)
    before = f"Run #{long_run['number']} is running with the same clients: this one will queue behind it"
    expect(panel(page)).to_contain_text(before)
    expect(button(page)).to_be_enabled()
    button(page).click()
    run = launched(page, shared)
    expect(page.locator("#run-head h1 .status")).to_have_text("queued")
    expect(page.locator("#run-head")).to_contain_text(f"waiting for run #{long_run['number']}")
    act(shared, run["number"], "cancel")


def test_a_task_that_nobody_offers_cannot_be_launched_until_somebody_does(shared: Federation, page: Page) -> None:
    open_form(page, shared, "late")
    expect(button(page)).to_be_disabled()
    expect(panel(page)).to_contain_text("No client that would take part offers task 'late'")
    expect(page.get_by_text(f"fednode client --central {shared.url} --name hospital-a --task late")).to_be_visible()
    stranger = Stranger(shared, "latecomer")
    stranger.offers("late")
    expect(button(page)).to_be_enabled()
    expect(page.get_by_label("Learning rate")).to_have_value("0.5")
    stranger.leaves()
    expect(panel(page)).to_contain_text("the run will wait for 1 more client")
    expect(panel(page)).to_contain_text("latecomer gone since")


def test_the_panel_follows_who_comes_and_leaves_what_is_typed_alone(shared: Federation, page: Page) -> None:
    first = Stranger(shared, "toy.a")
    first.offers("toy")
    form = open_form(page, shared, "toy")
    unfold(page)
    form.get_by_label("Quorum").fill("2")
    form.get_by_label("toy.a", exact=True).check()
    page.get_by_label("All that offer the task").check()
    form.get_by_label("Seed").fill("12")
    expect(panel(page)).to_contain_text("the run will wait for 1 more client")
    page.evaluate("window.isTheSamePage = true")
    second = Stranger(shared, "toy.b")
    second.offers("toy")
    expect(panel(page)).to_contain_text("Ready to launch")
    expect(panel(page)).to_contain_text("Taking part: toy.a, toy.b")
    expect(form.get_by_label("toy.b", exact=True)).not_to_be_checked()
    expect(form.get_by_label("toy.a", exact=True)).to_be_checked()
    expect(form.get_by_label("Seed")).to_be_focused()
    expect(form.get_by_label("Seed")).to_have_value("12")
    first.leaves()
    expect(panel(page)).to_contain_text("toy.a gone since")
    expect(page.locator("#roster")).to_contain_text("toy.a gone since")
    assert page.evaluate("window.isTheSamePage")
    second.leaves()


def test_versions_that_differ_cannot_train_together_and_one_of_them_can(shared: Federation, page: Page) -> None:
    names = ("clinic-a", "clinic-b")
    for name in names:
        file = shared.folder / f"{name}.py"
        shutil.copy(SMALL_TASK, file)
        with file.open("a") as text:
            text.write(f"# as {name} has it\n")
        data = shared.folder / f"{name}-data"
        data.mkdir()
        (data / "examples").touch()
        shared.start_client(name, "--task", f"{file}:Small", "--data", str(data))
    shared.wait_for_clients(*names)
    offered = {client["name"]: client["offers"] for client in shared.get("clients")}
    versions = [offered[name][0]["fingerprint"] for name in names]
    open_form(page, shared, "small")
    expect(button(page)).to_be_disabled()
    for name, version in zip(names, versions, strict=True):
        expect(panel(page)).to_contain_text(f"{version} by {name}")
    page.get_by_role("link", name=versions[1]).click()
    expect(panel(page)).to_contain_text("Taking part: clinic-b")
    page.get_by_label("Rounds").fill("1")
    button(page).click()
    run = launched(page, shared)
    assert (run["config"]["fingerprint"], run["config"]["clients"]) == (versions[1], ["clinic-b"])
    assert shared.end_of(run["run_id"])["status"] == "completed"
    for name in names:
        shared.stop(name)


def test_a_strategy_that_the_task_does_not_support_cannot_be_taken(shared: Federation, page: Page) -> None:
    stranger = Stranger(shared, "plain")
    stranger.offers("plain")
    form = open_form(page, shared, "plain")
    unfold(page)
    option = form.get_by_label("How updates become the next model").locator("option[value=fedprox]")
    expect(option).to_have_text("fedprox: needs proximal, which plain lacks")
    expect(option).to_be_disabled()
    stranger.offers("plain", supports=["proximal"])
    open_form(page, shared, "plain")
    expect(page.locator("option[value=fedprox]")).to_be_enabled()
    stranger.leaves()


def test_every_kind_of_setting_can_be_typed(shared: Federation, page: Page) -> None:
    stranger = Stranger(shared, "kinds")
    stranger.offers("kinds", {"type": "object", "properties": {
        "depth": {"type": "integer", "default": 3}, "is_deep": {"type": "boolean", "default": True},
        "drop": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": 0.5},
        "model": {"$ref": "#/$defs/Model", "default": "a"}, "note": {"type": "string", "default": ""},
        "sizes": {"type": "array", "items": {"type": "integer"}, "default": [1]},
        "more": {"type": "object", "default": {}}, "classes": {"type": "integer"},
    }, "$defs": {"Model": {"enum": ["a", "b"]}}, "required": ["classes"]})
    form = open_form(page, shared, "kinds")
    expect(panel(page)).to_contain_text("Classes: Set task.classes.")
    unfold(page)
    form.get_by_label("Depth").fill("5")
    form.get_by_label("Drop").fill("")
    form.get_by_label("Is deep").uncheck()
    form.get_by_label("Model", exact=True).select_option(label="b")
    form.get_by_label("Note").fill("5")
    form.get_by_label("Sizes").fill("3, 4")
    form.get_by_label("More", exact=True).fill('{"a": [null]}')
    form.get_by_label("Classes").fill("2")
    expect(panel(page)).to_contain_text("Ready to launch")
    command = shlex.split(page.locator("#launch-command").inner_text())
    button(page).click()
    run = launched(page, shared)
    assert run["config"]["task_config"] == {
        "depth": 5, "drop": None, "is_deep": False, "model": "b", "note": "5", "sizes": [3, 4], "more": {"a": [None]},
        "classes": 2,
    }
    again = shared.json(*command[1:])
    assert again["config"]["task_config"] == run["config"]["task_config"]
    for number in (run["number"], again["number"]):
        act(shared, number, "cancel")
    stranger.leaves()


def test_a_models_card_leads_to_a_run_that_goes_on_from_it(shared: Federation, page: Page) -> None:
    model = shared.get("runs/1")["history"][-1]             # of round 0: the list of the form has only a run's last
    page.goto(f"{shared.url}/models/{model['model_sha256']}")
    page.get_by_role("link", name="Train on from here").click()
    expect(page.get_by_label("Start from")).to_have_value(model["model_sha256"])
    button(page).click()
    run = launched(page, shared)
    assert run["config"]["start_model"] == model["model_sha256"]
    shared.end_of(run["run_id"])


HOSTILE = '"><img src=x onerror="window.isBroken=true"><script>window.isBroken=true</script>{{ 7*7 }}'


def test_markup_in_an_offer_is_shown_as_text_and_breaks_nothing(shared: Federation, page: Page) -> None:
    stranger = Stranger(shared, "hostile")
    fields = {
        HOSTILE: {"type": "string", "title": HOSTILE, "description": HOSTILE, "default": HOSTILE},
        "choice": {"enum": [HOSTILE, "b"], "default": HOSTILE, "description": HOSTILE},
        "json": {"type": "object", "default": {"a": "</textarea>" + HOSTILE}},
    }
    stranger.offers(HOSTILE[:90], {"type": "object", "properties": fields}, fingerprint=HOSTILE)
    page.goto(shared.url)
    page.locator("a.launch-task", has_text="onerror").click()
    unfold(page)
    expect(page.get_by_role("textbox", name=HOSTILE[:60])).to_have_value(HOSTILE)
    expect(page.get_by_label("Choice")).to_have_value(json.dumps(HOSTILE))
    expect(page.get_by_label("Json")).to_have_value(re.compile("</textarea>"))
    page.get_by_label("Choice").select_option(label="b")
    page.get_by_label("Rounds").fill("0")
    button(page).click()
    expect(page.get_by_label("Rounds")).to_be_focused()
    expect(page.get_by_label("Choice")).to_have_value('"b"')
    expect(page.get_by_role("textbox", name=HOSTILE[:60])).to_have_value(HOSTILE)
    expect(page.locator("main img")).to_have_count(0)
    assert page.evaluate("window.isBroken") is None
    assert_accessible(page)
    stranger.leaves()


def test_a_huge_schema_does_not_break_the_form(shared: Federation, page: Page) -> None:
    stranger = Stranger(shared, "huge")
    fields = {f"setting_{n}": {"type": "integer", "default": n, "description": "long " * 100} for n in range(1500)}
    fields["odd"] = {"$ref": "#/$defs/Nobody"}
    stranger.offers("huge", {"type": "object", "properties": fields})
    open_form(page, shared, "huge")
    unfold(page)
    expect(page.get_by_text("1,301 more settings")).to_be_visible()         # 1,501 less the 200 that are shown
    page.get_by_label("Setting 7", exact=True).fill("70")
    expect(panel(page)).to_contain_text("--set task.setting_7=70")
    stranger.leaves()


def test_without_a_script_the_form_works_and_says_what_is_wrong(shared: Federation, page_at: PageAt) -> None:
    page = page_at(java_script_enabled=False)
    form = open_form(page, shared)
    unfold(page)
    form.get_by_label("How updates become the next model").select_option("fedprox")
    form.get_by_text("fedprox", exact=True).last.click()
    form.get_by_label("Mu", exact=True).fill("-1")
    form.get_by_label("Rounds").fill("1")
    button(page).click()
    expect(form.get_by_label("Mu", exact=True)).to_have_accessible_description(re.compile("Set mu to 0 or more"))
    expect(form.get_by_label("Mu", exact=True)).to_be_focused()
    form.get_by_label("Mu", exact=True).fill("0.25")
    button(page).click()
    config = launched(page, shared)["config"]
    assert (config["strategy"], config["strategy_config"], config["rounds"]) == ("fedprox", {"mu": 0.25}, 1)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_the_form_is_accessible(shared: Federation, page_at: PageAt, width: int, scheme: str) -> None:
    page = page_at(width, scheme)
    form = open_form(page, shared)
    expect(panel(page)).to_contain_text("fednode run mnist_3v7")
    assert_accessible(page)
    unfold(page)
    form.get_by_label("How updates become the next model").select_option("fedadam")
    form.get_by_label("Beta1").fill("2")
    form.get_by_label("Rounds").fill("0")
    button(page).click()
    expect(form.get_by_label("Rounds")).to_be_focused()
    assert_accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    open_form(page, shared, "nothing")
    assert_accessible(page)
    page.goto(f"{shared.url}/launch")
    assert_accessible(page)


def test_no_page_answers_a_stranger(federation: Federation) -> None:
    federation.start_central("--host", "0.0.0.0", "--insecure")
    for path in ("/", "/runs/1", "/launch?task=mnist", "/launch/roster?task=mnist", "/live/launch"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(federation.url + path)
        assert caught.value.code == 401
        assert "op_" in caught.value.read().decode()
