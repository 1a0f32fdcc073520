"""Bad networks between real processes: cut, one way, flapping, lossy, slow, reset, silent. And clocks that jump.

Whoever is back before its round's deadline costs the run nothing: it ends with the bits of a calm one. Else the round
goes on without it, and its record says so.
"""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from network_scene import CENTRAL, Network
from people import People, failures_of, until
from raw_client import HonestClient, RawClient
from tcp_proxy import TcpProxy

import fednode
from federation_scene import Federation, wait_until
from torture_scale import pick

TASK = f"{Path(__file__).with_name('counting_task.py')}:Counting"
CLIENTS = ("a-clinic", "b-hospital")
LATE = "not done within the round's {} s"


def calm(clients: tuple[str, ...], rounds: int, **task_config: Any) -> fednode.Simulation:
    return fednode.simulate(TASK, clients=clients, rounds=rounds, task_config=task_config, seed=1)


def assert_calm(people: People, run_id: str, rounds: int, **task_config: Any) -> None:
    """The run ended as if nothing had happened: the same bits, the same decisions."""
    summary = people.end_of(run_id)
    wanted = calm(tuple(summary["clients"]), rounds, **task_config)
    assert summary["status"] == "completed", summary
    assert summary["model_sha256"] == wanted.model_sha256
    assert people.get(f"runs/{run_id}/journal")[-1]["hash"] == wanted.journal[-1].hash


def rounds_of(people: People, run_id: str) -> int:
    summary = people.get(f"runs/{run_id}")
    assert summary["status"] == "running", "the run ended before the last fault: give it more work"
    return int(summary["rounds"])


# --- cables ---------------------------------------------------------------------------------------------


@pytest.fixture
def network() -> Iterator[Network]:
    with Network(*CLIENTS) as made, made.inside(CENTRAL):
        yield made


@pytest.fixture
def people(federation: Federation, network: Network) -> People:
    federation.start_central("--host", "0.0.0.0", "--insecure")
    note = json.loads((federation.folder / "state" / "centrals" / f"{federation.port}.json").read_text())
    return People(federation.port, token=note["operator_token"])


def start_afar(federation: Federation, people: People, network: Network, *names: str) -> None:
    join_token = people.join_token()
    for name in names:
        with network.inside(name):
            federation.start_client(
                name, "--task", TASK, "--token", join_token,
                "--central", f"http://{network.address(name)}:{federation.port}",
            )
    people.until_there(*names)


def test_cables_that_are_cut_flap_or_lose_packets_cost_a_run_what_is_missing_at_a_deadline_and_nothing_else(
    federation: Federation, people: People, network: Network, figures: Any
) -> None:
    start_afar(federation, people, network, *CLIENTS)
    rounds, train_s, chance = pick(14, 60), 0.3, random.Random(4)
    run_id = people.start_run(rounds=rounds, task_config={"train_s": train_s})
    num_struck = 0
    faults: list[tuple[str, ...]] = [("up", "down"), ("up",), ("down",)]
    for number in range(pick(3, 20)):
        people.open_round(run_id, rounds_of(people, run_id) + 1)
        time.sleep(chance.uniform(0, train_s))
        network.cut(CLIENTS[1], *faults[number % 3], how="counter drop")
        time.sleep(chance.uniform(1, pick(2, 8)))
        num_struck += network.heal()
    for _ in range(pick(6, 40)):
        network.cut(CLIENTS[0], how="counter drop")
        time.sleep(0.3)
        num_struck += network.heal()
        time.sleep(0.2)
    rounds_of(people, run_id)
    for name in CLIENTS:
        network.lose(name, percent=5)
    assert_calm(people, run_id, rounds, train_s=train_s)
    num_lost = network.heal()
    assert num_struck >= pick(9, 60)        # packets: one a cut at least, also where nobody has much time to send
    assert num_lost > 0
    assert_a_round_goes_on_without_one_that_is_cut_off_past_its_deadline(people, network)
    assert all(federation.members[name].poll() is None for name in CLIENTS)
    figures.note(rounds=rounds, packets_cut=num_struck, packets_lost=num_lost)


def assert_a_round_goes_on_without_one_that_is_cut_off_past_its_deadline(people: People, network: Network) -> None:
    deadline_s = 8
    run_id = people.start_run(rounds=5, deadline_s=deadline_s, min_updates=1, task_config={"train_s": 1.0})
    people.ended_round(run_id, 1)
    cut_off = rounds_of(people, run_id) + 1
    people.open_round(run_id, cut_off)
    network.cut(CLIENTS[1])
    failures = failures_of(people.ended_round(run_id, cut_off))
    network.heal()
    assert failures == {CLIENTS[1]: ("deadline", LATE.format(deadline_s))}
    summary = people.end_of(run_id)
    assert (summary["status"], summary["rounds"]) == ("completed", 5)
    assert failures_of(people.ended_round(run_id, 5)) == {}, "it is back, and takes part again"


@pytest.mark.timeout(3600)
def test_a_big_update_on_a_slow_line_that_is_cut_goes_on_where_it_stood(
    federation: Federation, people: People, network: Network, figures: Any
) -> None:
    num_params, rate, patience_s = pick(1_000_000, 25_000_000), pick("16mbit", "2mbit"), pick(120, 3000)
    body_bytes, name = 4 * num_params, CLIENTS[1]
    start_afar(federation, people, network, name)
    near = RawClient(federation.port, CLIENTS[0])       # on no line at all: it makes the first params
    near.join(people.join_token(), people.get(f"clients/{name}")["offers"])
    honest = HonestClient(near)
    honest.start()
    network.slow_down(name, rate)
    up_bytes, down_bytes = network.num_bytes(name)
    run_id = people.start_run(rounds=1, deadline_s=3600, task_config={"num_params": num_params})
    num_cuts = 0
    for share in (0.25, 0.6):       # of the body, on its way up
        until(lambda at=share: network.num_bytes(name)[0] - up_bytes > at * body_bytes, "the upload", patience_s)
        network.cut(name, "up", how="counter reject with tcp reset" if share < 0.5 else "counter drop")
        time.sleep(1)
        num_cuts += network.heal() > 0
    trained = people.attempts(run_id, 1, lambda row: row["ended_s"], patience_s)
    up_bytes = network.num_bytes(name)[0] - up_bytes
    down_bytes = network.num_bytes(name)[1] - down_bytes
    people.call("POST", f"/api/v1/runs/{run_id}/cancel")
    honest.stop()
    assert failures_of(trained) == {}
    assert num_cuts == 2
    assert up_bytes < 1.2 * body_bytes, "it began anew"
    assert down_bytes < 2.4 * body_bytes                # the last model may be on its way already
    figures.note(body_mb=body_bytes >> 20, rate=rate, up_share=round(up_bytes / body_bytes, 3))


# --- a proxy on the way -----------------------------------------------------------------------------------


def test_a_proxy_that_delays_resets_and_falls_silent_costs_a_run_nothing(federation: Federation, figures: Any) -> None:
    rounds, num_params, chance = pick(4, 20), 250_000, random.Random(9)
    federation.start_central()
    people = People(federation.port)
    with TcpProxy(federation.port) as proxy:
        for name in CLIENTS:
            federation.start_client(
                name, "--task", TASK, "--central", f"http://127.0.0.1:{proxy.port}", "--token", people.join_token()
            )
        people.until_there(*CLIENTS)
        proxy.delay_s = 0.02
        wanted = [chance.randrange(50_000, 900_000) for _ in range(pick(6, 30))]
        proxy.reset_after += wanted
        run_id = people.start_run(rounds=rounds, task_config={"num_params": num_params})
        people.ended_round(run_id, 1)
        proxy.fall_silent()             # half-open: nobody is told, and nothing comes
        time.sleep(pick(2, 90))         # the latter is longer than what a client, or the central node, waits for
        proxy.speak()
        proxy.delay_s = 0
        assert_calm(people, run_id, rounds, num_params=num_params)
        assert proxy.num_resets >= min(len(wanted), 2 * rounds)
    figures.note(resets=proxy.num_resets)


# --- clocks ------------------------------------------------------------------------------------------------


def opened_about(people: People, run_id: str, days: int) -> bool:
    """Whether the newest round opened when the central node's clock was set so: the library looks once a second."""
    rounds_of(people, run_id)
    newest_s = people.get(f"runs/{run_id}")["history"][0]["opened_s"]
    return abs(newest_s - time.time() - days * 86_400) < 3_600


def test_wall_clocks_that_jump_close_no_round_expire_no_lease_and_break_no_secret(federation: Federation) -> None:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("libfaketime is not installed")
    offset = federation.folder / "offset"
    offset.write_text("+0")
    federation.env |= {
        "LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1",
    }
    federation.start_central()
    people = People(federation.port)
    federation.start_client(CLIENTS[0], "--task", TASK)
    people.until_there(CLIENTS[0])
    rounds, train_s = pick(30, 60), 0.3
    run_id = people.start_run(rounds=rounds, task_config={"train_s": train_s})
    people.ended_round(run_id, 1)
    for days in (1, -3, 400, -1):
        offset.write_text(f"{days:+}d")
        wait_until(partial(opened_about, people, run_id, days), f"a round {days} days from now")
    assert_calm(people, run_id, rounds, train_s=train_s)
    statuses = {client["status"] for client in people.get("clients")}
    assert statuses <= {"online", "busy"}


# --- a client's disk ----------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_client_whose_disk_is_full_says_so_and_takes_part_again_once_there_is_room(
    federation: Federation, small_disk: Path
) -> None:
    federation.start_central()
    people, name = People(federation.port), CLIENTS[1]
    federation.start_client(name, "--task", TASK, "--state-dir", str(small_disk / "client"))
    people.until_there(name)
    near = RawClient(federation.port, CLIENTS[0])
    near.join(people.join_token(), people.get(f"clients/{name}")["offers"])
    honest = HonestClient(near)
    honest.start()
    request = {"rounds": 1, "min_updates": 1, "deadline_s": 120, "task_config": {"num_params": 300_000}}
    run_id = people.start_run(**request)
    full = people.end_of(run_id)
    code, reason = failures_of(people.ended_round(run_id, 1))[name]
    assert (full["status"], code) == ("completed", "task_error"), (full, reason)
    assert "No space left" in reason or "full" in reason, reason

    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    run_id = people.start_run(**request)
    assert people.end_of(run_id)["status"] == "completed"
    assert failures_of(people.ended_round(run_id, 1)) == {}
    assert federation.members[name].poll() is None, federation.log(name)
    honest.stop()
