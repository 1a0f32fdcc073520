"""Two spirals, as a task: what `before.py` says of the model and the data, without its loop."""

from dataclasses import dataclass
from typing import Annotated

import torch
from before import Net, load
from pydantic import Field
from torch import nn

from fednode import TorchTask, TrainConfig


@dataclass(frozen=True, kw_only=True)
class Config(TrainConfig):
    """The script's arguments; `epochs` are now those of one round."""

    epochs: Annotated[int, Field(ge=1, le=10_000, description="Passes over the local data in one round")] = 6
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False, description="Step size of Adam")] = 0.01
    hidden: Annotated[int, Field(ge=1, le=1000, description="Units of each hidden layer")] = 32


class Spirals(TorchTask):
    """On which of two spirals does a point lie?"""

    name, Config = "spirals", Config
    default_rounds = 10

    def model(self):
        return Net(self.config.hidden)

    def dataset(self, site, split):
        return load(site.data / "spirals.csv", split)

    def optimizer(self, model):
        return torch.optim.Adam(model.parameters(), lr=self.config.learning_rate)

    def loss(self, outputs, targets):
        return nn.functional.cross_entropy(outputs, targets)

    def metrics(self, outputs, targets):
        return {"accuracy": (outputs.argmax(1) == targets).float().mean()}
