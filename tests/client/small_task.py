"""A task of three params for the client node's tests. It writes down what it does in the site's data folder."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from fednode.core.json import JsonObject
from fednode.core.metrics import Metric, Metrics
from fednode.core.params import Params
from fednode.core.records import Update
from fednode.errors import DataError
from fednode.tasks.base import Cancelled, Site, Task, TrainConfig, Visit

NUM_EXAMPLES = 4


@dataclass(frozen=True, kw_only=True)
class Config(TrainConfig):
    behaviour: str = ""             # see `Small._behave`


class Small(Task):
    """Adds 1 to its params."""

    name = "small"
    Config = Config
    measures = (Metric(name="accuracy"),)

    def initial_params(self, seed: int) -> Params:
        return Params({"w": np.zeros(3, np.float32)})

    def train(self, params: Params, visit: Visit) -> Update:
        _write_down(visit, "train")
        for epoch in range(1, self.config.epochs + 1):
            visit.report(epoch, {"accuracy": 0.25 * epoch, "loss": float("nan")})
        self._behave(visit)
        return Update(client=visit.site.client, params=params + 1, num_examples=NUM_EXAMPLES)

    def _behave(self, visit: Visit) -> None:
        """raise: fail. hold: go on until cancelled; hold once: the first time only. slow: give others time to act."""
        is_first = (visit.site.data / "visits.log").read_text().count("train") == 1
        match self.config.behaviour:
            case "raise":
                raise RuntimeError("this site's disk is on fire")
            case "slow":
                time.sleep(0.5)
            case "hold" | "hold once" as behaviour if behaviour == "hold" or is_first:
                while not visit.is_cancelled():
                    time.sleep(0.01)
                raise Cancelled

    def evaluate(self, params: Params, visit: Visit) -> Metrics:
        _write_down(visit, "evaluate")
        return Metrics(values={"accuracy": float(params["w"][0])}, num_examples={"test": 2})

    def check(self, site: Site) -> JsonObject:
        if site.data is None or not (site.data / "examples").exists():
            raise DataError(f"{site.data} holds no file 'examples'", fix="make one")
        return {"train": NUM_EXAMPLES}


def _write_down(visit: Visit, what: str) -> None:
    with (visit.site.data / "visits.log").open("a") as log:
        log.write(f"{what} {visit.round}\n")
