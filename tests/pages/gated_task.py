"""A task whose training a test holds up: while `closed` lies in the site's data folder it waits before its last epoch.

Where `broken` lies there, training fails with markup in its message.
"""

from __future__ import annotations

import time

import numpy as np

from fednode.core.json import JsonObject
from fednode.core.metrics import Metric, Metrics
from fednode.core.params import Params
from fednode.core.records import Update
from fednode.tasks.base import Cancelled, Site, Task, Visit

MARKUP = "<img src=x onerror=alert(1)>"


class Gated(Task):
    """Adds 0.1 to its params, which are its accuracy."""

    name = "gated"
    measures = (Metric(name="accuracy"),)

    def initial_params(self, seed: int) -> Params:
        return Params({"w": np.zeros(1000, np.float32)})

    def train(self, params: Params, visit: Visit) -> Update:
        if (visit.site.data / "broken").exists():
            raise RuntimeError(f"the disk holds {MARKUP}")
        for epoch in range(1, self.config.epochs + 1):
            while epoch == self.config.epochs and (visit.site.data / "closed").exists():
                if visit.is_cancelled():
                    raise Cancelled
                time.sleep(0.01)
            visit.report(epoch, {"accuracy": 0.1 * epoch})
        return Update(client=visit.site.client, params=params + 0.1, num_examples=7)

    def evaluate(self, params: Params, visit: Visit) -> Metrics:
        return Metrics(values={"accuracy": float(params["w"][0])}, num_examples={"test": 3})

    def check(self, site: Site) -> JsonObject:
        return {"train": {"calm": 4, MARKUP: 3}, "test": {"calm": 1, MARKUP: 2}, "scanner": MARKUP}
