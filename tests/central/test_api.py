"""The wire, at a real central node on loopback: the whole life of an update, every refusal, models, events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from central_scene import Central, ScriptedClient, announcement, at_work, body_of, central, offer, params

from fednode.core.params import Params
from fednode.wire.codec import encode


async def in_round_one(fed: Central, *names: str, **request: Any) -> list[tuple[ScriptedClient, dict[str, Any]]]:
    """Clients of a run whose model 0 (four zeros) is made, each with its assignment of round 1."""
    clients = [await fed.client(name) for name in names]
    await fed.start_run(**request)
    await clients[0].do(await clients[0].work())
    return [(client, await client.work()) for client in clients]


async def outcome_of(fed: Central, client: str, number: int = 1) -> dict[str, Any]:
    """What the run's record says of a client in a round."""
    rows = [row for row in (await fed.run(1))["history"] if row["number"] == number]
    found: dict[str, Any] = next(row for row in rows[-1]["clients"] if row["client"] == client)
    return found


def shape_of(answer: httpx2.Response) -> set[str]:
    return set(answer.json())


# --- an update's life -------------------------------------------------------------------------------


async def test_an_assignment_says_all_that_a_visit_needs(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        [(_, held)] = await in_round_one(fed, "a", rounds=3, seed=5, task_config={"epochs": 2})
        run = await fed.run(1)
        assert held == {
            "id": f"{run['run_id']}.1.1", "run_id": run["run_id"], "run_number": 1, "number": 1, "attempt": 1,
            "kind": "train", "rounds": 3, "task": "toy", "fingerprint": "toy@1", "run_seed": 5,
            "config": {"epochs": 2, "learning_rate": 0.5, "model": "linear"},
            "base_model": run["model_sha256"], "base_model_bytes": 80,      # 64 of header, 4 float32
            "cohort_size": 1, "unfinished_runs": [run["run_id"]], "encoding": "f32", "base_file": "",
        }


async def test_a_broken_upload_goes_on_where_it_ended_even_after_a_restart(tmp_path: Path) -> None:
    body = encode(Params({"w": params(*range(50_000))["w"]}))
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        await fed.start_run(rounds=1)
        await a.bring(await a.work(), body)
        held = await a.work()
        ticket = (await a.announce(held, body)).json()
        assert (ticket["offset"], ticket["is_complete"]) == (0, False)
        await send_part(fed, a, held, body, stop=70_000)
        assert await a.offset(held) == 70_000
        wrong = await a.put(held, body, offset=60_000)
        assert (wrong.status_code, wrong.json()["code"], wrong.headers["Upload-Offset"]) == (409, "conflict", "70000")
    async with central(tmp_path) as fed:
        a.http = fed.people
        assert await a.offset(held) == 70_000
        again = (await a.announce(held, body)).json()
        assert again["offset"] == 70_000
        done = await a.put(held, body, offset=70_000)
        assert (done.status_code, done.json()["is_complete"]) == (200, True)
        assert (await outcome_of(fed, "a"))["num_bytes"] == len(body)


async def send_part(fed: Central, a: ScriptedClient, held: dict[str, Any], body: bytes, stop: int) -> None:
    """PUT the body's first bytes, then hang up in the middle."""
    host, port = "127.0.0.1", fed.serving.port
    _, writer = await asyncio.open_connection(host, port)
    writer.write(
        f"PUT /api/v1/assignments/{held['id']}/update?offset=0 HTTP/1.1\r\nHost: {host}\r\n"
        f"Authorization: Bearer {a.secret}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    )
    writer.write(body[:stop])
    await writer.drain()
    async with asyncio.timeout(20):
        while await a.offset(held) < stop:
            pass
    writer.close()
    await writer.wait_closed()


async def test_every_step_may_be_repeated(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        [(a, held), (b, other), _] = await in_round_one(fed, "a", "b", "c", rounds=1)
        body = body_of(1, 1, 1, 1)
        for _ in range(2):
            assert (await a.measure(held)).status_code == 200
            assert (await a.announce(held, body)).status_code == 200
        for _ in range(2):
            assert (await a.put(held, body)).json().get("code", "taken") in ("taken", "already_reported")
        assert (await a.announce(held, body)).json()["is_complete"] is True
        assert (await a.put(held, body, offset=len(body))).json()["is_complete"] is True
        assert await a.offset(held) == len(body)
        failure = {"code": "task_error", "reason": "out of memory"}
        for _ in range(2):
            assert (await b.tell(other, "failure", failure)).status_code == 200
        assert (await outcome_of(fed, "b"))["failure"] == failure


async def test_another_body_for_a_reported_assignment_is_refused_the_first_one_counts(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        [(a, held), _] = await in_round_one(fed, "a", "b", rounds=1)
        await a.bring(held, body_of(1, 1, 1, 1))
        refused = await a.announce(held, body_of(2, 2, 2, 2))
        assert (refused.status_code, refused.json()["code"]) == (409, "already_reported")


async def test_what_comes_after_the_round_has_ended_is_refused_and_goes_on_record(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        clients = await in_round_one(fed, "a", "b", "c", rounds=1)
        late, held = clients[2]
        await late.call("POST", "/api/v1/clients/me/leave")
        for client, work in clients[:2]:
            await client.do(work)
        async with asyncio.timeout(20):
            while (await fed.run(1))["rounds"] == 0:
                pass
        refused = await late.announce(held, body_of(1, 1, 1, 1))
        assert (refused.status_code, refused.json()["code"]) == (409, "round_closed")
        events = (await fed.people.get("/api/v1/runs/1/events", params={"limit": 1000})).json()["events"]
        assert [e["fields"]["client"] for e in events if e["what"] == "late"] == ["c"]
        assert (await outcome_of(fed, "c"))["failure"] == {"code": "gone", "reason": "was stopped"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (body_of(1, float("nan"), 1, 1), "not_finite"),
        (body_of(1, float("inf"), 1, 1), "not_finite"),
        (encode(Params({"v": params(1, 2, 3, 4)["w"]})), "params_mismatch"),
        (encode(Params({"w": params(1, 2, 3, 4)["w"].reshape(2, 2)})), "params_mismatch"),
        (b"\xff" * 80, "params_mismatch"),
    ],
)
async def test_a_bad_update_fails_its_assignment_and_the_round_does_not_wait(
    tmp_path: Path, body: bytes, code: str
) -> None:
    async with central(tmp_path) as fed:
        [(a, held), (b, _)] = await in_round_one(fed, "a", "b", rounds=1)
        refused = await a.bring(held, body)
        assert (refused.status_code, refused.json()["code"]) == (422, code)
        outcome = await outcome_of(fed, "a")
        assert (outcome["status"], outcome["failure"]["code"]) == ("failed", "refused")
        assert list((tmp_path / "central" / "params" / "incoming").iterdir()) == []
        assert b.name == "b"


async def test_a_body_that_arrives_damaged_is_dropped_and_may_be_sent_again(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        [(a, held), _] = await in_round_one(fed, "a", "b", rounds=1)
        good = body_of(1, 1, 1, 1)
        for damaged in (body_of(1, 1, 1, 2), good[:-1] + b"\xff", body_of(float("nan"), 1, 1, 1), b"\0" * len(good)):
            await a.announce(held, good)
            answer = await a.put(held, damaged)
            assert (answer.status_code, answer.json()["code"]) == (422, "bad_params_file")
        assert (await a.bring(held, good)).json()["is_complete"] is True


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"num_bytes": 20}, 422, "params_mismatch"),
        ({"num_bytes": 2**40}, 413, "too_large"),
        ({"num_examples": 0}, 422, "params_mismatch"),
        ({"num_examples": -1}, 422, "usage"),
        ({"digest": "xyz"}, 422, "usage"),
        ({"surprise": 1}, 422, "usage"),
    ],
)
async def test_an_update_that_cannot_be_taken_is_refused_before_a_byte_of_it_is_sent(
    tmp_path: Path, changes: dict[str, Any], status: int, code: str
) -> None:
    async with central(tmp_path) as fed:
        [(a, held), _] = await in_round_one(fed, "a", "b", rounds=1)
        refused = await a.announce(held, body_of(1, 1, 1, 1), **changes)
        assert (refused.status_code, refused.json()["code"]) == (status, code)


async def test_a_put_must_bring_exactly_what_is_missing(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        [(a, held), _] = await in_round_one(fed, "a", "b", rounds=1)
        body, path = body_of(1, 1, 1, 1), f"/api/v1/assignments/{held['id']}/update"
        unannounced = await a.put(held, body)
        assert (unannounced.status_code, unannounced.json()["code"]) == (404, "not_found")
        await a.announce(held, body)
        assert (await a.put(held, body + b"more")).json()["code"] == "too_large"
        assert (await a.put(held, body[:-1])).status_code == 400

        async def without_length() -> AsyncIterator[bytes]:
            yield body

        assert (await a.call("PUT", path, content=without_length())).status_code == 411
        assert (await a.put(held, body)).json()["is_complete"] is True


async def test_initial_params_must_be_sound_and_not_too_large(tmp_path: Path) -> None:
    async with central(tmp_path, max_model_bytes=1_000) as fed:
        a, b = await fed.client("a"), await fed.client("b")
        await fed.start_run(rounds=1)
        held = await a.work()
        assert held["kind"] == "init"
        refused = await a.bring(held, body_of(float("nan")))
        assert (refused.status_code, refused.json()["code"]) == (422, "not_finite")
        assert (await outcome_of(fed, "a", 0))["failure"]["code"] == "refused"
    async with central(tmp_path / "other", max_model_bytes=1_000) as fed:
        b = await fed.client("b")
        await fed.start_run(rounds=1)
        refused = await b.announce(await b.work(), encode(params(*range(1_000))))
        assert (refused.status_code, refused.json()["code"]) == (413, "too_large")


async def test_a_score_that_is_not_a_number_is_no_score_and_breaks_nothing(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        [(a, held)] = await in_round_one(fed, "a", rounds=1)
        told = {"values": {"accuracy": None}, "num_examples": {"test": 10}}
        assert (await a.tell(held, "metrics", {"evaluation": told})).status_code == 200
        nonsense = await a.tell(held, "metrics", {"evaluation": {"values": {"accuracy": "high"}, "num_examples": {}}})
        assert (nonsense.status_code, nonsense.json()["code"]) == (422, "bad_config")
        await a.bring(held, body_of(1, 1, 1, 1))
        async with at_work(a):
            assert (await fed.until(1, "completed", "failed"))["status"] == "completed"


async def test_an_assignment_of_somebody_else_does_not_exist(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        [(_, held)] = await in_round_one(fed, "a", rounds=1)
        other = await fed.client("b", offer("another", "another@1"))
        for assignment in (held, {"id": "nonsense"}, {"id": "run_x.1.1"}, {"id": f"{held['run_id']}.1.9"}):
            refused = await other.announce(assignment, body_of(1, 1, 1, 1))
            assert (refused.status_code, refused.json()["code"]) == (404, "not_found")


# --- work ---------------------------------------------------------------------------------------------


async def test_a_poll_that_waits_hears_of_work_as_soon_as_there_is_some(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        poll = asyncio.create_task(a.poll())
        assert (await fed.people.get("/healthz")).status_code == 200
        await fed.start_run()
        assert (await poll)["assignment"]["kind"] == "init"


async def test_a_poll_that_hung_up_leases_nothing(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        poll = asyncio.create_task(a.poll())
        await a.poll(wait=0)
        poll.cancel()
        await asyncio.gather(poll, return_exceptions=True)
        await fed.start_run()
        await a.do(await a.work())
        assert (await outcome_of(fed, "a", 0))["deliveries"] == 1


async def test_a_lost_answer_is_delivered_again_and_a_held_one_is_not(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        await fed.start_run()
        held = await a.work()
        assert (await a.poll(holding=held["id"], wait=0)) == {"assignment": None, "withdrawn": False}
        assert await a.work() == held
        assert (await a.poll(holding="run_x.1.1", wait=0))["withdrawn"] is True


async def test_a_central_node_that_stops_answers_polls_at_once(tmp_path: Path) -> None:
    async with httpx2.AsyncClient(timeout=60, trust_env=False) as http:
        async with central(tmp_path) as fed:
            a = await fed.client("a")
            http.base_url = fed.people.base_url
            a.http = http
            poll = asyncio.create_task(a.poll(wait=25))
            events = asyncio.create_task(http.get("/api/v1/events", params={"after": 999, "wait": 25}))
            await a.poll(wait=0)
        assert (await poll)["assignment"] is None
        assert (await events).json()["events"] == []


# --- models and events ----------------------------------------------------------------------------------


async def test_a_model_is_served_whole_in_part_and_not_again_to_who_has_it(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        [(a, held)] = await in_round_one(fed, "a", rounds=1)
        path = f"/api/v1/models/{held['base_model']}/params"
        whole = await a.call("GET", path)
        body = body_of(0, 0, 0, 0)
        assert (whole.status_code, whole.content) == (200, body)
        assert whole.headers["ETag"] == f'"{held["base_model"]}"'

        async def ranged(said: str) -> httpx2.Response:
            return await a.call("GET", path, headers={"Range": said})

        part = await ranged("bytes=64-71")
        assert (part.status_code, part.content) == (206, body[64:72])
        assert part.headers["Content-Range"] == "bytes 64-71/80"
        assert (await ranged("bytes=70-")).content == body[70:]
        assert (await ranged("bytes=-6")).content == body[-6:]
        assert (await ranged("bytes=70-1000")).content == body[70:]
        assert (await ranged("bytes=0-1,4-5")).status_code == 200       # several ranges may be ignored
        beyond = await ranged("bytes=80-")
        assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, "bytes */80")
        known = await a.call("GET", path, headers={"If-None-Match": whole.headers["ETag"]})
        assert (known.status_code, known.content) == (304, b"")
        head = await a.call("HEAD", path)
        assert (head.status_code, head.headers["Content-Length"], head.content) == (200, "80", b"")
        assert (await a.call("GET", f"/api/v1/models/{'0' * 64}/params")).status_code == 404
        assert (await fed.people.get(path)).content == body             # an operator may, too


async def test_events_come_in_order_and_are_waited_for(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        await fed.start_run(rounds=1)
        first = (await fed.people.get("/api/v1/runs/1/events", params={"limit": 2})).json()
        assert [event["what"] for event in first["events"]] == ["run created", "run started"]
        assert first["run"]["number"] == 1
        work = await a.work()                                           # so the round is open, and told
        rest = (await fed.people.get("/api/v1/runs/1/events", params={"after": first["next"]})).json()
        news = asyncio.create_task(
            fed.people.get("/api/v1/runs/1/events", params={"after": rest["next"], "wait": 20})
        )
        await fed.client("b", offer("another", "another@1"))            # happens, but not in this run
        await a.do(work)
        assert (await news).json()["events"][0]["what"] == "update received"


async def test_what_the_clients_offer_is_one_list_by_version(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        await fed.client("b", offer(supports=("proximal",)), offer("another", "another@1"))
        await fed.client("a", offer())
        tasks = (await fed.people.get("/api/v1/tasks")).json()
        assert [(t["task"], t["fingerprint"], t["clients"], t["supports"]) for t in tasks] == [
            ("another", "another@1", ["b"], []), ("toy", "toy@1", ["a", "b"], []),
        ]
        clients = (await fed.people.get("/api/v1/clients")).json()
        assert [(c["name"], c["status"]) for c in clients] == [("a", "online"), ("b", "online")]


async def test_the_journal_and_the_metrics_of_a_run_can_be_read(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        await fed.start_run(rounds=1)
        async with at_work(a):
            await fed.until(1, "completed", "failed")
        journal = (await fed.people.get("/api/v1/runs/1/journal")).json()
        assert [row["entry"]["what"] for row in journal][:3] == ["created", "round opened", "round closed"]
        pooled = (await fed.people.get("/api/v1/runs/1/metrics", params={"client": ""})).json()
        assert [(p["model_round"], p["value"]) for p in pooled if p["name"] == "accuracy"] == [(0, 0.5), (1, 0.5)]


# --- errors -----------------------------------------------------------------------------------------------


async def test_every_error_has_the_one_shape(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        http, a = fed.people, await fed.client("a")
        answers = {
            404: await http.get("/api/v2"),
            405: await http.delete("/api/v1/runs"),
            401: await http.get("/api/v1/clients/me/work"),
            422: await http.post("/api/v1/runs", json={}),
            413: await http.post("/api/v1/runs", content=b"[" * (2 << 20)),
            426: await http.get("/healthz", headers={"Fednode-Protocol": "99"}),
        }
        for status, answer in answers.items():
            assert answer.status_code == status
            assert shape_of(answer) == {"code", "message", "fix"}
            assert answer.headers["Fednode-Protocol"] == "1"
        for content in (b"{", b"[]", b'"x"', b"\xff", b'{"task": NaN}'):
            answer = await http.post("/api/v1/runs", content=content, headers={"Content-Type": "application/json"})
            assert (answer.status_code, shape_of(answer)) == (422, {"code", "message", "fix"})
        refused = await a.call("GET", "/api/v1/clients/me/work", params={"wait": "soon"})
        assert refused.json()["message"].startswith("wait: ")


async def test_a_field_that_is_unknown_or_wrong_is_named(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        for body, named in (
            ({"task": "toy", "epochs": 3}, "epochs"), ({"task": "toy", "rounds": 0}, "rounds"),
            ({"task": "toy", "cohort_fraction": 1.5}, "cohort_fraction"),
        ):
            refused = await fed.people.post("/api/v1/runs", json=body)
            assert refused.status_code == 422
            assert refused.json()["message"].startswith(f"{named}: ")


async def test_a_body_without_a_length_is_measured_while_it_comes(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        async def endless() -> AsyncIterator[bytes]:
            for _ in range(40):
                yield b" " * 65_536

        answer = await fed.people.post("/api/v1/runs", content=endless(), headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_an_older_and_a_newer_neighbour_hear_which_side_to_upgrade(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        async def fix(version: str) -> str:
            answer = await fed.people.get("/healthz", headers={"Fednode-Protocol": version})
            return str(answer.json().get("fix", "none needed"))

        assert "on your side" in await fix("0")
        assert await fix("1") == await fix("2") == "none needed"
        assert "at the central node" in await fix("99")
        assert "send" in await fix("one")


async def test_a_mistake_of_ours_is_told_without_its_insides(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a")
        await fed.start_run(rounds=1)
        await a.do(await a.work())
        held = await a.work()
        model = tmp_path / "central" / "params" / "models" / f"{held['base_model']}.safetensors"
        model.rename(model.with_suffix(".away"))
        model.mkdir()                               # a folder in the file's place
        answer = await a.call("GET", f"/api/v1/models/{held['base_model']}/params")
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert str(tmp_path) not in answer.text
        model.rmdir()


async def test_the_openapi_lists_the_paths_and_the_error_shape(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        spec = (await fed.people.get("/openapi.json")).json()
        assert {"/api/v1/clients/me/work", "/api/v1/runs/{ref}/events", "/healthz"} <= set(spec["paths"])
        assert "HTTPValidationError" not in spec["components"]["schemas"]
        assert set(spec["components"]["schemas"]["ErrorBody"]["properties"]) == {"code", "message", "fix", "fields"}


async def test_announcements_are_compared_by_their_bytes_and_examples(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        [(a, held), _] = await in_round_one(fed, "a", "b", rounds=1)
        body = body_of(1, 1, 1, 1)
        assert announcement(body)["num_bytes"] == 80
        await a.announce(held, body, num_examples=3)
        await a.announce(held, body, num_examples=7)        # the last word before the body counts
        await a.put(held, body)
        assert (await outcome_of(fed, "a"))["num_examples"] == 7
