"""A picture in a file, tried over HTTP: read as the task reads its own, judged at the model's threshold, explained."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from central_scene import Central, ScriptedClient, central

from fednode.central.bodies import MAX_FILE_BYTES
from fednode.core.metrics import Histogram, Metrics
from fednode.core.params import Params
from fednode.core.records import Offer
from fednode.tasks.base import Site
from fednode.tasks.registry import load_installed, offer_of
from fednode.wire.codec import encode
from shade_scene import EDGE, bomb, install, png

FILE = {"Content-Type": "application/octet-stream"}
START = encode(Params({"gain": np.ones(1, np.float32)}))
MARKS = Histogram([[1] * 6 + [0, 1, 1, 0, 0, 1, 0, 0, 0, 0], [0] * 6 + [1, 0, 0, 1, 1, 0, 1, 1, 1, 1]])


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Central]:
    monkeypatch.syspath_prepend(install(tmp_path / "site"))
    async with central(tmp_path) as scene:
        yield scene


def shade() -> Offer:
    return offer_of(load_installed("shade"), Site(client="a"))


async def measure(client: ScriptedClient, assignment: dict[str, Any]) -> None:
    found = Metrics(values={"marks": MARKS, "val_marks": MARKS}, num_examples={"test": 16, "val": 16}).to_json()
    answer = await client.tell(assignment, "metrics", {"evaluation": found})
    assert answer.status_code == 200, answer.text


async def trained(scene: Central, **task: object) -> dict[str, Any]:
    """A completed run of one round, whose two models say of a picture how bright it is."""
    client = await scene.client("hospital-a", shade())
    number = (await scene.start_run(task="shade", rounds=1, task_config=task))["number"]
    await client.bring(await client.work(), START)
    for _ in ("train", "evaluate"):
        assignment = await client.work()
        await measure(client, assignment)
        if assignment["kind"] == "train":
            await client.bring(assignment, START)
    return await scene.until(number, "completed")


async def bring(
    scene: Central, run: dict[str, Any], content: bytes, query: str = "", **headers: str
) -> httpx2.Response:
    path = f"/api/v1/models/{run['model_sha256']}/predictions/file{query}"
    return await scene.people.post(path, content=content, headers=FILE | headers)


async def test_a_file_is_read_judged_at_the_models_own_threshold_and_explained(scene: Central) -> None:
    run = await trained(scene)
    grey = np.full((4, 4), 102, np.uint8)
    grey[0, 0] = 51
    answer = await bring(scene, run, png(grey), "?explain=true")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    bright = (15 * 102 + 51) / 16 / 255             # 0.3875: not the more probable, and above 6/16
    assert found["probabilities"] == [pytest.approx([1 - bright, bright])]
    assert (found["threshold"], found["verdicts"], found["labels"]) == (EDGE, ["bright"], ["dark", "bright"])
    assert found["pixels"] == grey.ravel().tolist()
    [heat] = found["heat_maps"]
    assert np.array(heat) == pytest.approx(grey / 255)
    assert (found["notice"], found["awaits_threshold"]) == ("Not a light meter.", False)
    dark = (await bring(scene, run, png(90))).json()        # 0.353
    assert (dark["verdicts"], dark["heat_maps"]) == (["dark"], None)


async def test_the_same_picture_as_numbers_gets_the_same_answer(scene: Central) -> None:
    run = await trained(scene)
    by_file = (await bring(scene, run, png(150), "?explain=true")).json()
    body = {"inputs": [by_file.pop("pixels")], "explain": True}
    by_numbers = await scene.people.post(f"/api/v1/models/{run['model_sha256']}/predictions", json=body)
    assert by_numbers.json() == by_file


async def test_pictures_and_samples_have_the_size_of_the_runs_config(scene: Central) -> None:
    run = await trained(scene, side=6)
    [choice] = (await scene.people.get("/api/v1/predictions/choices")).json()
    assert choice["picture"] == {"height": 6, "width": 6, "channels": 1, "is_drawn": False}
    assert (choice["reads_files"], choice["notice"]) == (True, "Not a light meter.")
    assert len((await bring(scene, run, png(9))).json()["pixels"]) == 36
    for query, num_values in (("?run=1", 36), ("", 16)):
        samples = (await scene.people.get(f"/api/v1/predictions/samples/shade{query}")).json()
        assert [(sample["label"], len(sample["pixels"])) for sample in samples["samples"]] == [
            ("dark", num_values), ("bright", num_values)
        ]
    foreign = await scene.people.get("/api/v1/predictions/samples/mnist?run=1")
    assert (foreign.status_code, foreign.json()["message"]) == (404, "run #1 is one of 'shade', not of 'mnist'")


async def test_what_is_no_picture_is_said_and_costs_nothing(scene: Central) -> None:
    run = await trained(scene)
    for content, why in (
        (b"hello", "neither JPEG nor PNG"), (png(9)[:40], "broken"), (bomb(), "12,000 x 12,000 pixels"),
        (b"", "neither JPEG nor PNG"),
    ):
        answer = await bring(scene, run, content)
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_data"), answer.text
        assert answer.json()["message"].startswith("this file cannot be used: ") and why in answer.json()["message"]
        assert answer.json()["fix"] == "give a JPEG or PNG that other programs open"
    assert (await bring(scene, run, png(9))).status_code == 200


async def test_a_body_that_is_too_large_of_another_type_or_from_a_stranger_is_not_read(scene: Central) -> None:
    run = await trained(scene)
    path = f"/api/v1/models/{run['model_sha256']}/predictions/file"
    assert await said(scene, path, **{"Content-Length": str(MAX_FILE_BYTES + 1)}) == 413
    assert await said(scene, path, **{"Content-Length": "999", "Content-Type": "image/png"}) == 415
    assert await said(scene, path, **{"Content-Length": "999", "Origin": "http://other.test"}) == 401
    assert await said(scene, "/api/v1/models/mdl_zz/predictions/file", **{"Content-Length": "999"}) == 404


async def said(scene: Central, path: str, **headers: str) -> int:
    """The status, where the headers come and no byte of the body ever does."""
    fields = {"Host": f"127.0.0.1:{scene.serving.port}", **FILE, **headers}
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", scene.serving.port)
    writer.write(head.encode())
    status = await asyncio.wait_for(reader.readline(), 20)
    writer.close()
    return int(status.split()[1])


async def test_more_than_it_said_it_would_be_is_cut_off(scene: Central) -> None:
    run = await trained(scene)

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(MAX_FILE_BYTES // (1 << 20) + 4):
            yield bytes(1 << 20)

    path = f"/api/v1/models/{run['model_sha256']}/predictions/file"
    answer = await scene.people.post(path, content=endless(), headers=FILE)
    assert (answer.status_code, answer.json()["fix"]) == (413, "send the picture smaller")


async def test_nothing_of_a_file_is_kept(scene: Central, tmp_path: Path) -> None:
    run = await trained(scene)
    await bring(scene, run, png(9))
    before = files(tmp_path)
    await bring(scene, run, png(120), "?explain=true")
    await bring(scene, run, b"hello")
    assert files(tmp_path) == before


def files(folder: Path) -> set[str]:
    return {os.fspath(path) for path in folder.rglob("*") if "store.sqlite-" not in path.name}


async def test_what_a_model_takes_for_what_has_the_tasks_own_names(scene: Central) -> None:
    await trained(scene)
    found = (await scene.people.get("/api/v1/runs/1/confusion")).json()
    assert (found["classes"], found["of"], found["names"]) == (["dark", "bright"], "marks", ["marks", "val_marks"])
    assert (found["round"], found["clients"], found["kind"]) == (1, ["hospital-a"], "histogram")
    assert found["threshold"] == {"value": EDGE, "cut": 6, "name": "edge", "split": "val", "detection_rate": 0.9}
    negatives, positives = found["counts"]
    assert (sum(negatives[:6]), sum(positives[6:])) == (6, 7)
    assert (await scene.run(1))["metrics"] == {"edge": EDGE, "found": 1.0, "spared": 6 / 9}
    foreign = await scene.people.get("/api/v1/runs/1/confusion", headers={"Origin": "http://other.test"})
    assert foreign.status_code == 401
    unknown = await scene.people.get("/api/v1/runs/1/confusion", params={"client": "nobody"})
    assert (unknown.status_code, unknown.json()["fix"]) == (404, "who has: hospital-a")


async def test_without_a_client_that_knows_them_the_classes_have_plain_names(scene: Central) -> None:
    run = await trained(scene)
    card = (await scene.people.get(f"/api/v1/models/{run['model_sha256']}/card")).json()
    assert card["notice"] == "Not a light meter."
    assert (await scene.people.post("/api/v1/clients/hospital-a/revoke")).status_code == 200
    assert (await scene.people.get("/api/v1/runs/1/confusion")).json()["classes"] == ["negative", "positive"]
