"""The task of a measurement: no data, no framework, next to no work. What it got comes back, a little larger.

No entry point: nobody is offered it who did not ask for a measurement. Its params are whole numbers, so that every sum
is exact, and the model of round n is known beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from fednode.core.metrics import Metric, Metrics
from fednode.core.params import Params
from fednode.core.records import Update
from fednode.tasks.base import Task, TrainConfig, Visit

NUM_TENSORS = 8                 # as a network has several
CYCLE = 1_000                   # params count from 0 to here, again and again
STEP = 1.0                      # what a visit adds to each of them
NUM_EXAMPLES = 100


@dataclass(frozen=True, kw_only=True)
class Config(TrainConfig):
    """How much there is to carry."""

    params: Annotated[int, Field(ge=NUM_TENSORS, le=10_000_000_000, description="Numbers in the model")] = 25_000


class Echo(Task):
    """Adds one to every number."""

    name = "echo"
    version = 1
    Config = Config
    measures = (Metric(name="loss", goal="min"),)

    def initial_params(self, seed: int) -> Params:
        return params_after(0, self.config.params)

    def train(self, params: Params, visit: Visit) -> Update:
        return Update(client=visit.site.client, params=params + STEP, num_examples=NUM_EXAMPLES)

    def evaluate(self, params: Params, visit: Visit) -> Metrics:
        return Metrics(values={"loss": 1.0}, num_examples={"test": NUM_EXAMPLES})


def params_after(num_rounds: int, num_params: int) -> Params:
    """The model after so many rounds, whoever took part in them."""
    sizes = [num_params // NUM_TENSORS + (place < num_params % NUM_TENSORS) for place in range(NUM_TENSORS)]
    counted = np.arange(CYCLE, dtype=np.float32) + np.float32(num_rounds * STEP)
    return Params({f"layer_{place}": np.resize(counted, size) for place, size in enumerate(sizes)})
