"""`fednode predict`: files and folders, by a model of the central node and by a params file alone."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from central_scene import Central, central, offer
from PIL import Image

from fednode.child.child import Child
from fednode.cli.asked_model import model_in_file
from fednode.cli.predict import BATCH_FILES, _card, _found, _found_in, _unreadable
from fednode.cli.prediction_table import PredictionTable
from fednode.clock import SystemClock
from fednode.core.metrics import Metric
from fednode.core.params import Params
from fednode.errors import BadConfig, CannotPredict, DataError, FednodeError, NotFound, ParamsMismatch, UsageError
from fednode.tasks.base import Site
from fednode.wire.codec import encode

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHADE_TASK = '''
from fednode import Picture
from fednode.tasks.mnist_3v7 import Mnist3v7
from fednode.tasks.pictures import decode
import numpy as np

class Shade(Mnist3v7):
    """How bright is it? A grey value out of 255."""

    name, version, picture, classes = "shade", 1, Picture(height=1, width=1), ("dark", "bright")
    notice = "Not a light meter."

    def picture_from_file(self, content):
        return decode(content, 1)

    def predict(self, params, pictures):
        bright = pictures.reshape(-1) / 255
        return np.stack([1 - bright, bright], axis=1)

class Blind(Shade):
    picture = None

class Unread(Mnist3v7):
    picture_from_file = Mnist3v7.__mro__[1].picture_from_file
'''
PARAMS = Params({"bias": np.zeros(1, np.float32), "weight": np.zeros(784, np.float32)})
GREYS = {"a.png": 0, "b.JPG": 51, "deep/c.png": 102, "deep/d": 153}        # 0, 0.2, 0.4 and 0.6 of 255
DECLARED = (
    Metric(name="accuracy"), Metric(name="cut", combine="threshold", of="val_scores", split="val", goal="none"),
)


class Scene:
    """A central node with a run of `shade`, somebody at a terminal, and pictures."""

    def __init__(self, node: Central, folder: Path) -> None:
        self.node, self.folder = node, folder

    async def predict(self, *args: str, url: str = "") -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        url = url or f"http://127.0.0.1:{self.node.serving.port}"
        where = {"FEDNODE_CENTRAL": url, "FEDNODE_STATE_DIR": str(self.folder), "PYTHONPATH": str(self.folder / "site")}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fednode", "predict", *args, env=os.environ | where, cwd=self.folder,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()


def write_grey(path: Path, grey: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (3, 3), grey).save(path, "JPEG" if path.suffix == ".JPG" else "PNG")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """The task `shade` is installed in `site`, for who has that on the path; its file lies there, too."""
    folder = tmp_path_factory.mktemp("central")
    site = folder / "site"
    (site / "shade-1.dist-info").mkdir(parents=True)
    (site / "shade_task.py").write_text(SHADE_TASK)
    (site / "shade-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: shade\nVersion: 1\n")
    (site / "shade-1.dist-info" / "entry_points.txt").write_text("[fednode.tasks]\nshade = shade_task:Shade\n")
    for name, grey in GREYS.items():
        write_grey(folder / "scans" / name, grey)
    for name in (".DS_Store", "Thumbs.db", "deep/notes.txt", ".hidden/e.png"):
        (folder / "scans" / name).parent.mkdir(exist_ok=True)
        (folder / "scans" / name).write_bytes(b"junk")
    async with central(folder) as node:
        await train(node)
        yield Scene(node, folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def child() -> AsyncIterator[Child]:
    found = Child(Site(client="predict"), SystemClock())
    yield found
    await found.stop()


async def train(node: Central) -> None:
    """#1: one round, whose threshold is 0.5 of ten negatives below it and ten positives above."""
    client = await node.client("a", offer("shade", "shade@1", schema={"type": "object"}, metrics=DECLARED))
    await node.start_run(task="shade", rounds=1)
    await client.bring(await client.work(), encode(PARAMS))
    scores = {"histogram": [[10, 0, 0, 0], [0, 0, 10, 0]]}
    evaluation = {"values": {"accuracy": 0.5, "val_scores": scores}, "num_examples": {"test": 10, "val": 20}}
    for _ in range(2):
        assignment = await client.work()
        await client.tell(assignment, "metrics", {"evaluation": evaluation})
        if assignment["kind"] == "train":
            await client.bring(assignment, encode(PARAMS))
    await node.until(1, "completed")


async def test_a_folder_is_searched_to_the_bottom_and_each_picture_has_a_row(scene: Scene) -> None:
    metrics = (await scene.node.run(1))["metrics"]
    code, out, err = await scene.predict("1:final", "scans")
    assert (code, err) == (0, "Not a light meter.\n")
    cut = metrics["cut"]
    assert 0.2 < cut <= 0.6                 # of the model itself: between the negatives and the positives
    assert list(csv.reader(io.StringIO(out))) == [
        ["file", "predicted", "p_dark", "p_bright", "verdict", "threshold"],
        *(
            [f"scans/{name}", "bright" if bright > 0.5 else "dark", f"{1 - bright}", f"{bright}",
             "bright" if bright >= cut else "dark", f"{cut}"]
            for name, bright in (("a.png", 0.0), ("b.JPG", 0.2), ("deep/c.png", 0.4), ("deep/d", 0.6))
        ),
    ]


async def test_what_shows_no_picture_is_named_and_everything_else_is_there(scene: Scene) -> None:
    broken = scene.folder / "mixed"
    write_grey(broken / "good.png", 255)
    (broken / "torn.png").write_bytes((scene.folder / "scans" / "a.png").read_bytes()[:40])
    (broken / "empty.jpeg").touch()
    os.mkfifo(broken / "pipe.png")
    args = ("1:final", "mixed", "mixed/gone.png", "--out", "found.json")
    code, out, err = await scene.predict(*args)
    assert (code, out) == (6, "")
    assert err.splitlines() == [
        "Not a light meter.", "Skipped mixed/empty.jpeg: is empty", "Skipped mixed/pipe.png: not a regular file",
        "Skipped mixed/torn.png: broken: cut off before its end", "Skipped mixed/gone.png: is gone",
        "Error: 4 of 5 files could not be read: mixed/empty.jpeg, mixed/pipe.png, mixed/torn.png, mixed/gone.png",
        err.splitlines()[-1],
    ]
    assert "--skip-unreadable" in err.splitlines()[-1]
    (row,) = json.loads((scene.folder / "found.json").read_text())
    assert (row["file"], row["probabilities"]) == ("mixed/good.png", {"dark": 0.0, "bright": 1.0})
    code, out, err = await scene.predict(*args[:3], "--json", "--skip-unreadable")
    assert (code, json.loads(out)) == (0, [row])
    assert "Skipped mixed/gone.png: is gone" in err


async def test_a_params_file_needs_no_central_node(scene: Scene) -> None:
    (scene.folder / "model.safetensors").write_bytes(encode(PARAMS))
    names = []
    for number in range(2 * BATCH_FILES + 2):           # three batches, the last one small
        write_grey(scene.folder / "many" / f"{number:03}.png", number)
        names.append(f"many/{number:03}.png")
    args = ("model.safetensors", "many", "--task", "site/shade_task.py:Shade")
    code, out, err = await scene.predict(*args, url="http://127.0.0.1:9")
    assert (code, err) == (0, "Not a light meter.\n")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["file"] for row in rows] == names
    assert [float(row["p_bright"]) for row in rows] == [round(number / 255, 6) for number in range(len(names))]
    assert list(rows[0]) == ["file", "predicted", "p_dark", "p_bright"]         # nobody knows a threshold
    code, out, err = await scene.predict("model.safetensors", names[-1], *args[2:], "--threshold", "0.6", "--json")
    (row,) = json.loads(out)
    assert (row["predicted"], row["verdict"], row["threshold"]) == ("bright", "dark", 0.6)


async def test_a_model_of_another_task_is_not_asked(scene: Scene) -> None:
    code, out, err = await scene.predict("1:final", "scans", "--task", "mnist_3v7")
    assert (code, out) == (7, "")
    assert "the model is of task 'shade@1', this machine has 'mnist_3v7@1'" in err


@pytest.mark.parametrize(("task", "params", "error", "message", "fix"), [
    ("site/shade_task.py:Blind", PARAMS, CannotPredict, "does not say what its models can be asked",
     "declare `picture` and `classes`"),
    ("site/shade_task.py:Unread", PARAMS, CannotPredict, "how a file becomes a picture of 28 x 28",
     "define picture_from_file"),
    ("mnist_3v7", Params({"bias": PARAMS["bias"]}), ParamsMismatch, "lack tensor 'weight'", "name by --task and --set"),
], ids=["no picture", "no files", "other params"])
async def test_what_cannot_be_asked_is_said_with_the_fix(
    scene: Scene, child: Child, task: str, params: Params, error: type[FednodeError], message: str, fix: str
) -> None:
    file = scene.folder / "asked.safetensors"
    file.write_bytes(encode(params))
    asked = model_in_file(str(file), task.replace("site", str(scene.folder / "site")), None)
    with pytest.raises(error, match=message) as refused:
        await _card(child, asked)
        await _found_in(child, asked, [])
    assert refused.value.fix.startswith(fix)


# --- without a process ------------------------------------------------------------------------------------------


async def test_a_params_file_needs_its_task(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(encode(PARAMS))
    with pytest.raises(BadConfig, match="does not say of which task"):
        model_in_file(str(tmp_path / "model"), None, None)
    with pytest.raises(BadConfig, match="change no prediction"):
        model_in_file(str(tmp_path / "model"), "mnist", ["strategy.mu=1"])
    with pytest.raises(NotFound, match="there is no file"):
        model_in_file(str(tmp_path / "gone.safetensors"), "mnist", None)
    asked = model_in_file(str(tmp_path / "model"), "mnist", ["task.model=linear"])
    assert (asked.config, asked.fingerprint, asked.threshold) == ({"model": "linear"}, "", None)


async def test_a_folder_without_pictures_is_said_and_a_picture_that_is_named_twice_has_one_row(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing to see")
    with pytest.raises(DataError, match="there are no pictures in") as refused:
        _found([tmp_path])
    assert refused.value.exit_code == 6
    write_grey(tmp_path / "a.png", 1)
    assert _found([tmp_path, tmp_path / "a.png", tmp_path / "gone.png"]) == [tmp_path / "a.png", tmp_path / "gone.png"]


async def test_of_many_unread_files_a_few_are_named() -> None:
    unread = [Path(f"{number}.png") for number in range(6)]
    assert _unreadable(unread, 1000).message == (
        "6 of 1,000 files could not be read: 0.png, 1.png, 2.png, 3.png and 2 more"
    )


async def test_a_threshold_is_for_two_classes() -> None:
    with pytest.raises(UsageError, match="this task has 3"):
        PredictionTable(("a", "b", "c"), 0.5, "csv", lambda written: None)


async def test_names_of_files_run_nothing_in_a_spreadsheet_and_are_text_everywhere() -> None:
    written: list[bytes] = []
    for kind in ("csv", "json"):
        table = PredictionTable(("a", "b"), None, kind, written.append)     # type: ignore[arg-type]
        table.add([Path("=1+1.png"), Path(os.fsdecode(b"\xff.png"))], [[0.25, 0.75], [1.0, 0.0]])
        table.add([Path("torn.png")], ["broken"])
        table.end()
    text = b"".join(written).decode()
    assert text == (
        "file,predicted,p_a,p_b\n'=1+1.png,b,0.25,0.75\n\\xff.png,a,1.0,0.0\n"
        '[{"file": "=1+1.png", "predicted": "b", "probabilities": {"a": 0.25, "b": 0.75}}, '
        '{"file": "\\\\xff.png", "predicted": "a", "probabilities": {"a": 1.0, "b": 0.0}}]\n'
    )
