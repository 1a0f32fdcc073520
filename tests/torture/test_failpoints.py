"""`kill -9` at every step of a round, of the central node, of a client and of both: the same bits as a calm run.

Real processes that kill themselves at a named point (`fednode.failpoints`), in the first, the middle and the last
round that comes by there, and are started again without it. A process that does not die fails its test.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import halfway
import pytest
from kill_scene import CLIENTS, ROUNDS, KillableFederation, assert_calm, assert_nothing_is_left

import fednode
from federation_scene import wait_until
from fednode.failpoints import CENTRAL, CLIENT
from torture_scale import IS_FULL, pick, sample

SOURCES = Path(fednode.__file__).parent
FIRST, MIDDLE, LAST = 1, 2, ROUNDS

# Points that a run comes by in each of its rounds, those that only training rounds have, and the counted ones as
# `name@number`: a central node counts three downloads and three announcements a round.
IN_EVERY_ROUND = (
    "cohort.written", "round.opened", "assignment.leased", "outcomes.collected", "round.frozen", "state.aggregated",
    "round.written", "round.committed", "round.tidied",
)
IN_TRAINING = (
    "evaluation.written", "evaluation.committed", "update.announced", "update.begun", "update.half_received",
    "update.received", "update.fsynced", "update.renamed", "update.inserted", "update.committed", "update.answered",
    "quorum.reached", "checkpoint.inserted",
)
OF_MORE_THAN_ONE = ("evaluation.written", "evaluation.committed", "quorum.reached")      # one client makes round 0
COUNTED = (
    *(f"model.half_sent@{number}" for number in (1, 2, 3, 5, 9)),
    *(f"checkpoint.{what}@{number}" for what in ("written", "renamed") for number in (1, 2, 4)),
    *(f"memory.renamed@{number}" for number in (1, 2, 3)),
    *(f"private_file.written@{number}" for number in (2, 3, 6, 11)),    # 1 is the note of the start, not in a round
    "run.written@1", "run.created@1", "run.started@1", "run.ending@1", "run.ended@1",
)
CENTRAL_CASES = (
    *(f"{name}@{number}" for name in IN_EVERY_ROUND for number in (0, FIRST, MIDDLE, LAST, LAST + 1)),
    *(f"{name}@{number}" for name in IN_TRAINING for number in (FIRST, MIDDLE, LAST)),
    *(f"{name}@0" for name in IN_TRAINING if name not in OF_MORE_THAN_ONE),
    *(f"{name}@{LAST + 1}" for name in ("evaluation.written", "evaluation.committed")),
    *COUNTED,
)
OF_A_CLIENT = (
    "order.received", "model.half_fetched", "model.fetched", "model.evaluated", "evaluation.told", "epoch.told",
    "visit.done", "update.saved", "update.sending", "update.half_sent", "update.sent", "update.arrived",
    "update.dropped",
)
CLIENT_CASES = (
    *(f"{name}@{number}" for name in OF_A_CLIENT for number in (FIRST, MIDDLE, LAST)),
    *(f"{name}@{LAST + 1}" for name in ("order.received", "model.fetched", "model.evaluated", "visit.done")),
)
AT_A_START = (
    "tables.migrating@1", "tables.migrated@1", "leader.written@1", "store.opened@1", "private_file.written@1",
    "private_file.written@2",
)
AT_A_CLIENTS_START = (
    "key.made@1", "key.written@1", "tasks.offered@1", "secret.received@1", "secret.written@1", "central.joined@1",
)
ELSEWHERE = (                   # have tests of their own, below and in tests/store/test_deletion.py
    "sweep.half_done", "doors.closed", "round.closed", "round.abandoned", "run.deleting", "run.deleted",
)
IN_THE_CHILD = ("epoch.trained", "update.trained", "update.written")
# A point of the central node with some of a client's in the same round: one of six, another one at each.
PAIRS = tuple(
    (central, client)
    for rank, central in enumerate(CENTRAL_CASES)
    for client in [case for case in CLIENT_CASES if case.partition("@")[2] == central.partition("@")[2]][rank % 6 :: 6]
)


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KillableFederation]:
    """Three clients that stay up from one case to the next."""
    federation = KillableFederation(tmp_path_factory.mktemp("kills"))
    with pytest.MonkeyPatch.context() as patch:     # the simulation knows that strategy, and so do forked processes
        patch.syspath_prepend(str(halfway.installed_in(federation.folder / "site")))
        federation.start_all()
        yield federation
    federation.stop_all()


def test_the_list_of_points_is_what_the_source_comes_by() -> None:
    call = re.compile(r'(?:reach|halves|in_halves|reach_after_sending)\([^"\n]*"([a-z_]+\.[a-z_]+)"')
    texts = [path.read_text() for path in SOURCES.rglob("*.py") if path.name != "failpoints.py"]
    found = [name for text in texts for name in call.findall(text)]
    assert sorted([*found, "update.answered"]) == sorted(CENTRAL + CLIENT)      # this one is added to a queue of tasks


def test_a_name_that_is_no_point_ends_the_process_at_its_start() -> None:
    for text in ("update.renamd@1", "update.renamed", "update.renamed@x"):
        environment = {**os.environ, "FEDNODE_FAILPOINT": text}
        done = subprocess.run(
            [sys.executable, "-c", "import fednode.failpoints"], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 1
        assert f"{text!r} is no point to fail at" in done.stderr


def test_the_cases_are_all_points_that_a_calm_run_comes_by() -> None:
    cases = {case.partition("@")[0] for case in (*CENTRAL_CASES, *AT_A_START, *CLIENT_CASES, *AT_A_CLIENTS_START)}
    assert cases | set(IN_THE_CHILD) | set(ELSEWHERE) == set(CENTRAL + CLIENT)


@pytest.mark.parametrize("point", sample(CENTRAL_CASES, 4))
def test_a_central_node_killed_at_any_step_costs_nothing(fed: KillableFederation, point: str, figures: Any) -> None:
    figures.note(killed=["central"], at=[point])
    fed.restart_armed("central", point)
    seed = fed.begin()
    fed.wait_for_death("central")
    fed.restart_central()
    assert_calm(fed, seed)


@pytest.mark.parametrize("point", sample(CLIENT_CASES, 4))
def test_a_client_killed_at_any_step_costs_nothing(fed: KillableFederation, point: str, figures: Any) -> None:
    figures.note(killed=[CLIENTS[0]], at=[point])
    fed.restart_armed(CLIENTS[0], point)
    seed = fed.begin()
    fed.wait_for_death(CLIENTS[0])
    fed.start(CLIENTS[0])
    assert_calm(fed, seed)


@pytest.mark.parametrize(("central", "client"), sample(PAIRS, 2))
def test_a_central_node_and_a_client_killed_in_the_same_round_cost_nothing(
    fed: KillableFederation, central: str, client: str, figures: Any
) -> None:
    figures.note(killed=["central", CLIENTS[0]], at=[central, client])
    fed.restart_armed(CLIENTS[0], client)
    fed.restart_armed("central", central)
    seed = fed.begin()
    alive = {"central", CLIENTS[0]}
    while alive:
        dead = wait_until(partial(fed.dead_of, alive), f"the death of one of {alive}")
        for name in dead:
            fed.wait_for_death(name)
            fed.start(name)
        if "central" in dead:
            fed.wait_for_central()
            fed.run_of(seed)
        alive -= dead
    assert_calm(fed, seed)


@pytest.mark.parametrize("point", pick(IN_THE_CHILD[:1], IN_THE_CHILD))
def test_a_child_that_dies_costs_its_update_and_nothing_else(fed: KillableFederation, point: str) -> None:
    fed.restart_armed(CLIENTS[0], f"{point}@{MIDDLE}")
    run_id = fed.run_of(fed.begin())
    assert fed.end_of(run_id)["status"] == "completed"
    brought = {
        row["number"]: [(part["client"], part["status"]) for part in row["clients"]]
        for row in fed.get(f"runs/{run_id}")["history"]
    }
    everybody = [(name, "reported") for name in CLIENTS]
    assert brought[FIRST] == brought[LAST] == everybody
    assert brought[MIDDLE] == [(CLIENTS[0], "failed"), *everybody[1:]]
    assert fed.members[CLIENTS[0]].poll() is None, "the client node outlives its child"
    fed.kill(CLIENTS[0])
    fed.start(CLIENTS[0])           # without its failpoint, for who comes next
    assert_nothing_is_left(fed)


@pytest.mark.parametrize("round_", sample((MIDDLE, FIRST, LAST), 1))
def test_a_central_node_killed_half_way_through_an_aggregation_costs_nothing(
    fed: KillableFederation, round_: int
) -> None:
    fed.restart_armed("central", "", **{halfway.VARIABLE: str(round_)})
    seed = fed.begin(strategy="halfway")
    fed.wait_for_death("central")
    fed.restart_central()
    assert_calm(fed, seed)


@pytest.mark.skipif(not IS_FULL, reason="waits for a deadline, and for a second attempt")
@pytest.mark.parametrize(("point", "min_updates"), [("round.closed@1", 2), ("round.abandoned@1", 3)])
def test_a_central_node_killed_when_a_round_has_ended_without_one_of_its_clients_decides_nothing_anew(
    fed: KillableFederation, point: str, min_updates: int
) -> None:
    ends = []
    for points in ("", point):
        fed.restart_armed("central", points)
        wait_until(fed.everybody_is_there, "all three")
        silent = fed.members[CLIENTS[2]]
        silent.send_signal(signal.SIGSTOP)
        try:
            seed = fed.begin(seed=5, min_updates=min_updates, deadline_s=15)
            if points:
                fed.wait_for_death("central")
                fed.restart_central()
            else:
                wait_until(partial(has_ended, fed, seed, FIRST), "the end of the first round")
        finally:
            silent.send_signal(signal.SIGCONT)
        ends.append(fed.ending(seed))
    assert ends[0] == ends[1]
    assert_nothing_is_left(fed)


def has_ended(fed: KillableFederation, seed: int, number: int) -> bool:
    history = fed.get(f"runs/{fed.run_of(seed)}")["history"]
    return any(row["number"] == number and row["status"] in ("committed", "abandoned") for row in history)


# --- starts and ends -------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", sample(AT_A_START, 1))
def test_a_central_node_killed_at_its_very_first_start_starts_as_if_it_were_the_first(
    tmp_path: Path, point: str
) -> None:
    fed = KillableFederation(tmp_path)
    try:
        fed.args["central"] = fed.central_args()
        fed.start_armed("central", point)
        fed.wait_for_death("central")
        fed.restart_central()
        assert fed.get("clients") == []
        assert_nothing_is_left(fed)
    finally:
        fed.stop_all()


@pytest.mark.parametrize("point", sample(("sweep.half_done@1", *AT_A_START[1:5]), 1))
def test_a_central_node_killed_in_a_round_and_again_at_its_start_costs_nothing(
    fed: KillableFederation, point: str
) -> None:
    fed.restart_armed("central", f"round.committed@{MIDDLE}")       # three files of updates lie there
    seed = fed.begin()
    fed.wait_for_death("central")
    fed.start_armed("central", point)
    fed.wait_for_death("central")
    fed.restart_central()
    assert_calm(fed, seed)


def test_a_central_node_killed_while_it_ends_by_itself_costs_nothing(fed: KillableFederation) -> None:
    fed.restart_armed("central", "doors.closed@1")
    seed = fed.begin()
    wait_until(lambda: fed.get(f"runs/{fed.run_of(seed)}")["rounds"], "a round")
    fed.members["central"].send_signal(signal.SIGTERM)
    fed.wait_for_death("central")
    fed.restart_central()
    assert_calm(fed, seed)


def test_a_client_killed_anywhere_in_its_first_start_joins_once(tmp_path: Path) -> None:
    fed = KillableFederation(tmp_path)
    try:
        fed.start_central()
        for number, point in enumerate(pick(("secret.received@1",), AT_A_CLIENTS_START)):
            name = f"client-{number}"
            fed.args[name] = fed.client_args(name)
            fed.start_armed(name, point)
            fed.wait_for_death(name)
            fed.start(name)
            fed.wait_for_clients(name)
            fed.kill(name)
            assert [row["name"] for row in fed.get("clients")].count(name) == 1
            assert sorted(path.name for path in (fed.folder / "clients" / name).iterdir() if path.is_file()) == [
                "client.lock", "key.pem", "secrets.json", "sent.jsonl"
            ]
    finally:
        fed.stop_all()
