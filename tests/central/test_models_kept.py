"""Models at a real central node: best and final, names, cards, what is not kept, early stopping, a run deleted."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from central_scene import Central, ScriptedClient, at_work, central, offer

SCORES = (0.1, 0.5, 0.9, 0.7, 0.6, 0.8)         # accuracy of models 0 to 5: model 2 is the best
WANTED = {"rounds": 9, "patience": 2, "keep_every": 0, "min_updates": 1, "seed": 7}


class Learning(ScriptedClient):
    """Its models get better, then worse."""

    async def measure(self, assignment: dict[str, Any], accuracy: float | None = None) -> httpx2.Response:
        return await super().measure(assignment, SCORES[assignment["number"] - 1])


@asynccontextmanager
async def trained(state_dir: Path) -> AsyncIterator[tuple[Central, dict[str, Any]]]:
    """Run #1, which stopped early after model 4, measured in round 5."""
    async with central(state_dir) as fed:
        client = Learning(fed.people, "a")
        await client.join(fed.serving.join_token)
        await client.say(offer())
        async with at_work(client):
            run = await fed.start_run(**WANTED)
            yield fed, await fed.until(run["number"], "completed", "failed", "paused")


async def got(fed: Central, path: str, status: int = 200) -> Any:
    answer = await fed.people.get(f"/api/v1/{path}")
    assert answer.status_code == status, answer.text
    return answer.json()


async def cli(fed: Central, *words: str) -> tuple[int, str, str]:
    where = ("--central", f"http://127.0.0.1:{fed.serving.port}")
    made = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fednode", *words, *where, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await made.communicate()
    assert made.returncode is not None
    return made.returncode, out.decode(), err.decode()


async def test_a_run_stops_early_and_its_models_are_told_named_and_kept(tmp_path: Path) -> None:
    async with trained(tmp_path) as (fed, run):
        assert (run["status"], run["rounds"], run["rounds_planned"]) == ("completed", 5, 9)
        assert run["reason"] == "stopped early: no better accuracy than 0.9000 of round 2 for 2 rounds"
        models = (await got(fed, "models?run=1"))[::-1]
        assert [(m["round"], m["marks"]) for m in models if m["marks"]] == [(2, ["best"]), (5, ["final"])]
        assert [m["round"] for m in models if m["freed_s"] is None] == [0, 2, 5]
        assert [m["metrics"]["accuracy"] for m in models] == list(SCORES)
        assert (await got(fed, "runs/1"))["models"]["num_files"] == 3
        for ref, number in (("1:best", 2), ("%231:final", 5), (f"{run['run_id']}:3", 3)):
            assert (await got(fed, f"models/{ref}"))["round"] == number
        for ref in ("1:9", "1:worst", "2:best", "1:"):
            assert (await got(fed, f"models/{ref}", 404))["code"] == "not_found"
        freed = await got(fed, f"models/{models[3]['sha256']}/params", 410)
        assert freed["code"] == "freed"
        assert "fednode models --run" in freed["fix"]
        refused = await fed.people.post("/api/v1/runs", json={"task": "toy", "start_from": "1:3"})
        assert (refused.status_code, refused.json()["code"]) == (410, "freed")
        card = await got(fed, "models/1:3/card")
        assert [parent["round"] for parent in card["lineage"]] == [2, 1, 0]
        assert [(one["client"], one["num_examples"]) for one in card["contributions"]] == [("a", 10)]
        assert card["run"]["config"]["patience"] == 2


async def test_the_command_line_tells_the_same_and_deletes_what_has_ended(tmp_path: Path) -> None:
    async with trained(tmp_path) as (fed, _):
        code, out, _ = await cli(fed, "models", "--run", "1")
        assert code == 0
        lines = {line.split()[2]: line for line in out.splitlines()[1:-1]}
        assert " best " in lines["2"] and " final " in lines["5"] and " freed " in lines["3"]
        assert out.splitlines()[-1].startswith("6 models in 3 files: ")
        code, out, _ = await cli(fed, "models", "show", "1:best")
        assert code == 0
        assert "Model of run #1, round 2 (best)" in out
        assert "made from  run #1, round 1" in out
        code, out, _ = await cli(fed, "models", "get", "1:best", "-o", str(tmp_path / "best"), "--json")
        assert json.loads(out)["round"] == 2
        assert (tmp_path / "best").stat().st_size == json.loads(out)["num_bytes"]

        heir = await fed.start_run(rounds=1, min_updates=1, start_from="1:best")
        await fed.until(heir["number"], "completed")
        code, _, err = await cli(fed, "runs", "delete", "1", "--yes")
        assert code == 1
        assert "run #2 started from" in err and "delete #2 first" in err
        assert (await got(fed, "runs/1/deletion"))["needed_by"] == [2]
        code, out, err = await cli(fed, "runs", "delete", "2", "--yes", "--json")
        assert (code, json.loads(out)["number"]) == (0, 2)
        assert "Run #2 of toy, completed: 2 models" in err
        code, out, _ = await cli(fed, "runs", "delete", "1", "--yes")
        assert (code, out.partition(":")[0]) == (0, "Run #1 is deleted")
        assert await got(fed, "runs") == await got(fed, "models") == []
        assert list((tmp_path / "central" / "params" / "models").iterdir()) == []
        assert "was deleted" in (await got(fed, "runs/1", 404))["message"]
        assert (await fed.start_run(rounds=1, min_updates=1))["number"] == 3


async def test_what_cannot_be_the_best_is_refused_with_the_list(tmp_path: Path) -> None:
    async with central(tmp_path) as fed:
        await fed.client("a")
        for field, wrong in (("best_metric", "auc"), ("patience", 0), ("keep_every", -1)):
            answer = await fed.people.post("/api/v1/runs", json={"task": "toy", field: wrong})
            assert answer.status_code == 422
            assert field in answer.text
        long = await fed.start_run(rounds=450)
        assert (long["config"]["keep_every"], long["config"]["best_metric"]) == (5, "accuracy")
        assert (await fed.people.delete("/api/v1/runs/1")).status_code == 409
