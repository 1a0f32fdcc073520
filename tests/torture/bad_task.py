"""A task that does, in its own process, what no task should: its `behaviour` says what."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fednode import Metric, Metrics, Params, Task, Update
from fednode.core.json import JsonObject
from fednode.errors import NotAuthorised
from fednode.tasks.base import Site, TrainConfig, Visit

NUM_PARAMS = 4


@dataclass(frozen=True, kw_only=True)
class BadConfig(TrainConfig):
    behaviour: str = "good"


class Bad(Task):
    """Adds 1 to its params, unless told otherwise."""

    name = "bad"
    Config = BadConfig
    measures = (Metric(name="accuracy"),)

    def check(self, site: Site) -> JsonObject:
        if site.data is None or not (site.data / "examples").exists():
            raise FileNotFoundError(f"{site.data} holds no examples")
        return {"train": 1}

    def initial_params(self, seed: int) -> Params:
        return Params({"w": np.zeros(NUM_PARAMS, np.float32)})

    def evaluate(self, params: Params, visit: Visit) -> Metrics:
        self.check(visit.site)
        is_first = visit.round == 1
        if is_first and (behaviour := EVALUATIONS.get(self.config.behaviour)) is not None:
            return behaviour()
        return Metrics(values={"accuracy": 0.5}, num_examples={"test": 1})

    def train(self, params: Params, visit: Visit) -> Any:
        update = Update(client=visit.site.client, params=params + 1, num_examples=1)
        return BEHAVIOURS.get(self.config.behaviour, good)(update, visit)


def good(update: Update, visit: Visit) -> Update:
    return update


# --- it does not come back --------------------------------------------------------------------------------


def raises(update: Update, visit: Visit) -> Update:
    raise RuntimeError("the disk of this site is on fire")


def raises_what_cannot_be_told(update: Update, visit: Visit) -> Update:
    raise Untellable


def raises_an_error_of_ours(update: Update, visit: Visit) -> Update:
    raise NotAuthorised("only the client node's own words end it", fix="nothing")


def raises_keyboard_interrupt(update: Update, visit: Visit) -> Update:
    raise KeyboardInterrupt


def raises_generator_exit(update: Update, visit: Visit) -> Update:
    raise GeneratorExit


def calls_sys_exit(update: Update, visit: Visit) -> Update:
    sys.exit("bye")


def calls_os_exit(update: Update, visit: Visit) -> Update:
    print("about to leave", flush=True)     # noqa: T201
    os._exit(3)


def calls_os_exit_0(update: Update, visit: Visit) -> Update:
    os._exit(0)


def kills_itself(update: Update, visit: Visit) -> Update:
    os.kill(os.getpid(), signal.SIGKILL)
    return update


def terminates_itself(update: Update, visit: Visit) -> Update:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
    return update


def reads_address_0(update: Update, visit: Visit) -> Update:
    ctypes.string_at(0)
    return update


def aborts(update: Update, visit: Visit) -> Update:
    os.abort()


def recurses(update: Update, visit: Visit) -> Update:
    return recurses(update, visit)


def runs_out_of_memory(update: Update, visit: Visit) -> Update:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, hard))
    try:
        leak = [np.empty(1 << 27) for _ in range(8)]    # 1 GiB each, of which nothing is touched
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    return replace(update, num_examples=len(leak))


def hangs(update: Update, visit: Visit) -> Update:
    while True:
        time.sleep(1)


def hangs_in_c(update: Update, visit: Visit) -> Update:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    ctypes.PyDLL(None).sleep(100_000)       # with the interpreter's lock: no other thread of it runs
    return update


def stops_itself(update: Update, visit: Visit) -> Update:
    os.kill(os.getpid(), signal.SIGSTOP)
    return update


# --- what it brings is none ---------------------------------------------------------------------------------


def brings_nothing(update: Update, visit: Visit) -> None:
    return None


def brings_a_dict(update: Update, visit: Visit) -> Any:
    return {"params": update.params}


def brings_bare_params(update: Update, visit: Visit) -> Any:
    return update.params


def brings_no_examples(update: Update, visit: Visit) -> Update:
    return replace(update, num_examples=0)


def brings_half_an_example(update: Update, visit: Visit) -> Update:
    return replace(update, num_examples=1.5)    # type: ignore[arg-type]


def brings_too_many_examples(update: Update, visit: Visit) -> Update:
    return replace(update, num_examples=2**60)


def brings_examples_in_words(update: Update, visit: Visit) -> Update:
    return replace(update, num_examples="many")     # type: ignore[arg-type]


def brings_another_shape(update: Update, visit: Visit) -> Update:
    return replace(update, params=Params({"w": np.zeros(NUM_PARAMS + 1, np.float32)}))


def brings_another_dtype(update: Update, visit: Visit) -> Update:
    return replace(update, params=Params({"w": np.zeros(NUM_PARAMS, np.float64)}))


def brings_another_name(update: Update, visit: Visit) -> Update:
    return replace(update, params=Params({"v": np.zeros(NUM_PARAMS, np.float32)}))


def brings_a_nan(update: Update, visit: Visit) -> Update:
    return replace(update, params=Params({"w": np.full(NUM_PARAMS, np.nan, np.float32)}))


def brings_what_is_no_params(update: Update, visit: Visit) -> Update:
    return replace(update, params={"w": [1, 2, 3]})     # type: ignore[arg-type]


# --- it brings a good update, and does harm on the way ------------------------------------------------------


def prints_megabytes(update: Update, visit: Visit) -> Update:
    for _ in range(40):
        print("o" * 100_000)                    # noqa: T201
        print("e" * 100_000, file=sys.stderr)   # noqa: T201
    os.write(1, b"\xff\xfe" * 500_000)
    return update


def goes_elsewhere(update: Update, visit: Visit) -> Update:
    os.chdir("/")
    return update


def starts_threads_that_go_on(update: Update, visit: Visit) -> Update:
    for number in range(5):
        threading.Thread(target=nag, args=(visit, number), daemon=bool(number % 2)).start()
    return update


def starts_children_that_go_on(update: Update, visit: Visit) -> Update:
    assert visit.state_dir is not None
    pids = [subprocess.Popen(["sleep", "86399"], start_new_session=is_apart).pid for is_apart in (False, True)]
    (visit.state_dir / "left_running.txt").write_text(" ".join(map(str, pids)))
    return update


def dies_and_leaves_children(update: Update, visit: Visit) -> Update:
    starts_children_that_go_on(update, visit)
    os._exit(4)


def closes_every_file(update: Update, visit: Visit) -> Update:
    os.closerange(0, 1000)
    return update


def closes_its_output(update: Update, visit: Visit) -> Update:
    os.close(1)
    os.close(2)
    return update


def ignores_all_signals(update: Update, visit: Visit) -> Update:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    return update


def reports_an_epoch_in_words(update: Update, visit: Visit) -> Update:
    visit.report("one", {"accuracy": 0.5})      # type: ignore[arg-type]
    return update


def reports_what_cannot_be_told(update: Update, visit: Visit) -> Update:
    visit.report(1, {"\ud800": 1.0})
    return update


def reports_a_lot(update: Update, visit: Visit) -> Update:
    visit.report(1, {"accuracy": float("nan"), "loss": float("inf"), "": 0.0, "x" * 1_000: 1.0})
    for number in range(2_000):
        visit.report(number + 1, {"accuracy": 0.5})
    return update


def forgets_the_random_state(update: Update, visit: Visit) -> Update:
    np.random.seed(0)
    os.environ.clear()
    sys.path.clear()
    return update


def nag(visit: Visit, number: int) -> None:
    while True:
        time.sleep(0.01)
        visit.report(9_000 + number, {"accuracy": 0.9})


class Untellable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words for it")


BEHAVIOURS = {
    name: found for name, found in list(globals().items())
    if callable(found) and getattr(found, "__module__", "") == __name__ and name.islower()
}


# --- of an evaluation ------------------------------------------------------------------------------------------


def evaluates_to_nothing() -> Any:
    return None


def evaluates_to_a_dict() -> Any:
    return {"accuracy": 0.5}


def evaluates_to_what_cannot_be_told() -> Metrics:
    return Metrics(values={"\ud800": 0.5})


def evaluates_by_raising() -> Metrics:
    raise ZeroDivisionError("no images")


def evaluates_by_leaving() -> Metrics:
    sys.exit(5)


EVALUATIONS = {
    found.__name__: found
    for found in (
        evaluates_to_nothing, evaluates_to_a_dict, evaluates_to_what_cannot_be_told, evaluates_by_raising,
        evaluates_by_leaving,
    )
}


def left_running(state_dir: Path) -> list[int]:
    """Process ids that the task has left running, by what it wrote down."""
    written = state_dir / "task" / "left_running.txt"
    return [int(pid) for pid in written.read_text().split()] if written.exists() else []
