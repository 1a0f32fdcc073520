"""A numpy task for tests: its params are what its clients have written into their state dirs.

Used as a task from a file: `tests/stories/diary_task.py:Diary`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fednode.core.metrics import Metric, Metrics
from fednode.core.params import Params
from fednode.core.records import Update
from fednode.tasks.base import Task, TrainConfig, Visit


class Diary(Task):
    """Each training adds its round to the client's diary; the update is the diary's sum. So is the evaluation."""

    @dataclass(frozen=True, kw_only=True)
    class Config(TrainConfig):
        fails_in: int = 0               # the round in which the first client fails, once it has written

    measures = (Metric(name="sum"),)

    def initial_params(self, seed: int) -> Params:
        return Params({"sum": np.zeros(1, np.float64)})

    def train(self, params: Params, visit: Visit) -> Update:
        diary = visit.state_dir / "notes" / "diary"
        diary.parent.mkdir(exist_ok=True)
        diary.write_text(f"{diary.read_text() if diary.exists() else ''}{visit.round} ")
        if self.config.fails_in == visit.round and visit.site.client == "client-1":
            raise RuntimeError("after it has written")
        return Update(client=visit.site.client, params=Params({"sum": np.array([float(_sum(visit))])}), num_examples=1)

    def evaluate(self, params: Params, visit: Visit) -> Metrics:
        found = float(_sum(visit))
        (visit.state_dir / "evaluated").touch()
        return Metrics(values={"sum": found}, num_examples={"test": 1})


def _sum(visit: Visit) -> int:
    diary = visit.state_dir / "notes" / "diary"
    return sum(map(int, diary.read_text().split())) if diary.exists() else 0
