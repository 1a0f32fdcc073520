"""A task of a site that does what no task should: it costs its client node the update, never the client node.

One client node lives through all of it, one bad round after the other, and serves the round that comes next. Another
client, beside it, makes each round come to its end.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from bad_task import BEHAVIOURS, left_running
from people import People, failures_of
from raw_client import HonestClient, RawClient

from federation_scene import Federation
from torture_scale import pick, sample

TASK = Path(__file__).with_name("bad_task.py")
SITE, OTHER = "b-site", "a-raw"
DEADLINE_S, SHORT_DEADLINE_S = 120, 20       # the short one: a child is killed and another one started within it
TASK_ERROR, DEADLINE = "task_error", "deadline"

DIED = "the task's process died: "
# What the record says of each, and what its traceback holds.
FAILURES = {
    "raises": (TASK_ERROR, "RuntimeError: the disk of this site is on fire", r"in raises\b"),
    "raises_what_cannot_be_told": (TASK_ERROR, "Untellable", r"in raises_what_cannot_be_told\b"),
    "raises_an_error_of_ours": (TASK_ERROR, "only the client node's own words", r"in raises_an_error_of_ours\b"),
    "raises_keyboard_interrupt": (TASK_ERROR, "KeyboardInterrupt", r"in raises_keyboard_interrupt\b"),
    "raises_generator_exit": (TASK_ERROR, "GeneratorExit", r"in raises_generator_exit\b"),
    "calls_sys_exit": (TASK_ERROR, "SystemExit: bye", r"in calls_sys_exit\b"),
    "calls_os_exit": (TASK_ERROR, f"{DIED}it ended itself with exit code 3", "about to leave"),
    "calls_os_exit_0": (TASK_ERROR, f"{DIED}it ended itself with exit code 0", ""),
    "kills_itself": (TASK_ERROR, f"{DIED}killed by signal 9", ""),
    "terminates_itself": (TASK_ERROR, f"{DIED}killed by signal 15", ""),
    "reads_address_0": (TASK_ERROR, f"{DIED}killed by signal 11", ""),
    "aborts": (TASK_ERROR, f"{DIED}killed by signal 6", ""),
    "recurses": (TASK_ERROR, "RecursionError", r"in recurses\b"),
    "runs_out_of_memory": (TASK_ERROR, "MemoryError", r"in runs_out_of_memory\b"),
    "hangs": (DEADLINE, f"not done within the round's {SHORT_DEADLINE_S} s", ""),
    "hangs_in_c": (DEADLINE, f"not done within the round's {SHORT_DEADLINE_S} s", ""),
    "stops_itself": (DEADLINE, f"not done within the round's {SHORT_DEADLINE_S} s", ""),
    "brings_nothing": (TASK_ERROR, "returned a NoneType from train", ""),
    "brings_a_dict": (TASK_ERROR, "returned a dict from train", ""),
    "brings_bare_params": (TASK_ERROR, "returned a Params from train", ""),
    "brings_no_examples": (TASK_ERROR, "trained on 0 examples", ""),
    "brings_half_an_example": (TASK_ERROR, "trained on 1.5 examples", ""),
    "brings_too_many_examples": (TASK_ERROR, f"trained on {2**60} examples", ""),
    "brings_examples_in_words": (TASK_ERROR, "trained on 'many' examples", ""),
    "brings_another_shape": (TASK_ERROR, r"shape \(?\[?5", ""),
    "brings_another_dtype": (TASK_ERROR, "float64", ""),
    "brings_another_name": (TASK_ERROR, "'[vw]'", ""),
    "brings_a_nan": (TASK_ERROR, "NaN", ""),
    "brings_what_is_no_params": (TASK_ERROR, "dict", ""),
    "dies_and_leaves_children": (TASK_ERROR, f"{DIED}it ended itself with exit code 4", ""),
    "closes_every_file": (TASK_ERROR, f"{DIED}it (closed its pipes|ended itself with exit code)", ""),
    "reports_an_epoch_in_words": (TASK_ERROR, "epoch 'one'", r"in reports_an_epoch_in_words\b"),
    "reports_what_cannot_be_told": (TASK_ERROR, "UnicodeEncodeError", r"in reports_what_cannot_be_told\b"),
    "evaluates_to_what_cannot_be_told": (TASK_ERROR, r"evaluate\(\) returns '\\ud800'", ""),
    "evaluates_to_nothing": (TASK_ERROR, "returned a NoneType from evaluate", ""),
    "evaluates_to_a_dict": (TASK_ERROR, "returned a dict from evaluate", ""),
    "evaluates_by_raising": (TASK_ERROR, "ZeroDivisionError: no images", r"in evaluates_by_raising\b"),
    "evaluates_by_leaving": (TASK_ERROR, "SystemExit: 5", r"in evaluates_by_leaving\b"),
}
HARMLESS = {*BEHAVIOURS} - {*FAILURES} - {"nag", "left_running"}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Federation, People]]:
    federation = Federation(tmp_path_factory.mktemp("bad_tasks"))
    (federation.folder / "data").mkdir()
    (federation.folder / "data" / "examples").touch()
    federation.start_central()
    federation.start_client(SITE, "--task", f"{TASK}:Bad", "--data", "data")    # a path from where it is started
    people = People(federation.port)
    people.until_there(SITE)
    other = RawClient(federation.port, OTHER)
    other.join(people.join_token(), people.get(f"clients/{SITE}")["offers"])
    honest = HonestClient(other)
    honest.start()
    yield federation, people
    honest.stop()
    for pid in left_running(federation.folder / "clients" / SITE):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    federation.stop_all()


COSTLY = ("hangs", "stops_itself")          # each of them a deadline
LAST = "closes_its_output"                  # its process serves on, but whoever prints there fails
TRIED = [name for name in (*FAILURES, *sorted(HARMLESS - {LAST}), LAST) if name not in pick(COSTLY, ())]


@pytest.mark.parametrize("behaviour", sample(TRIED, 18))
def test_a_bad_task_costs_its_update_and_the_next_round_is_served(
    scene: tuple[Federation, People], behaviour: str
) -> None:
    federation, people = scene
    client = federation.members[SITE]
    code, sentence, trace = FAILURES.get(behaviour, ("", "", ""))
    run_id = people.start_run(
        "bad", rounds=1, min_updates=1, deadline_s=SHORT_DEADLINE_S if code == DEADLINE else DEADLINE_S,
        task_config={"behaviour": behaviour},
    )
    summary = people.end_of(run_id)
    assert summary["status"] == "completed", summary
    bad, after = people.ended_round(run_id, 1), people.ended_round(run_id, 2)
    failures = failures_of(bad)
    assert failures.keys() == ({SITE} if code else set()), failures
    if code:
        assert failures[SITE][0] == code, failures
        assert re.search(sentence, failures[SITE][1]), failures
        assert re.search(trace, traceback_of(people, run_id)), traceback_of(people, run_id)
    assert failures_of(after) == {}, federation.log(SITE)
    assert not (sentence.startswith(DIED) and left_alive(federation))
    assert client.poll() is None, federation.log(SITE)


def left_alive(federation: Federation) -> list[int]:
    """What a task started in its own process group ends with the task's process, at the latest."""
    pids = left_running(federation.folder / "clients" / SITE)[:1]
    return [pid for pid in pids if Path(f"/proc/{pid}").exists() and "sleep" in Path(f"/proc/{pid}/comm").read_text()]


def traceback_of(people: People, run_id: str) -> str:
    events = people.get(f"runs/{run_id}/events")["events"]
    told: list[Any] = [event["fields"].get("traceback", "") for event in events]
    return "\n".join(told)
