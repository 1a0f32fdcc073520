"""A hostile client is told from the others: in a served run, on its page, in its JSON, in a simulation alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from central_scene import at_work, central, offer

import fednode
from fednode import Metrics, Params, Task, TrainConfig
from fednode.cli.output import Voice
from fednode.cli.runs import _tell_rounds
from fednode.core.records import Change, Update
from fednode.tasks.base import Visit

STEPS = {"a": 1.0, "b": 1.0, "c": 2.0, "d": -8.0}       # what each adds to the four params
WANTED = {                                              # the median length is 3, so b, c, d: 2, 3 of 4, -3 of -16
    "a": Change(norm=2.0, cosine=1.0), "b": Change(norm=2.0, cosine=1.0),
    "c": Change(norm=4.0, cosine=1.0), "d": Change(norm=16.0, cosine=-1.0),
}
HOW = "its change is 5.33 times as long as the median and leads away from the mean (cosine -1.00)"


class Steps(Task):
    """What the scripted clients do: add one's step, measure nothing."""

    name = "toy"
    Config = TrainConfig

    def initial_params(self, seed: int) -> Params:
        return Params({"w": np.zeros(4, np.float32)})

    def train(self, params: Params, visit: Visit) -> Update:
        moved = params["w"] + np.float32(STEPS[visit.site.client])
        return Update(client=visit.site.client, params=Params({"w": moved}), num_examples=10)

    def evaluate(self, params: Params, visit: Visit) -> Metrics:
        return Metrics(values={}, num_examples={"test": 1})

    def check(self, site: Any) -> dict[str, int]:
        return {}


def changes_in(row: dict[str, Any]) -> dict[str, Change]:
    return {one["client"]: Change(norm=one["norm"], cosine=one["cosine"]) for one in row["clients"]}


def apart_in(row: dict[str, Any]) -> dict[str, str]:
    return {one["client"]: one["apart"] for one in row["clients"] if one["apart"]}


async def test_who_turns_its_change_is_marked_and_nobody_else(tmp_path: Path, capsys: Any) -> None:
    async with central(tmp_path) as fed:
        clients = [await fed.client(name, offer()) for name in STEPS]
        for client in clients:
            client.step = STEPS[client.name]
        async with at_work(*clients):
            await fed.start_run(rounds=2, min_updates=4)
            await fed.until(1, "completed")
        run = await fed.run(1)
        rounds = {row["number"]: row for row in run["history"]}
        pages = {path: (await fed.people.get(path)).text for path in ("/runs/1", "/runs/1?round_number=1")}
    assert [(rounds[n]["kind"], apart_in(rounds[n])) for n in (0, 1, 2, 3)] == [
        ("init", {}), ("train", {"d": HOW}), ("train", {"d": HOW}), ("evaluate", {})
    ]
    assert changes_in(rounds[1]) == changes_in(rounds[2]) == WANTED
    assert "Change in round 2" in pages["/runs/1"]              # the newest round only measured
    assert f"d stands apart in round 2: {HOW}." in pages["/runs/1"]
    assert pages["/runs/1"].count("stands apart") == 1
    assert f"d stands apart in round 1: {HOW}." in pages["/runs/1?round_number=1"]
    _tell_rounds(Voice(False), run["history"])
    assert "stands apart" in capsys.readouterr().out


def test_a_simulation_finds_the_same_numbers() -> None:
    run = fednode.simulate(Steps, clients=list(STEPS), rounds=2, seed=7)
    assert run.status == "completed", run.reason
    assert run.changes == {0: {}, 1: WANTED, 2: WANTED}
