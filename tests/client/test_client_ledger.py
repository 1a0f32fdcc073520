"""What left a client node, and its owner's switch: both outlive the process, however it ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from scripted_central import error

from fednode.client.ledger import MAX_LINES, MAX_RECENT, Ledger
from fednode.client.sharing import Sharing
from fednode.clock import HandClock

FIRST, SECOND = "run_1.1.1", "run_1.2.1"
DIGEST = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path, HandClock())


def put(ledger: Ledger, assignment: str, num_bytes: int) -> None:
    ledger.leaves("PUT", f"/api/v1/assignments/{assignment}/update", num_bytes)


def sums(ledger: Ledger) -> tuple[int, int, int]:
    return ledger.left.params_bytes, ledger.left.other_bytes, ledger.left.num_updates


def test_params_and_all_else_are_counted_apart(ledger: Ledger) -> None:
    ledger.knows(FIRST, 12)
    ledger.leaves("PUT", "/api/v1/clients/me", 300)
    ledger.leaves("POST", f"/api/v1/assignments/{FIRST}/metrics", 50)
    ledger.leaves("POST", f"/api/v1/assignments/{FIRST}/metrics", 20)
    put(ledger, FIRST, 4000)
    ledger.arrived(FIRST, DIGEST)
    assert sums(ledger) == (4000, 370, 1)
    assert [(s.what, s.run, s.round, s.num_bytes, s.digest) for s in ledger.left.recent] == [
        ("params", 12, 1, 4000, DIGEST), ("scores", 12, 1, 70, ""), ("offers", 0, None, 300, ""),
    ]


def test_an_update_that_is_sent_again_leaves_twice_and_counts_once(ledger: Ledger, tmp_path: Path) -> None:
    put(ledger, FIRST, 4000)
    put(ledger, FIRST, 4000)            # the answer to the first was lost
    ledger.arrived(FIRST, DIGEST)
    ledger.arrived(FIRST, DIGEST)
    next_process = Ledger(tmp_path, HandClock())
    next_process.arrived(FIRST, DIGEST)     # killed before it could forget the update: announced again, known there
    assert sums(next_process) == (8000, 0, 1)
    assert [s.num_bytes for s in next_process.left.recent] == [8000]


def test_the_next_process_goes_on_where_a_killed_one_was(ledger: Ledger, tmp_path: Path) -> None:
    ledger.knows(FIRST, 12)
    put(ledger, FIRST, 1000)
    with (tmp_path / "sent.jsonl").open("a") as file:
        file.write('{"what":"params","at_s":1.0,"num_by')     # a power loss in the middle of a line
    clock = HandClock()
    clock._now_s = 99.0
    next_process = Ledger(tmp_path, clock)
    put(next_process, SECOND, 500)
    assert sums(next_process) == (1500, 0, 0)
    assert next_process.left.since_s == ledger.left.since_s
    assert next_process.left.recent[0].run == 12        # as the last process had it of the same run


def test_the_file_stays_small_and_the_sums_exact(ledger: Ledger, tmp_path: Path) -> None:
    num = 2 * MAX_LINES + 500
    for number in range(num):
        put(ledger, f"run_1.{number}.1", 3)
    assert len((tmp_path / "sent.jsonl").read_bytes().splitlines()) <= MAX_LINES + 1
    assert len(ledger.left.recent) == MAX_RECENT
    assert sums(Ledger(tmp_path, HandClock())) == (3 * num, 0, 0)


def test_a_disk_that_takes_no_line_costs_no_count(ledger: Ledger, tmp_path: Path) -> None:
    file = tmp_path / "sent.jsonl"
    file.unlink()
    file.mkdir()
    put(ledger, FIRST, 1000)
    assert "sent.jsonl" in ledger.trouble
    file.rmdir()
    put(ledger, FIRST, 1000)
    assert ledger.trouble == ""
    assert sums(Ledger(tmp_path, HandClock())) == (2000, 0, 0)


async def test_every_body_that_the_central_node_hears_is_counted(central, node, order, settings):
    first = order()
    central.answers[f"PUT /uploads/{first}"] = error(503, "cannot_connect")
    async with node() as client:
        await central.until(f"PUT /uploads/{first}")
        central.answers.clear()
        await client.until("sent")
        order(2, config={"behaviour": "raise"})
        await client.until("failed")
        await central.until("POST /failure")
    left = Ledger(settings.state_dir, HandClock()).left
    bodies = [(heard.method, heard.path, len(heard.body)) for heard in central.heard]
    params = sum(size for method, path, size in bodies if method == "PUT" and "/uploads/" in path)
    assert left.params_bytes == params >= 2 * len(central.uploads[first])       # the first try was refused
    assert left.other_bytes == sum(size for *_, size in bodies) - params
    assert left.num_updates == 1


def test_a_pause_outlives_the_process_and_what_is_to_stop_does_not(tmp_path: Path) -> None:
    clock = HandClock(wall_s=1000.0)
    sharing = Sharing(tmp_path, clock)
    assert not sharing.is_paused
    sharing.pause(is_now=False)
    assert Sharing(tmp_path, HandClock()).switch == sharing.switch
    assert (sharing.switch.is_paused, sharing.switch.since_s) == (True, 1000.0)
    sharing.resume()
    assert not Sharing(tmp_path, clock).is_paused


def test_a_switch_that_cannot_be_read_counts_as_paused(tmp_path: Path) -> None:
    (tmp_path / "sharing.json").write_text("{")
    assert Sharing(tmp_path, HandClock()).is_paused


async def test_who_waits_for_the_switch_hears_it(tmp_path: Path) -> None:
    sharing = Sharing(tmp_path, HandClock())
    waits = [asyncio.create_task(wait) for wait in (sharing.until_paused(), sharing.until_stopped())]
    sharing.pause(is_now=False)
    await asyncio.wait({waits[0]}, timeout=10)
    assert [wait.done() for wait in waits] == [True, False]
    sharing.pause(is_now=True)
    await asyncio.wait({waits[1]}, timeout=10)
    assert waits[1].done()
    sharing.resume()
    await asyncio.wait_for(sharing.until_resumed(), 10)
    late = asyncio.create_task(sharing.until_stopped())
    await asyncio.sleep(0)
    assert not late.done()
    late.cancel()


async def test_a_node_that_is_paused_at_its_start_says_so_and_nothing_else(central, node, settings):
    async with node() as client:
        await client.until("registered")
    num_before = len(central.heard)
    Sharing(settings.state_dir, HandClock()).pause(is_now=False)
    async with node() as client:
        await client.until("paused")
        await central.until("POST /me/leave", 2)
    since = central.heard[num_before:]
    assert {(heard.what, heard.json["reason"]) for heard in since} == {
        ("POST /api/v1/clients/me/leave", "sharing paused by its owner")
    }


async def test_a_node_that_is_paused_before_it_ever_joined_is_silent(central, node, settings):
    settings.state_dir.mkdir()
    Sharing(settings.state_dir, HandClock()).pause(is_now=False)
    async with node() as client:
        await client.until("paused")
    assert central.heard == []
