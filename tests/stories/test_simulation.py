"""A whole federation in one call: the same bits however it is executed, and errors that help."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import fednode
from fednode.core.metrics import Metrics
from fednode.core.params import Params
from fednode.core.records import Update
from fednode.errors import BadConfig, DataError, NotFound, UsageError
from fednode.strategies.registry import own_strategy
from fednode.tasks.base import Task, Visit
from fednode.tasks.registry import load_task
from own_strategy import written

TINY = f"{Path(__file__).with_name('tiny_task.py')}:Tiny"
MNIST_3V7 = {"task": "mnist_3v7", "offline_sample": True, "task_config": {"epochs": 2}, "rounds": 1}
MNIST = {"task": "mnist", "offline_sample": True, "task_config": {"model": "linear", "batch_size": 500}, "rounds": 1}
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")


def tiny(**settings: Any) -> fednode.Simulation:
    return fednode.simulate(settings.pop("task", TINY), **{"rounds": 2, "seed": 7} | settings)


def assert_same(one: fednode.Simulation, other: fednode.Simulation) -> None:
    assert one.model_sha256 == other.model_sha256
    assert one.history == other.history
    assert one.journal == other.journal


def entries(run: fednode.Simulation, what: str) -> list[dict[str, Any]]:
    return [dict(row.entry) for row in run.journal if row.entry["what"] == what]


def test_a_federation_learns() -> None:
    run = tiny(rounds=10, clients=4)
    assert (run.status, run.rounds, run.reason) == ("completed", 10, "")
    assert len(run.history) == 11                       # of models 0 to 10
    assert run.metrics == run.history[-1]
    assert run.metrics["accuracy"] == 1.0 > run.history[0]["accuracy"]
    assert run.params is not None
    assert run.params["w"] == pytest.approx([3.0, 1.0], abs=0.1)       # the line that the points lie on


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    assert_same(tiny(), tiny())
    assert tiny().model_sha256 != tiny(seed=8).model_sha256


def test_a_seed_that_is_not_given_is_told_and_repeats_the_run() -> None:
    drawn = tiny(seed=None)
    assert drawn.seed != tiny(seed=None).seed
    assert_same(drawn, tiny(seed=drawn.seed))


@pytest.mark.parametrize(
    "settings",
    [
        {"task": TINY, "task_config": {"epochs": 2}, "strategy": "fedadam"},
        MNIST_3V7 | {"split": "dirichlet:0.5"},
        pytest.param(MNIST, marks=needs_torch),
    ],
    ids=["tiny", "mnist_3v7", "mnist"],
)
def test_one_worker_and_two_give_the_same_bits(settings: dict[str, Any]) -> None:
    alone, together = (tiny(clients=3, workers=workers, **settings) for workers in (1, 2))
    assert_same(alone, together)
    assert together.status == "completed"


def test_workers_leave_no_process_and_no_file_behind(tmp_path: Path) -> None:
    code = f"import fednode; fednode.simulate({TINY!r}, clients=4, rounds=1, workers=2)"
    run = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"TMPDIR": str(tmp_path)})
    assert run.wait(timeout=60) == 0
    assert _files_of(run.pid, tmp_path) == []


@pytest.mark.parametrize(
    ("fails", "workers"), [("raise", 1), ("raise", 2), ("exit", 2), ("nan", 1), ("empty", 1), ("shape", 1)]
)
def test_a_client_that_fails_costs_its_update_not_the_run(fails: str, workers: int) -> None:
    run = tiny(clients=3, workers=workers, task_config={"fails": fails, "whom": "client-2"})
    assert run.status == "completed"
    closed = entries(run, "round closed")
    assert [outcome for entry in closed for outcome in entry["outcomes"] if outcome[0] == "client-2"] == [
        ["client-2", "task_error"], ["client-2", "task_error"], ["client-2", None],       # two rounds, then it measures
    ]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_visit_that_takes_longer_than_the_deadline_is_missed_at_the_deadline(workers: int) -> None:
    run = tiny(
        clients=3, rounds=1, workers=workers, deadline_s=2.0, task_config={"fails": "hang", "whom": "client-3"},
    )
    assert run.status == "completed"
    assert ["client-3", "deadline"] in entries(run, "round closed")[1]["outcomes"]


def test_a_run_in_which_everybody_fails_is_paused_with_the_reason() -> None:
    run = tiny(task_config={"fails": "raise"})
    assert (run.status, run.rounds) == ("paused", 0)
    assert "3 attempts failed" in run.reason and "a pixel is missing" in run.reason
    assert run.model_sha256 is not None                 # of model 0


def test_a_run_without_a_model_says_so() -> None:
    class Stillborn(Task):
        def initial_params(self, seed: int) -> Params:
            raise ValueError("no start")

        def train(self, params: Params, visit: Visit) -> Update:
            raise AssertionError

        def evaluate(self, params: Params, visit: Visit) -> Metrics:
            raise AssertionError

    run = tiny(task=Stillborn)
    assert (run.status, run.model_sha256, run.params, run.metrics, run.history) == ("paused", None, None, {}, [])
    assert "no start" in run.reason


def test_two_hundred_clients_of_whom_a_tenth_take_part() -> None:
    run = tiny(clients=200, cohort_fraction=0.1)
    opened = entries(run, "round opened")
    assert [len(entry["cohort"]) for entry in opened] == [1, 20, 20, 200]
    assert opened[1]["cohort"] != opened[2]["cohort"]
    assert opened[3]["cohort"] == sorted(f"client-{n}" for n in range(1, 201))     # byte order: client-10 < client-2
    assert run.metrics["accuracy"] > run.history[0]["accuracy"]


def test_names_are_what_bits_come_from_not_numbers() -> None:
    named = tiny(clients=["client-1", "client-2"])
    assert_same(named, tiny(clients=2))
    assert tiny(clients=["hospital-a", "hospital-b"]).model_sha256 != named.model_sha256


def test_parts_of_the_data_follow_the_given_order_of_names() -> None:
    there, back = (fednode.simulate(**MNIST_3V7, clients=names, seed=1) for names in (["a", "b"], ["b", "a"]))
    assert there.model_sha256 != back.model_sha256


async def test_it_works_where_an_event_loop_is_running_already() -> None:
    assert_same(tiny(), tiny())


async def test_workers_work_where_an_event_loop_is_running_already() -> None:
    assert tiny(workers=2).status == "completed"


def test_a_class_can_be_given_where_it_lies_in_a_file_to_workers_too() -> None:
    given = load_task(TINY).kind
    assert_same(tiny(task=given), tiny())
    assert_same(tiny(task=given, workers=2), tiny())


def test_a_class_that_only_this_process_knows_stays_in_it() -> None:
    class Own(load_task(TINY).kind):        # type: ignore[misc]
        pass

    assert tiny(task=Own).status == "completed"
    with pytest.raises(UsageError, match="Own of test_simulation cannot be handed to worker processes"):
        tiny(task=Own, workers=2)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_strategy_of_ones_own_is_a_file_a_class_or_an_instance(tmp_path: Path, workers: int) -> None:
    spec = f"{written(tmp_path)}:ClippedAvg"
    kind = own_strategy(spec).kind
    by_file = tiny(strategy=spec, strategy_config={"limit": 0.001}, workers=workers)
    assert by_file.status == "completed"
    assert_same(tiny(strategy=kind, strategy_config={"limit": 0.001}), by_file)
    assert_same(tiny(strategy=kind(limit=0.001)), by_file)          # type: ignore[call-arg]
    assert tiny(strategy=kind).model_sha256 != by_file.model_sha256     # 1.0, the default, clips nothing here


def test_an_instance_has_its_settings_already(tmp_path: Path) -> None:
    kind = own_strategy(str(written(tmp_path))).kind
    with pytest.raises(UsageError, match=r"strategy_config says limit, but ClippedAvg\(limit=1.0\)"):
        tiny(strategy=kind(), strategy_config={"limit": 2.0})
    with pytest.raises(BadConfig, match="limit"):
        tiny(strategy=kind(limit=-1.0))                             # type: ignore[call-arg]


def test_a_script_that_simulates_its_own_task_when_imported_is_told_and_ends(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    call = f"import fednode\nfednode.simulate({f'{script}:Tiny'!r}, workers=2)\n"
    script.write_text(Path(__file__).with_name("tiny_task.py").read_text() + call)
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert "starts a simulation when it is imported" in run.stderr.splitlines()[-1]


def test_events_tell_the_story_of_the_run() -> None:
    events: list[dict[str, Any]] = []
    run = tiny(rounds=1, on_event=events.append, task_config={"epochs": 2})
    assert {event["run_id"] for event in events} == {run.run_id}
    story = [event["what"] for event in events]
    assert story[:3] == ["run created", "run started", "round opened"] and story[-1] == "run ended"
    committed = [event["fields"] for event in events if event["what"] == "round committed"]
    assert [(told["round"], told["kind"]) for told in committed] == [(0, "init"), (1, "train"), (2, "evaluate")]
    assert [told["metrics"] for told in committed] == [{}, *run.history]
    progress = [event["fields"] for event in events if event["what"] == "progress"]
    assert sorted((told["client"], told["epoch"]) for told in progress) == [
        ("client-1", 1), ("client-1", 2), ("client-2", 1), ("client-2", 2),
    ]


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"task": "minst"}, NotFound, "minst"),
        ({"task": "minst", "workers": 2}, NotFound, "minst"),
        ({"task": "/nowhere/task.py:Tiny"}, NotFound, "/nowhere/task.py"),
        ({"task": "/nowhere/task.py:Tiny", "workers": 2}, NotFound, "/nowhere/task.py"),
        ({"strategy": "fedagv"}, NotFound, "fedagv"),
        ({"strategy_config": {"momentum": 0.5}}, BadConfig, "momentum"),
        ({"strategy": "fedprox"}, BadConfig, "proximal"),
        ({"task_config": {"epoch": 3}}, BadConfig, "'epoch'"),
        ({"task_config": {"epochs": 0}}, BadConfig, "epochs"),
        ({"task_config": {"fails": "sometimes"}}, BadConfig, "fails"),
        ({"rounds": 0}, BadConfig, "rounds"),
        ({"cohort_fraction": 1.5}, BadConfig, "cohort_fraction"),
        ({"deadline_s": -1}, BadConfig, "deadline_s"),
        ({"seed": -1}, BadConfig, "seed"),
        ({"min_updates": 3}, BadConfig, "only 2 clients"),
        ({"clients": 0}, UsageError, "clients = 0"),
        ({"clients": []}, UsageError, "number of clients = 0"),
        ({"clients": ["Ward 7"]}, UsageError, "'Ward 7'"),
        ({"clients": ["a", "a"]}, UsageError, "two clients are called 'a'"),
        ({"split": "by-moon"}, BadConfig, "by-moon"),
        ({"workers": 0}, UsageError, "workers = 0"),
        ({"threads": -1}, UsageError, "threads = -1"),
        ({"data": "/nowhere/at/all"}, DataError, "/nowhere/at/all"),
        ({"data": "/nowhere/at/all", "workers": 2}, DataError, "/nowhere/at/all"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(
    settings: dict[str, Any], error: type[fednode.FednodeError], words: str
) -> None:
    events: list[dict[str, Any]] = []
    with pytest.raises(error, match=words) as raised:
        tiny(on_event=events.append, **settings)
    assert not events
    assert raised.value.fix


@pytest.mark.parametrize("fails", ["hang", "deaf"])
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_it_soon_and_takes_its_workers_along(tmp_path: Path, workers: int, fails: str) -> None:
    code = (
        "import fednode, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"       # tests in the background have it ignored
        "def tell(event):\n"
        "    if event['what'] == 'progress':\n"
        "        sys.stdout.write('training\\n'); sys.stdout.flush()\n"
        f"fednode.simulate({TINY!r}, task_config={{'fails': {fails!r}}}, workers={workers}, on_event=tell)\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    try:
        assert run.stdout is not None
        assert run.stdout.readline() == "training\n"
        below = _children_of(run.pid)
        assert len(below) == (2 if workers == 2 else 0)
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=60)
    finally:
        run.kill()
        run.communicate()
    assert run.returncode in (-signal.SIGINT, 130) and "KeyboardInterrupt" in err
    assert not [pid for pid in below if Path(f"/proc/{pid}").exists()]
    assert _files_of(run.pid, tmp_path) == []


def _files_of(pid: int, folder: Path) -> list[Path]:
    """What a simulation in process `pid` has in the folders where workers find their params."""
    return [*folder.iterdir(), *Path("/dev/shm").glob(f"fednode-{pid}-*")]


def _children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def test_a_result_is_plain_enough_to_be_written_down() -> None:
    run = tiny()
    assert json.loads(json.dumps(run.history)) == run.history
    assert len(repr(run)) < 1000


# --- params that travel as bf16 -------------------------------------------------------------------------


class Steps(Task):
    """Its update is what it received and `step` more; it keeps what it received."""

    received: ClassVar[list[np.ndarray]] = []
    first, step = 1.0, 0.25

    def initial_params(self, seed: int) -> Params:
        return Params({"w": np.full(3, self.first, np.float32)})

    def evaluate(self, params: Params, visit: Visit) -> Metrics:
        self.received.append(params["w"])
        return Metrics(values={}, num_examples={"test": 1})

    def train(self, params: Params, visit: Visit) -> Update:
        change = np.float32([self.step, self.step / 64, self.step / 128])
        return Update(client=visit.site.client, params=Params({"w": params["w"] + change}), num_examples=1)


def test_as_bf16_clients_train_from_what_arrives_and_the_model_stays_float32(monkeypatch) -> None:
    monkeypatch.setattr(Steps, "received", [])
    run = tiny(task=Steps, clients=["a"], encoding="bf16", strategy="fedavgm", strategy_config={"momentum": 0.5})
    # Above 1 bf16 counts in 1/128. The update's change by 1/512 is rounded away; 1/256 is a tie and goes to 1, the even
    # one. After that the momentum adds half of the last change: 1 + .25, then 1.25 + .25 + .125.
    assert run.params is not None
    assert run.params["w"].tolist() == [1.625, 1.0, 1.0]
    assert [w.tolist() for w in Steps.received] == [[1, 1, 1], [1.25, 1, 1], [1.625, 1, 1]]
    assert {w.dtype for w in Steps.received} == {np.dtype(np.float32)}

    monkeypatch.setattr(Steps, "received", [])
    thirds = tiny(task=Steps, clients=["a"], encoding="bf16", strategy="fedavgm", strategy_config={"momentum": 1 / 3})
    assert thirds.params is not None
    last = float(thirds.params["w"][0])
    assert last == np.float32(1.25 + 0.25 + 0.25 / 3)                   # 1.58333: more bits than bf16 has
    assert Steps.received[-1][0] == 1.5859375                           # what was measured of it: 203 / 128


def test_as_bf16_any_number_of_workers_gives_the_same_bits_and_as_f32_others() -> None:
    one = tiny(clients=3, encoding="bf16")
    assert_same(one, tiny(clients=3, encoding="bf16", workers=2))
    assert one.model_sha256 != tiny(clients=3).model_sha256


@pytest.mark.parametrize(("first", "step"), [(3.4e38, 0.0), (2.0**127, 1.6975e38)], ids=["model", "update"])
def test_what_bf16_cannot_say_ends_the_run_or_the_visit_with_the_reason(monkeypatch, first, step) -> None:
    monkeypatch.setattr(Steps, "first", first)
    monkeypatch.setattr(Steps, "step", step)
    run = tiny(task=Steps, clients=["a"], encoding="bf16")
    assert run.status == ("failed" if step == 0 else "paused")          # every attempt of the one client failed
    assert "round 1" in run.reason and "tensor 'w' holds a value beyond 3.4e+38, which bf16 cannot say" in run.reason
    assert tiny(task=Steps, clients=["a"], rounds=1).status == "completed"
