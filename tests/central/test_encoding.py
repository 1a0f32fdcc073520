"""A run whose params travel as bf16, at a real central node: what goes over the wire, and what it refuses."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from central_scene import Central, ScriptedClient, central, offer

from fednode.core.narrowed import narrowed, widened
from fednode.core.params import Params
from fednode.core.seeds import numpy_rng
from fednode.store.sqlite import FILE_NAME
from fednode.wire.codec import encode

KNOWS = offer(supports=("bf16",))
FIRST = Params({"count": np.array([3]), "w": numpy_rng(5).normal(size=10_000).astype(np.float32)})
CHANGED = Params({"count": np.array([4]), "w": FIRST["w"] + np.float32(0.01)})


def sha256(params: Params) -> str:
    return hashlib.sha256(encode(params)).hexdigest()


async def fetched(a: ScriptedClient, model: str, **query: str) -> Any:
    return await a.call("GET", f"/api/v1/models/{model}/params", params=query)


async def in_round_one(fed: Central, a: ScriptedClient, **request: Any) -> dict[str, Any]:
    """The client's assignment of round 1, of a run as bf16 that starts from FIRST."""
    await fed.start_run(encoding="bf16", **request)
    answer = await a.bring(await a.work(), encode(FIRST))
    assert answer.status_code == 200, answer.text
    return await a.work()


def narrowed_files(folder: Path) -> list[str]:
    return sorted(path.stem for path in (folder / "central" / "params" / "narrowed").glob("*"))


async def test_both_ways_it_moves_half_the_bytes_and_the_model_stays_float32(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a", KNOWS)
        held = await in_round_one(fed, a, rounds=1)
        got = await fetched(a, held["base_model"], encoding="bf16")
        assert (held["encoding"], held["base_model"]) == ("bf16", sha256(FIRST))
        assert got.content == encode(narrowed(FIRST))
        assert hashlib.sha256(got.content).hexdigest() == held["base_file"] == got.headers["etag"].strip('"')
        assert len(got.content) == held["base_model_bytes"]
        part = await a.call(
            "GET", f"/api/v1/models/{held['base_model']}/params?encoding=bf16", headers={"Range": "bytes=100-299"}
        )
        assert (part.status_code, part.content) == (206, got.content[100:300])
        assert (await fetched(a, held["base_model"])).content == encode(FIRST)

        sent = encode(narrowed(CHANGED))
        assert len(got.content) == len(sent) == pytest.approx(len(encode(FIRST)) / 2, rel=0.02)
        await a.measure(held)
        assert (await a.bring(held, sent)).status_code == 200
        last = await a.work()
        assert (last["kind"], last["base_model"]) == ("evaluate", sha256(widened(narrowed(CHANGED))))
        assert narrowed_files(tmp_path) == [last["base_model"]]         # of round 1 nobody needs it any more
        await a.measure(last)
        run = await fed.until(1, "completed")
        assert run["config"]["encoding"] == "bf16"
        assert narrowed_files(tmp_path) == []
    with sqlite3.connect(tmp_path / "central" / FILE_NAME) as rows:
        found = rows.execute('SELECT number, encoding, num_bytes FROM "update" ORDER BY number').fetchall()
    assert found == [(0, "f32", len(encode(FIRST))), (1, "bf16", len(sent))]


async def test_a_restart_gives_the_same_file_and_deleting_a_run_takes_it_away(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a", KNOWS)
        held = await in_round_one(fed, a, rounds=1)
    (tmp_path / "central" / "params" / "narrowed" / f"{held['base_model']}.safetensors").write_bytes(b"half a file")
    async with central(tmp_path) as fed:
        a.http = fed.people
        got = await fetched(a, held["base_model"], encoding="bf16")     # before it is leased again: a download goes on
        assert hashlib.sha256(got.content).hexdigest() == held["base_file"]
        assert (await a.work())["base_file"] == held["base_file"]
        await fed.people.post("/api/v1/runs/1/cancel")
        assert narrowed_files(tmp_path) == [held["base_model"]]
        assert (await fed.people.delete("/api/v1/runs/1")).status_code == 200
        assert narrowed_files(tmp_path) == []
        assert (await fetched(a, held["base_model"], encoding="bf16")).status_code == 404


async def test_a_client_of_an_older_fednode_takes_no_part_and_that_is_said(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a, old = await fed.client("a", KNOWS), await fed.client("old")
        asked = {"task": "toy", "encoding": "bf16"}
        refused = await fed.people.post("/api/v1/runs", json=asked)
        told = refused.json()
        assert (refused.status_code, told["code"]) == (422, "bad_config")
        assert told["message"] == "old cannot send or receive params as bf16"
        assert "upgrade fednode there" in told["fix"]
        checked = (await fed.people.post("/api/v1/runs/check", json=asked)).json()
        assert [problem["field"] for problem in checked["problems"]] == ["encoding"]
        assert (await fed.people.post("/api/v1/runs/check", json=asked | {"clients": ["a"]})).json()["ok"] is True
        assert (await fed.people.post("/api/v1/runs/check", json=asked | {"encoding": "f32"})).json()["ok"] is True

        await old.say()                                                 # it offers nothing now, so the run starts
        held = await in_round_one(fed, a, rounds=2)
        await old.say(offer())                                          # who comes later joins from the next round on
        await a.measure(held)
        await a.bring(held, encode(narrowed(CHANGED)))
        assert (await a.work())["cohort_size"] == 1
        assert (await old.poll(wait=0))["assignment"] is None


@pytest.mark.parametrize(("body", "code"), [
    (encode(CHANGED), "params_mismatch"),
    (encode(Params({"count": CHANGED["count"], "w": CHANGED["w"].astype(np.float16)})), "params_mismatch"),
    (encode(narrowed(CHANGED))[:-2] + (0x7FC0).to_bytes(2, "little"), "not_finite"),
], ids=["float32", "float16, of the same size", "a NaN at the very end"])
async def test_another_encoding_and_a_nan_are_refused(tmp_path: Path, body: bytes, code: str) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a", KNOWS)
        held = await in_round_one(fed, a, rounds=1)
        await a.measure(held)
        answer = await a.announce(held, body)
        if answer.status_code == 200:
            answer = await a.put(held, body)
        assert answer.json()["code"] == code
        round_one = next(row for row in (await fed.run(1))["history"] if row["number"] == 1)
        assert round_one["clients"][0]["failure"]["code"] == "refused"


async def test_the_first_params_of_a_run_do_not_come_as_bf16(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        a = await fed.client("a", KNOWS)
        await fed.start_run(encoding="bf16")
        answer = await a.bring(await a.work(), encode(narrowed(FIRST)))
        assert answer.json()["message"] == "the first params of a run came as bf16"
