"""Runs at a real central node: the queue, rosters, who joins later, pause, resume, cancel, restarts, crashes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from central_scene import Central, ScriptedClient, at_work, body_of, central, offer

ENDED = ("completed", "failed", "paused", "cancelled")


async def test_a_run_plays_from_its_acceptance_to_the_last_evaluation(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a, b = await fed.client("a"), await fed.client("b")
        b.step = 3.0
        async with at_work(a, b):
            accepted = await fed.start_run(rounds=2)
            done = await fed.until(accepted["number"], *ENDED)
        assert accepted["status"] in ("queued", "running")
        assert accepted["rounds_planned"] == 2
        assert (done["status"], done["rounds"], done["clients"]) == ("completed", 2, ["a", "b"])
        assert done["metrics"] == {"accuracy": 0.5}
        model = await fed.people.get(f"/api/v1/models/{done['model_sha256']}/params")
        # each round adds the mean of the steps 1 and 3, weighed equally: 2; twice: 4
        assert model.content[-16:] == b"\x00\x00\x80\x40" * 4


async def test_runs_that_share_clients_play_one_after_the_other_and_others_beside_them(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a, b, c = [await fed.client(name) for name in "abc"]
        first = await fed.start_run(clients=["a", "b"], rounds=1)
        second = await fed.start_run(clients=["b", "c"], rounds=1)
        third = await fed.start_run(clients=["c"], rounds=1)
        assert first["status"] == "running"
        assert (second["status"], third["status"]) == ("queued", "queued")      # nobody overtakes who waits for c
        assert second["reason"] == "waiting for run #1, which has some of the same clients"
        async with at_work(a, b, c):
            assert (await fed.until(third["number"], *ENDED))["status"] == "completed"
        runs = (await fed.people.get("/api/v1/runs")).json()
        assert [(run["number"], run["status"]) for run in runs] == [
            (3, "completed"), (2, "completed"), (1, "completed"),
        ]


async def test_disjoint_runs_play_side_by_side(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        await fed.client("a")
        await fed.client("b")
        for name in "ab":
            assert (await fed.start_run(clients=[name]))["status"] == "running"


async def test_a_client_that_joins_later_takes_part_from_the_next_round(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        run = await fed.start_run(rounds=2, min_updates=1)
        await a.do(await a.work())
        first_round = await a.work()
        late = await fed.client("late")
        async with at_work(late):
            await a.do(first_round)
            async with at_work(a):
                assert (await fed.until(run["number"], *ENDED))["status"] == "completed"
        cohorts = {row["number"]: row["cohort"] for row in (await fed.run(1))["history"]}
        assert cohorts == {0: ["a"], 1: ["a"], 2: ["a", "late"], 3: ["a", "late"]}


async def test_a_pause_lets_the_open_round_end_and_resume_goes_on_from_there(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        await fed.start_run(rounds=2)
        await a.do(await a.work())
        held = await a.work()
        asked = (await fed.people.post("/api/v1/runs/1/pause")).json()
        assert (asked["status"], asked["reason"]) == ("running", "pauses when the open round has ended")
        assert (await a.poll(holding=held["id"], wait=0))["withdrawn"] is False
        await a.do(held)
        paused = await fed.until(1, "paused")
        assert (paused["rounds"], paused["reason"]) == (1, "paused by a person")
        assert (await a.poll(wait=0))["assignment"] is None
        await fed.people.post("/api/v1/runs/1/resume")
        async with at_work(a):
            assert (await fed.until(1, "completed", "failed"))["status"] == "completed"


async def test_a_pause_that_has_not_come_yet_can_be_taken_back_and_outlives_a_restart(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        await fed.start_run(rounds=2)
        await a.do(await a.work())
        held = await a.work()
        await fed.people.post("/api/v1/runs/1/pause")
        back = (await fed.people.post("/api/v1/runs/1/resume")).json()
        assert (back["status"], back["reason"]) == ("running", "")
        await fed.people.post("/api/v1/runs/1/pause")
    async with central(tmp_path) as fed:
        a.http = fed.people
        await a.do(held)
        assert (await fed.until(1, "paused"))["rounds"] == 1


async def test_a_pause_now_takes_work_back_and_resume_gives_out_the_same_again(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        await fed.start_run(rounds=1)
        await a.do(await a.work())
        held = await a.work()
        paused = (await fed.people.post("/api/v1/runs/1/pause", json={"now": True})).json()
        assert paused["status"] == "paused"
        assert (await a.poll(holding=held["id"]))["withdrawn"] is True
        refused = await a.announce(held, body_of(1, 1, 1, 1))
        assert (refused.status_code, refused.json()["code"]) == (409, "withdrawn")
        await fed.people.post("/api/v1/runs/1/resume")
        assert await a.work() == held               # same round, same attempt, same cohort


async def test_a_run_that_waits_for_clients_pauses_at_once(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        await fed.client("a")
        await fed.start_run(min_updates=2, rounds=1)
        paused = (await fed.people.post("/api/v1/runs/1/pause")).json()
        # model 0 needs one client: the round that makes it may be open already
        assert paused["status"] == "paused" or paused["reason"].startswith("pauses when")


async def test_cancel_takes_back_what_is_out_and_keeps_the_last_model(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        await fed.start_run(rounds=3)
        await a.do(await a.work())
        held = await a.work()
        cancelled = (await fed.people.post("/api/v1/runs/1/cancel")).json()
        assert cancelled["status"] == "cancelled"
        assert cancelled["model_sha256"] == held["base_model"]
        assert (await a.poll(holding=held["id"]))["withdrawn"] is True
        again = await fed.people.post("/api/v1/runs/1/cancel")
        assert (again.status_code, again.json()["code"]) == (409, "illegal_move")


async def test_a_queued_run_starts_when_the_run_before_it_is_cancelled(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        await fed.start_run(rounds=1)
        await fed.start_run(rounds=1)
        await fed.people.post("/api/v1/runs/1/cancel")
        async with at_work(a):
            assert (await fed.until(2, *ENDED))["status"] == "completed"


async def test_a_restart_goes_on_with_the_open_round_and_with_the_queue(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        await fed.start_run(rounds=2)
        await fed.start_run(rounds=1)
        await a.do(await a.work())
        held = await a.work()
    async with central(tmp_path) as fed:
        a.http = fed.people
        assert (await a.poll(holding=held["id"], wait=0))["withdrawn"] is False
        again = await a.work()
        assert again == held
        async with at_work(a):
            assert (await fed.until(2, *ENDED))["status"] == "completed"
        first = await fed.run(1)
        assert first["status"] == "completed"
        assert [row["attempt"] for row in first["history"]] == [1, 1, 1, 1]     # rounds 3, 2, 1, 0: none was repeated


async def _trained(fed: Central, client: ScriptedClient, **request: Any) -> dict[str, Any]:
    run = await fed.start_run(rounds=1, **request)
    async with at_work(client):
        return await fed.until(run["number"], *ENDED)


async def test_a_run_can_start_from_the_latest_model_that_fits_or_from_a_named_one(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a", offer(), offer("another", "another@1"))
        linear = await _trained(fed, a)
        await _trained(fed, a, task_config={"model": "cnn"})
        latest = await _trained(fed, a, start_from="latest", task_config={"learning_rate": 0.1})
        models = (await fed.people.get("/api/v1/models")).json()
        assert [m["sha256"] for m in models if m["run_number"] == 3 and m["round"] == 0] == [linear["model_sha256"]]
        assert latest["status"] == "completed"
        named = await _trained(fed, a, start_from=linear["model_sha256"][:12])
        assert named["config"]["start_model"] == linear["model_sha256"]
        body = {"task": "another", "start_from": linear["model_sha256"]}
        refused = await fed.people.post("/api/v1/runs", json=body)
        assert (refused.status_code, refused.json()["code"]) == (422, "bad_config")
        nothing = await fed.people.post("/api/v1/runs", json={"task": "another", "start_from": "latest"})
        assert nothing.status_code == 404


async def test_versions_that_clash_are_told_by_client(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        await fed.client("a", offer(fingerprint="toy@1"))
        await fed.client("b", offer(fingerprint="toy@2"))
        refused = await fed.people.post("/api/v1/runs", json={"task": "toy"})
        assert refused.status_code == 422
        assert refused.json()["message"] == (
            "the clients offer different versions of task 'toy': toy@1 by a; toy@2 by b"
        )
        assert (await fed.start_run(clients=["b"]))["config"]["fingerprint"] == "toy@2"


async def test_a_version_that_only_gone_clients_have_does_not_count(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        old = await fed.client("a", offer(fingerprint="toy@1"))
        await fed.client("b", offer(fingerprint="toy@2"))
        await old.call("POST", "/api/v1/clients/me/leave")
        run = await fed.start_run()
        assert (run["config"]["fingerprint"], run["clients"]) == ("toy@2", ["b"])


async def test_what_nobody_offers_and_who_is_not_enrolled_are_named_with_what_there_is(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        nobody = (await fed.people.post("/api/v1/runs", json={"task": "toy"})).json()
        assert nobody["code"] == "not_found"
        await fed.client("hospital-a")
        other = (await fed.people.post("/api/v1/runs", json={"task": "toys"})).json()
        assert "offered: toy" in other["fix"]
        unknown = (await fed.people.post("/api/v1/runs", json={"task": "toy", "clients": ["hospitala"]})).json()
        assert "did you mean 'hospital-a'?" in unknown["fix"]


async def test_an_aggregate_that_is_not_finite_fails_the_run_with_its_reason(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        await fed.start_run(rounds=2, strategy="fedavgm")
        await a.do(await a.work())
        for value in (3e38, -3e38):             # each is a float32; the step between them, 6e38, is none
            held = await a.work()
            await a.measure(held)
            await a.bring(held, body_of(value, 0, 0, 0))
        failed = await fed.until(1, *ENDED)
        assert failed["status"] == "failed"
        assert "round 2: tensor 'w' holds a NaN or an infinity" in failed["reason"]


async def test_a_run_whose_loop_breaks_says_so_and_the_queue_goes_on(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        await fed.start_run(rounds=1)
        await fed.start_run(rounds=1)
        await a.do(await a.work())
        await a.work()
        await fed.people.post("/api/v1/runs/1/pause", json={"now": True})
        async with at_work(a):
            assert (await fed.until(2, *ENDED))["status"] == "completed"
        for model in (tmp_path / "central" / "params" / "models").iterdir():
            model.unlink()
        await fed.start_run(rounds=1)
        await fed.people.post("/api/v1/runs/3/pause", json={"now": True})
        await fed.people.post("/api/v1/runs/1/resume")
        await fed.people.post("/api/v1/runs/3/resume")
        broken = await fed.until(1, *ENDED)
        assert broken["status"] == "failed"
        assert "cannot be read" in broken["reason"]
        events = (await fed.people.get("/api/v1/runs/1/events", params={"limit": 1000})).json()["events"]
        crash = next(event for event in events if event["what"] == "run crashed")
        assert "StoreDamaged" in crash["fields"]["traceback"]
        async with at_work(a):
            assert (await fed.until(3, *ENDED))["status"] == "completed"
