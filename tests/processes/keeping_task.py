"""A torch task for tests: a small net whose BatchNorm stays at each client, on points that it draws itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fednode import Metric, Site, Sum, TorchTask

NUM_POINTS = 64


class Keeping(TorchTask):
    """On which side of a line a point lies; each client has moved the plane."""

    local_params = ("norm.*",)
    measures = (Metric(name="accuracy", combine="accuracy"), Metric(name="loss", goal="min"))

    def model(self) -> nn.Module:
        model = nn.Sequential()
        model.add_module("norm", nn.BatchNorm1d(2))
        model.add_module("head", nn.Linear(2, 2))
        return model

    def dataset(self, site: Site, split: str) -> tuple[Tensor, Tensor]:
        points = torch.randn(NUM_POINTS, 2)
        moved = 3.0 + len(site.client) + ord(site.client[-1]) % 7
        return points + moved, (points.sum(dim=1) > 0).long()

    def is_per_client(self, site: Site) -> bool:
        return True

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs, targets)

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Any]:
        return {"accuracy": Sum([float((outputs.argmax(dim=1) == targets).sum()), len(targets)])}
