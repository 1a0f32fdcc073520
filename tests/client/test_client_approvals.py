"""Approval by hand: nothing of a task's file runs before a person has seen it, and what differs is shown as it is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from client_scenes import TASK

from fednode.client.approvals import Approvals, Code, Verdict, code_of_file
from fednode.client.rehearsal import rehearse
from fednode.clock import HandClock
from fednode.core.policy import Policy
from fednode.errors import BadConfig, NotFound
from fednode.tasks.registry import load_task

SOURCE = Path(TASK.rpartition(":")[0]).read_text()
BY_HAND = Policy(is_by_hand=True)


@pytest.fixture
def approvals(tmp_path: Path) -> Approvals:
    return Approvals(tmp_path / "state", HandClock())


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    """A task that says when its file is run."""
    file = tmp_path / "small.py"
    file.write_text(f"{SOURCE}\nfrom pathlib import Path\n\nPath({str(tmp_path / 'has_run')!r}).touch()\n")
    return file


def code(source: str, task: str = "digits") -> Code:
    key = hashlib.sha256(source.encode()).hexdigest()
    return Code(key=key, task=task, fingerprint=f"{task}#{key[:12]}", spec="digits.py", source=source)


# --- what a source is called, and how it differs ------------------------------------------------------


def test_a_file_is_known_by_the_fingerprint_that_it_will_have_without_being_run(task_file: Path) -> None:
    found = [code_of_file(spec).fingerprint for spec in (f"{task_file}:Small", str(task_file))]
    assert not (task_file.parent / "has_run").exists()
    assert set(found) == {load_task(f"{task_file}:Small").fingerprint}


@pytest.mark.parametrize(("source", "told"), [
    ("class Digits(Task):\n    name: str = 'ten'\n", "ten"), ("class Digits(Task): pass\n", "digits"),
    ("class A(Task): pass\nclass B(Task): pass\n", "mine"), ("class Digits(Task):\n    name = 'a' + 'b'\n", "digits"),
    ("this is no Python", "mine"), ("", "mine"), ("x = '\\x00'\0", "mine"),
])
def test_a_name_is_read_from_the_source_or_the_file_gives_it(tmp_path: Path, source: str, told: str) -> None:
    (tmp_path / "mine.py").write_text(source)
    assert code_of_file(str(tmp_path / "mine.py")).task == told


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"gone\.py cannot be read"):
        code_of_file(f"{tmp_path}/gone.py:Digits")


def test_the_difference_is_to_the_last_approved_source_of_the_task(approvals: Approvals) -> None:
    first, second = code("a = 1\nb = 2\n"), code("a = 1\nb = 3\n")
    other = replace(code("a = 1\n", "others"), spec="others.py")
    approvals.ask([first, other])
    assert approvals.review(first).difference[3:] == ("+a = 1", "+b = 2")       # nothing approved before: all of it
    approvals.decide(first.fingerprint, Verdict.APPROVED)
    approvals.decide(other.fingerprint, Verdict.APPROVED)
    approvals.ask([second])
    shown = approvals.review(second)
    assert shown.before == first.fingerprint
    assert shown.difference == (
        f"--- {first.fingerprint}", f"+++ {second.fingerprint}", "@@ -1,2 +1,2 @@", " a = 1", "-b = 2", "+b = 3",
    )
    renamed = replace(second, task="numbers", fingerprint="numbers#1")          # the same file, so the same task
    assert approvals.review(renamed).before == first.fingerprint


def test_what_a_reader_would_not_see_is_shown_as_an_escape(approvals: Approvals) -> None:
    """U+202E turns the rest of a line around, U+200B has no width, an ANSI code paints over, U+2028 breaks a line."""
    shown = approvals.review(code("if a:\u202e#\u200b\n\tx\x1b[1A\u2028y = 'é'\r\n")).difference[3:]
    assert shown == ("+if a:\\u202e#\\u200b", "+\tx\\x1b[1A\\u2028y = 'é'")


# --- what is kept -------------------------------------------------------------------------------------


def test_a_decision_outlives_the_process_and_is_for_its_owners_eyes(approvals: Approvals, tmp_path: Path) -> None:
    digits = code("a = 1\n")
    approvals.ask([digits])
    assert approvals.verdict(digits) is Verdict.WAITING
    approvals.decide(digits.fingerprint, Verdict.APPROVED)
    again = Approvals(tmp_path / "state", HandClock())
    assert (again.verdict(digits), again.all()[0].source) == (Verdict.APPROVED, "a = 1\n")
    again.ask([digits])                                     # a later start asks for nothing twice
    assert again.verdict(digits) is Verdict.APPROVED
    files = list((tmp_path / "state" / "approvals").iterdir())
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600]


def test_what_is_not_offered_any_more_does_not_wait_for_ever(approvals: Approvals) -> None:
    old, new, refused = code("a = 1\n"), code("a = 2\n"), code("a = 3\n")
    approvals.ask([old, refused])
    approvals.decide(refused.key, Verdict.REFUSED)
    approvals.ask([new])
    assert {one.key: one.verdict for one in approvals.all()} == {new.key: "waiting", refused.key: "refused"}


@pytest.mark.parametrize("content", [b"", b"[]", b'{"verdict": "approved"}', b'{"verdict": "yes", "at_s": 0}'])
def test_a_file_that_cannot_be_read_approves_nothing(approvals: Approvals, tmp_path: Path, content: bytes) -> None:
    digits = code("a = 1\n")
    approvals.ask([digits])
    approvals.decide(digits.key, Verdict.APPROVED)
    file = tmp_path / "state" / "approvals" / f"{digits.key}.json"
    file.write_bytes(content)
    assert approvals.verdict(digits) is Verdict.WAITING
    approvals.ask([digits])                                 # and it can be decided again
    assert json.loads(file.read_bytes())["verdict"] == "waiting"


def test_a_decision_is_for_the_source_that_it_names(approvals: Approvals) -> None:
    digits = code("a = 1\n")
    approvals.ask([digits, replace(code("a = 2\n"), fingerprint=digits.fingerprint)])       # as if the 12 digits met
    with pytest.raises(BadConfig, match="several sources"):
        approvals.decide(digits.fingerprint, Verdict.APPROVED)
    approvals.decide(digits.key, Verdict.APPROVED)
    assert approvals.verdict(code("a = 2\n")) is Verdict.WAITING
    with pytest.raises(NotFound, match="'digits@9'"):
        approvals.decide("digits@9", Verdict.APPROVED)


# --- a client node obeys ------------------------------------------------------------------------------


async def test_a_new_file_is_not_run_before_it_is_approved_and_then_trains_without_a_restart(
    central, node, settings, order, task_file
) -> None:
    spec, has_run = f"{task_file}:Small", task_file.parent / "has_run"
    decisions = Approvals(settings.state_dir, HandClock())          # as another process sees them
    async with node(policy=BY_HAND, tasks=(spec,)) as client:
        await client.until("registered")
        assert client.heard.lines[:2] == ["offered [] refused []", "asks ['small waiting']"]
        assert central.calls("PUT /clients/me")[0].json["offers"] == []
        assert not has_run.exists()
        waiting = decisions.all()[0]
        assert waiting.source == task_file.read_text()

        order(1, fingerprint=waiting.fingerprint)
        assert "'small' is not offered" in (await central.until("POST /failure")).json["reason"]
        assert not has_run.exists()
        decisions.decide(waiting.fingerprint, Verdict.APPROVED)
        offers = (await central.until("PUT /clients/me", 2)).json["offers"]
        assert [offer["fingerprint"] for offer in offers] == [waiting.fingerprint]
        order(2, fingerprint=waiting.fingerprint)
        await client.until("sent")

        task_file.write_text(task_file.read_text() + "\n# edited\n")
        order(3, fingerprint=waiting.fingerprint)
        assert "was edited since" in (await central.until("POST /failure", 2)).json["reason"]
        decisions.decide(waiting.fingerprint, Verdict.REFUSED)
        assert (await central.until("PUT /clients/me", 3)).json["offers"] == []
    assert client.visits == ["evaluate 2", "train 2"]


async def test_a_dry_run_says_what_would_wait_and_neither_runs_it_nor_asks(settings, task_file) -> None:
    found = await rehearse(replace(settings, policy=BY_HAND, tasks=(f"{task_file}:Small",)), HandClock())
    assert ([code.task for code in found.waiting], found.presence.offers) == (["small"], [])
    assert not (task_file.parent / "has_run").exists()
    assert not settings.state_dir.exists()


async def test_an_approved_task_of_a_package_is_offered_by_its_version(central, node, settings) -> None:
    async with node(policy=replace(BY_HAND, tasks=("mnist_3v7",)), tasks=(), offline_sample=True) as client:
        await client.until("registered")
        assert central.calls("PUT /clients/me")[0].json["offers"] == []
        waiting = Approvals(settings.state_dir, HandClock()).all()[0]
        assert (waiting.spec, waiting.source) == ("mnist_3v7", "")
        Approvals(settings.state_dir, HandClock()).decide(waiting.fingerprint, Verdict.APPROVED)
        await central.until("PUT /clients/me", 2)
    async with node(policy=replace(BY_HAND, tasks=("mnist_3v7",)), tasks=(), offline_sample=True) as client:
        await client.until("offered ['mnist_3v7']")          # it is remembered


async def test_a_refused_task_keeps_its_client_waiting_not_failing(central, node, settings, task_file) -> None:
    decisions, small = Approvals(settings.state_dir, HandClock()), code_of_file(f"{task_file}:Small")
    decisions.ask([small])
    decisions.decide(small.key, Verdict.REFUSED)
    async with node(policy=BY_HAND, tasks=(f"{task_file}:Small",)) as client:
        await client.until("registered")
        assert client.heard.lines[:2] == [f"offered [] refused ['{task_file}:Small']", "asks ['small refused']"]
