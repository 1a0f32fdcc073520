"""What the central node says of a run before it is asked for, and that it then does as it said."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from central_scene import Central, central, offer

from fednode.core.policy import Limits
from fednode.errors import BadConfig, FieldErrors, NotFound
from fednode.wire.messages import ErrorBody


async def check(fed: Central, **request: Any) -> dict[str, Any]:
    answer = await fed.people.post("/api/v1/runs/check", json={"task": "toy", **request})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def test_what_can_start_is_said_to_with_who_takes_part(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        for name in ("a", "b"):
            await fed.client(name)
        await fed.client("c", offer("other", "other@1"))
        told = await check(fed)
        assert (told["ok"], told["problems"], told["warnings"]) == (True, [], [])
        assert told["summary"] == "2 of 3 clients offer toy"
        assert told["clients"][2] == {
            "name": "c", "fingerprints": [], "takes_part": False, "is_there": True, "note": "", "refuses": [],
        }
        assert [client["takes_part"] for client in told["clients"]] == [True, True, False]
        assert (await fed.people.get("/api/v1/runs")).json() == []           # nothing was started


async def test_all_that_is_wrong_is_said_at_once_by_field_and_the_run_is_refused_for_the_same(tmp_path: Path) -> None:
    wrong: dict[str, Any] = {
        "task_config": {"epochs": 0, "model": "rnn", "depth": 3}, "min_updates": 3, "clients": ["a"],
        "strategy": "fedavgm", "strategy_config": {"momentum": 2, "speed": 1},
    }
    fields = ["task.depth", "task.epochs", "task.model", "strategy.speed", "strategy.momentum", "min_updates"]
    async with central(tmp_path) as fed:
        await fed.client("a")
        told = await check(fed, **wrong)
        assert not told["ok"]
        assert [problem["field"] for problem in told["problems"]] == fields
        assert told["problems"][4]["fix"] == "set momentum to less than 1"
        refused = await fed.people.post("/api/v1/runs", json={"task": "toy", **wrong})
        assert (refused.status_code, refused.json()["code"]) == (422, "bad_config")
        assert list(refused.json()["fields"]) == fields
        assert "1 or more" in refused.json()["fields"]["task.epochs"]
        assert ErrorBody.model_validate(refused.json()).fields == refused.json()["fields"]


async def test_what_the_body_itself_has_wrong_is_named_field_by_field(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        body = {"task": "toy", "rounds": 0, "deadline_s": -1, "clients": ["NOT A NAME"]}
        refused = await fed.people.post("/api/v1/runs/check", json=body)
        assert refused.status_code == 422
        assert list(refused.json()["fields"]) == ["clients.0", "deadline_s", "rounds"]


async def test_nobody_who_offers_it_and_versions_that_differ_are_problems_of_the_task(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        assert (await check(fed))["problems"][0]["field"] == "task"
        await fed.client("a")
        await fed.client("b", offer(fingerprint="toy@2"))
        told = await check(fed)
        assert (told["ok"], told["problems"][0]["field"]) == (False, "task")
        assert "toy@1 by a; toy@2 by b" in told["problems"][0]["message"]
        assert (await check(fed, clients=["b"]))["ok"]
        assert (await check(fed, clients=["x"]))["problems"][0]["field"] == "clients"


async def test_who_has_another_version_takes_no_part_and_that_is_said(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        await fed.client("a")
        gone = await fed.client("b", offer(fingerprint="toy@2"))
        await gone.call("POST", "/api/v1/clients/me/leave", json={})
        told = await check(fed)
        assert (told["ok"], told["clients"][1]["takes_part"]) == (True, False)
        assert told["warnings"] == ["b offers toy@2 and takes no part in a run of toy@1"]


async def test_a_run_that_would_wait_may_be_asked_for_with_a_warning(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        await fed.client("a")
        b = await fed.client("b")
        await b.call("POST", "/api/v1/clients/me/leave", json={"reason": "sharing paused by its owner"})
        told = await check(fed)
        assert told["ok"]
        wait = "A round needs 2 updates and 1 client is there: the run will wait for 1 more client"
        assert told["warnings"] == [wait, "b: sharing paused by its owner"]
        assert (await check(fed, min_updates=1))["warnings"] == ["b: sharing paused by its owner"]


async def test_who_would_refuse_by_its_operators_word_is_said_and_is_known_after_a_restart(tmp_path: Path) -> None:
    strict = offer(limits=Limits(max_epochs=5, min_cohort=3))
    async with central(tmp_path) as fed:
        await fed.client("a")
        await fed.client("b", strict)
        assert (await check(fed, task_config={"epochs": 5}))["clients"][1]["refuses"] == [
            "accepts cohorts of 3 or more (min_cohort), this one has 2"
        ]
        await fed.client("c")
        assert (await check(fed, task_config={"epochs": 5}))["warnings"] == []
        told = await check(fed, task_config={"epochs": 6}, cohort_fraction=0.5)
        refusal = "accepts at most 5 epochs a round (max_epochs), the run asks for 6"
        cohort = "accepts cohorts of 3 or more (min_cohort), this one has 2"
        assert told["ok"]                   # the others may train without it
        assert told["warnings"] == [f"b {refusal}, and {cohort}: it will refuse"]
        alone = await check(fed, task_config={"epochs": 6}, clients=["b"])
        assert alone["warnings"][0] == "A round needs 1 update and 0 clients accept this run: its rounds will fail"
        rows = (await fed.people.get("/api/v1/clients")).json()
        assert [row["offers"][0]["limits"] for row in rows] == [{}, {"max_epochs": 5, "min_cohort": 3}, {}]
    async with central(tmp_path) as fed:
        told = await check(fed, task_config={"epochs": 6})
        assert told["clients"][1]["refuses"] == [refusal, cohort]       # nobody is there yet


async def test_an_assignment_says_how_many_are_asked(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        clients = [await fed.client(name) for name in ("a", "b")]
        await fed.start_run()
        init = await clients[0].work()
        assert (init["kind"], init["cohort_size"]) == ("init", 1)
        await clients[0].do(init)
        assert [(await client.work())["cohort_size"] for client in clients] == [2, 2]


async def test_the_runs_that_come_first_are_named(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        for name in ("a", "b"):
            await fed.client(name)
        await fed.start_run(clients=["a"], min_updates=1)
        told = await check(fed)
        assert told["warnings"] == [
            "Run #1 is running with some of the same clients (a): this one will queue behind it"
        ]
        await fed.start_run()
        assert (await fed.run(2))["status"] == "queued"
        told = await check(fed)
        assert "Run #2 is queued with the same clients: this one will queue behind it" in told["warnings"]
        assert (await check(fed, clients=["b"], min_updates=1))["warnings"] == [
            "Run #2 is queued with the same clients: this one will queue behind it"
        ]


async def test_a_model_to_start_from_that_is_not_there_is_a_problem_of_its_field(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        await fed.client("a")
        for start in ("latest", "mdl_0"):
            told = await check(fed, start_from=start)
            assert [problem["field"] for problem in told["problems"]] == ["start_from"]


async def test_a_check_is_for_people_only(tmp_path: Path) -> None:
    async with central(tmp_path, host="0.0.0.0", is_insecure=True) as fed:
        refused = await fed.people.post("/api/v1/runs/check", json={"task": "toy"})
        assert refused.status_code == 401


def test_one_error_is_raised_as_it_is_and_several_as_one() -> None:
    missing = NotFound("no such thing", fix="make one", field="strategy")
    wrong = FieldErrors()
    assert wrong.of(lambda: 1) == 1
    wrong.add(missing, NotFound("said twice", fix="", field="strategy"))
    with pytest.raises(NotFound) as one:
        wrong.raise_any()
    assert one.value is missing
    wrong.add(BadConfig("rounds = 0", fix="make one", field="rounds"))
    with pytest.raises(BadConfig) as several:
        wrong.raise_any()
    found = pickle.loads(pickle.dumps(several.value))       # as a child process hands it on
    assert (found.message, found.fix) == ("no such thing; rounds = 0", "make one")
    assert found.fields == {"strategy": "no such thing; make one", "rounds": "rounds = 0; make one"}
