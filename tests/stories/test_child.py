"""A task in a child process: its bits, its deaths, its noise. Real processes throughout."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fednode.child.child import Child
from fednode.clock import SystemClock
from fednode.core.metrics import Metrics
from fednode.core.params import Params
from fednode.core.status import FailureCode, RoundKind
from fednode.errors import BadConfig, DataError, NotFound
from fednode.store.memory import model_sha256
from fednode.tasks.base import Partition, Site
from fednode.tasks.registry import load_task, offer_of
from fednode.visit import Order, Silent, run_visit
from fednode.wire.codec import write_params

TINY = f"{Path(__file__).with_name('tiny_task.py')}:Tiny"
SOURCE = Path(__file__).with_name("tiny_task.py").read_text()
SITE = Site(client="hospital-a")
START = Params({"w": np.array([0.5, -0.25], np.float32)})


class Listening:
    """An observer that keeps what it hears, and cancels when told to."""

    def __init__(self) -> None:
        self.metrics: list[Metrics] = []
        self.epochs: list[tuple[int, Mapping[str, float]]] = []
        self.cancel = False

    def evaluated(self, metrics: Metrics) -> None:
        self.metrics.append(metrics)

    def progressed(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self.epochs.append((epoch, metrics))

    def is_cancelled(self) -> bool:
        return self.cancel


class Scene:
    """A child, the params that it receives, and how it is asked."""

    def __init__(self, folder: Path) -> None:
        self.child = Child(SITE, SystemClock())
        self.folder = folder
        self.params_file = folder / "params.safetensors"
        write_params(START, self.params_file, is_durable=False)
        self.fingerprint = load_task(TINY).fingerprint

    def order(self, round_: int = 1, kind: RoundKind = RoundKind.TRAIN, **config: Any) -> Order:
        return Order(
            run_id="run_1", number=round_, attempt=1, client="hospital-a", kind=kind, task="Tiny",
            fingerprint=self.fingerprint, config=config, run_seed=7, base_model="some",
        )

    async def visit(self, observer: Any = None, *, round_: int = 1, **config: Any) -> Any:
        order, update_file = self.order(round_, **config), self.folder / "update.safetensors"
        return await self.child.visit(TINY, order, self.params_file, update_file, observer or Silent())


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    await scene.child.stop()


async def test_a_warm_child_and_a_new_one_and_this_process_give_the_same_bits(scene: Scene) -> None:
    first = await scene.visit(epochs=3)
    for round_ in range(2, 5):
        await scene.visit(epochs=1, round_=round_)
    warm = await scene.visit(epochs=3)
    await scene.child.stop()
    new = await scene.visit(epochs=3)
    here = run_visit(load_task(TINY).bind({"epochs": 3}), SITE, scene.order(epochs=3), START, Silent())
    assert len({model_sha256(outcome.update.params) for outcome in (first, warm, new, here)}) == 1
    assert first.evaluation.to_json() == warm.evaluation.to_json() == here.evaluation.to_json()
    assert first.update.num_examples == 20
    assert first.update.environment == new.update.environment
    other = await scene.visit(epochs=3, round_=2)
    assert model_sha256(other.update.params) != model_sha256(first.update.params)


async def test_round_zero_makes_the_initial_params_and_the_last_only_measures(scene: Scene) -> None:
    update_file = scene.folder / "update.safetensors"
    initial = await scene.child.visit(TINY, scene.order(0, RoundKind.INIT), None, update_file, Silent())
    assert initial.update.num_examples == 0 and initial.evaluation is None
    order = scene.order(2, RoundKind.EVALUATE)
    final = await scene.child.visit(TINY, order, scene.params_file, update_file, Silent())
    assert final.update is None and final.failure is None
    assert set(final.evaluation.values) == {"accuracy", "loss"}


async def test_what_a_visit_tells_on_the_way_reaches_its_observer(scene: Scene) -> None:
    heard = Listening()
    outcome = await scene.visit(heard, epochs=2)
    assert [metrics.to_json() for metrics in heard.metrics] == [outcome.evaluation.to_json()]
    assert [epoch for epoch, _ in heard.epochs] == [1, 2]


async def test_whatever_a_task_prints_the_line_to_its_parent_holds(scene: Scene, capfd: Any) -> None:
    outcome = await scene.visit(noise=True)
    assert outcome.failure is None
    await scene.child.stop()
    out, err = capfd.readouterr()
    assert out == ""
    assert "what print writes" in err and "its own child processes" in err and "file descriptor 1" in err


async def test_a_task_that_raises_costs_its_visit_and_keeps_its_process(scene: Scene) -> None:
    await scene.child.start()
    pid = _pid(scene.child)
    failed = await scene.visit(fails="raise")
    assert failed.failure.code is FailureCode.TASK_ERROR
    assert failed.failure.reason.startswith("ValueError: a pixel is missing (tiny_task.py, line ")
    assert "tiny_task.py" in failed.failure.traceback
    assert set(failed.evaluation.values) == {"accuracy", "loss"}
    assert (await scene.visit()).failure is None
    assert _pid(scene.child) == pid


@pytest.mark.parametrize(
    ("fails", "reason"),
    [
        ("exit", "the task's process died: it ended itself with exit code 3"),
        ("kill", "the task's process died: killed by signal 9 (out of memory?)"),
    ],
)
async def test_a_task_that_kills_its_process_costs_its_visit_and_the_next_starts_a_new_one(
    scene: Scene, fails: str, reason: str
) -> None:
    died = await scene.visit(fails=fails)
    assert died.failure.code is FailureCode.TASK_ERROR
    assert died.failure.reason == reason
    assert set(died.evaluation.values) == {"accuracy", "loss"}      # told before the death, so it counts
    if fails == "exit":
        assert died.failure.traceback.splitlines()[-1] == "the last words of this process"
    assert (await scene.visit()).failure is None


@pytest.mark.parametrize(
    ("fails", "words"),
    [("nan", "NaN"), ("empty", "0 examples"), ("shape", "shape")],
)
async def test_an_update_that_cannot_be_taken_is_a_failure_that_says_why(scene: Scene, fails: str, words: str) -> None:
    refused = await scene.visit(fails=fails)
    assert refused.update is None
    assert words in refused.failure.reason


async def test_a_cancel_that_the_task_heeds_keeps_the_process(scene: Scene) -> None:
    await scene.child.start()
    pid = _pid(scene.child)
    outcome = await _cancelled_when_training(scene, "hang")
    assert outcome.failure.code is FailureCode.WITHDRAWN
    assert _pid(scene.child) == pid
    assert (await scene.visit()).failure is None        # the cancel was for that visit alone


async def test_a_cancel_that_the_task_does_not_heed_costs_the_process(scene: Scene) -> None:
    await scene.child.start()
    pid = _pid(scene.child)
    outcome = await _cancelled_when_training(scene, "deaf")
    assert outcome.failure.code is FailureCode.WITHDRAWN
    assert not _is_alive(pid)
    assert (await scene.visit()).failure is None


async def test_a_stop_while_a_task_is_busy_withdraws_its_visit(scene: Scene) -> None:
    heard = Listening()
    visit = asyncio.create_task(scene.visit(heard, fails="deaf"))
    await _until(lambda: heard.metrics)
    await scene.child.stop()
    assert (await visit).failure.code is FailureCode.WITHDRAWN


async def test_a_caller_that_gives_up_leaves_no_answer_behind_for_the_next(scene: Scene) -> None:
    heard = Listening()
    visit = asyncio.create_task(scene.visit(heard, fails="hang"))
    await _until(lambda: heard.metrics)
    visit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await visit
    assert (await scene.visit(epochs=2)).update.num_examples == 20


async def test_a_child_that_leaves_its_own_children_behind_is_seen_to_be_dead(scene: Scene, tmp_path: Path) -> None:
    forks = "if os.fork() == 0:\n            threading.Event().wait()\n        os._exit(4)"
    task = tmp_path / "forking.py"
    task.write_text(SOURCE.replace("if self.config.noise:\n            _make_noise()", forks))
    spec = f"{task}:Tiny"
    scene.fingerprint = load_task(spec).fingerprint
    order = scene.order()
    outcome = await scene.child.visit(spec, order, scene.params_file, tmp_path / "update.safetensors", Silent())
    assert outcome.failure.reason == "the task's process died: it ended itself with exit code 4"


async def test_an_offer_is_what_the_task_says_of_the_site(scene: Scene) -> None:
    offer = await scene.child.offer(TINY)
    assert offer == offer_of(load_task(TINY), SITE)
    assert offer.summary == {"points": 20}


async def test_an_offer_raises_what_the_task_raises(scene: Scene) -> None:
    with pytest.raises(DataError, match="is no folder"):
        await scene.child.offer(TINY, site=Site(client="hospital-a", data=Path("/nowhere/at/all")))
    with pytest.raises(NotFound):
        await scene.child.offer("no_such_task")


async def test_settings_that_the_task_does_not_take_are_a_failure_that_names_them(scene: Scene) -> None:
    outcome = await scene.visit(fails="sometimes")
    assert outcome.failure.code is FailureCode.TASK_ERROR
    with pytest.raises(BadConfig):
        load_task(TINY).bind({"fails": "sometimes"})
    assert "fails" in outcome.failure.reason


async def test_another_version_of_the_task_than_the_run_s_is_refused(scene: Scene) -> None:
    scene.fingerprint = "Tiny#000000000000"
    outcome = await scene.visit()
    assert "Tiny#000000000000" in outcome.failure.reason
    assert "version" in outcome.failure.reason


async def test_a_site_travels_whole(tmp_path: Path) -> None:
    from fednode.child import messages

    partition = Partition(index=2, count=5, split="dirichlet:0.5", seed=3)
    for site in (SITE, Site(client="b", data=tmp_path, partition=partition, offline_sample=True, threads=0)):
        row = messages.unpack(messages.pack(messages.site_to_json(site))[4:])
        assert messages.site_from_json(row) == site


async def test_threads_are_set_before_the_child_imports_anything(scene: Scene) -> None:
    await scene.child.start()
    assert "OMP_NUM_THREADS=1" in _environment_of(_pid(scene.child))


PARENT = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_child import Listening, Scene, _pid

async def main():
    scene = Scene(Path({folder!r}))
    heard = Listening()
    visit = asyncio.create_task(scene.visit(heard, fails={fails!r}))
    while not heard.metrics:
        await asyncio.sleep(0.01)
    sys.stdout.write(str(_pid(scene.child)) + "\\n")
    sys.stdout.flush()
    await visit

asyncio.run(main())
"""


@pytest.mark.parametrize("fails", ["deaf", "hang"])
def test_a_child_ends_soon_after_its_parent_was_killed(tmp_path: Path, fails: str) -> None:
    code = PARENT.format(here=str(Path(__file__).parent), folder=str(tmp_path), fails=fails)
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert _is_alive(pid)
    finally:
        parent.kill()
        parent.communicate()
    end_s = time.monotonic() + 20       # a generous limit: what is claimed is that it ends at all
    while _is_alive(pid):
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_a_child_that_the_kernel_does_not_end_sees_the_end_of_its_line() -> None:
    """EOF alone, while the parent lives: what ends a child where there is no parent-death signal."""
    child = subprocess.Popen(
        [sys.executable, "-m", "fednode.child.main", str(os.getpid())],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )
    child.communicate(b"", timeout=20)
    assert child.returncode == -signal.SIGKILL      # it ends its whole process group, itself included


async def _cancelled_when_training(scene: Scene, fails: str) -> Any:
    heard = Listening()
    visit = asyncio.create_task(scene.visit(heard, fails=fails))
    await _until(lambda: heard.metrics)
    heard.cancel = True
    return await visit


async def _until(condition: Any) -> None:
    for _ in range(3_000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("waited in vain")


def _environment_of(pid: int) -> list[str]:
    """As the process was started. Between its fork and its exec there is none."""
    end = time.monotonic() + 20
    while not (found := Path(f"/proc/{pid}/environ").read_text()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found.split("\0")


def _pid(child: Child) -> int:
    pid = child.pid
    assert pid is not None
    return pid


def _is_alive(pid: int) -> bool:
    """Whether the process runs: a zombie that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
