"""Runs beside one another, and a run's curves, as JSON over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from central_scene import Central, at_work, central

pytestmark = pytest.mark.asyncio(loop_scope="module")
FEDERATED, OTHER, LOCAL_A, LOCAL_B = 1, 2, 3, 4


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trained(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Central]:
    """#1 and #2 by a and b, with other settings; #3 is #1 for a alone, #4 for b alone. Scores are what clients say."""
    async with central(tmp_path_factory.mktemp("central")) as node:
        a, b = await node.client("a"), await node.client("b")
        async with at_work(a, b):
            for number, (scores, request) in enumerate([
                ((0.75, 0.25), {}),
                ((0.5, 0.25), {"strategy": "fedavgm", "task_config": {"learning_rate": 0.25}, "rounds": 1}),
                ((0.5, 0.5), {"clients": ["a"]}),
                ((0.5, 0.5), {"clients": ["b"]}),
            ], 1):
                a.accuracy, b.accuracy = scores
                await node.start_run(seed=7, **request)
                await node.until(number, "completed")
        yield node


async def compared(node: Central, *runs: object) -> dict[str, Any]:
    answer = await node.people.get("/api/v1/compare", params={"run": [str(run) for run in runs]})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_settings_scores_and_curves_are_beside_one_another(trained: Central) -> None:
    found = await compared(trained, FEDERATED, OTHER)
    assert [run["number"] for run in found["runs"]] == [1, 2]
    different = {row["name"]: row["values"] for row in found["settings"] if row["differs"]}
    assert different == {
        "task.learning_rate": [0.5, 0.25], "strategy": ["fedavg", "fedavgm"], "strategy.momentum": [None, 0.9],
        "rounds": [2, 1],
    }
    texts = {row["name"]: row["texts"] for row in found["settings"]}
    assert (texts["strategy.momentum"], texts["clients"]) == (["-", "0.9"], ["whoever offers the task"] * 2)
    same = {row["name"]: row["values"] for row in found["settings"] if not row["differs"]}
    assert same["seed"] == [7, 7]
    assert same["task.epochs"] == [1, 1]
    (accuracy,) = found["metrics"]
    assert accuracy == {                # of 10 examples each: (0.75 + 0.25) / 2, (0.5 + 0.25) / 2
        "name": "accuracy", "unit": "", "goal": "max", "values": [0.5, 0.375], "best": 0,
    }
    assert found["curves"] == {"accuracy": {
        "name": "accuracy", "unit": "", "goal": "max", "names": ["accuracy"], "step": 1, "rounds": [0, 1, 2],
        "series": [{"name": "#1", "values": [0.5, 0.5, 0.5]}, {"name": "#2", "values": [0.375, 0.375, None]}],
    }}
    assert found["cautions"] == ["The scores are of models that were trained for different numbers of rounds."]


async def test_the_answer_keeps_the_order_that_was_asked_for(trained: Central) -> None:
    found = await compared(trained, "#2", 1)
    assert [run["number"] for run in found["runs"]] == [2, 1]
    assert found["metrics"][0]["best"] == 1


async def test_each_clients_local_only_run_is_found_by_itself(trained: Central) -> None:
    table = (await compared(trained, FEDERATED))["alone"]
    about = {name: table[name] for name in ("run", "rounds", "name", "goal", "num_clients")}
    assert about == {"run": 1, "rounds": 2, "name": "accuracy", "goal": "max", "num_clients": 2}
    rows = [(row["client"], row["run"], row["federated"], row["alone"], row["difference"]) for row in table["clients"]]
    assert rows == [("a", 3, 0.75, 0.5, 0.25), ("b", 4, 0.25, 0.5, -0.25)]
    assert table["mean"] == {"federated": 0.5, "alone": 0.5, "difference": 0.0}
    assert (await compared(trained, FEDERATED, LOCAL_A))["alone"] == table
    assert (await compared(trained, LOCAL_A, FEDERATED))["alone"] == table
    assert (await compared(trained, FEDERATED, OTHER))["alone"] == table        # of the first that has one
    assert (await compared(trained, OTHER, LOCAL_A))["alone"] is None


async def test_what_keeps_scores_from_being_comparable_is_said(trained: Central) -> None:
    found = await compared(trained, LOCAL_A, LOCAL_B)
    assert found["metrics"][0]["best"] is None                  # both 0.5: nobody is ahead
    assert found["cautions"] == [
        "The runs do not have the same clients: each score is over the test data of its run's own clients."
    ]
    number = (await trained.start_run())["number"]
    cautions = (await compared(trained, FEDERATED, number))["cautions"]
    assert f"Not ended yet: #{number}. What is shown is the newest model that was measured." in cautions


@pytest.mark.parametrize(("runs", "status", "message"), [
    ([1, 2, 3, 4, 1, 2], 422, "6 runs cannot be compared"),
    ([1, "#1"], 422, "run #1 cannot be compared with itself"),
    ([2], 422, "run #2 has nothing to be compared with: none of its clients trained alone"),
    ([3], 422, "run #3 has nothing to be compared with: none of its clients trained alone"),
    ([1, 77], 404, "there is no run '77'"),
])
async def test_what_cannot_be_compared_is_refused_with_the_fix(trained: Central, runs, status, message) -> None:
    answer = await trained.people.get("/api/v1/compare", params={"run": [str(run) for run in runs]})
    assert (answer.status_code, answer.json()["message"]) == (status, message)
    assert "fednode run" in answer.json()["fix"]


async def test_curves_come_a_metric_at_a_time(trained: Central) -> None:
    answer = await trained.people.get("/api/v1/runs/1/curves", params={"name": "accuracy"})
    assert answer.json() == {
        "run": 1, "name": "accuracy", "unit": "", "goal": "max", "names": ["accuracy"], "step": 1, "rounds": [0, 1, 2],
        "pooled": [0.5, 0.5, 0.5], "band": None,
        "clients": [{"name": "a", "values": [0.75] * 3}, {"name": "b", "values": [0.25] * 3}],
    }
    newer = await trained.people.get("/api/v1/runs/1/curves", params={"from_round": 2})
    assert (newer.json()["rounds"], newer.json()["pooled"]) == ([2], [0.5])
    both = await trained.people.get("/api/v1/compare/curves", params={"run": ["2", "4"]})
    assert [curve["name"] for curve in both.json()["series"]] == ["#2", "#4"]


@pytest.mark.parametrize(("path", "status"), [
    ("runs/1/curves?name=f1", 404), ("runs/9/curves", 404), ("runs/1/curves?max_points=1", 422),
    ("compare/curves", 422), ("compare/curves?run=1&run=9", 404), ("compare/curves?run=1&name=f1", 404),
])
async def test_curves_that_are_not_there_are_refused_with_the_fix(trained: Central, path: str, status: int) -> None:
    answer = await trained.people.get(f"/api/v1/{path}")
    assert answer.status_code == status
    assert answer.json()["fix"]
