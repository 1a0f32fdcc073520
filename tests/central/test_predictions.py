"""Trying a model over HTTP: by hand, at the door, and with tasks that crash, hang, are missing or another version."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from central_scene import Central, central, config, offer

from federation_scene import wait_until
from fednode.central.answers import Refusal
from fednode.central.predictions import IDLE_S, LIMIT_S, MAX_WAITING, Predictions, Tried
from fednode.clock import HandClock
from fednode.core.params import Params
from fednode.core.records import Offer
from fednode.errors import TimedOut
from fednode.wire.codec import encode, write_params

# One dot in the first pixel is a three with 3/4: sigmoid(log 3). Elsewhere 1/2, whatever is drawn.
WEIGHT = np.zeros(784, np.float32)
WEIGHT[0] = np.log(3)
START = Params({"bias": np.zeros(1, np.float32), "weight": np.zeros(784, np.float32)})
AFTER = Params({"bias": np.zeros(1, np.float32), "weight": WEIGHT})
DIGIT = {"height": 28, "width": 28, "channels": 1, "is_drawn": True}
EMPTY, DOT = [0] * 784, [255] + [0] * 783

ODD_TASK = '''
import os, pathlib, threading
import numpy as np
from fednode.tasks.base import Picture
from fednode.tasks.mnist_3v7 import Mnist3v7

class Odd(Mnist3v7):
    name, version, picture, classes = "odd", 1, Picture(height=1, width=1), ("its process",)

    def samples(self):
        return None

    def predict(self, params, pictures):
        match pictures[0, 0, 0]:
            case 1:
                os._exit(3)
            case 2:
                pathlib.Path(__file__).with_name("hangs").touch()
                threading.Event().wait()
            case 3:
                raise ValueError("a pixel is missing")
        return np.full((len(pictures), 1), os.getpid())
'''
CALM, CRASHES, HANGS, RAISES = ([[number]] for number in (0, 1, 2, 3))


def offered(task: str, fingerprint: str) -> Offer:
    return offer(task, fingerprint, schema={"type": "object", "properties": {}})


@pytest.fixture
def odd_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The task `odd`, installed for this test."""
    folder = tmp_path / "site"
    (folder / "odd-1.dist-info").mkdir(parents=True)
    (folder / "odd_task.py").write_text(ODD_TASK)
    (folder / "odd-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1\n")
    (folder / "odd-1.dist-info" / "entry_points.txt").write_text("[fednode.tasks]\nodd = odd_task:Odd\n")
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Central]:
    async with central(tmp_path) as scene:
        yield scene


async def trained(scene: Central, task: str = "mnist_3v7", fingerprint: str = "") -> dict[str, Any]:
    """A completed run of one round whose model is AFTER."""
    client = await scene.client("hospital-a", offered(task, fingerprint or f"{task}@1"))
    number = (await scene.start_run(task=task, rounds=1))["number"]
    await client.bring(await client.work(), encode(START))
    assignment = await client.work()
    await client.measure(assignment)
    await client.bring(assignment, encode(AFTER))
    await client.measure(await client.work())
    return await scene.until(number, "completed")


async def ask(scene: Central, ref: str, inputs: object) -> httpx2.Response:
    return await scene.people.post(f"/api/v1/models/{ref}/predictions", json={"inputs": inputs})


async def test_a_models_probabilities_are_those_worked_out_by_hand(scene: Central) -> None:
    run = await trained(scene)
    newest, first = (await scene.people.get("/api/v1/models")).json()
    answer = await ask(scene, run["model_sha256"], [EMPTY, DOT])
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "model_sha256": run["model_sha256"], "run": run["number"], "round": 1, "labels": ["3", "7"],
        "probabilities": [[0.5, 0.5], pytest.approx([3 / 4, 1 / 4])], "verdicts": ["3", "3"], "threshold": None,
        "awaits_threshold": False, "heat_maps": None, "notice": "",
    }
    by_prefix, by_id = await ask(scene, run["model_sha256"][:12], [DOT]), await ask(scene, newest["id"], [DOT])
    assert by_prefix.json()["probabilities"] == by_id.json()["probabilities"] == answer.json()["probabilities"][1:]
    untrained = (await ask(scene, first["id"], [DOT])).json()
    assert (untrained["round"], untrained["probabilities"]) == (0, [[0.5, 0.5]])


BAD_INPUTS: list[tuple[object, str]] = [
    ([], "inputs: "), ([EMPTY] * 17, "inputs: "), ("a digit", "inputs: "), ([[256, *EMPTY[1:]]], "inputs.0.0: "),
    ([EMPTY, [-1, *EMPTY[1:]]], "inputs.1.0: "), ([[0.5, *EMPTY[1:]]], "inputs.0.0: "),
    ([["7", *EMPTY[1:]]], "inputs.0.0: "), ([[True, *EMPTY[1:]]], "inputs.0.0: "), ([[]], "input 1 has 0 numbers"),
    ([EMPTY, EMPTY[1:]], "input 2 has 783 numbers; a picture of 'mnist_3v7' is 28 x 28 = 784"),
]


async def test_bad_inputs_are_refused_at_the_door(scene: Central) -> None:
    run = await trained(scene)
    for inputs, said in BAD_INPUTS:
        answer = await ask(scene, run["model_sha256"], inputs)
        assert (answer.status_code, answer.json()["code"]) == (422, "usage"), answer.text
        assert said in answer.json()["message"]


async def test_what_is_no_number_no_model_or_no_operators_is_refused(scene: Central) -> None:
    path = "/api/v1/models/mdl_0/predictions"
    json_ = {"Content-Type": "application/json"}
    not_finite = await scene.people.post(path, content=b'{"inputs": [[NaN]]}', headers=json_)
    assert (not_finite.status_code, not_finite.json()["code"]) == (422, "usage")
    unknown = await ask(scene, "mdl_0", [EMPTY])
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    foreign = await scene.people.post(path, json={"inputs": [EMPTY]}, headers={"Origin": "http://other.test"})
    assert (foreign.status_code, foreign.json()["code"]) == (401, "not_authorised")


async def test_a_task_that_is_not_installed_is_said_with_the_fix(scene: Central) -> None:
    run = await trained(scene, "thorax", "thorax#0123456789ab")
    answer = await ask(scene, run["model_sha256"], [EMPTY])
    assert answer.status_code == 409
    assert answer.json() == {
        "code": "cannot_predict", "message": "no task 'thorax' is installed here",
        "fix": "at the central node: install the package that has it, with its entry point in fednode.tasks",
    }


async def test_a_name_that_is_a_path_loads_nothing(scene: Central, odd_task: Path) -> None:
    run = await trained(scene, f"{odd_task}/odd_task.py:Odd", "odd@1")
    answer = await ask(scene, run["model_sha256"], CALM)
    assert (answer.status_code, answer.json()["code"]) == (409, "cannot_predict")
    assert "no task '/" in answer.json()["message"]


async def test_another_version_of_the_task_is_said(scene: Central) -> None:
    run = await trained(scene, "mnist_3v7", "mnist_3v7@9")
    answer = await ask(scene, run["model_sha256"], [EMPTY])
    assert (answer.status_code, answer.json()["code"]) == (409, "cannot_predict")
    assert "'mnist_3v7@9', the central node has 'mnist_3v7@1'" in answer.json()["message"]


async def test_without_torch_the_answer_says_how_to_get_it(
    scene: Central, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import sys\nfrom importlib.machinery import PathFinder\n\n"
        "class NoTorch(PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        "        return None if name == 'torch' else PathFinder.find_spec(name, path, target)\n\n"
        "sys.meta_path[sys.meta_path.index(PathFinder)] = NoTorch\n"
    )
    monkeypatch.syspath_prepend(hidden)         # what a child process imports from
    run = await trained(scene, "mnist")
    answer = await ask(scene, run["model_sha256"], [EMPTY])
    assert answer.status_code == 409
    assert answer.json() == {
        "code": "cannot_predict", "message": "the task mnist needs torch, which is not installed here",
        "fix": "at the central node: pip install 'fednode[torch]'",
    }
    [choice] = (await scene.people.get("/api/v1/predictions/choices")).json()
    assert answer.json().items() <= choice["problem"].items() and choice["picture"] is None


async def test_a_crash_costs_the_child_not_the_central_node(scene: Central, odd_task: Path) -> None:
    run = await trained(scene, "odd")
    calm = (await ask(scene, run["model_sha256"], CALM)).json()["probabilities"]
    again = (await ask(scene, run["model_sha256"], CALM)).json()["probabilities"]
    assert again == calm                        # the process stays warm
    crash = await ask(scene, run["model_sha256"], CRASHES)
    assert (crash.status_code, crash.json()["code"]) == (500, "child_died")
    assert "exit code 3" in crash.json()["message"]
    after = await ask(scene, run["model_sha256"], CALM)
    assert after.status_code == 200 and after.json()["probabilities"] != calm
    raised = await ask(scene, run["model_sha256"], RAISES)
    assert (raised.status_code, raised.json()["code"]) == (500, "task_failed")
    assert raised.json()["message"] == "ValueError: a pixel is missing"


async def test_the_child_ends_with_the_central_node(tmp_path: Path, odd_task: Path) -> None:
    async with central(tmp_path) as scene:
        run = await trained(scene, "odd")
        [[pid]] = (await ask(scene, run["model_sha256"], CALM)).json()["probabilities"]
        os.kill(int(pid), 0)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


async def test_nothing_of_a_prediction_is_kept(scene: Central, tmp_path: Path) -> None:
    run = await trained(scene)
    before = kept(tmp_path)
    for inputs in ([DOT], [EMPTY] * 16, [[1, 2]]):
        await ask(scene, run["model_sha256"], inputs)
    assert kept(tmp_path) == before


def kept(state_dir: Path) -> tuple[list[str], dict[str, int]]:
    """Every file's name, and how many rows each table has."""
    files = sorted(str(path) for path in state_dir.rglob("*") if not path.name.startswith("store.sqlite-"))
    with contextlib.closing(sqlite3.connect(state_dir / "central" / "store.sqlite")) as store:
        tables = [name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return files, {name: store.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables}


async def test_the_choices_follow_the_runs(scene: Central) -> None:
    client = await scene.client("hospital-a", offered("mnist_3v7", "mnist_3v7@1"))
    assert (await scene.people.get("/api/v1/predictions/choices")).json() == []
    await scene.start_run(task="mnist_3v7", rounds=1)
    assignment = await client.work()
    [waiting] = (await scene.people.get("/api/v1/predictions/choices")).json()
    assert (waiting["is_live"], waiting["round"], waiting["model_sha256"]) == (True, None, None)
    await client.bring(assignment, encode(START))
    await client.work()
    [moved] = (await scene.people.get("/api/v1/predictions/choices")).json()
    assert (moved["run"], moved["task"], moved["round"], moved["problem"]) == (1, "mnist_3v7", 0, None)
    assert (moved["picture"], moved["labels"]) == (DIGIT, ["3", "7"])
    assert (await ask(scene, moved["model_sha256"], [EMPTY])).status_code == 200


async def test_the_samples_are_bundled_test_images(scene: Central) -> None:
    answer = (await scene.people.get("/api/v1/predictions/samples/mnist")).json()
    assert "test images of MNIST" in answer["source"]
    assert [sample["label"] for sample in answer["samples"]] == [str(digit) for digit in range(10)]
    assert {len(sample["pixels"]) for sample in answer["samples"]} == {784}
    unknown = await scene.people.get("/api/v1/predictions/samples/thorax")
    assert (unknown.status_code, unknown.json()["code"]) == (409, "cannot_predict")


# --- the child process, on a clock that the test moves ---------------------------------------------------------


@pytest.fixture
async def predictions(odd_task: Path) -> AsyncIterator[Predictions]:
    found = Predictions(HandClock())
    yield found
    await found.stop()


def clock_of(predictions: Predictions) -> HandClock:
    clock = predictions._clock
    assert isinstance(clock, HandClock)
    return clock


async def test_the_process_starts_with_the_first_question_and_ends_when_nobody_asks(predictions: Predictions) -> None:
    assert predictions.pid is None
    await predictions.card("odd")
    pid = predictions.pid
    await clock_of(predictions).advance(IDLE_S - 1)
    await predictions.stop_if_idle()
    assert predictions.pid == pid is not None
    await clock_of(predictions).advance(1)
    await predictions.stop_if_idle()
    assert predictions.pid is None
    await predictions.card("odd")
    assert predictions.pid not in (None, pid)


async def test_a_task_that_hangs_costs_its_process_after_the_limit(
    predictions: Predictions, odd_task: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model.safetensors"
    write_params(AFTER, model, is_durable=False)
    tried = Tried(config=config(task="odd", fingerprint="odd@1", task_config={}), params_file=model)
    hanging = asyncio.create_task(predictions.predict(tried, HANGS))
    await asyncio.to_thread(wait_until, (odd_task / "hangs").exists, "the task to hang")
    await clock_of(predictions).advance(LIMIT_S)
    with pytest.raises(TimedOut, match="no answer within 30 s"):
        await hanging
    [[pid]] = (await predictions.predict(tried, CALM)).probabilities
    assert pid == predictions.pid


async def test_the_queue_has_an_end(predictions: Predictions) -> None:
    waiting = [asyncio.create_task(predictions.card("odd")) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Refusal) as refused:
        await predictions.card("odd")
    assert (refused.value.status_code, refused.value.code) == (503, "busy")
    cards = await asyncio.gather(*waiting)
    assert {card.fingerprint for card in cards} == {"odd@1"}
    assert (await predictions.card("odd")).fingerprint == "odd@1"
