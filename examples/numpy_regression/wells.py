"""How warm is a well? Linear regression in plain numpy, on `wells.csv` in each site's own folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from fednode import Cancelled, DataError, Metric, Metrics, Params, Site, Sum, Task, TrainConfig, Update, Visit
from fednode import partition_indices as part_of

COLUMNS = "depth_m,salt,warmth_c"
CENTRE, SPREAD = np.array([45.0, 1.0]), np.array([25.0, 0.7])       # the same at every site: agreed, not measured


@dataclass(frozen=True, kw_only=True)
class Config(TrainConfig):
    """Batch size and learning rate are there already."""

    epochs: Annotated[int, Field(ge=1, le=10_000, description="Passes over the local data in one round")] = 5
    near_c: Annotated[float, Field(gt=0, description="A forecast that is off by less is near, degrees Celsius")] = 0.5


class Wells(Task):
    """Warmth of a well from its depth and salt, by the mean squared error."""

    name, Config = "wells", Config
    default_rounds = 10
    supports = ("proximal",)
    measures = (
        Metric(name="near", of="near wells"),                       # the mean of a Sum [how many are near, all]
        Metric(name="squared error", goal="min", unit="°C²"),
        Metric(name="wells", combine="sum", goal="none"),
    )

    def initial_params(self, seed: int) -> Params:
        return Params({"slopes": np.zeros(2, np.float32), "start": np.zeros(1, np.float32)})

    def train(self, params: Params, visit: Visit) -> Update:
        inputs, warmth = wells_of(visit.site, "train")
        received = np.append(params["slopes"], params["start"]).astype(np.float64)
        line, rng = received, np.random.default_rng(visit.seed)
        for epoch in range(1, self.config.epochs + 1):
            if visit.is_cancelled():
                raise Cancelled
            order = rng.permutation(len(warmth))
            for first in range(0, len(order), self.config.batch_size):
                batch = order[first : first + self.config.batch_size]
                errors = inputs[batch] @ line[:2] + line[2] - warmth[batch]
                slope = np.append(inputs[batch].T @ errors, errors.sum()) / len(batch)
                line = line - self.config.learning_rate * (slope + self.config.proximal_mu * (line - received))
            visit.report(epoch, {"squared error": float(np.mean((inputs @ line[:2] + line[2] - warmth) ** 2))})
        trained = Params({"slopes": line[:2].astype(np.float32), "start": line[2:].astype(np.float32)})
        return Update(client=visit.site.client, params=trained, num_examples=len(warmth))

    def evaluate(self, params: Params, visit: Visit) -> Metrics:
        inputs, warmth = wells_of(visit.site, "test")
        errors = inputs @ params["slopes"] + params["start"] - warmth
        near = np.abs(errors) < self.config.near_c
        values = {
            "squared error": float(np.mean(errors**2)), "near wells": Sum([near.sum(), len(near)]), "wells": len(near),
        }
        return Metrics(values=values, num_examples={"test": len(near)})

    def check(self, site: Site) -> dict[str, Any]:
        """How many wells there are, and how deep: what others may know of this site."""
        inputs, _ = wells_of(site, "train")
        return {"wells": len(inputs), "mean depth": f"{inputs[:, 0].mean() * SPREAD[0] + CENTRE[0]:.0f} m"}


def wells_of(site: Site, split: str) -> tuple[Any, Any]:
    """Inputs (n, 2), standardised, and warmth (n,). Every fifth line is for testing. Raises DataError."""
    file = (site.data or Path()) / "wells.csv"
    try:
        with file.open(encoding="utf-8") as lines:
            if (head := lines.readline().strip()) != COLUMNS:
                raise DataError(f"{file} begins with {head!r}", fix=f"its first line must be {COLUMNS!r}")
            table = np.loadtxt(lines, delimiter=",", ndmin=2)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}", fix="name its folder by --data") from error
    except ValueError as error:
        raise DataError(f"{file}: {error}", fix="write three numbers a line, with a point") from error
    is_test = np.arange(len(table)) % 5 == 0
    part = table[is_test if split == "test" else ~is_test]
    part = part[part_of(None, len(part), site.partition, is_test=split == "test")]
    return (part[:, :2] - CENTRE) / SPREAD, part[:, 2]
