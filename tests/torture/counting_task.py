"""A task that learns by counting: what its federation's next model must be can be said in one's head.

How many params it has, and so how much goes over the wire, is a setting; so is what a bad task does in its place.
"""

from __future__ import annotations

import select
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from fednode import Metric, Metrics, Params, Task, Update
from fednode.core.metrics import Sum
from fednode.tasks.base import TrainConfig, Visit


@dataclass(frozen=True, kw_only=True)
class CountingConfig(TrainConfig):
    num_params: Annotated[int, Field(ge=1)] = 1_000
    train_s: Annotated[float, Field(ge=0)] = 0.0


class Counting(Task):
    """Adds 1 to its params."""

    name = "counting"
    Config = CountingConfig
    measures = (Metric(name="accuracy"), Metric(name="hits", combine="accuracy", of="confusion"))

    def initial_params(self, seed: int) -> Params:
        return Params({"w": np.zeros(self.config.num_params, np.float32)})

    def train(self, params: Params, visit: Visit) -> Update:
        select.select([], [], [], self.config.train_s)      # libfaketime breaks time.sleep
        return Update(client=visit.site.client, params=params + 1, num_examples=1)

    def evaluate(self, params: Params, visit: Visit) -> Metrics:
        values = {"accuracy": 0.5, "confusion": Sum([[1, 1], [1, 1]])}
        return Metrics(values=values, num_examples={"test": 4})
