"""A task of 2.8 MB of params that learns by counting, for tests of what lies between a client and its central node."""

from __future__ import annotations

import numpy as np

from fednode import Metric, Metrics, Params, Task, Update
from fednode.core.json import JsonObject
from fednode.tasks.base import Site, Visit

NUM_PARAMS = 700_000


class Big(Task):
    """Adds 1 to its params."""

    name = "big"
    measures = (Metric(name="accuracy"),)

    def initial_params(self, seed: int) -> Params:
        return Params({"w": np.zeros(NUM_PARAMS, np.float32)})

    def train(self, params: Params, visit: Visit) -> Update:
        return Update(client=visit.site.client, params=params + 1, num_examples=1)

    def evaluate(self, params: Params, visit: Visit) -> Metrics:
        return Metrics(values={"accuracy": float(params["w"][0])}, num_examples={"test": 1})

    def check(self, site: Site) -> JsonObject:
        return {"train": 1}
