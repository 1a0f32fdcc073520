"""All numbers of a run as CSV, as JSON, and as event files for TensorBoard: over HTTP and by the command line."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import struct
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from central_scene import Central, ScriptedClient, at_work, central

from fednode.cli.api import Api
from fednode.cli.metrics import export
from fednode.cli.table_file import format_of
from fednode.core.metrics import Metric
from fednode.core.records import Offer
from fednode.errors import UsageError
from fednode.wire.http import Http

pytestmark = pytest.mark.asyncio(loop_scope="module")
FORMULA = '=HYPERLINK("http://x")'
COLUMNS = "run,model_round,client,phase,step,name,value,num_clients,num_examples,committed_s"


@dataclass
class Scene:
    """A central node, and somebody at a terminal."""

    node: Central
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.node.serving.port}"

    async def cli(self, *args: str, **env: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        where = {"FEDNODE_CENTRAL": self.url, "FEDNODE_STATE_DIR": str(self.folder)}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fednode", *args, env=os.environ | where | env, cwd=self.folder,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    async def get(self, path: str, **params: Any) -> str:
        answer = await self.node.people.get(f"/api/v1/runs/{path}", params=params)
        assert answer.status_code == 200, answer.text
        return answer.text


class TellingClient(ScriptedClient):
    """One that also tells how its own training goes, epoch by epoch."""

    async def do(self, assignment: dict[str, Any]) -> None:
        if assignment["kind"] == "train":
            local = [{"epoch": epoch, "values": {"loss": 1 / epoch, FORMULA: 0.5}} for epoch in (1, 2)]
            await self.tell(assignment, "metrics", {"local": local})
        await super().do(assignment)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """#1 by a and b, two rounds of two epochs; #2 waits for a client that never comes."""
    folder = tmp_path_factory.mktemp("central")
    async with central(folder) as node:
        a, b = await node.client("a"), await node.client("b")
        a.accuracy, b.accuracy = 0.75, 0.25
        b.__class__ = TellingClient
        async with at_work(a, b):
            await node.start_run(seed=7, rounds=2, task_config={"epochs": 2})
            await node.until(1, "completed")
        declared = (Metric(name="accuracy"), Metric(name="val_loss", goal="min", split="val"))
        await node.client("c", Offer(task="other", fingerprint="other@1", schema={"type": "object"}, metrics=declared))
        await node.start_run(task="other", rounds=1)
        yield Scene(node, folder)


# --- CSV and JSON -----------------------------------------------------------------------------------------------


async def test_every_number_is_a_row_of_the_csv_and_an_object_of_the_json(scene: Scene) -> None:
    text = await scene.get("1/metrics.csv")
    assert text.splitlines()[0] == COLUMNS
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["model_round"], row["client"], row["value"]) for row in rows if row["phase"] == "test"] == [
        (model, client, value) for model in "012" for client, value in (("", "0.5"), ("a", "0.75"), ("b", "0.25"))
    ]                               # (0.75 + 0.25) / 2, of as many examples each
    local = [(row["model_round"], row["step"], row["name"]) for row in rows if row["phase"] == "local"]
    assert local == [(model, step, name) for model in "12" for step in "12" for name in (f"'{FORMULA}", "loss")]
    found = json.loads(await scene.get("1/metrics.json"))
    assert [list(row) for row in found] == [COLUMNS.split(",")] * len(rows)
    assert [[str(cell) for cell in row.values()] for row in found] == [
        [cell.removeprefix("'") for cell in row.values()] for row in rows
    ]


async def test_a_row_says_when_its_model_was_committed(scene: Scene) -> None:
    history = json.loads(await scene.get("1"))["history"]
    committed_s = {row["number"]: row["ended_s"] for row in history}
    found = json.loads(await scene.get("1/metrics.json"))
    assert {row["model_round"]: row["committed_s"] for row in found} == {n: committed_s[n] for n in (0, 1, 2)}


async def test_what_somebody_has_is_not_sent_again(scene: Scene) -> None:
    found = json.loads(await scene.get("1/metrics.json", from_round=2))
    assert {row["model_round"] for row in found} == {2}


async def test_a_run_that_measured_nothing_is_a_table_without_rows(scene: Scene) -> None:
    assert await scene.get("2/metrics.csv") == f"{COLUMNS}\n"
    assert await scene.get("2/metrics.json") == "[]\n"


async def test_the_answer_is_a_file_with_a_name(scene: Scene) -> None:
    answer = await scene.node.people.get("/api/v1/runs/1/metrics.csv")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="run-1-metrics.csv"'
    page = (await scene.node.people.get("/runs/1")).text
    assert 'href="/api/v1/runs/1/metrics.csv"' in page
    assert 'href="/api/v1/runs/1/metrics.json"' in page


async def test_only_an_operator_is_answered(scene: Scene) -> None:
    for name in ("metrics.csv", "metrics.json"):
        away = await scene.node.people.get(f"/api/v1/runs/1/{name}", headers={"Via": "1.1 proxy"})
        unknown = await scene.node.people.get(f"/api/v1/runs/77/{name}")
        assert (away.status_code, unknown.status_code) == (401, 404)


async def test_the_command_line_gives_what_the_api_gives(scene: Scene) -> None:
    code, out, err = await scene.cli("runs", "metrics", "#1")
    assert (code, out, err) == (0, await scene.get("1/metrics.csv"), "")
    code, out, err = await scene.cli("runs", "metrics", "1", "--out", "scores.json")
    assert (code, out, err) == (0, "", "")
    text = (scene.folder / "scores.json").read_text()
    assert (text, text.count("\n")) == (await scene.get("1/metrics.json"), 1)


async def test_a_run_that_is_not_there_is_said(scene: Scene) -> None:
    code, out, err = await scene.cli("runs", "metrics", "77", "--out", "none.csv")
    assert (code, out) == (2, "")
    assert "there is no run '77'" in err
    assert not (scene.folder / "none.csv").exists()


@pytest.mark.parametrize(("out", "flags", "found"), [
    (None, {}, "csv"), (None, {"as_json": True}, "json"), (Path("a.json"), {}, "json"), (Path("a.CSV"), {}, "csv"),
    (Path("a.txt"), {"as_csv": True}, "csv"),
], ids=str)
async def test_the_name_of_a_file_says_what_it_holds(out: Path | None, flags: dict[str, bool], found: str) -> None:
    assert format_of(out, **{"as_csv": False, "as_json": False, **flags}) == found


async def test_what_a_file_shall_hold_must_be_clear() -> None:
    with pytest.raises(UsageError, match="CSV or JSON, not both"):
        format_of(None, as_csv=True, as_json=True)
    with pytest.raises(UsageError, match=r"'a\.xls' does not say what to write"):
        format_of(Path("a.xls"), as_csv=False, as_json=False)


# --- event files ------------------------------------------------------------------------------------------------


def scalars_of(folder: Path) -> list[tuple[str, int, float, float]]:
    """(tag, step, value, wall time) of the one file of a folder, read as TFRecords; checksums hold."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    (path,) = folder.glob("*tfevents*")
    content, events = path.read_bytes(), []
    while content:
        length, check = struct.unpack("<QI", content[:12])
        assert check == masked_crc32c(content[:8])
        body, rest = content[12 : 12 + length], content[12 + length :]
        assert struct.unpack("<I", rest[:4])[0] == masked_crc32c(body)
        events.append(Event.FromString(body))
        content = rest[4:]
    assert events[0].file_version == "brain.Event:2"
    return [(v.tag, event.step, v.simple_value, event.wall_time) for event in events[1:] for v in event.summary.value]


async def test_event_files_hold_what_the_csv_holds(scene: Scene) -> None:
    pytest.importorskip("tensorboardX")
    code, out, err = await scene.cli("runs", "tensorboard", "1", "--dir", "tb", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told == {"path": str(scene.folder / "tb" / "run-1"), "folders": 3, "scalars": 9 + 8}
    rows = json.loads(await scene.get("1/metrics.json"))
    for client, folder in (("", "pooled"), ("a", "clients/a"), ("b", "clients/b")):
        # A client's own scores are over its epochs: 1 and 2 in round 1, 3 and 4 in round 2.
        wanted = [
            (f"{row['phase']}/{row['name']}",
             2 * (row["model_round"] - 1) + row["step"] if row["phase"] == "local" else row["model_round"],
             float(np.float32(row["value"])), row["committed_s"])
            for row in rows if row["client"] == client
        ]
        found = scalars_of(scene.folder / "tb" / "run-1" / folder)
        assert [(tag.replace("/'", "/"), *rest) for tag, *rest in found] == wanted
    of_b = scalars_of(scene.folder / "tb" / "run-1" / "clients" / "b")
    assert [step for tag, step, *_ in of_b if tag == "local/loss"] == [1, 2, 3, 4]


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*tfevents*")}


async def test_the_same_run_gives_the_same_bytes(scene: Scene) -> None:
    pytest.importorskip("tensorboardX")
    async with Http(scene.url) as http:
        for name in ("once", "again", "again"):             # the third replaces the second
            files = await export(Api(http), "1", scene.folder / name)
            assert (files.num_scalars, files.num_folders) == (17, 3)
    assert files_of(scene.folder / "once") == files_of(scene.folder / "again")


async def test_a_followed_run_ends_with_the_files_of_an_export_afterwards(scene: Scene) -> None:
    pytest.importorskip("tensorboardX")
    d, e = await scene.node.client("d"), await scene.node.client("e")
    run = await scene.node.start_run(seed=8, rounds=3, clients=["d", "e"])
    async with Http(scene.url) as http, at_work(d, e):
        await export(Api(http), run["run_id"], scene.folder / "live", is_followed=True)
        files = await export(Api(http), f"#{run['number']}", scene.folder / "after")
    assert files.num_scalars == 12                          # models 0 to 3: pooled, d and e
    assert files_of(scene.folder / "live") == files_of(scene.folder / "after")


async def test_without_the_extra_the_command_says_how_to_get_it(scene: Scene) -> None:
    hidden = scene.folder / "hidden"
    hidden.mkdir()
    (hidden / "tensorboardX.py").write_text("raise ImportError('not here')\n")
    code, out, err = await scene.cli("runs", "tensorboard", "1", "--dir", "none", PYTHONPATH=str(hidden))
    assert (code, out) == (2, "")
    assert "Fix: pip install 'fednode[tensorboard]'" in err
    assert not (scene.folder / "none").exists()
