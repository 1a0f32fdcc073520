"""A small numpy task for tests: fits a line to 20 points of each client, and misbehaves on request.

Used as a task from a file: `tests/stories/tiny_task.py:Tiny`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fednode.core.metrics import Metrics
from fednode.core.params import Params
from fednode.core.records import Update
from fednode.core.seeds import derive_seed, numpy_rng
from fednode.errors import DataError
from fednode.tasks.base import Cancelled, Site, Task, TrainConfig, Visit

POINTS = 20


class Tiny(Task):
    """y = 3x + 1 and some noise."""

    @dataclass(frozen=True, kw_only=True)
    class Config(TrainConfig):
        fails: Literal["", "raise", "hang", "deaf", "exit", "kill", "nan", "empty", "shape"] = ""
        whom: str = ""                  # the client that fails; empty: every one
        noise: bool = False             # print, and have others print
        width: int = 2

    def check(self, site: Site) -> dict[str, int]:
        if site.data is not None and not site.data.is_dir():
            raise DataError(f"{site.data} is no folder", fix="name a folder")
        return {"points": POINTS}

    def initial_params(self, seed: int) -> Params:
        return Params({"w": numpy_rng(seed).normal(size=self.config.width).astype(np.float32)})

    def evaluate(self, params: Params, visit: Visit) -> Metrics:
        x, y = self._points(visit)
        error = x @ params["w"].astype(np.float64) - y
        near = np.abs(error) < 0.5
        return Metrics(values={"accuracy": float(near.mean()), "loss": float(np.mean(error**2))},
                       num_examples={"test": POINTS})

    def train(self, params: Params, visit: Visit) -> Update:
        if self.config.noise:
            _make_noise()
        if self.config.whom in ("", visit.site.client):
            self._misbehave(visit)
        x, y = self._points(visit)
        w = params["w"].astype(np.float64)
        rng = numpy_rng(visit.seed)
        for epoch in range(1, self.config.epochs + 1):
            if visit.is_cancelled():
                raise Cancelled
            for i in rng.permutation(POINTS):
                w = w - self.config.learning_rate * (x[i] @ w - y[i]) * x[i]
            visit.report(epoch, {"accuracy": float((np.abs(x @ w - y) < 0.5).mean())})
        return self._update(w, visit)

    def _update(self, w: np.ndarray, visit: Visit) -> Update:
        fails = self.config.fails if self.config.whom in ("", visit.site.client) else ""
        if fails == "nan":
            w = w * np.nan
        if fails == "shape":
            w = np.append(w, 0.0)
        num_examples = 0 if fails == "empty" else POINTS
        return Update(client=visit.site.client, params=Params({"w": w.astype(np.float32)}), num_examples=num_examples)

    def _points(self, visit: Visit) -> tuple[np.ndarray, np.ndarray]:
        rng = numpy_rng(derive_seed("points", visit.site.client))
        x = np.stack([rng.uniform(-1, 1, POINTS) if i == 0 else np.ones(POINTS) for i in range(self.config.width)], 1)
        return x, x @ np.resize([3.0, 1.0], self.config.width) + rng.normal(0, 0.1, POINTS)

    def _misbehave(self, visit: Visit) -> None:
        match self.config.fails:
            case "raise":
                raise ValueError("a pixel is missing")
            case "exit":
                sys.stderr.write("the last words of this process\n")
                os._exit(3)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":            # notices a cancel
                visit.report(1, {"accuracy": 0.0})
                while not visit.is_cancelled():
                    threading.Event().wait(0.01)
                raise Cancelled
            case "deaf":            # notices nothing
                visit.report(1, {"accuracy": 0.0})
                threading.Event().wait()


def _make_noise() -> None:
    sys.stdout.write("what print writes, and no newline")
    sys.stdout.flush()
    os.write(1, b"\x00\x00\x00\x05noise on file descriptor 1\n")
    subprocess.run([sys.executable, "-c", "print('and its own child processes may')"], check=True)
    assert sys.stdin.read() == ""
